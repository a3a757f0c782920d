//! `HostConfig.Mounts`, which `--mount` writes.

use std::collections::BTreeMap;

use crate::null::object;

object! {
    pub struct Mount {
        /// `bind`, `volume` or `tmpfs`
        #[serde(rename = "Type")]
        pub kind: String,
        pub source: String,
        pub target: String,
        pub read_only: bool,
        pub bind_options: Option<BindOptions>,
        pub volume_options: Option<VolumeOptions>,
        pub tmpfs_options: Option<TmpfsOptions>,
    }
}

object! {
    pub struct BindOptions {
        pub propagation: String,
        pub non_recursive: bool,
        pub create_mountpoint: bool,
        pub read_only_non_recursive: bool,
        pub read_only_force_recursive: bool,
    }
}

object! {
    pub struct VolumeOptions {
        pub no_copy: bool,
        pub labels: BTreeMap<String, String>,
        pub driver_config: Option<DriverConfig>,
        pub subpath: String,
    }
}

object! {
    pub struct DriverConfig {
        pub name: String,
        pub options: BTreeMap<String, String>,
    }
}

object! {
    pub struct TmpfsOptions {
        pub size_bytes: i64,
        pub mode: u32,
        /// Each a name, or a name and its value.
        pub options: Vec<Vec<String>>,
    }
}
