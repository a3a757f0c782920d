//! The flags of `run`, `create`, `start`, `exec` and `attach`.

use clap::Args;

use super::health;

/// Docker's flags for `run` and `create`. What it has and this does not is in `cli/refused.rs`.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct RunArguments {
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Run in the background and print the container's id
    #[arg(short, long)]
    pub detach: bool,
    /// Keep stdin open
    #[arg(short, long)]
    pub interactive: bool,
    /// Allocate a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Attach to stdin, stdout or stderr, and not to what is usual
    #[arg(short, long)]
    pub attach: Vec<String>,
    /// Remove the container when it exits
    #[arg(long)]
    pub rm: bool,
    /// Its name [default: a random one]
    #[arg(long)]
    pub name: Option<String>,
    /// A variable, as NAME=VALUE, or NAME for this shell's value
    #[arg(short, long)]
    pub env: Vec<String>,
    /// A file with a variable on each line
    #[arg(long)]
    pub env_file: Vec<String>,
    /// A label, as NAME=VALUE
    #[arg(short, long)]
    pub label: Vec<String>,
    /// A file with a label on each line
    #[arg(long)]
    pub label_file: Vec<String>,
    /// [address:]host port:container port[/protocol]
    #[arg(short, long)]
    pub publish: Vec<String>,
    /// Publish all exposed ports on free ports of the host
    #[arg(short = 'P', long)]
    pub publish_all: bool,
    /// A port that the program listens on, or a range
    #[arg(long)]
    pub expose: Vec<String>,
    /// SOURCE:TARGET[:OPTIONS], where the source is a path or a volume's name
    #[arg(short, long)]
    pub volume: Vec<String>,
    /// What makes volumes without a name: local
    #[arg(long)]
    pub volume_driver: Option<String>,
    /// Mount the volumes of this container, too
    #[arg(long)]
    pub volumes_from: Vec<String>,
    /// type=bind|volume|tmpfs,source=…,target=…[,readonly]
    #[arg(long)]
    pub mount: Vec<String>,
    /// TARGET[:OPTIONS] of a file system in memory
    #[arg(long)]
    pub tmpfs: Vec<String>,
    /// The directory the program starts in
    #[arg(short, long)]
    pub workdir: Option<String>,
    /// User and group, by name or number: USER[:GROUP]
    #[arg(short, long)]
    pub user: Option<String>,
    /// The program, in place of the image's
    #[arg(long)]
    pub entrypoint: Option<String>,
    /// What the container calls itself [default: its id]
    #[arg(short, long)]
    pub hostname: Option<String>,
    /// Its NIS domain name
    #[arg(long)]
    pub domainname: Option<String>,
    /// bridge, host, none, container:NAME, netns:NAME, or a network: NAME, or name=NAME,alias=…,ip=…; several
    /// networks by several flags
    #[arg(long, alias = "net")]
    pub network: Vec<String>,
    /// A further name of the container on its first network
    #[arg(long, alias = "net-alias")]
    pub network_alias: Vec<String>,
    /// Its IPv4 address on its first network
    #[arg(long)]
    pub ip: Option<String>,
    /// Its IPv6 address on its first network
    #[arg(long)]
    pub ip6: Option<String>,
    /// A further address on its first network, for talking to neighbours alone, such as 169.254.8.8
    #[arg(long)]
    pub link_local_ip: Vec<String>,
    /// The hardware address of its first network's interface
    #[arg(long)]
    pub mac_address: Option<String>,
    /// Another container and what this one is to call it, as NAME:ALIAS
    #[arg(long)]
    pub link: Vec<String>,
    /// A line of /etc/hosts, as NAME:ADDRESS
    #[arg(long)]
    pub add_host: Vec<String>,
    /// A server to ask for names
    #[arg(long)]
    pub dns: Vec<String>,
    /// A domain in which short names are looked for
    #[arg(long)]
    pub dns_search: Vec<String>,
    /// An option of resolv.conf(5), such as ndots:2
    #[arg(long, alias = "dns-opt")]
    pub dns_option: Vec<String>,
    /// no, on-failure[:N], always, unless-stopped
    #[arg(long)]
    pub restart: Option<String>,
    /// Memory it may use at most, such as 512m
    #[arg(short, long)]
    pub memory: Option<String>,
    /// Memory that is left to it when memory is short
    #[arg(long)]
    pub memory_reservation: Option<String>,
    /// Memory and swap together; -1 is as much swap as there is
    #[arg(long, allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    /// How gladly its memory is swapped, from 0 to 100
    #[arg(long, allow_hyphen_values = true)]
    pub memory_swappiness: Option<i64>,
    /// Share of the CPUs beside other containers
    #[arg(short, long)]
    pub cpu_shares: Option<u64>,
    /// CPUs it may use at most, such as 1.5
    #[arg(long)]
    pub cpus: Option<f64>,
    /// Microseconds in which --cpu-quota counts
    #[arg(long)]
    pub cpu_period: Option<u64>,
    /// Microseconds of CPU time in each --cpu-period
    #[arg(long, allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// The CPUs it may run on, such as 0-2,5
    #[arg(long)]
    pub cpuset_cpus: Option<String>,
    /// The memory nodes it may use, such as 0-1
    #[arg(long)]
    pub cpuset_mems: Option<String>,
    /// Processes and threads it may have; -1 is any number
    #[arg(long, allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// Share of block devices' time beside other containers, from 10 to 1000
    #[arg(long)]
    pub blkio_weight: Option<u16>,
    /// The same for one device, as PATH:WEIGHT
    #[arg(long)]
    pub blkio_weight_device: Vec<String>,
    /// Bytes a second that it may read from a device, as PATH:RATE
    #[arg(long)]
    pub device_read_bps: Vec<String>,
    /// Reads a second from a device, as PATH:RATE
    #[arg(long)]
    pub device_read_iops: Vec<String>,
    /// Bytes a second that it may write to a device, as PATH:RATE
    #[arg(long)]
    pub device_write_bps: Vec<String>,
    /// Writes a second to a device, as PATH:RATE
    #[arg(long)]
    pub device_write_iops: Vec<String>,
    /// Bytes that /dev/shm may hold, such as 64m
    #[arg(long)]
    pub shm_size: Option<String>,
    /// A limit of each process, as NAME=SOFT[:HARD]
    #[arg(long)]
    pub ulimit: Vec<String>,
    /// A capability it has besides the usual ones
    #[arg(long)]
    pub cap_add: Vec<String>,
    /// A capability it does without
    #[arg(long)]
    pub cap_drop: Vec<String>,
    /// no-new-privileges, seccomp=FILE, apparmor=PROFILE, systempaths=unconfined …
    #[arg(long)]
    pub security_opt: Vec<String>,
    /// All capabilities and devices of the host
    #[arg(long)]
    pub privileged: bool,
    /// Its files cannot be changed, but for volumes
    #[arg(long)]
    pub read_only: bool,
    /// A small first process that forwards signals and reaps
    #[arg(long)]
    pub init: bool,
    /// host, or container:NAME: whose processes it sees
    #[arg(long)]
    pub pid: Option<String>,
    /// private, shareable, host, none, or container:NAME: whose shared memory it has
    #[arg(long)]
    pub ipc: Option<String>,
    /// host: it has the host's name
    #[arg(long)]
    pub uts: Option<String>,
    /// host: its root is the host's
    #[arg(long)]
    pub userns: Option<String>,
    /// private or host: which cgroups it sees
    #[arg(long)]
    pub cgroupns: Option<String>,
    /// The cgroup that its own is in
    #[arg(long)]
    pub cgroup_parent: Option<String>,
    /// A further group of the user, by name or number
    #[arg(long)]
    pub group_add: Vec<String>,
    /// A setting of the kernel in its namespaces, as NAME=VALUE
    #[arg(long)]
    pub sysctl: Vec<String>,
    /// A device of the host, as PATH[:PATH IN IT[:rwm]]
    #[arg(long)]
    pub device: Vec<String>,
    /// Devices that it may make and use, such as c 42:* rwm
    #[arg(long)]
    pub device_cgroup_rule: Vec<String>,
    /// Where its output is kept: json-file, local, none …
    #[arg(long)]
    pub log_driver: Option<String>,
    /// An option of the log driver, such as max-size=10m
    #[arg(long)]
    pub log_opt: Vec<String>,
    /// The signal that asks it to end [default: the image's, else SIGTERM]
    #[arg(long)]
    pub stop_signal: Option<String>,
    /// Seconds to wait before killing [default: 10]
    #[arg(long, allow_hyphen_values = true)]
    pub stop_timeout: Option<i64>,
    #[command(flatten)]
    pub health: health::HealthArguments,
    /// How gladly the kernel ends it when memory is short, from -1000 to 1000
    #[arg(long, allow_hyphen_values = true)]
    pub oom_score_adj: Option<i64>,
    /// What runs it: bulkhead
    #[arg(long)]
    pub runtime: Option<String>,
    /// default: other kinds are Windows'
    #[arg(long)]
    pub isolation: Option<String>,
    /// The image of this platform, such as linux/arm64
    #[arg(long)]
    pub platform: Option<String>,
    /// When to pull the image: missing, always, never
    #[arg(long, default_value = "missing")]
    pub pull: String,
    /// Do not show how a pull goes
    #[arg(short, long)]
    pub quiet: bool,
    /// Accepted for scripts of Docker's: signatures are not looked at
    #[arg(long)]
    pub disable_content_trust: bool,
    /// Write the container's id to a file that is not there yet
    #[arg(long)]
    pub cidfile: Option<std::path::PathBuf>,
    #[command(flatten)]
    pub attached: AttachedArguments,
    /// The image, then what is run in it: from the image on nothing is a flag of ours, as with docker
    #[arg(required = true, trailing_var_arg = true, value_name = "IMAGE [COMMAND]")]
    pub image: Vec<String>,
}

impl RunArguments {
    pub fn image(&self) -> &str {
        self.image.first().map_or("", String::as_str)
    }

    pub fn command(&self) -> &[String] {
        self.image.get(1..).unwrap_or_default()
    }
}

/// How one is attached.
#[derive(Debug, Default, Args)]
pub struct AttachedArguments {
    /// The keys to leave with, such as ctrl-x,d [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS")]
    pub detach_keys: Option<String>,
    /// Pass signals on to the program [default: true]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub sig_proxy: Option<bool>,
}

/// Docker's flags for `exec`.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct ExecArguments {
    /// Print help
    #[arg(short, long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Run in the background
    #[arg(short, long)]
    pub detach: bool,
    /// The keys to leave with, such as ctrl-x,d [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS")]
    pub detach_keys: Option<String>,
    /// Keep stdin open
    #[arg(short, long)]
    pub interactive: bool,
    /// Allocate a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// A variable, as NAME=VALUE, or NAME for this shell's value
    #[arg(short, long)]
    pub env: Vec<String>,
    /// A file with a variable on each line
    #[arg(long)]
    pub env_file: Vec<String>,
    /// User and group, by name or number: USER[:GROUP]
    #[arg(short, long)]
    pub user: Option<String>,
    /// The directory the program starts in
    #[arg(short, long)]
    pub workdir: Option<String>,
    /// All capabilities
    #[arg(long)]
    pub privileged: bool,
    pub container: String,
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// Docker's flags for `start`.
#[derive(Debug, Args)]
pub struct StartArguments {
    /// Attach output, wait, and end with its exit status
    #[arg(short, long)]
    pub attach: bool,
    /// The keys to leave with, such as ctrl-x,d [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS")]
    pub detach_keys: Option<String>,
    /// Attach input, too
    #[arg(short, long)]
    pub interactive: bool,
    #[arg(required = true)]
    pub containers: Vec<String>,
}

/// Docker's flags for `attach`.
#[derive(Debug, Args)]
pub struct AttachArguments {
    #[command(flatten)]
    pub attached: AttachedArguments,
    /// Do not attach input
    #[arg(long)]
    pub no_stdin: bool,
    pub container: String,
}
