//! What is mounted into a container, as types that keep all that was asked for: nothing about a
//! mount is read from a text, or guessed, after the request.

use std::fmt;
use std::str::FromStr;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::EngineError;
use crate::text::serde_by_text;
use crate::tmpfs_options::TmpfsOptions;
use crate::volume_mounts::DriverOptions;

/// One mount of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Recorded", into = "Recorded")]
pub struct MountRequest {
    /// Host path or volume name; empty for tmpfs and anonymous volumes.
    pub source: String,
    pub target: String,
    pub readonly: bool,
    pub options: MountOptions,
}

/// One mount of a container: the volume has its name, whoever asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Recorded", into = "Recorded")]
pub struct MountPoint {
    /// Of the volume.
    pub name: Option<String>,
    /// The path on the host; empty for tmpfs.
    pub source: String,
    pub target: String,
    pub readonly: bool,
    pub options: MountOptions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountType {
    Bind,
    Volume,
    Tmpfs,
}

impl MountType {
    pub fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Volume => "volume",
            Self::Tmpfs => "tmpfs",
        }
    }
}

/// What a mount is, with all that only its kind has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountOptions {
    Bind(BindOptions),
    Volume(VolumeOptions),
    Tmpfs(TmpfsOptions),
}

impl MountOptions {
    pub fn kind(&self) -> MountType {
        match self {
            Self::Bind(_) => MountType::Bind,
            Self::Volume(_) => MountType::Volume,
            Self::Tmpfs(_) => MountType::Tmpfs,
        }
    }

    /// Those of a mount of which nothing more is known.
    fn of(kind: MountType) -> Self {
        match kind {
            MountType::Bind => Self::Bind(BindOptions::default()),
            MountType::Volume => Self::Volume(VolumeOptions::default()),
            MountType::Tmpfs => Self::Tmpfs(TmpfsOptions::default()),
        }
    }
}

impl MountRequest {
    pub fn kind(&self) -> MountType {
        self.options.kind()
    }
}

impl MountPoint {
    pub fn kind(&self) -> MountType {
        self.options.kind()
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BindOptions {
    pub missing: MissingSource,
    pub propagation: Propagation,
    pub below: MountsBelow,
}

/// What to do where nothing is at a bind mount's source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MissingSource {
    /// `--mount`
    #[default]
    Refuse,
    /// `-v`, and `--mount` with `bind-create-src`.
    MakeDirectory,
}

/// How mounts that come later pass between the source on the host and the container
/// (mount_namespaces(7), "Shared subtrees").
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    Private,
    #[default]
    Rprivate,
    Shared,
    Rshared,
    Slave,
    Rslave,
}

impl FromStr for Propagation {
    type Err = EngineError;

    fn from_str(text: &str) -> Result<Self, EngineError> {
        Ok(match text {
            "private" => Self::Private,
            "" | "rprivate" => Self::Rprivate,
            "shared" => Self::Shared,
            "rshared" => Self::Rshared,
            "slave" => Self::Slave,
            "rslave" => Self::Rslave,
            other => {
                return Err(EngineError::invalid(format!("invalid propagation mode: {other}")));
            }
        })
    }
}

impl fmt::Display for Propagation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Private => "private",
            Self::Rprivate => "rprivate",
            Self::Shared => "shared",
            Self::Rshared => "rshared",
            Self::Slave => "slave",
            Self::Rslave => "rslave",
        })
    }
}

/// What becomes of the mounts that lie below a bind mount's source (`bind-recursive`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MountsBelow {
    /// They come with it, and are read-only where it is. `enabled` and `readonly` are the same
    /// here: the kernels that Bulkhead runs on make a whole tree read-only.
    #[default]
    Follow,
    /// The same, said with `readonly`.
    FollowReadonly,
    /// They come with it and stay writable.
    FollowWritable,
    /// They do not come with it.
    Leave,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeOptions {
    pub fill: Fill,
    /// Only this directory of the volume is mounted; empty for all of it.
    pub subpath: String,
    /// For the volume, where this mount makes it.
    pub labels: BTreeMap<String, String>,
    pub driver_options: DriverOptions,
}

/// Whether an empty volume gets what the image has at its target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fill {
    #[default]
    FromImage,
    /// `nocopy`
    Leave,
}

/// `--volumes-from`: the container whose mounts come along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumesFrom {
    pub container: String,
    pub readonly: bool,
    text: String,
}

impl FromStr for VolumesFrom {
    type Err = EngineError;

    /// Reads `NAME`, `NAME:ro` or `NAME:rw`; `z` and `Z` mean nothing without SELinux.
    fn from_str(text: &str) -> Result<Self, EngineError> {
        let (container, mode) = text.split_once(':').unwrap_or((text, "rw"));
        let mut readonly = false;
        for word in mode.split(',') {
            match word {
                "ro" => readonly = true,
                "rw" | "z" | "Z" => {}
                _ => {
                    return Err(EngineError::invalid(format!(
                        "invalid mode for volumes-from: {mode}"
                    )));
                }
            }
        }
        if container.is_empty() {
            return Err(EngineError::invalid(format!(
                "invalid volumes-from specification: {text:?} names no container"
            )));
        }
        Ok(Self { container: container.to_owned(), readonly, text: text.to_owned() })
    }
}

impl fmt::Display for VolumesFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

serde_by_text!(VolumesFrom);

/// A mount as the store has it. Before the options there were the kind and, for a tmpfs of
/// `--mount`, two numbers; see [`crate::Container`] for how the rest of such a record is found.
#[derive(Serialize, Deserialize)]
struct Recorded {
    kind: MountType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    source: String,
    target: String,
    readonly: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    options: Option<MountOptions>,
    #[serde(default, skip_serializing)]
    tmpfs_size: u64,
    #[serde(default, skip_serializing)]
    tmpfs_mode: u32,
}

impl Recorded {
    fn options(&self) -> MountOptions {
        match (&self.options, self.kind) {
            (Some(options), _) => options.clone(),
            (None, MountType::Tmpfs) => MountOptions::Tmpfs(
                TmpfsOptions::of_mount(self.tmpfs_size, self.tmpfs_mode, &[]).unwrap_or_default(),
            ),
            (None, kind) => MountOptions::of(kind),
        }
    }
}

impl From<Recorded> for MountRequest {
    fn from(recorded: Recorded) -> Self {
        let options = recorded.options();
        let Recorded { source, target, readonly, .. } = recorded;
        Self { source, target, readonly, options }
    }
}

impl From<MountRequest> for Recorded {
    fn from(mount: MountRequest) -> Self {
        let MountRequest { source, target, readonly, options } = mount;
        let kind = options.kind();
        let options = Some(options);
        let (name, tmpfs_size, tmpfs_mode) = (None, 0, 0);
        Self { kind, name, source, target, readonly, options, tmpfs_size, tmpfs_mode }
    }
}

impl From<Recorded> for MountPoint {
    fn from(recorded: Recorded) -> Self {
        let options = recorded.options();
        let Recorded { name, source, target, readonly, .. } = recorded;
        Self { name, source, target, readonly, options }
    }
}

impl From<MountPoint> for Recorded {
    fn from(mount: MountPoint) -> Self {
        let MountPoint { name, source, target, readonly, options } = mount;
        let kind = options.kind();
        let options = Some(options);
        let (tmpfs_size, tmpfs_mode) = (0, 0);
        Self { kind, name, source, target, readonly, options, tmpfs_size, tmpfs_mode }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_from_names_a_container_and_a_mode() {
        let from: VolumesFrom = "store:ro,z".parse().unwrap();
        assert_eq!((from.container.as_str(), from.readonly), ("store", true));
        assert!(!"store".parse::<VolumesFrom>().unwrap().readonly);
        for wrong in ["", ":ro", "store:nope", "store:"] {
            assert!(wrong.parse::<VolumesFrom>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn records_of_before_the_options_are_read() {
        let tmpfs: MountRequest = serde_json::from_str(
            r#"{"kind":"tmpfs","source":"","target":"/t","readonly":false,"tmpfs_size":4096,
                "tmpfs_mode":448}"#,
        )
        .unwrap();
        let MountOptions::Tmpfs(options) = &tmpfs.options else { panic!("{tmpfs:?}") };
        assert_eq!(options.words(), ["size=4096", "mode=700"]);
        let bind: MountPoint = serde_json::from_str(
            r#"{"kind":"bind","name":null,"source":"/a","target":"/b","readonly":true}"#,
        )
        .unwrap();
        assert_eq!(bind.options, MountOptions::Bind(BindOptions::default()));
        let options = BindOptions {
            missing: MissingSource::MakeDirectory,
            propagation: Propagation::Rslave,
            below: MountsBelow::FollowWritable,
        };
        let bind = MountPoint { options: MountOptions::Bind(options), ..bind };
        let text = serde_json::to_string(&bind).unwrap();
        assert_eq!(serde_json::from_str::<MountPoint>(&text).unwrap(), bind);
    }
}
