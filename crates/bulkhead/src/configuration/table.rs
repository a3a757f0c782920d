//! Every key of dockerd's `daemon.json` and every flag of dockerd 28: done, without a meaning here, or
//! refused, each with its reason. The flags of the command line are made from it, and a test walks dockerd's
//! own list (`dockerd.txt`) against it.

use Kind::{
    Blocks, List, Map, Named, NetworkMap, Number, Object, Runtimes, Size, Switch, Switches, Text,
    Ulimits, Words,
};
use Reload::{Live, Restart};
use Verdict::{Done, Ignored, Refused};

/// One key of the file, and the flag that says the same.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    pub name: &'static str,
    /// Without its dashes; empty where only the file has it.
    pub flag: &'static str,
    pub short: Option<char>,
    /// Bulkhead's own name for the flag, which is older.
    pub alias: Option<&'static str>,
    pub kind: Kind,
    pub verdict: Verdict,
}

/// What stands behind a key or a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Number,
    /// Bytes, as a number or as in `64M`.
    Size,
    Switch,
    /// A list; the flag may be repeated.
    List,
    /// The same; the flag may also have several, with commas between.
    Words,
    /// `NAME=VALUE`
    Map,
    /// `NAME=true`
    Switches,
    /// `DRIVER=NAME=VALUE`
    NetworkMap,
    /// `base=BLOCK,size=PREFIX`
    Blocks,
    /// `NAME=SOFT[:HARD]`
    Ulimits,
    /// `NAME=PATH`
    Runtimes,
    /// An object that only the file has.
    Object,
    /// As [`Kind::Text`], in the object of that name: `proxies`.
    Named(&'static str),
}

/// What becomes of it.
#[derive(Debug, Clone, Copy)]
pub enum Verdict {
    /// What it does, for `--help`.
    Done(&'static str, Reload),
    /// Nothing, which the log says with this reason.
    Ignored(&'static str),
    /// An error with this reason, unless the value asks for nothing (`false`, `0`, `""`, `[]`, `{}`).
    Refused(&'static str),
}

/// Whether SIGHUP is enough for another value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    Live,
    Restart,
}

impl Key {
    pub fn reloads(&self) -> bool {
        matches!(self.verdict, Done(_, Live))
    }
}

/// The key of that name.
pub fn key(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

const fn key_of(name: &'static str, flag: &'static str, kind: Kind, verdict: Verdict) -> Key {
    Key { name, flag, short: None, alias: None, kind, verdict }
}

/// A key whose flag has the same name.
const fn same(name: &'static str, kind: Kind, verdict: Verdict) -> Key {
    key_of(name, name, kind, verdict)
}

const fn with_short(short: char, key: Key) -> Key {
    Key { short: Some(short), ..key }
}

const fn with_alias(alias: &'static str, key: Key) -> Key {
    Key { alias: Some(alias), ..key }
}

const NO_CONTAINERD: &str = "containers, images and plugins are not containerd's here";
const NO_SWARM: &str =
    "it is of a swarm, which Bulkhead is no part of: schedule tasks with its ECS API";
const NO_PROXY: &str = "registries are reached directly: leave it out, or use a registry mirror";
const KERNEL_PUBLISHES: &str = "there is no userland proxy: the kernel leads published ports to their containers, loopback too";

/// In the order of `dockerd --help`, with what only the file has at its end.
pub const KEYS: &[Key] = &[
    key_of(
        "runtimes",
        "add-runtime",
        Runtimes,
        Refused("no other runtime is run by this engine: `bulkhead oci` is itself one for others"),
    ),
    same(
        "allow-direct-routing",
        Switch,
        Refused("containers are reached by published ports alone: name them with --publish"),
    ),
    key_of(
        "authorization-plugins",
        "authorization-plugin",
        List,
        Refused(
            "there are no plugins: give clients a socket of their own with --socket PATH:role=…",
        ),
    ),
    with_alias(
        "bridge-address",
        same(
            "bip",
            Text,
            Done(
                "The default bridge's address, such as 172.30.0.1/16 (default: the first free one)",
                Restart,
            ),
        ),
    ),
    same("bip6", Text, Done("The default bridge's IPv6 address, such as fd00:1::1/64", Restart)),
    with_short(
        'b',
        same(
            "bridge",
            Text,
            Done(
                "The bridge that containers are plugged into (default: bulkhead0); it is the engine's own",
                Restart,
            ),
        ),
    ),
    key_of(
        "cdi-spec-dirs",
        "cdi-spec-dir",
        List,
        Refused("devices are named by --device, not by CDI"),
    ),
    same(
        "cgroup-parent",
        Text,
        Done("The cgroup that holds those of the containers (default: bulkhead)", Restart),
    ),
    same("containerd", Text, Ignored(NO_CONTAINERD)),
    same("containerd-namespace", Text, Ignored(NO_CONTAINERD)),
    same("containerd-plugins-namespace", Text, Ignored(NO_CONTAINERD)),
    same("cpu-rt-period", Number, Refused("real-time scheduling is not limited here")),
    same("cpu-rt-runtime", Number, Refused("real-time scheduling is not limited here")),
    same("cri-containerd", Switch, Refused("there is no containerd here for a kubelet to use")),
    with_alias(
        "data",
        same(
            "data-root",
            Text,
            Done(
                "Where images, volumes and records are kept (default: /var/lib/bulkhead)",
                Restart,
            ),
        ),
    ),
    with_short('D', same("debug", Switch, Done("Write everything into the log", Live))),
    key_of(
        "default-address-pools",
        "default-address-pool",
        Blocks,
        Done("A block whose subnets networks get: base=10.0.0.0/8,size=24 (repeatable)", Restart),
    ),
    same(
        "default-cgroupns-mode",
        Text,
        Done("The containers' cgroup namespace: private (the default) or host", Live),
    ),
    same(
        "default-gateway",
        Text,
        Done("Another IPv4 default route of the default network than its bridge", Restart),
    ),
    same("default-gateway-v6", Text, Done("The same for IPv6", Restart)),
    same(
        "default-ipc-mode",
        Text,
        Done("The containers' IPC namespace: private (the default) or shareable", Live),
    ),
    key_of(
        "default-network-opts",
        "default-network-opt",
        NetworkMap,
        Done("An option of new networks of a driver: DRIVER=NAME=VALUE (repeatable)", Live),
    ),
    same(
        "default-runtime",
        Text,
        Done("By which name the runtime is shown; it is always Bulkhead's own", Live),
    ),
    same("default-shm-size", Size, Done("The size of containers' /dev/shm (default: 64M)", Live)),
    key_of(
        "default-ulimits",
        "default-ulimit",
        Ulimits,
        Done("A limit of containers' processes: NAME=SOFT[:HARD] (repeatable)", Live),
    ),
    same("dns", Words, Done("A DNS server for containers (repeatable)", Live)),
    key_of("dns-opts", "dns-opt", List, Done("A DNS option for containers (repeatable)", Live)),
    same("dns-search", List, Done("A DNS search domain for containers (repeatable)", Live)),
    key_of(
        "exec-opts",
        "exec-opt",
        List,
        Done("native.cgroupdriver=cgroupfs, which is how it is", Restart),
    ),
    with_alias(
        "run",
        same(
            "exec-root",
            Text,
            Done(
                "Where the engine's own sockets are; emptied by a reboot (default: /run/bulkhead)",
                Restart,
            ),
        ),
    ),
    same("experimental", Switch, Ignored("nothing here is experimental: all that there is, is on")),
    key_of(
        "features",
        "feature",
        Switches,
        Done("A feature to switch: NAME=true (repeatable)", Live),
    ),
    same(
        "fixed-cidr",
        Text,
        Done("The part of the default network that addresses are drawn from", Restart),
    ),
    same("fixed-cidr-v6", Text, Done("The same for IPv6", Restart)),
    with_short(
        'G',
        same(
            "group",
            Text,
            Done(
                "Who may use the engine's sockets (default: docker or bulkhead, if there)",
                Restart,
            ),
        ),
    ),
    with_short(
        'H',
        key_of(
            "hosts",
            "host",
            List,
            Done(
                "Where the API listens besides the engine's own socket: unix://PATH, \
                 tcp://ADDRESS[:PORT] or fd:// (repeatable)",
                Restart,
            ),
        ),
    ),
    key_of(
        "host-gateway-ips",
        "host-gateway-ip",
        Words,
        Done("What host-gateway means in --add-host, one address of each family", Live),
    ),
    key_of("http-proxy", "http-proxy", Named("proxies"), Refused(NO_PROXY)),
    key_of("https-proxy", "https-proxy", Named("proxies"), Refused(NO_PROXY)),
    same(
        "icc",
        Switch,
        Done("Containers of the default network reach each other (default: true)", Restart),
    ),
    same("init", Switch, Done("Run an init in containers that do not say", Live)),
    same("init-path", Text, Refused("the init is Bulkhead's own")),
    key_of(
        "insecure-registries",
        "insecure-registry",
        List,
        Done("A registry to reach by plain HTTP: HOST[:PORT] (repeatable)", Live),
    ),
    same(
        "ip",
        Text,
        Done(
            "Where the default network's ports are published that name no address (default: 0.0.0.0)",
            Restart,
        ),
    ),
    same(
        "ip-forward",
        Switch,
        Done("Let the host pass packets on between its interfaces (default: true)", Restart),
    ),
    same(
        "ip-forward-no-drop",
        Switch,
        Ignored("the policy of the host's own forward chain is never changed"),
    ),
    same(
        "ip-masq",
        Switch,
        Done("Packets leave the default network with the host's address (default: true)", Restart),
    ),
    same(
        "ip6tables",
        Switch,
        Done("Always true: the rules are what keeps containers apart", Restart),
    ),
    same(
        "iptables",
        Switch,
        Done("Always true: the rules are what keeps containers apart", Restart),
    ),
    same("ipv6", Switch, Done("Give the default network IPv6 addresses", Restart)),
    key_of("labels", "label", List, Done("KEY=VALUE for `docker info` to show (repeatable)", Live)),
    same("live-restore", Switch, Done("Always true: containers outlive the engine", Live)),
    same("log-driver", Text, Done("The driver of containers' logs (default: json-file)", Live)),
    same("log-format", Text, Done("The engine's own log: text (the default) or json", Restart)),
    with_short(
        'l',
        same(
            "log-level",
            Text,
            Done("What is in the engine's own log: debug, info (the default), warn, error", Live),
        ),
    ),
    key_of(
        "log-opts",
        "log-opt",
        Map,
        Done("An option of containers' logs: NAME=VALUE (repeatable)", Live),
    ),
    same(
        "max-concurrent-downloads",
        Number,
        Done("Layers of an image that are fetched at once (default: 3)", Live),
    ),
    same(
        "max-concurrent-uploads",
        Number,
        Done("Layers of an image that are sent at once (default: 5)", Live),
    ),
    same(
        "max-download-attempts",
        Number,
        Done("How often a layer is asked for whose connection breaks (default: 5)", Live),
    ),
    same("metrics-addr", Text, Refused("no metrics are served: see `docker stats`")),
    same(
        "mtu",
        Number,
        Done("Bytes of a packet on the default network (default: the default route's)", Restart),
    ),
    same("network-control-plane-mtu", Number, Ignored(NO_SWARM)),
    same(
        "no-new-privileges",
        Switch,
        Done("Programs in containers gain no privileges unless the container says so", Live),
    ),
    key_of("no-proxy", "no-proxy", Named("proxies"), Ignored("there is no proxy to go around")),
    key_of("node-generic-resources", "node-generic-resource", List, Refused(NO_SWARM)),
    with_short(
        'p',
        same("pidfile", Text, Done("A file to write the engine's process number into", Restart)),
    ),
    same("raw-logs", Switch, Done("No colours in the engine's own log", Restart)),
    key_of(
        "registry-mirrors",
        "registry-mirror",
        List,
        Done(
            "Where images without a registry in their name are looked for first (repeatable)",
            Live,
        ),
    ),
    same(
        "rootless",
        Switch,
        Refused("the engine runs as root: `bulkhead oci` is what runs without"),
    ),
    same(
        "seccomp-profile",
        Text,
        Done("The containers' filter: builtin (the default), unconfined or a file", Live),
    ),
    same(
        "selinux-enabled",
        Switch,
        Refused("containers are confined by namespaces, capabilities, seccomp and landlock alone"),
    ),
    same(
        "shutdown-timeout",
        Number,
        Done("Seconds that `bulkhead down` gives containers to end (default: 2)", Live),
    ),
    with_short('s', same("storage-driver", Text, Done("overlay2, which is how it is", Restart))),
    key_of("storage-opts", "storage-opt", List, Refused("layers of images have no options")),
    same("swarm-default-advertise-addr", Text, Refused(NO_SWARM)),
    same(
        "tls",
        Switch,
        Done("Use TLS on tcp://; false allows it without, for everybody who reaches it", Restart),
    ),
    same(
        "tlscacert",
        Text,
        Done("Who has to have signed clients' certificates (default: ~/.docker/ca.pem)", Live),
    ),
    same("tlscert", Text, Done("The engine's certificate (default: ~/.docker/cert.pem)", Live)),
    same("tlskey", Text, Done("Its key (default: ~/.docker/key.pem)", Live)),
    same(
        "tlsverify",
        Switch,
        Done("Use TLS on tcp://, and let in whoever has a certificate", Restart),
    ),
    same("userland-proxy", Switch, Ignored(KERNEL_PUBLISHES)),
    same("userland-proxy-path", Text, Ignored(KERNEL_PUBLISHES)),
    same(
        "userns-remap",
        Text,
        Done("default, which is how it is: every container has ids of its own", Restart),
    ),
    // hidden in dockerd's help, or of its file alone, or of 29
    same(
        "bridge-accept-fwmark",
        Text,
        Refused("rules go by interfaces and addresses, not by marks"),
    ),
    same("firewall-backend", Text, Done("nftables, which is how it is", Restart)),
    same("network-diagnostic-port", Number, Refused(NO_SWARM)),
    same("swarm-raft-election-tick", Number, Refused(NO_SWARM)),
    same("swarm-raft-heartbeat-tick", Number, Refused(NO_SWARM)),
    key_of(
        "allow-nondistributable-artifacts",
        "",
        List,
        Ignored("no layer names another place to be fetched from"),
    ),
    key_of(
        "api-cors-header",
        "",
        Text,
        Refused("pages of other sites reach no API: use a reverse proxy"),
    ),
    key_of(
        "builder",
        "",
        Object,
        Refused("the cache of builds is not emptied by rules: use `docker builder prune --filter`"),
    ),
    key_of("deprecated-key-path", "", Text, Ignored("Docker's manifests of 2015 are not written")),
    key_of(
        "host-gateway-ip",
        "",
        Text,
        Done("host-gateway-ips by the name that it had before, with one address", Live),
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// `dockerd --help` of 28.5.2, a flag on a line with `=` behind those that have a value, and below it the
    /// keys of its file (moby: daemon/config).
    const DOCKERD: &str = include_str!("dockerd.txt");

    fn section(title: &str) -> Vec<&'static str> {
        let rest = DOCKERD.split_once(&format!("# {title}\n")).expect(title).1;
        rest.lines().take_while(|line| !line.starts_with('#')).filter(|it| !it.is_empty()).collect()
    }

    #[test]
    fn every_flag_of_dockerd_is_decided() {
        // the program's own, in `engine.rs`
        let own = ["config-file", "help", "validate", "version"];
        for line in section("flags") {
            let (flag, takes_value) = match line.strip_suffix('=') {
                Some(flag) => (flag, true),
                None => (line, false),
            };
            let (short, flag) = match flag.split_once(' ') {
                Some((short, flag)) => (short.chars().next(), flag),
                None => (None, flag),
            };
            if own.contains(&flag) {
                continue;
            }
            let key = KEYS.iter().find(|key| key.flag == flag);
            let key = key.unwrap_or_else(|| panic!("--{flag} is not decided"));
            assert_eq!(key.short, short, "--{flag}");
            assert_eq!(key.kind != Switch, takes_value, "--{flag}");
        }
    }

    #[test]
    fn every_key_of_dockerds_file_is_decided() {
        for name in section("keys") {
            assert!(key(name).is_some(), "{name} is not decided");
        }
    }

    #[test]
    fn nothing_is_decided_twice_and_reasons_are_sentences() {
        for (place, one) in KEYS.iter().enumerate() {
            let others = &KEYS[place + 1..];
            assert!(others.iter().all(|other| other.name != one.name), "{}", one.name);
            let flags = others.iter().filter(|other| !other.flag.is_empty());
            assert!(flags.into_iter().all(|other| other.flag != one.flag), "{}", one.flag);
            let (Done(why, _) | Ignored(why) | Refused(why)) = one.verdict;
            assert!(why.len() > 10 && !why.ends_with('.'), "{}: {why}", one.name);
        }
    }
}
