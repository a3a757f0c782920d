//! Settings of one interface of a container (Docker's `com.docker.network.endpoint.sysctls`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// `net.FAMILY.KIND.IFNAME.SETTING=VALUE`: what it changes is the interface's alone, and so never the
/// host's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InterfaceSysctl {
    family: String,
    kind: String,
    setting: String,
    value: String,
}

impl InterfaceSysctl {
    /// The name that stands for the interface's, which is not known yet.
    const PLACE: &str = "IFNAME";

    /// The file of an interface of this name. Each part of it is a word that was checked, but for the
    /// interface, whose name the kernel has taken.
    pub(crate) fn file(&self, interface: &str) -> String {
        format!("/proc/sys/net/{}/{}/{interface}/{}", self.family, self.kind, self.setting)
    }

    pub(crate) fn value(&self) -> &str {
        &self.value
    }

    fn name(&self) -> String {
        format!("net.{}.{}.{}.{}", self.family, self.kind, Self::PLACE, self.setting)
    }
}

impl FromStr for InterfaceSysctl {
    type Err = String;

    /// Clients write the place in small letters too: the docker CLI makes the keys of options small.
    fn from_str(text: &str) -> Result<Self, String> {
        let is_word = |word: &str| {
            let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            !word.is_empty() && word.bytes().all(|byte| is_letter(byte) || byte == b'_')
        };
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        let is_value = !value.is_empty() && !value.contains(char::is_control);
        match name.split('.').collect::<Vec<_>>()[..] {
            ["net", family @ ("ipv4" | "ipv6" | "mpls"), kind, Self::PLACE | "ifname", setting]
                if is_word(kind) && is_word(setting) && is_value =>
            {
                Ok(Self {
                    family: family.to_owned(),
                    kind: kind.to_owned(),
                    setting: setting.to_owned(),
                    value: value.to_owned(),
                })
            }
            // moby: daemon/container_operations.go, validateEndpointSettings
            _ => Err(format!(
                "unrecognised network interface sysctl '{}'; represent 'net.X.Y.ethN.Z=V' as \
                 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'",
                text.escape_debug()
            )),
        }
    }
}

impl fmt::Display for InterfaceSysctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name(), self.value)
    }
}

impl TryFrom<String> for InterfaceSysctl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<InterfaceSysctl> for String {
    fn from(sysctl: InterfaceSysctl) -> Self {
        sysctl.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_one_interface_are_read() {
        for text in ["net.ipv4.conf.IFNAME.log_martians=1", "net.mpls.conf.ifname.input=1"] {
            let read: InterfaceSysctl = text.parse().unwrap();
            assert_eq!(read.to_string(), text.replace("ifname", "IFNAME"));
        }
        let read: InterfaceSysctl = "net.ipv6.conf.IFNAME.accept_ra=2".parse().unwrap();
        assert_eq!(read.file("web0"), "/proc/sys/net/ipv6/conf/web0/accept_ra");
        assert_eq!(read.value(), "2");
    }

    #[test]
    fn no_other_is() {
        for text in [
            "",
            "net.ipv4.conf.IFNAME.log_martians",
            "net.ipv4.conf.IFNAME.log_martians=",
            "net.ipv4.conf.eth0.log_martians=1",
            "net.ipv4.conf.all.log_martians=1",
            "net.ipv4.ip_forward=1",
            "kernel.ipv4.conf.IFNAME.x=1",
            "net.unix.conf.IFNAME.x=1",
            "net.ipv4.conf.IFNAME.a.b=1",
            "net.ipv4.conf.IFNAME./x=1",
            "net.ipv4...IFNAME.x=1",
            "net.ipv4.conf.IFNAME.x=1\n2",
        ] {
            let error = text.parse::<InterfaceSysctl>().unwrap_err();
            assert!(error.contains("net.X.Y.IFNAME.Z=V"), "{text}");
        }
    }
}
