//! The types of the OCI runtime specification 1.3 for Linux: `config.json`, the state, features.
//!
//! Field names are the specification's without its `Linux` prefixes. What the specification leaves
//! out when empty is left out here too, and unknown fields are ignored, as config.md ("Extensibility")
//! asks; a newer `ociVersion` is never a reason to refuse.

mod config;
mod features;
mod id_mapping;
mod linux;
mod null;
mod resources;
mod seccomp;
mod state;

pub use config::*;
pub use features::*;
pub use id_mapping::*;
pub use linux::*;
pub use resources::*;
pub use seccomp::*;
pub use state::*;

/// The version of the specification that is implemented (config.md, "Specification version").
pub const VERSION: &str = "1.3.0";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_programs_in_go_write_is_read() {
        let text = r#"{"ociVersion":"9.9.9","process":{"user":{"uid":1,"gid":2},"args":null,"cwd":"/",
            "execCPUAffinity":{"initial":"0","final":"1"},"ioPriority":{"class":"IOPRIO_CLASS_BE","priority":4}},
            "mounts":null,"unknown":{"a":[1]},
            "linux":{"uidMappings":[{"containerID":0,"hostID":1000,"size":1}],"gidMappings":null,
            "namespaces":[{"type":"mount"},{"type":"network","path":"/run/netns/a"}],
            "resources":{"blockIO":{"throttleReadIOPSDevice":[{"major":8,"minor":0,"rate":5}]},
            "memory":{"disableOOMKiller":true,"kernelTCP":-1},"network":{"classID":7}},
            "intelRdt":{"closID":"x"}}}"#;
        let config: Config = serde_json::from_str(text).unwrap();
        let again: Config = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
        assert_eq!(config, again);
        let linux = config.linux.unwrap();
        assert_eq!(linux.uid_mappings[0].host_id, 1000);
        assert_eq!(linux.namespaces[1].kind.file(), "net");
        let resources = linux.resources.unwrap();
        assert_eq!(resources.memory.unwrap().disable_oom_killer, Some(true));
        assert_eq!(resources.network.unwrap().class_id, Some(7));
        assert_eq!(resources.block_io.unwrap().throttle_read_iops_device[0].rate, 5);
        assert_eq!(linux.intel_rdt.unwrap().clos_id, "x");
        assert_eq!(config.process.unwrap().exec_cpu_affinity.unwrap().final_, "1");
    }
}
