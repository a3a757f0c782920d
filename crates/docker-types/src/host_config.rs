//! Docker's `HostConfig`: what depends on the host that a container runs on.

use std::collections::BTreeMap;

use crate::Mount;
use crate::null::{object, whole_object};

object! {
    /// Every member that means something on Linux, those that Bulkhead refuses left out.
    pub struct HostConfig {
        pub binds: Vec<String>,
        pub mounts: Vec<Mount>,
        pub tmpfs: BTreeMap<String, String>,
        pub volumes_from: Vec<String>,
        pub volume_driver: String,
        pub network_mode: String,
        pub pid_mode: String,
        pub ipc_mode: String,
        #[serde(rename = "UTSMode")]
        pub uts_mode: String,
        pub userns_mode: String,
        pub cgroupns_mode: String,
        pub cgroup_parent: String,
        /// `80/tcp`; `null` publishes nothing, an empty list any port of the host.
        pub port_bindings: BTreeMap<String, Option<Vec<PortBinding>>>,
        pub publish_all_ports: bool,
        pub links: Vec<String>,
        pub extra_hosts: Vec<String>,
        pub dns: Vec<String>,
        pub dns_search: Vec<String>,
        pub dns_options: Vec<String>,
        pub restart_policy: RestartPolicy,
        pub auto_remove: bool,
        pub privileged: bool,
        pub readonly_rootfs: bool,
        pub init: Option<bool>,
        pub cap_add: Vec<String>,
        pub cap_drop: Vec<String>,
        pub security_opt: Vec<String>,
        /// `null` is the usual list.
        pub masked_paths: Option<Vec<String>>,
        pub readonly_paths: Option<Vec<String>>,
        pub group_add: Vec<String>,
        pub sysctls: BTreeMap<String, String>,
        pub annotations: BTreeMap<String, String>,
        pub devices: Vec<Device>,
        pub device_cgroup_rules: Vec<String>,
        pub ulimits: Vec<Ulimit>,
        pub oom_score_adj: i64,
        pub oom_kill_disable: bool,
        /// Bytes.
        pub shm_size: i64,
        pub log_config: LogConfig,
        /// Bytes.
        pub memory: i64,
        pub memory_reservation: i64,
        pub memory_swap: i64,
        pub memory_swappiness: Option<i64>,
        pub cpu_shares: i64,
        /// Billionths of a CPU.
        pub nano_cpus: i64,
        pub cpu_period: i64,
        pub cpu_quota: i64,
        pub cpuset_cpus: String,
        pub cpuset_mems: String,
        pub pids_limit: Option<i64>,
        pub blkio_weight: u16,
        pub blkio_weight_device: Vec<WeightDevice>,
        pub blkio_device_read_bps: Vec<ThrottleDevice>,
        pub blkio_device_write_bps: Vec<ThrottleDevice>,
        #[serde(rename = "BlkioDeviceReadIOps")]
        pub blkio_device_read_iops: Vec<ThrottleDevice>,
        #[serde(rename = "BlkioDeviceWriteIOps")]
        pub blkio_device_write_iops: Vec<ThrottleDevice>,
        pub runtime: String,
        pub isolation: String,
        /// Rows and columns.
        pub console_size: (u16, u16),
    }
}

whole_object! {
    pub struct PortBinding {
        pub host_ip: String,
        /// Empty for any.
        pub host_port: String,
    }
}

whole_object! {
    pub struct RestartPolicy {
        pub name: String,
        pub maximum_retry_count: i64,
    }
}

whole_object! {
    pub struct Device {
        pub path_on_host: String,
        pub path_in_container: String,
        pub cgroup_permissions: String,
    }
}

whole_object! {
    pub struct Ulimit {
        pub name: String,
        pub soft: i64,
        pub hard: i64,
    }
}

whole_object! {
    pub struct LogConfig {
        #[serde(rename = "Type")]
        pub kind: String,
        pub config: BTreeMap<String, String>,
    }
}

object! {
    pub struct WeightDevice {
        pub path: String,
        pub weight: u16,
    }
}

object! {
    /// Bytes or operations a second.
    pub struct ThrottleDevice {
        pub path: String,
        pub rate: u64,
    }
}
