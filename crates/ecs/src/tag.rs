use serde::{Deserialize, Serialize};

use crate::error::Error;

/// A key and value that users put on a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tag {
    pub key: String,
    #[serde(default)]
    pub value: String,
}

/// Refuses what AWS refuses: empty or long keys, long values, more than 50 tags, repeated keys.
pub(crate) fn check(tags: &[Tag]) -> Result<(), Error> {
    if tags.len() > MAXIMUM {
        return Err(Error::invalid(format!("Too many tags: at most {MAXIMUM} are allowed.")));
    }
    for (index, tag) in tags.iter().enumerate() {
        if tag.key.is_empty() || tag.key.chars().count() > 128 || tag.value.chars().count() > 256 {
            return Err(Error::invalid(format!(
                "Invalid tag '{}': a key has 1 to 128 characters and a value at most 256.",
                tag.key
            )));
        }
        if tag.key.starts_with("aws:") {
            return Err(Error::invalid(format!(
                "Invalid tag '{}': keys beginning with aws: are reserved.",
                tag.key
            )));
        }
        if tags[..index].iter().any(|other| other.key == tag.key) {
            return Err(Error::invalid(format!("Duplicate tag key '{}'.", tag.key)));
        }
    }
    Ok(())
}

/// Adds `new` to `tags`; a key that is there already gets the new value.
pub(crate) fn merge(tags: &mut Vec<Tag>, new: &[Tag]) -> Result<(), Error> {
    for tag in new {
        match tags.iter_mut().find(|old| old.key == tag.key) {
            Some(old) => old.value.clone_from(&tag.value),
            None => tags.push(tag.clone()),
        }
    }
    check(tags)
}

const MAXIMUM: usize = 50;
