//! What may change while an engine runs: it is read anew with the daemon's configuration.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use bulkhead_image::RegistryOptions;
use bulkhead_runtime::Seccomp;

use crate::{CgroupnsMode, HostConfig, IpcMode, LogDriver, LogOptions, RuntimeName, Ulimit};

/// The part of an engine's options that [`Engine::reload`](crate::Engine::reload) replaces.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    pub registries: RegistryOptions,
    /// `KEY=VALUE`, which `docker info` shows.
    pub labels: Vec<String>,
    /// Whether the log has what is of use to developers alone; `docker info` shows it.
    pub debug: bool,
    /// How long containers have between their stop signal and their death when everything is torn
    /// down; `None` is 2 seconds.
    pub shutdown_timeout: Option<Duration>,
    pub containers: ContainerDefaults,
    /// By the driver of the network: options of those that are created without them.
    pub network_options: BTreeMap<String, BTreeMap<String, String>>,
}

/// What a container has whose request does not say.
///
/// The first five are written into its record when it is created; the others go for each of its starts,
/// as in Docker, and stand in no record.
#[derive(Debug, Clone)]
pub struct ContainerDefaults {
    pub log_driver: LogDriver,
    pub log_options: LogOptions,
    /// Bytes of `/dev/shm`; 0 is the runtime's own default.
    pub shm_size: u64,
    pub ipc_mode: IpcMode,
    pub cgroupns_mode: CgroupnsMode,
    pub runtime: RuntimeName,
    pub init: bool,
    pub no_new_privileges: bool,
    pub seccomp: Seccomp,
    /// As `docker info` shows it: `builtin`, `unconfined` or a path.
    pub seccomp_name: String,
    pub ulimits: Vec<Ulimit>,
    pub dns: Vec<IpAddr>,
    pub dns_search: Vec<String>,
    pub dns_options: Vec<String>,
    /// What `host-gateway` means, one address of each family; none is the bridge's own.
    pub host_gateways: Vec<IpAddr>,
}

impl Default for ContainerDefaults {
    fn default() -> Self {
        Self {
            log_driver: LogDriver::default(),
            log_options: LogOptions::default(),
            shm_size: 0,
            ipc_mode: IpcMode::default(),
            cgroupns_mode: CgroupnsMode::default(),
            runtime: RuntimeName::default(),
            init: false,
            no_new_privileges: false,
            seccomp: Seccomp::Default,
            seccomp_name: "builtin".to_owned(),
            ulimits: Vec::new(),
            dns: Vec::new(),
            dns_search: Vec::new(),
            dns_options: Vec::new(),
            host_gateways: Vec::new(),
        }
    }
}

impl ContainerDefaults {
    /// The container's own words, and for a start those that it does not say.
    pub(crate) fn fill(&self, host: &mut HostConfig) {
        host.init = host.init.or(self.init.then_some(true));
        let security = &mut host.security_opt;
        if self.no_new_privileges && !security.says("no-new-privileges") && !host.privileged {
            security.no_new_privileges = true;
        }
        if !security.says("seccomp") {
            security.seccomp = self.seccomp.clone();
        }
        for limit in &self.ulimits {
            if !host.ulimits.iter().any(|own| own.name() == limit.name()) {
                host.ulimits.push(limit.clone());
            }
        }
        for (own, default) in
            [(&mut host.dns_search, &self.dns_search), (&mut host.dns_options, &self.dns_options)]
        {
            if own.is_empty() {
                own.clone_from(default);
            }
        }
        if host.dns.is_empty() {
            host.dns.clone_from(&self.dns);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SecurityOptions;

    #[test]
    fn a_start_has_what_the_container_does_not_say() {
        let defaults = ContainerDefaults {
            init: true,
            no_new_privileges: true,
            seccomp: Seccomp::Unconfined,
            ulimits: vec![
                Ulimit::new("nofile", 10, 20).unwrap(),
                Ulimit::new("core", 0, 0).unwrap(),
            ],
            dns: vec!["10.0.0.1".parse().unwrap()],
            dns_search: vec!["a.example".to_owned()],
            dns_options: vec!["ndots:3".to_owned()],
            ..ContainerDefaults::default()
        };
        let mut host = HostConfig::default();
        defaults.fill(&mut host);
        assert_eq!(host.init, Some(true));
        assert!(host.security_opt.no_new_privileges);
        assert_eq!(host.security_opt.seccomp, Seccomp::Unconfined);
        assert_eq!((host.ulimits.len(), host.dns.len()), (2, 1));
        assert_eq!(host.dns_search, ["a.example"]);

        let said = ["no-new-privileges=false", "seccomp=builtin"].map(str::to_owned).to_vec();
        let mut host = HostConfig {
            init: Some(false),
            security_opt: SecurityOptions::parse(said).unwrap(),
            ulimits: vec![Ulimit::new("nofile", 1, 1).unwrap()],
            dns: vec!["10.0.0.2".parse().unwrap()],
            dns_search: vec![".".to_owned()],
            ..HostConfig::default()
        };
        defaults.fill(&mut host);
        assert_eq!(host.init, Some(false));
        assert!(!host.security_opt.no_new_privileges);
        assert_eq!(host.security_opt.seccomp, Seccomp::Default);
        assert_eq!((host.ulimits[0].soft(), host.ulimits.len()), (1, 2));
        assert_eq!(host.dns, ["10.0.0.2".parse::<IpAddr>().unwrap()]);
        assert_eq!((host.dns_search[0].as_str(), host.dns_options[0].as_str()), (".", "ndots:3"));
    }
}
