//! `--security-opt`.

use bulkhead_runtime::{Landlock, Seccomp};
use serde::{Deserialize, Serialize};

use crate::{Class, EngineError};

/// The options as they were given, and what they say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<String>", into = "Vec<String>")]
pub struct SecurityOptions {
    pub(crate) seccomp: Seccomp,
    pub(crate) no_new_privileges: bool,
    /// `systempaths=unconfined`: nothing of `/proc` and `/sys` is hidden.
    pub(crate) unmasked: bool,
    pub(crate) landlock: Option<Landlock>,
    given: Vec<String>,
}

impl Default for SecurityOptions {
    fn default() -> Self {
        Self {
            seccomp: Seccomp::Default,
            no_new_privileges: false,
            unmasked: false,
            landlock: None,
            given: Vec::new(),
        }
    }
}

impl SecurityOptions {
    /// Reads the options as Docker does, `key=value` or the older `key:value`.
    ///
    /// # Errors
    /// Names the first that is none, or that asks for a protection that would not be there.
    pub fn parse(options: Vec<String>) -> Result<Self, EngineError> {
        let mut security = Self::default();
        options.iter().try_for_each(|option| security.read(option))?;
        Ok(Self { given: options, ..security })
    }

    /// Whether nothing of `/proc` and `/sys` is hidden.
    pub fn is_unmasked(&self) -> bool {
        self.unmasked
    }

    /// Whether one of the options is of this name.
    pub(crate) fn says(&self, name: &str) -> bool {
        let is = |option: &String| option.split(['=', ':']).next() == Some(name);
        self.given.iter().any(is)
    }

    pub fn given(&self) -> &[String] {
        &self.given
    }

    fn read(&mut self, option: &str) -> Result<(), EngineError> {
        let invalid = || EngineError::invalid(format!("invalid --security-opt: \"{option}\""));
        let (key, value) = match option.split_once('=').or_else(|| option.split_once(':')) {
            Some((key, value)) => (key, value),
            None if option == "no-new-privileges" => (option, "true"),
            None => return Err(invalid()),
        };
        match (key, value) {
            ("no-new-privileges", value) => {
                self.no_new_privileges = value.parse().map_err(|_| invalid())?;
            }
            ("seccomp", "unconfined") => self.seccomp = Seccomp::Unconfined,
            ("seccomp", "builtin") => self.seccomp = Seccomp::Default,
            ("seccomp", profile) => self.seccomp = Seccomp::Profile(profile.to_owned()),
            ("landlock", policy) => {
                let policy = Landlock::parse(policy);
                let policy = policy.map_err(|error| EngineError::invalid(error.to_string()))?;
                if self.landlock.replace(policy).is_some() {
                    return Err(EngineError::invalid(
                        "landlock is given twice: write one policy, its words with commas between \
                         them",
                    ));
                }
            }
            ("systempaths", "unconfined") => self.unmasked = true,
            // Which is how it is.
            ("apparmor", "unconfined") | ("label", "disable") => {}
            ("apparmor" | "label", _) => {
                return Err(EngineError::new(
                    Class::Unsupported,
                    format!(
                        "--security-opt \"{option}\": Bulkhead confines containers by namespaces, \
                         capabilities, seccomp and landlock, and sets no AppArmor profile and no \
                         SELinux label; leave it out"
                    ),
                ));
            }
            _ => return Err(invalid()),
        }
        Ok(())
    }
}

/// From a record. An engine of before this type took `apparmor` and `label` without a look, and
/// everything else as it is taken now.
impl From<Vec<String>> for SecurityOptions {
    fn from(options: Vec<String>) -> Self {
        let mut security = Self::default();
        for option in &options {
            if let Err(error) = security.read(option) {
                tracing::warn!(option, %error, "a recorded security option has no effect");
            }
        }
        Self { given: options, ..security }
    }
}

impl From<SecurityOptions> for Vec<String> {
    fn from(options: SecurityOptions) -> Self {
        options.given
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(options: &[&str]) -> Result<SecurityOptions, EngineError> {
        SecurityOptions::parse(options.iter().map(|option| (*option).to_owned()).collect())
    }

    #[test]
    fn options_are_read_in_both_spellings() {
        let security =
            of(&["no-new-privileges", "seccomp:unconfined", "systempaths=unconfined"]).unwrap();
        assert_eq!(security.seccomp, Seccomp::Unconfined);
        assert!(security.no_new_privileges && security.unmasked);
        assert!(!of(&["no-new-privileges=false"]).unwrap().no_new_privileges);
        let policy = of(&["landlock=ro:/,rw:/data,connect:443"]).unwrap().landlock.unwrap();
        assert_eq!(policy.to_string(), "ro:/,rw:/data,connect:443");
        assert_eq!(of(&[]).unwrap().landlock, None);
        assert!(of(&["landlock=ro:/", "landlock=scope"]).is_err());
        assert!(of(&["apparmor=unconfined", "label=disable"]).is_ok());
        for wrong in [
            "landlock=",
            "landlock",
            "landlock=ro:usr",
            "nonsense",
            "no-new-privileges=maybe",
            "x=y",
            "apparmor=nope",
            "label=level:s0",
            "systempaths=some",
        ] {
            assert!(of(&[wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_record_of_before_keeps_what_was_in_effect() {
        let recorded = r#"["apparmor=docker-default","no-new-privileges"]"#;
        let security: SecurityOptions = serde_json::from_str(recorded).unwrap();
        assert!(security.no_new_privileges);
        assert_eq!(serde_json::to_string(&security).unwrap(), recorded);
    }
}
