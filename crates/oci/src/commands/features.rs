use bulkhead_runtime::plan::{memory_policy_flags, memory_policy_modes};
use bulkhead_runtime::{capabilities, mount_options};
use bulkhead_types::oci::{
    self, CgroupFeatures, Enabled, Features, IntelRdtFeatures, LinuxFeatures, MemoryPolicyFeatures,
    MountExtensions, NamespaceKind,
};

use super::state::print;
use crate::error::Result;

pub fn run() -> Result<u8> {
    print(&features())?;
    Ok(0)
}

fn features() -> Features {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let on = Enabled { enabled: true };
    Features {
        oci_version_min: "1.0.0".to_owned(),
        oci_version_max: oci::VERSION.to_owned(),
        hooks: names(&[
            "prestart",
            "createRuntime",
            "createContainer",
            "startContainer",
            "poststart",
            "poststop",
        ]),
        mount_options: mount_options::known().into_iter().map(str::to_owned).collect(),
        linux: LinuxFeatures {
            namespaces: NamespaceKind::ALL.iter().map(|kind| kind.name().to_owned()).collect(),
            capabilities: capabilities::NAMES.iter().map(|name| format!("CAP_{name}")).collect(),
            cgroup: CgroupFeatures {
                v1: true,
                v2: true,
                systemd: true,
                systemd_user: true,
                rdma: true,
            },
            seccomp: bulkhead_runtime::seccomp::features(),
            apparmor: on,
            selinux: on,
            intel_rdt: IntelRdtFeatures { enabled: true, schemata: true, monitoring: true },
            memory_policy: MemoryPolicyFeatures {
                modes: memory_policy_modes(),
                flags: memory_policy_flags(),
            },
            mount_extensions: MountExtensions { idmap: on },
            net_devices: on,
        },
        // those that change what a container may do, or reach files of the host
        potentially_unsafe_config_annotations: names(&[
            "io.bulkhead.seccomp.socketcall",
            "org.systemd.property.",
            "run.oci.hooks.",
            "run.oci.keep_original_groups",
        ]),
        ..Features::default()
    }
}
