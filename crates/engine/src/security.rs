//! `--security-opt`.

use bulkhead_runtime::{Landlock, Seccomp};

use crate::EngineError;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Security {
    pub seccomp: Seccomp,
    pub no_new_privileges: bool,
    /// `systempaths=unconfined`: nothing of `/proc` and `/sys` is hidden.
    pub unmasked: bool,
    pub landlock: Option<Landlock>,
}

/// Reads the options as Docker does, `key=value` or the older `key:value`.
pub(crate) fn parse(options: &[String]) -> Result<Security, EngineError> {
    let mut security = Security {
        seccomp: Seccomp::Default,
        no_new_privileges: false,
        unmasked: false,
        landlock: None,
    };
    for option in options {
        let invalid = || EngineError::invalid(format!("invalid --security-opt: \"{option}\""));
        let (key, value) = match option.split_once('=').or_else(|| option.split_once(':')) {
            Some((key, value)) => (key, value),
            None if option == "no-new-privileges" => (option.as_str(), "true"),
            None => return Err(invalid()),
        };
        match key {
            "no-new-privileges" => {
                security.no_new_privileges = value.parse().map_err(|_| invalid())?;
            }
            "seccomp" => {
                security.seccomp = match value {
                    "unconfined" => Seccomp::Unconfined,
                    "builtin" => Seccomp::Default,
                    profile => Seccomp::Profile(profile.to_owned()),
                }
            }
            "landlock" => {
                let policy = Landlock::parse(value);
                let policy = policy.map_err(|error| EngineError::invalid(error.to_string()))?;
                if security.landlock.replace(policy).is_some() {
                    return Err(EngineError::invalid(
                        "landlock is given twice: write one policy, its words with commas between \
                         them",
                    ));
                }
            }
            "systempaths" if value == "unconfined" => security.unmasked = true,
            // Where the host has neither, they have nothing to say; Docker ignores them too.
            "apparmor" | "label" => {}
            _ => return Err(invalid()),
        }
    }
    Ok(security)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_in_both_spellings() {
        let of = |options: &[&str]| {
            parse(&options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>())
        };
        let security =
            of(&["no-new-privileges", "seccomp:unconfined", "systempaths=unconfined"]).unwrap();
        assert_eq!(security.seccomp, Seccomp::Unconfined);
        assert!(security.no_new_privileges && security.unmasked);
        assert!(!of(&["no-new-privileges=false"]).unwrap().no_new_privileges);
        let policy = of(&["landlock=ro:/,rw:/data,connect:443"]).unwrap().landlock.unwrap();
        assert_eq!(policy.to_string(), "ro:/,rw:/data,connect:443");
        assert_eq!(of(&[]).unwrap().landlock, None);
        assert!(of(&["landlock=ro:/", "landlock=scope"]).is_err());
        for wrong in [
            "landlock=",
            "landlock",
            "landlock=ro:usr",
            "nonsense",
            "no-new-privileges=maybe",
            "x=y",
        ] {
            assert!(of(&[wrong]).is_err(), "{wrong}");
        }
    }
}
