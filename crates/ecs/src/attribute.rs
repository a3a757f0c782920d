use serde::{Deserialize, Serialize};

use crate::error::Error;

/// A name, and perhaps a value, that a container instance has and a task may ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attribute {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_id: Option<String>,
}

impl Attribute {
    pub fn new(name: impl Into<String>, value: Option<&str>) -> Self {
        Self { name: name.into(), value: value.map(str::to_owned), ..Self::default() }
    }
}

/// Refuses names and values outside what the API's model allows.
pub(crate) fn check(attribute: &Attribute) -> Result<(), Error> {
    let name_fits = |c: char| c.is_ascii_alphanumeric() || "-_./\\".contains(c);
    if attribute.name.is_empty()
        || attribute.name.len() > 128
        || !attribute.name.chars().all(name_fits)
    {
        return Err(Error::invalid(format!(
            "Invalid attribute name '{}': use 1 to 128 letters, numbers, hyphens, underscores, slashes and periods.",
            attribute.name
        )));
    }
    if attribute.value.as_ref().is_some_and(|value| value.is_empty() || value.len() > 128) {
        return Err(Error::invalid(format!(
            "Invalid value of attribute '{}': use 1 to 128 characters.",
            attribute.name
        )));
    }
    Ok(())
}
