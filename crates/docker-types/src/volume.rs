//! `POST /volumes/create`

use std::collections::BTreeMap;

use crate::null::object;

object! {
    pub struct VolumeCreate {
        pub name: String,
        pub driver: String,
        pub driver_opts: BTreeMap<String, String>,
        pub labels: BTreeMap<String, String>,
    }
}
