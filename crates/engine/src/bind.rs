//! `-v`: mounts as one text, and where they may lie.

use std::fmt;
use std::str::FromStr;

use bulkhead_types::Name;

use crate::mounts::{BindOptions, Fill, MissingSource, MountOptions, MountRequest, VolumeOptions};
use crate::text::serde_by_text;
use crate::{Class, EngineError};

/// `-v`: the text, which inspect repeats, and what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    text: String,
    pub mount: MountRequest,
}

impl FromStr for Bind {
    type Err = EngineError;

    fn from_str(text: &str) -> Result<Self, EngineError> {
        parse_bind(text).map(|mount| Self { text: text.to_owned(), mount })
    }
}

impl Bind {
    /// The options as they were written; empty where there are none.
    pub fn mode(&self) -> &str {
        self.text.splitn(3, ':').nth(2).unwrap_or_default()
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

serde_by_text!(Bind);

/// Reads `[source:]target[:options]`.
fn parse_bind(text: &str) -> Result<MountRequest, EngineError> {
    let invalid = || EngineError::invalid(format!("invalid volume specification: '{text}'"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, words) = match parts.as_slice() {
        [target] => ("", *target, ""),
        [source, target] if !source.is_empty() => (*source, *target, ""),
        [source, target, options] if !source.is_empty() => (*source, *target, *options),
        _ => return Err(invalid()),
    };
    let is_path = source.starts_with('/');
    let mut readonly = false;
    let mut bind = BindOptions { missing: MissingSource::MakeDirectory, ..BindOptions::default() };
    let mut volume = VolumeOptions::default();
    for option in words.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" | "readonly" => readonly = true,
            // SELinux labels mean nothing on a host without it, and the three of macOS never do.
            "rw" | "z" | "Z" | "cached" | "delegated" | "consistent" => {}
            "nocopy" if !is_path => volume.fill = Fill::Leave,
            "private" | "rprivate" => bind.propagation = option.parse()?,
            "shared" | "rshared" | "slave" | "rslave" if is_path => {
                bind.propagation = option.parse()?;
            }
            // A bind is not filled from the image, so there is nothing to leave.
            "nocopy" => {}
            "U" => {
                return Err(EngineError::new(
                    Class::Unsupported,
                    format!(
                        "option \"U\" of '{text}' is not supported: files keep their owners through \
                         an id-mapped mount; leave it out"
                    ),
                ));
            }
            _ => return Err(invalid()),
        }
    }
    if !is_path && !source.is_empty() {
        source.parse::<Name>().map_err(|_| invalid_volume_name(source))?;
    }
    Ok(MountRequest {
        source: source.to_owned(),
        target: clean_target(target, text)?,
        readonly,
        options: if is_path { MountOptions::Bind(bind) } else { MountOptions::Volume(volume) },
    })
}

pub(crate) fn invalid_volume_name(name: &str) -> EngineError {
    EngineError::invalid(format!(
        "\"{name}\" includes invalid characters for a local volume name, only \
         \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use \
         absolute path"
    ))
}

/// The target without `.`, `..` and double slashes, taken literally: links are resolved inside the
/// container when it starts.
pub(crate) fn clean_target(target: &str, specification: &str) -> Result<String, EngineError> {
    if !target.starts_with('/') {
        return Err(EngineError::invalid(format!(
            "invalid volume specification: '{specification}': invalid mount path: '{target}' mount \
             path must be absolute"
        )));
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            other => parts.push(other),
        }
    }
    if parts.is_empty() {
        return Err(EngineError::invalid(format!(
            "invalid volume specification: '{specification}': destination can't be '/'"
        )));
    }
    Ok(format!("/{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounts::{MountType, Propagation};

    fn one(bind: &str) -> Result<MountRequest, String> {
        parse_bind(bind).map_err(|error| error.message)
    }

    #[test]
    fn binds_are_read_as_docker_reads_them() {
        let mount = one("/src:/a//b/./c/../d:ro,z").unwrap();
        assert_eq!((mount.kind(), mount.source.as_str()), (MountType::Bind, "/src"));
        assert_eq!((mount.target.as_str(), mount.readonly), ("/a/b/d", true));
        assert_eq!(one("data:/data").unwrap().kind(), MountType::Volume);
        assert_eq!(one("/data").unwrap().source, "", "an anonymous volume");
        let MountOptions::Bind(bind) = one("/a:/b:rslave,ro").unwrap().options else { panic!() };
        assert_eq!(bind.propagation, Propagation::Rslave);
        assert_eq!(bind.missing, MissingSource::MakeDirectory);
        let MountOptions::Volume(volume) = one("a1:/b:nocopy").unwrap().options else { panic!() };
        assert_eq!(volume.fill, Fill::Leave);
        for (wrong, why) in [
            ("/a:b", "must be absolute"),
            ("/a:/", "destination can't be '/'"),
            ("/a:/b:nope", "invalid volume specification"),
            ("/a:/b:ro:x", "invalid volume specification"),
            (":/b", "invalid volume specification"),
            ("../x:/b", "includes invalid characters for a local volume name"),
            ("data:/b:shared", "invalid volume specification"),
            ("/a:/b:U", "not supported"),
        ] {
            let error = one(wrong).unwrap_err();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }
}
