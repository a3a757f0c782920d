use std::collections::BTreeMap;
use std::net::IpAddr;

pub use bulkhead_runtime::cgroup::{BlockIoCount, Throttling};
pub use bulkhead_types::Stream;
use bulkhead_types::{Digest, Id, IdMap, Name, Port, Reference, Timestamp, image};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::attachment::{NetworkStack, Networking};
use crate::bind::{Bind, clean_target};
use crate::endpoint::EndpointConfig;
use crate::extra_host::ExtraHost;
use crate::health::{Health, OnFailure};
use crate::link::Link;
use crate::log_options::{LogDriver, LogOptions};
use crate::modes::{CgroupnsMode, IpcMode, NetworkMode, PidMode, UsernsMode, UtsMode};
use crate::mounts::{MountOptions, MountPoint, MountRequest, VolumesFrom};
use crate::port_request::PortRequest;
use crate::repeated::{Isolation, RuntimeName};
use crate::restart::RestartPolicy;
use crate::security::SecurityOptions;
use crate::text::readable;
use crate::tmpfs_options::TmpfsOptions;
use crate::ulimits::Ulimit;
use crate::volume_mounts::DriverOptions;

/// A request to create a container: read once, into types that cannot be wrong by themselves. What
/// depends on the image, on other containers and on this host is checked by the engine.
#[derive(Debug, Clone)]
pub struct CreateContainer {
    /// `None` draws one (`brave_bell`).
    pub name: Option<Name>,
    /// As the user wrote it.
    pub image: String,
    pub config: ContainerConfig,
    pub host: HostConfig,
    /// The networks that are named beside the mode's, and what is asked for there.
    pub endpoints: Vec<EndpointConfig>,
}

/// Docker's `Config`: what is the same wherever the container runs. `None` takes the image's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerConfig {
    pub hostname: String,
    pub domainname: String,
    pub user: String,
    pub attach_stdin: bool,
    pub attach_stdout: bool,
    pub attach_stderr: bool,
    pub tty: bool,
    pub open_stdin: bool,
    pub stdin_once: bool,
    pub env: Vec<String>,
    pub cmd: Option<Vec<String>>,
    /// `Some(vec![])` clears the image's.
    pub entrypoint: Option<Vec<String>>,
    pub working_dir: String,
    pub labels: BTreeMap<String, String>,
    pub exposed_ports: Vec<Port>,
    pub volumes: Vec<String>,
    pub stop_signal: Option<String>,
    pub stop_timeout: Option<i64>,
    pub healthcheck: Option<image::Healthcheck>,
    /// What runs a health check that is a line of a shell.
    pub shell: Option<Vec<String>>,
    pub network_disabled: bool,
    /// Of the link to the first network; `None` goes with the address.
    pub mac_address: Option<[u8; 6]>,
}

/// Docker's `HostConfig`, the part that Bulkhead acts on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostConfig {
    /// `-v`
    pub binds: Vec<Bind>,
    /// `--mount`
    pub mounts: Vec<MountRequest>,
    /// `--tmpfs`: target → options
    pub tmpfs: BTreeMap<String, TmpfsOptions>,
    pub volumes_from: Vec<VolumesFrom>,
    /// `--volume-driver`: of the volumes that `-v` and the image ask for.
    pub volume_driver: String,
    pub network_mode: NetworkMode,
    pub pid_mode: PidMode,
    pub ipc_mode: IpcMode,
    pub uts_mode: UtsMode,
    pub userns_mode: UsernsMode,
    pub cgroupns_mode: CgroupnsMode,
    pub port_bindings: Vec<PortRequest>,
    pub publish_all_ports: bool,
    pub links: Vec<Link>,
    #[serde(deserialize_with = "readable")]
    pub extra_hosts: Vec<ExtraHost>,
    pub dns: Vec<IpAddr>,
    pub dns_search: Vec<String>,
    pub dns_options: Vec<String>,
    pub restart_policy: RestartPolicy,
    pub auto_remove: bool,
    pub privileged: bool,
    pub readonly_rootfs: bool,
    pub init: Option<bool>,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub security_opt: SecurityOptions,
    /// What of `/proc` and `/sys` is hidden; `None` is the usual list.
    pub masked_paths: Option<Vec<String>>,
    pub readonly_paths: Option<Vec<String>>,
    pub group_add: Vec<String>,
    pub sysctls: BTreeMap<String, String>,
    /// What other runtimes are told; kept and repeated.
    pub annotations: BTreeMap<String, String>,
    pub devices: Vec<DeviceRequest>,
    pub ulimits: Vec<Ulimit>,
    pub oom_score_adj: i64,
    pub shm_size: u64,
    pub log_driver: LogDriver,
    pub log_options: LogOptions,
    /// Bytes; 0 is unlimited.
    pub memory: u64,
    pub memory_reservation: u64,
    /// Bytes of memory and swap together; -1 is unlimited, 0 twice the memory.
    pub memory_swap: i64,
    /// Relative weight, 1024 by default; 0 leaves it.
    pub cpu_shares: u64,
    /// Billionths of a CPU.
    pub nano_cpus: u64,
    pub cpu_period: u64,
    pub cpu_quota: i64,
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    /// `None`: Bulkhead's 4,096; 0 or less: unlimited.
    pub pids_limit: Option<i64>,
    pub cgroup_parent: String,
    /// 0 to 100.
    pub memory_swappiness: Option<u64>,
    pub block_io: BlockIo,
    /// `c 42:* rmw`
    pub device_cgroup_rules: Vec<String>,
    /// Rows and columns of the terminal from which it was asked for; inspect repeats them.
    pub console_size: (u16, u16),
    pub isolation: Isolation,
    pub runtime: RuntimeName,
    /// What its labels say; see [`crate::ON_FAILURE_LABEL`].
    pub health_on_failure: OnFailure,
}

/// Docker's limits of block devices, which are named by the paths of their nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlockIo {
    /// 10 to 1000; 0 leaves it.
    pub weight: u16,
    pub weight_devices: Vec<(String, u16)>,
    /// Bytes a second.
    pub read_bps: Vec<(String, u64)>,
    pub write_bps: Vec<(String, u64)>,
    /// Operations a second.
    pub read_iops: Vec<(String, u64)>,
    pub write_iops: Vec<(String, u64)>,
}

/// What `docker update` changes; `None` leaves it.
#[derive(Debug, Clone, Default)]
pub struct Update {
    pub memory: Option<u64>,
    pub memory_reservation: Option<u64>,
    pub memory_swap: Option<i64>,
    pub cpu_shares: Option<u64>,
    pub nano_cpus: Option<u64>,
    pub cpu_period: Option<u64>,
    pub cpu_quota: Option<i64>,
    pub cpuset_cpus: Option<String>,
    pub cpuset_mems: Option<String>,
    pub pids_limit: Option<i64>,
    pub blkio_weight: Option<u16>,
    pub restart_policy: Option<RestartPolicy>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRequest {
    pub host: String,
    pub container: String,
    pub permissions: String,
}

/// A container as it is now.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct Container {
    pub id: Id,
    pub name: Name,
    pub created: Timestamp,
    /// As the user wrote it, and what it meant then.
    pub image: String,
    pub image_id: Digest,
    /// Image defaults merged in.
    pub config: ContainerConfig,
    pub host: HostConfig,
    /// The program that runs: entrypoint and command joined.
    pub arguments: Vec<String>,
    pub id_range: Option<IdMap>,
    pub state: State,
    pub restart_count: u32,
    /// The networks that it is on while it runs, the one of its mode first.
    #[serde(default = "default_endpoints")]
    pub endpoints: Vec<EndpointConfig>,
    pub network: Networking,
    pub mounts: Vec<MountPoint>,
    pub log_path: String,
}

impl Container {
    /// The names by which others on a user's network find it, its own first (moby:
    /// daemon/container_operations.go, `buildDNSNames`).
    pub fn dns_names(&self, endpoint: &EndpointConfig) -> Vec<String> {
        let mut names = vec![self.name.to_string()];
        // With the host's UTS namespace it is the host's name, which is nobody's here.
        let own = (self.host.uts_mode != UtsMode::Host).then(|| self.config.hostname.clone());
        let more = endpoint.aliases.iter().cloned().chain([self.id.short()]).chain(own);
        for name in more {
            if !name.is_empty() && !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}

/// Of a record of before there were other networks.
fn default_endpoints() -> Vec<EndpointConfig> {
    vec![EndpointConfig::of("bridge")]
}

impl Serialize for Container {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Container {
    /// In records of before a mount had its own options, they stand only in the request.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut container = Self::deserialize(deserializer)?;
        if container.network.stack != NetworkStack::Bridge {
            container.endpoints.clear();
        }
        for point in &mut container.mounts {
            let asked = options_at(&container.host, &point.target);
            if let Some(options) = asked.filter(|options| options.kind() == point.kind()) {
                point.options = options;
            }
        }
        Ok(container)
    }
}

/// The options of the mount at `target`, where the request says any: how a record of before mounts
/// had their own is completed.
fn options_at(host: &HostConfig, target: &str) -> Option<MountOptions> {
    let binds = host.binds.iter().map(|bind| &bind.mount);
    let asked = binds.chain(&host.mounts).find(|mount| mount.target == target);
    let tmpfs = |(path, options): (&String, &TmpfsOptions)| {
        let cleaned = clean_target(path, path).ok()?;
        (cleaned == target).then(|| MountOptions::Tmpfs(options.clone()))
    };
    asked.map(|mount| mount.options.clone()).or_else(|| host.tmpfs.iter().find_map(tmpfs))
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub status: Status,
    /// The host's pid, 0 when it does not run.
    pub pid: u32,
    pub exit_code: u8,
    pub error: String,
    pub oom_killed: bool,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub paused: bool,
    /// `None` without a health check, and before the first start.
    #[serde(default)]
    pub health: Option<Health>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    #[default]
    Created,
    Running,
    Paused,
    Restarting,
    Removing,
    Exited,
    Dead,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    Now,
    Already,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    Now,
    Already,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitCondition {
    NotRunning,
    NextExit,
    Removed,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// Send what is in the log before what comes.
    pub logs: bool,
}

#[derive(Debug, Clone, Default)]
pub struct LogQuery {
    pub stdout: bool,
    pub stderr: bool,
    pub follow: bool,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    /// The last N lines; `None` is all.
    pub tail: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    pub stream: Stream,
    pub at: Timestamp,
    /// With its newline, if it had one.
    pub text: Vec<u8>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Stats {
    pub memory_usage: u64,
    pub memory_limit: u64,
    pub memory_inactive_file: u64,
    pub cpu_total: u64,
    pub cpu_system: u64,
    pub online_cpus: u32,
    pub pids: u64,
    pub pids_limit: u64,
    /// Bytes and operations by block device; `None` where nothing counts them.
    pub block_io: Option<Vec<BlockIoCount>>,
    pub networks: BTreeMap<String, LinkCount>,
    /// Nanoseconds of the container's own time, in its programs and in the kernel for them.
    pub cpu_user: u64,
    pub cpu_kernel: u64,
    /// How often a quota held it back; `None` where nothing counts it.
    pub throttling: Option<Throttling>,
    /// The memory controller's own list (`memory.stat`).
    pub memory_details: BTreeMap<String, u64>,
    /// The most that was ever used, in bytes; `None` where nobody remembers it.
    pub memory_peak: Option<u64>,
}

/// What has passed a network interface.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkCount {
    pub received: Traffic,
    pub sent: Traffic,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    pub bytes: u64,
    pub packets: u64,
    pub errors: u64,
    pub dropped: u64,
}

#[derive(Debug, Clone, Default)]
pub struct CreateExec {
    pub cmd: Vec<String>,
    pub env: Vec<String>,
    pub user: String,
    pub working_dir: String,
    pub tty: bool,
    pub attach_stdin: bool,
    pub attach_stdout: bool,
    pub attach_stderr: bool,
    pub privileged: bool,
    /// As the user wrote them, such as `ctrl-p,ctrl-q`; empty is the default.
    pub detach_keys: String,
}

#[derive(Debug, Clone)]
pub struct ExecView {
    pub id: Id,
    pub container: Id,
    pub running: bool,
    pub exit_code: Option<u8>,
    pub pid: u32,
    pub create: CreateExec,
}

#[derive(Debug, Clone)]
pub struct Image {
    pub id: Digest,
    pub manifest: Digest,
    /// `nginx:latest` …
    pub tags: Vec<Reference>,
    /// `nginx@sha256:…` for what was pulled or pushed.
    pub digests: Vec<Reference>,
    pub config: image::ImageConfig,
    /// Bytes of the unpacked layers.
    pub size: u64,
    /// Of what a container of which image was committed to make it.
    pub parent: Option<Digest>,
    /// What was missing of its content when the engine opened, for people.
    pub damage: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemovedImage {
    Untagged(String),
    Deleted(Digest),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    pub name: String,
    pub created: Timestamp,
    pub mountpoint: String,
    pub labels: BTreeMap<String, String>,
    pub anonymous: bool,
    #[serde(default)]
    pub options: DriverOptions,
}

#[derive(Debug, Clone, Default)]
pub struct Info {
    pub id: String,
    pub containers: usize,
    pub running: usize,
    pub paused: usize,
    pub stopped: usize,
    pub images: usize,
    pub memory: u64,
    pub cpus: usize,
    pub kernel: String,
    pub operating_system: String,
    pub hostname: String,
    pub cgroup_version: String,
    /// Which of cpu, cpuset, memory and pids can be limited here.
    pub controllers: Vec<&'static str>,
    /// Whether the host passes packets on between its interfaces.
    pub ipv4_forwarding: bool,
    /// Whether containers have user namespaces unless told otherwise.
    pub supports_idmapped_layers: bool,
    pub data: String,
    /// What the machine's keeper should look at, a sentence each.
    pub warnings: Vec<String>,
}

/// Something that happened, as `docker events` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// `container`, `image`, `network`, `volume`
    pub kind: String,
    /// `create`, `start`, `die`, `destroy`, `pull`, …
    pub action: String,
    pub actor: String,
    pub attributes: BTreeMap<String, String>,
    pub at: Timestamp,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A container that was never started, for tests of pure functions.
    pub(crate) fn container(name: &str) -> Container {
        Container {
            id: Id::random(),
            name: name.parse().expect("a valid name"),
            created: Timestamp::UNIX_EPOCH,
            image: "busybox".to_owned(),
            image_id: Digest::of(b"image"),
            config: ContainerConfig::default(),
            host: HostConfig::default(),
            arguments: vec!["sh".to_owned()],
            id_range: None,
            state: State::default(),
            restart_count: 0,
            endpoints: Vec::new(),
            network: Networking::default(),
            mounts: Vec::new(),
            log_path: String::new(),
        }
    }

    /// A record as the version before the types wrote it.
    const OF_BEFORE: &str = include_str!("container/record-of-0.1.json");

    #[test]
    fn a_record_of_before_the_types_is_read() {
        use crate::mounts::{MissingSource, MountOptions};
        let container: Container = serde_json::from_str(OF_BEFORE).unwrap();
        let host = &container.host;
        assert_eq!(container.config.exposed_ports, ["80/tcp".parse().unwrap()]);
        assert_eq!(host.network_mode, NetworkMode::Bridge);
        assert_eq!(host.pid_mode, PidMode::Container("web".to_owned()));
        assert_eq!(host.restart_policy, RestartPolicy::OnFailure { maximum_retries: 3 });
        assert_eq!(host.log_driver, LogDriver::Local);
        assert_eq!(host.log_options.recorded(host.log_driver).unwrap().max_files, 2);
        assert_eq!(host.links[0].alias, "store");
        assert_eq!(host.dns, ["1.1.1.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(host.extra_hosts.len(), 1, "one that no start could use is left out");
        assert_eq!(host.ulimits[0].name(), "nofile");
        assert!(host.security_opt.no_new_privileges);
        let options: Vec<&MountOptions> =
            container.mounts.iter().map(|mount| &mount.options).collect();
        let MountOptions::Tmpfs(tmpfs) = options[0] else { panic!("{options:?}") };
        assert_eq!(tmpfs.words(), ["size=1m"]);
        let missing = |options: &MountOptions| match options {
            MountOptions::Bind(bind) => bind.missing,
            other => panic!("{other:?}"),
        };
        assert_eq!(missing(options[1]), MissingSource::MakeDirectory, "it was a -v");
        assert_eq!(missing(options[2]), MissingSource::Refuse, "it was a --mount");
        // What is written now is read as well.
        let written = serde_json::to_string(&container).unwrap();
        let again: Container = serde_json::from_str(&written).unwrap();
        assert_eq!((again.host, again.mounts), (container.host, container.mounts));
    }
}
