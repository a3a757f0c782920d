//! File systems that a volume names, mounted by the kernel: `-o type=nfs`, `cifs`, `ext4` and others.

use std::fmt;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};

use bulkhead_sys::mount::Attributes;
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use crate::{Class, EngineError};

/// A file system by mount(8)'s words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileSystem {
    kind: &'static str,
    device: String,
    options: Vec<String>,
}

/// Those that a server has, and must be named by an address.
const REMOTE: [&str; 4] = ["nfs", "nfs4", "cifs", "smb3"];

const KINDS: [&str; 16] = [
    "nfs", "nfs4", "cifs", "smb3", "ext2", "ext3", "ext4", "xfs", "btrfs", "vfat", "squashfs",
    "iso9660", "9p", "ceph", "virtiofs", "overlay",
];

impl FileSystem {
    /// # Errors
    /// Names a type that is not known, and what is missing.
    pub(crate) fn parse(
        kind: &str,
        device: &str,
        options: Vec<String>,
    ) -> Result<Self, EngineError> {
        let kind = KINDS.into_iter().find(|known| *known == kind).ok_or_else(|| {
            EngineError::new(
                Class::Unsupported,
                format!(
                    "volume type={kind} is not supported by Bulkhead: the types are none (with \
                     o=bind), tmpfs, {}",
                    KINDS.join(", ")
                ),
            )
        })?;
        let invalid =
            |what: String| Err(EngineError::invalid(format!("invalid volume options: {what}")));
        match kind {
            "nfs" | "nfs4" if !options.iter().any(|option| option.starts_with("addr=")) => {
                invalid("nfs needs the server's address, o=addr=ADDRESS".to_owned())
            }
            "nfs" | "nfs4" if !device.contains(":/") => {
                invalid(format!("device {device:?} of nfs is written :/EXPORT"))
            }
            "cifs" | "smb3" if share(device).is_none() => {
                invalid(format!("device {device:?} of {kind} is written //SERVER/SHARE"))
            }
            _ => Ok(Self { kind, device: device.to_owned(), options }),
        }
    }

    /// Mounts it in no place.
    pub(crate) fn mount(&self) -> Result<OwnedFd, MountError> {
        let failed =
            |device: &str, cause| MountError { kind: self.kind, device: device.to_owned(), cause };
        let mut options = self.options.clone();
        let mut device = self.device.clone();
        if REMOTE.contains(&self.kind) {
            self.resolve(&mut options).map_err(|cause| failed(&device, cause))?;
            let server = options.iter().find_map(|option| option.strip_prefix("addr="));
            // `:/export` is of the server that addr names.
            if let (Some(export), Some(server)) = (device.strip_prefix(':'), server) {
                device = match server.contains(':') {
                    true => format!("[{server}]:{export}"),
                    false => format!("{server}:{export}"),
                };
            }
        }
        mount(self.kind, &device, &options).map_err(|cause| failed(&device, cause))
    }

    /// Writes the server by its address, which is all that the kernel knows (moby:
    /// daemon/volume/local/local_unix.go, `mount`).
    fn resolve(&self, options: &mut Vec<String>) -> io::Result<()> {
        match options.iter_mut().find(|option| option.starts_with("addr=")) {
            Some(option) => *option = format!("addr={}", address(&option["addr=".len()..])?),
            None => {
                if let Some((server, _)) = share(&self.device) {
                    options.push(format!("addr={}", address(server)?));
                }
            }
        }
        Ok(())
    }
}

/// A mount that failed. It never says the options, which hold passwords.
#[derive(Debug)]
pub(crate) struct MountError {
    kind: &'static str,
    device: String,
    cause: io::Error,
}

impl fmt::Display for MountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, device, cause } = self;
        if cause.raw_os_error() == Some(Errno::NODEV.raw_os_error()) {
            return write!(f, "this kernel has no file system {kind}, neither built in nor loaded");
        }
        write!(f, "mount {kind} {}: {cause}", device.escape_debug())
    }
}

/// Server and share of `//SERVER/SHARE`.
fn share(device: &str) -> Option<(&str, &str)> {
    let (server, share) = device.strip_prefix("//")?.split_once('/')?;
    (!server.is_empty() && !share.is_empty()).then_some((server, share))
}

fn address(host: &str) -> io::Result<IpAddr> {
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    let none = || io::Error::other(format!("{host} has no address"));
    let found = (host, 0)
        .to_socket_addrs()
        .map_err(|error| io::Error::other(format!("the server {host} cannot be found: {error}")))?;
    // as Docker's resolver: IPv4 first
    let all: Vec<_> = found.map(|found| found.ip()).collect();
    all.iter().find(|ip| ip.is_ipv4()).or(all.first()).copied().ok_or_else(none)
}

/// Of mount(8)'s words, those that are about the mount, and the rest. Words that only mount(8) itself
/// understands say nothing.
pub(crate) fn mount_words(words: &str) -> (Attributes, Vec<String>) {
    let mut attributes = Attributes::default();
    let mut rest = Vec::new();
    for word in words.split(',').filter(|word| !word.is_empty()) {
        attributes = attributes.with(match word {
            "ro" => Attributes::RDONLY,
            "nosuid" => Attributes::NOSUID,
            "nodev" => Attributes::NODEV,
            "noexec" => Attributes::NOEXEC,
            "noatime" => Attributes::NOATIME,
            "nodiratime" => Attributes::NODIRATIME,
            "strictatime" => Attributes::STRICTATIME,
            "rw" | "suid" | "dev" | "exec" | "atime" | "diratime" | "relatime" | "async"
            | "defaults" | "_netdev" | "nofail" | "auto" | "noauto" => Attributes::default(),
            other => {
                rest.push(other.to_owned());
                Attributes::default()
            }
        });
    }
    (attributes, rest)
}

/// A file system of its own, mounted nowhere yet (fsopen(2)). What the kernel says beside the error's
/// number is in the error.
pub(crate) fn mount(kind: &str, source: &str, options: &[String]) -> io::Result<OwnedFd> {
    use rustix::mount::{fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen};
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    let configure = || -> Result<(), Errno> {
        fsconfig_set_string(context.as_fd(), "source", source)?;
        for option in options {
            match option.split_once('=') {
                Some((key, value)) => fsconfig_set_string(context.as_fd(), key, value)?,
                None => fsconfig_set_flag(context.as_fd(), option.as_str())?,
            }
        }
        fsconfig_create(context.as_fd())
    };
    configure().map_err(|errno| match said(&context, options) {
        words if words.is_empty() => io::Error::from(errno),
        words => io::Error::other(format!("{} ({words})", io::Error::from(errno))),
    })?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID;
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// The kernel's messages about a file system that is being configured (fsopen(2), "Message
/// retrieval"), without what holds a password.
fn said(context: &OwnedFd, options: &[String]) -> String {
    let secrets: Vec<&str> = options
        .iter()
        .filter_map(|option| option.strip_prefix("password=").or(option.strip_prefix("pass=")))
        .collect();
    let mut messages = Vec::new();
    let mut buffer = [0; 512];
    while let Ok(length @ 1..) = rustix::io::read(context, &mut buffer) {
        let text = String::from_utf8_lossy(&buffer[..length]).trim().to_owned();
        let text = text.trim_start_matches(['e', 'w', 'i']).trim();
        if !secrets.iter().any(|secret| !secret.is_empty() && text.contains(secret)) {
            messages.push(text.escape_debug().to_string());
        }
        if messages.len() == 8 {
            break;
        }
    }
    messages.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_resolved_and_devices_checked() {
        let parse = |kind: &str, device: &str, options: &str| {
            FileSystem::parse(kind, device, mount_words(options).1)
        };
        let mut cifs = parse("cifs", "//localhost/share", "username=u,password=secret").unwrap();
        let mut options = std::mem::take(&mut cifs.options);
        cifs.resolve(&mut options).unwrap();
        assert_eq!(options[2], "addr=127.0.0.1");
        let nfs = parse("nfs", ":/export", "addr=localhost,nfsvers=4").unwrap();
        let mut options = nfs.options.clone();
        nfs.resolve(&mut options).unwrap();
        assert_eq!(options, ["addr=127.0.0.1", "nfsvers=4"]);
        for (kind, device, options, why) in [
            ("nfs", ":/x", "", "addr=ADDRESS"),
            ("nfs", "x", "addr=1.1.1.1", ":/EXPORT"),
            ("cifs", "share", "", "//SERVER/SHARE"),
            ("cifs", "//server", "", "//SERVER/SHARE"),
            ("zfs", "tank", "", "type=zfs"),
        ] {
            let error = parse(kind, device, options).unwrap_err().message;
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn words_of_the_mount_are_told_from_the_file_systems() {
        let (attributes, rest) = mount_words("rw,noexec,uid=33,noatime,,soft,_netdev");
        assert_eq!(attributes, Attributes::NOEXEC.with(Attributes::NOATIME));
        assert_eq!(rest, ["uid=33", "soft"]);
    }

    #[test]
    fn what_a_kernel_has_not_is_said() {
        let error =
            MountError { kind: "cifs", device: "//s/x".to_owned(), cause: Errno::NODEV.into() };
        assert!(error.to_string().contains("no file system cifs"));
    }
}
