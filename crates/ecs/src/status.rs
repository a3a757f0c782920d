//! The words of the API that something is decided by, as enums: what one misspells does not compile.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Makes an enum of words, each with the one spelling that it has in JSON.
macro_rules! words {
    (
        $(#[$meta:meta])*
        $name:ident {
            $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)+
        }
    ) => {
        $(#[$meta])*
        #[derive(
            Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize,
        )]
        pub enum $name {
            $($(#[$variant_meta])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// As it is written.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(unknown(text, &[$($word),+])),
                }
            }
        }
    };
}

words! {
    /// How a task or a container stands, by what its agent last said. Later ones are greater.
    TaskStatus {
        #[default]
        Pending = "PENDING",
        Running = "RUNNING",
        Stopped = "STOPPED",
    }
}

words! {
    /// What the control plane wants of a task.
    DesiredStatus {
        #[default]
        Running = "RUNNING",
        Stopped = "STOPPED",
    }
}

words! {
    HealthStatus {
        #[default]
        Unknown = "UNKNOWN",
        Healthy = "HEALTHY",
        Unhealthy = "UNHEALTHY",
    }
}

words! {
    /// Whether the agent of a task's instance is connected.
    Connectivity {
        #[default]
        Disconnected = "DISCONNECTED",
        Connected = "CONNECTED",
    }
}

words! {
    /// Why a task stops.
    StopCode {
        #[default]
        TaskFailedToStart = "TaskFailedToStart",
        EssentialContainerExited = "EssentialContainerExited",
        UserInitiated = "UserInitiated",
        /// Its instance was deregistered.
        TerminationNotice = "TerminationNotice",
    }
}

words! {
    /// What a task runs on.
    LaunchType {
        #[default]
        #[serde(alias = "")]
        Ec2 = "EC2",
        External = "EXTERNAL",
        Fargate = "FARGATE",
        ManagedInstances = "MANAGED_INSTANCES",
    }
}

words! {
    InstanceStatus {
        #[default]
        Active = "ACTIVE",
        /// Gets no new tasks.
        Draining = "DRAINING",
        /// Deregistered.
        Inactive = "INACTIVE",
    }
}

words! {
    /// Whether a cluster or a revision of a task definition can be used.
    Status {
        #[default]
        Active = "ACTIVE",
        Inactive = "INACTIVE",
    }
}

words! {
    /// What a container waits for in another.
    DependencyCondition {
        #[default]
        Start = "START",
        Complete = "COMPLETE",
        Success = "SUCCESS",
        Healthy = "HEALTHY",
    }
}

impl From<DesiredStatus> for TaskStatus {
    fn from(desired: DesiredStatus) -> Self {
        match desired {
            DesiredStatus::Running => Self::Running,
            DesiredStatus::Stopped => Self::Stopped,
        }
    }
}

/// A word of a request, where there is one.
pub(crate) fn asked<T: FromStr<Err = Error>>(word: Option<&str>) -> Result<Option<T>, Error> {
    word.filter(|word| !word.is_empty()).map(str::parse).transpose()
}

fn unknown(text: &str, words: &[&str]) -> Error {
    Error::invalid(format!("Invalid value '{text}': use one of {}.", words.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_are_written() {
        for status in [TaskStatus::Pending, TaskStatus::Running, TaskStatus::Stopped] {
            assert_eq!(status.as_str().parse(), Ok(status));
            let json = serde_json::to_string(&status).unwrap();
            assert_eq!(json, format!("\"{status}\""));
            assert_eq!(serde_json::from_str::<TaskStatus>(&json).unwrap(), status);
        }
        assert!(TaskStatus::Pending < TaskStatus::Running);
        let error = "running".parse::<DesiredStatus>().unwrap_err();
        assert_eq!(error.message, "Invalid value 'running': use one of RUNNING, STOPPED.");
        assert_eq!(asked::<LaunchType>(Some("")), Ok(None));
        assert_eq!(serde_json::from_str::<LaunchType>("\"\"").unwrap(), LaunchType::Ec2);
    }
}
