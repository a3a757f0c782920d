//! Words of a request that change nothing here, and that inspect repeats.

use std::fmt;
use std::str::FromStr;

use crate::text::serde_by_text;
use crate::{Class, EngineError};

/// `--isolation`, of which only Windows has another than the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Isolation {
    #[default]
    Unsaid,
    Default,
}

impl FromStr for Isolation {
    type Err = EngineError;

    fn from_str(text: &str) -> Result<Self, EngineError> {
        match text {
            "" => Ok(Self::Unsaid),
            "default" => Ok(Self::Default),
            _ => Err(EngineError::new(
                Class::Unsupported,
                format!("isolation {text:?} is of Windows and not supported; leave it out"),
            )),
        }
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unsaid => "",
            Self::Default => "default",
        })
    }
}

serde_by_text!(Isolation);

/// `--runtime`: Bulkhead is its own, and answers to the names of Docker's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RuntimeName {
    #[default]
    Bulkhead,
    Runc,
    /// The name by which containerd knows runc.
    ContainerdRunc,
}

impl FromStr for RuntimeName {
    type Err = EngineError;

    fn from_str(text: &str) -> Result<Self, EngineError> {
        match text {
            "" | "bulkhead" => Ok(Self::Bulkhead),
            "runc" => Ok(Self::Runc),
            "io.containerd.runc.v2" => Ok(Self::ContainerdRunc),
            _ => Err(EngineError::invalid(format!(
                "unknown or invalid runtime name: {text}; Bulkhead is its own runtime"
            ))),
        }
    }
}

impl fmt::Display for RuntimeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bulkhead => "bulkhead",
            Self::Runc => "runc",
            Self::ContainerdRunc => "io.containerd.runc.v2",
        })
    }
}

serde_by_text!(RuntimeName);
