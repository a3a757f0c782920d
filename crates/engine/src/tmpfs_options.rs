//! The options of a tmpfs, of which each is done or refused.

use std::fmt;
use std::str::FromStr;

use crate::text::serde_by_text;
use crate::{Class, EngineError};

/// The options of a tmpfs, as `--tmpfs` writes them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TmpfsOptions(Vec<String>);

impl TmpfsOptions {
    /// # Errors
    /// Names the first option that is none, or has no value that it needs.
    pub fn parse(text: &str) -> Result<Self, EngineError> {
        let options: Vec<&str> = text.split(',').filter(|option| !option.is_empty()).collect();
        options.iter().try_for_each(|option| check_tmpfs_option(option))?;
        Ok(Self(options.into_iter().map(str::to_owned).collect()))
    }

    /// Those of a `--mount`: bytes and mode, 0 for the default.
    pub fn of_mount(size: u64, mode: u32, flags: &[Vec<String>]) -> Result<Self, EngineError> {
        let mut options = Vec::new();
        if size != 0 {
            options.push(format!("size={size}"));
        }
        if mode != 0 {
            options.push(format!("mode={mode:o}"));
        }
        for flag in flags {
            match flag.as_slice() {
                [flag] if matches!(flag.as_str(), "exec" | "noexec") => options.push(flag.clone()),
                other => {
                    return Err(EngineError::invalid(format!(
                        "invalid mount config for type \"tmpfs\": unsupported tmpfs option: {}",
                        other.join("=")
                    )));
                }
            }
        }
        Ok(Self(options))
    }

    /// In mount(8)'s words.
    pub fn words(&self) -> &[String] {
        &self.0
    }

    pub fn size(&self) -> Option<u64> {
        self.value("size").and_then(|size| bulkhead_types::parse_size(size).ok())
    }

    pub fn mode(&self) -> Option<u32> {
        self.value("mode").and_then(|mode| u32::from_str_radix(mode, 8).ok())
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find_map(|option| {
            option.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value)
        })
    }
}

/// What moby takes (pkg/mount, the flags and `validateTmpfs`), and of that what is done here.
fn check_tmpfs_option(option: &str) -> Result<(), EngineError> {
    let invalid = || EngineError::invalid(format!("invalid tmpfs option [{option:?}]"));
    if let Some((name, value)) = option.split_once('=') {
        let valid = match name {
            "size" => value.strip_suffix('%').map_or_else(
                || bulkhead_types::parse_size(value).is_ok(),
                |percent| percent.parse::<u32>().is_ok(),
            ),
            "nr_inodes" | "nr_blocks" => bulkhead_types::parse_size(value).is_ok(),
            "mode" => u32::from_str_radix(value, 8).is_ok_and(|mode| mode <= 0o7777),
            "uid" | "gid" => value.parse::<u32>().is_ok(),
            _ => false,
        };
        return if valid { Ok(()) } else { Err(invalid()) };
    }
    match option {
        "ro" | "rw" | "suid" | "nosuid" | "dev" | "nodev" | "exec" | "noexec" => Ok(()),
        // What a tmpfs is anyway.
        "defaults" | "async" | "relatime" | "private" | "rprivate" => Ok(()),
        "sync" | "dirsync" | "remount" | "mand" | "nomand" | "atime" | "noatime" | "diratime"
        | "nodiratime" | "bind" | "rbind" | "unbindable" | "runbindable" | "shared" | "rshared"
        | "slave" | "rslave" | "norelatime" | "strictatime" | "nostrictatime" | "tmpcopyup" => {
            Err(EngineError::new(
                Class::Unsupported,
                format!("tmpfs option {option:?} is not supported by Bulkhead; leave it out"),
            ))
        }
        _ => Err(invalid()),
    }
}

impl fmt::Display for TmpfsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

impl FromStr for TmpfsOptions {
    type Err = std::convert::Infallible;

    /// From a record: an engine of before this type took every word and used those with a value.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let words = text.split(',').filter(|option| check_tmpfs_option(option).is_ok());
        Ok(Self(words.map(str::to_owned).collect()))
    }
}

serde_by_text!(TmpfsOptions);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tmpfs_options_are_done_or_refused_by_name() {
        for text in ["", "size=1m,mode=1777,uid=33,gid=33,nr_inodes=10k", "size=50%", "rw,exec,dev"]
        {
            assert_eq!(TmpfsOptions::parse(text).unwrap().to_string(), text);
        }
        for (text, why) in [
            ("bogus", "invalid tmpfs option [\"bogus\"]"),
            ("rw,size=x", "invalid tmpfs option [\"size=x\"]"),
            ("mode=999", "mode=999"),
            ("mode", "invalid tmpfs option"),
            ("noatime", "not supported"),
        ] {
            let error = TmpfsOptions::parse(text).unwrap_err().message;
            assert!(error.contains(why), "{error}");
        }
        let options = TmpfsOptions::of_mount(1 << 20, 0o1770, &[vec!["exec".to_owned()]]).unwrap();
        assert_eq!(options.to_string(), "size=1048576,mode=1770,exec");
        assert_eq!((options.size(), options.mode()), (Some(1 << 20), Some(0o1770)));
        assert!(TmpfsOptions::of_mount(0, 0, &[vec!["sync".to_owned()]]).is_err());
    }
}
