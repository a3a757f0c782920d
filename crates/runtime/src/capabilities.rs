//! Capability sets: names, the default set, and what `--cap-add` and `--cap-drop` make of it.

use serde::{Deserialize, Serialize};

use crate::Capabilities;

/// Why a capability set could not be resolved, in the words of Docker's API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CapabilityError {
    #[error("invalid CapAdd: unknown capability: \"{0}\"")]
    UnknownAdd(String),
    #[error("invalid CapDrop: unknown capability: \"{0}\"")]
    UnknownDrop(String),
}

/// Resolves `--cap-add`, `--cap-drop` and `--privileged` as Docker does
/// (moby: daemon/pkg/oci/caps/utils.go, `TweakCapabilities`).
///
/// Names are in any case, with or without `CAP_`; `ALL` stands for every one. Adding wins over the
/// defaults, dropping wins over `--cap-add ALL`, and what is both added and dropped by name is
/// added. `--privileged` gives all of them, whatever else is asked, once the names are known to be
/// names. `default` is what they start from.
pub fn resolve(
    default: Capabilities,
    add: &[String],
    drop: &[String],
    privileged: bool,
) -> Result<Capabilities, CapabilityError> {
    let add = parse_list(add).map_err(CapabilityError::UnknownAdd)?;
    let drop = parse_list(drop).map_err(CapabilityError::UnknownDrop)?;
    if privileged {
        return Ok(Capabilities::ALL);
    }
    Ok(match (add.all, drop.all) {
        (true, _) => Capabilities::ALL.without(drop.named),
        (false, true) => add.named,
        (false, false) => default.without(drop.named).with(add.named),
    })
}

/// Looks up one capability by its Docker name (`NET_ADMIN`, `cap_net_admin`): its bit number.
pub fn parse(name: &str) -> Option<u8> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|known| *known == bare).map(|bit| bit as u8)
}

impl Capabilities {
    pub const NONE: Self = Self(0);

    /// Every capability that this program knows; a kernel may have fewer (see [`Self::available`]).
    pub const ALL: Self = Self((1 << NAMES.len()) - 1);

    /// What a container gets unless told otherwise, wherever its namespaces are from: Docker's 14
    /// without `NET_RAW`, `MKNOD` and `AUDIT_WRITE`.
    pub const DEFAULT: Self = Self(
        1 << CHOWN
            | 1 << DAC_OVERRIDE
            | 1 << FOWNER
            | 1 << FSETID
            | 1 << KILL
            | 1 << SETGID
            | 1 << SETUID
            | 1 << SETPCAP
            | 1 << NET_BIND_SERVICE
            | 1 << SYS_CHROOT
            | 1 << SETFCAP,
    );

    /// What a container gets that has user and network namespaces of its own and a filter without
    /// packet sockets: `NET_RAW` is good for ping there, and for nothing that the bridge lets through.
    pub const OWN_NETWORK: Self = Self(Self::DEFAULT.0 | 1 << NET_RAW);

    /// Reads this process's own bounding set, beyond which no container can be given anything.
    ///
    /// Where it cannot be read the answer is [`Self::ALL`], and capset(2) decides.
    pub fn available() -> Self {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        bounding_set(&status).unwrap_or(Self::ALL)
    }

    pub fn has(self, bit: u8) -> bool {
        bit < 64 && self.0 & (1 << bit) != 0
    }

    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The names, with `CAP_` and in the order of their bits, as `docker inspect` shows them.
    pub fn names(self) -> Vec<String> {
        let named = NAMES.iter().enumerate().filter(|(bit, _)| self.has(*bit as u8));
        named.map(|(_, name)| format!("CAP_{name}")).collect()
    }
}

/// The kernel's five sets of a thread (capabilities(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilitySets {
    pub bounding: Capabilities,
    pub effective: Capabilities,
    pub permitted: Capabilities,
    pub inheritable: Capabilities,
    pub ambient: Capabilities,
}

impl CapabilitySets {
    /// `set` for as long as the process does not become another user: what Docker gives.
    pub fn without_inheritance(set: Capabilities) -> Self {
        let none = Capabilities::NONE;
        Self { bounding: set, effective: set, permitted: set, inheritable: none, ambient: none }
    }

    /// Reads the names of `config.json`; those that are unknown are returned beside, for a warning
    /// (config.md, `capabilities`: an unknown one must not be an error, nor one that cannot be
    /// granted).
    pub fn from_names(names: &bulkhead_types::oci::CapabilityNames) -> (Self, Vec<String>) {
        let mut unknown = Vec::new();
        let mut set = |names: &[String]| {
            names.iter().fold(Capabilities::NONE, |set, name| match parse(name) {
                Some(bit) => set.with(Capabilities(1 << bit)),
                None => {
                    if !unknown.contains(name) {
                        unknown.push(name.clone());
                    }
                    set
                }
            })
        };
        let sets = Self {
            bounding: set(&names.bounding),
            effective: set(&names.effective),
            permitted: set(&names.permitted),
            inheritable: set(&names.inheritable),
            ambient: set(&names.ambient),
        };
        (sets, unknown)
    }
}

#[derive(Debug)]
struct List {
    all: bool,
    named: Capabilities,
}

/// On failure returns the name as Docker repeats it: in upper case and with its prefix.
fn parse_list(names: &[String]) -> Result<List, String> {
    let mut list = List { all: false, named: Capabilities::NONE };
    for name in names {
        if name.eq_ignore_ascii_case("ALL") {
            list.all = true;
            continue;
        }
        let Some(bit) = parse(name) else {
            let upper = name.to_ascii_uppercase();
            let prefix = if upper.starts_with("CAP_") { "" } else { "CAP_" };
            return Err(format!("{prefix}{upper}"));
        };
        list.named = list.named.with(Capabilities(1 << bit));
    }
    Ok(list)
}

fn bounding_set(status: &str) -> Option<Capabilities> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"))?;
    u64::from_str_radix(line.trim(), 16).ok().map(Capabilities)
}

pub const CHOWN: u8 = 0;
pub const DAC_OVERRIDE: u8 = 1;
pub const DAC_READ_SEARCH: u8 = 2;
pub const FOWNER: u8 = 3;
pub const FSETID: u8 = 4;
pub const KILL: u8 = 5;
pub const SETGID: u8 = 6;
pub const SETUID: u8 = 7;
pub const SETPCAP: u8 = 8;
pub const NET_BIND_SERVICE: u8 = 10;
pub const NET_ADMIN: u8 = 12;
pub const NET_RAW: u8 = 13;
pub const SYS_CHROOT: u8 = 18;
pub const SYS_ADMIN: u8 = 21;
pub const MKNOD: u8 = 27;
pub const AUDIT_WRITE: u8 = 29;
pub const SETFCAP: u8 = 31;

/// By bit number (capabilities(7), linux/capability.h up to Linux 5.9, which added the last).
pub const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn names_stand_at_their_bits() {
        for (bit, name) in [
            (CHOWN, "CHOWN"),
            (DAC_OVERRIDE, "DAC_OVERRIDE"),
            (DAC_READ_SEARCH, "DAC_READ_SEARCH"),
            (FOWNER, "FOWNER"),
            (FSETID, "FSETID"),
            (KILL, "KILL"),
            (SETGID, "SETGID"),
            (SETUID, "SETUID"),
            (SETPCAP, "SETPCAP"),
            (NET_BIND_SERVICE, "NET_BIND_SERVICE"),
            (NET_ADMIN, "NET_ADMIN"),
            (NET_RAW, "NET_RAW"),
            (SYS_CHROOT, "SYS_CHROOT"),
            (SYS_ADMIN, "SYS_ADMIN"),
            (MKNOD, "MKNOD"),
            (AUDIT_WRITE, "AUDIT_WRITE"),
            (SETFCAP, "SETFCAP"),
            (40, "CHECKPOINT_RESTORE"),
        ] {
            assert_eq!(NAMES[bit as usize], name);
            assert_eq!(parse(name), Some(bit));
            assert_eq!(parse(&format!("cap_{}", name.to_lowercase())), Some(bit));
        }
    }

    #[test]
    fn the_default_set_is_dockers_without_three() {
        // Docker's own set is 0xa80425fb (its CapEff in /proc/PID/status)
        let removed = 1 << NET_RAW | 1 << MKNOD | 1 << AUDIT_WRITE;
        assert_eq!(Capabilities::DEFAULT.0, 0xa804_25fb & !removed);
        assert_eq!(Capabilities::DEFAULT.names().len(), 11);
    }

    #[test]
    fn adds_and_drops_combine_as_in_docker() {
        let all = Capabilities::ALL.0;
        let default = Capabilities::DEFAULT.0;
        let net_admin = 1u64 << NET_ADMIN;
        let chown = 1u64 << CHOWN;
        for (add, drop, privileged, want) in [
            (&[][..], &[][..], false, default),
            (&[], &[], true, all),
            (&["NET_ADMIN"], &[], false, default | net_admin),
            (&["cap_net_admin"], &["Chown"], false, (default | net_admin) & !chown),
            (&["ALL"], &[], false, all),
            (&["all"], &["CAP_CHOWN"], false, all & !chown),
            (&["ALL", "NET_ADMIN"], &["NET_ADMIN"], false, all & !net_admin),
            (&[], &["ALL"], false, 0),
            (&["CHOWN"], &["ALL"], false, chown),
            (&["CHOWN"], &["CHOWN"], false, default),
            (&["ALL"], &["ALL"], false, all),
            (&["CHOWN"], &["ALL"], true, all),
        ] {
            let got = resolve(Capabilities::DEFAULT, &strings(add), &strings(drop), privileged);
            assert_eq!(got, Ok(Capabilities(want)), "+{add:?} -{drop:?} {privileged}");
        }
    }

    #[test]
    fn net_raw_of_an_own_network_can_be_dropped() {
        let of = |add: &[&str], drop: &[&str]| {
            resolve(Capabilities::OWN_NETWORK, &strings(add), &strings(drop), false).unwrap()
        };
        assert!(of(&[], &[]).has(NET_RAW));
        assert!(!of(&[], &["NET_RAW"]).has(NET_RAW));
        assert_eq!(of(&[], &["ALL"]), Capabilities::NONE);
    }

    #[test]
    fn unknown_names_are_refused_in_dockers_words() {
        for (add, drop, want) in [
            ("net_admn", "", "invalid CapAdd: unknown capability: \"CAP_NET_ADMN\""),
            ("", "CAP_X", "invalid CapDrop: unknown capability: \"CAP_X\""),
            ("NET ADMIN", "", "invalid CapAdd: unknown capability: \"CAP_NET ADMIN\""),
            ("CAP_ALL", "", "invalid CapAdd: unknown capability: \"CAP_ALL\""),
        ] {
            let list = |name: &str| if name.is_empty() { vec![] } else { vec![name.to_owned()] };
            for privileged in [false, true] {
                let none = Capabilities::NONE;
                let error = resolve(none, &list(add), &list(drop), privileged).unwrap_err();
                assert_eq!(error.to_string(), want);
            }
        }
    }

    #[test]
    fn the_bounding_set_is_read_from_status() {
        assert_eq!(
            bounding_set("Name:\tx\nCapBnd:\t000001feffffffff\n").unwrap().0,
            0x1fe_ffff_ffff
        );
        assert_eq!(bounding_set("Name:\tx\n"), None);
        assert_ne!(Capabilities::available(), Capabilities::NONE);
    }
}
