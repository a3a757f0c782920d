//! `--ulimit`

use serde::{Deserialize, Serialize};

use crate::EngineError;

/// The names that Docker takes (setrlimit(2), in small letters and without `RLIMIT_`).
const NAMES: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// A limit of each of a container's processes; -1 is unlimited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(String, i64, i64)", into = "(String, i64, i64)")]
pub struct Ulimit {
    name: String,
    soft: i64,
    hard: i64,
}

impl Ulimit {
    /// # Errors
    /// Where there is no limit of that name, or the soft one is above the hard one.
    pub fn new(name: &str, soft: i64, hard: i64) -> Result<Self, EngineError> {
        if !NAMES.contains(&name) {
            return Err(EngineError::invalid(format!("invalid ulimit type: {name}")));
        }
        let above = match (soft, hard) {
            (_, -1) => false,
            (-1, _) => true,
            (soft, hard) => soft > hard,
        };
        if above {
            return Err(EngineError::invalid(format!(
                "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
            )));
        }
        Ok(Self { name: name.to_owned(), soft, hard })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn soft(&self) -> i64 {
        self.soft
    }

    pub fn hard(&self) -> i64 {
        self.hard
    }
}

/// From a record, which an engine of before this type may have written unread: a name that is none
/// is refused at the start, as it was then.
impl From<(String, i64, i64)> for Ulimit {
    fn from((name, soft, hard): (String, i64, i64)) -> Self {
        Self { name, soft, hard }
    }
}

impl From<Ulimit> for (String, i64, i64) {
    fn from(limit: Ulimit) -> Self {
        (limit.name, limit.soft, limit.hard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_have_a_name_and_an_order() {
        for (name, soft, hard) in [("nofile", 1, 2), ("core", -1, -1), ("cpu", 5, -1)] {
            assert!(Ulimit::new(name, soft, hard).is_ok(), "{name}");
        }
        for (name, soft, hard) in [("nofiles", 1, 1), ("nofile", 2, 1), ("nofile", -1, 1)] {
            assert!(Ulimit::new(name, soft, hard).is_err(), "{name} {soft} {hard}");
        }
        let recorded = r#"["nofile",1024,2048]"#;
        let limit: Ulimit = serde_json::from_str(recorded).unwrap();
        assert_eq!(serde_json::to_string(&limit).unwrap(), recorded);
    }
}
