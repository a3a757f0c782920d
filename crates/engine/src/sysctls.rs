//! `--sysctl`: which settings of the kernel a container may have for itself.

use crate::{EngineError, HostConfig, IpcMode, NetworkMode, UtsMode};

/// Settings of an IPC namespace; everything of `fs.mqueue` is one too (ipc_namespaces(7)).
const OF_IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Accepts only settings of a namespace that is not the host's: all others, and those of a shared
/// namespace, would be changed for the whole machine. Texts as of runc (libcontainer:
/// configs/validate, `sysctl`).
pub(crate) fn check(host: &HostConfig) -> Result<(), EngineError> {
    let of_host = |name: &str, namespace: &str| {
        Err(EngineError::invalid(format!(
            "sysctl \"{name}\" not allowed in host {namespace} namespace"
        )))
    };
    for name in host.sysctls.keys() {
        let dotted = name.replace('/', ".");
        if OF_IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
            if host.ipc_mode == IpcMode::Host {
                return of_host(name, "IPC");
            }
        } else if dotted.starts_with("net.") {
            match &host.network_mode {
                NetworkMode::Host => return of_host(name, "network"),
                mode @ NetworkMode::Netns(_) => {
                    return Err(EngineError::invalid(format!(
                        "sysctl \"{name}\" not allowed in {mode}, which is not the container's own; \
                         set it there"
                    )));
                }
                _ => {}
            }
        } else if dotted == "kernel.domainname" {
            if host.uts_mode == UtsMode::Host {
                return of_host(name, "UTS");
            }
        } else {
            return Err(EngineError::invalid(format!(
                "sysctl \"{name}\" is not in a separate kernel namespace"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_settings_of_own_namespaces_are_accepted() {
        let refused = |name: &str, host: HostConfig| {
            let sysctls = [(name.to_owned(), "1".to_owned())].into();
            check(&HostConfig { sysctls, ..host }).err().map(|error| error.message)
        };
        for name in [
            "net.ipv4.ip_forward",
            "net/ipv4/conf/eth0.100/forwarding",
            "kernel.shmmax",
            "kernel/sem",
            "fs.mqueue.msg_max",
            "kernel.domainname",
        ] {
            assert_eq!(refused(name, HostConfig::default()), None, "{name}");
        }
        for name in [
            "kernel.core_pattern",
            "vm.overcommit_ratio",
            "kernel.hostname",
            "fs.mqueue",
            "netx.a",
            "../net.a",
            "user.max_user_namespaces",
            "",
        ] {
            let text = refused(name, HostConfig::default());
            let text = text.unwrap_or_default();
            assert!(text.ends_with("is not in a separate kernel namespace"), "{name}: {text}");
        }
        for (name, host) in [
            (
                "net.core.somaxconn",
                HostConfig { network_mode: NetworkMode::Host, ..Default::default() },
            ),
            ("kernel.shmmax", HostConfig { ipc_mode: IpcMode::Host, ..Default::default() }),
            ("kernel.domainname", HostConfig { uts_mode: UtsMode::Host, ..Default::default() }),
        ] {
            assert!(refused(name, host).is_some_and(|text| text.contains("not allowed")), "{name}");
        }
    }
}
