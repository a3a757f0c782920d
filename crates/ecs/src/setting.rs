use serde::{Deserialize, Serialize};

use crate::error::Error;

/// An account setting's effective value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Setting {
    pub name: String,
    pub value: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal_arn: Option<String>,
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
}

/// The settings that exist, with the values Bulkhead starts from.
///
/// The long ARN formats are AWS's default since 2021 and the only formats Bulkhead makes.
pub(crate) const DEFAULTS: [(&str, &str); 11] = [
    ("serviceLongArnFormat", "enabled"),
    ("taskLongArnFormat", "enabled"),
    ("containerInstanceLongArnFormat", "enabled"),
    ("awsvpcTrunking", "disabled"),
    ("containerInsights", "disabled"),
    ("fargateFIPSMode", "disabled"),
    ("tagResourceAuthorization", "off"),
    ("fargateTaskRetirementWaitPeriod", "7"),
    ("guardDutyActivate", "off"),
    ("defaultLogDriverMode", "non-blocking"),
    ("fargateEventWindows", "disabled"),
];

pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    if DEFAULTS.iter().any(|(known, _)| *known == name) {
        return Ok(());
    }
    Err(Error::invalid(format!("Invalid setting name '{name}'.")))
}
