//! What the daemon's configuration puts into a request for a container that does not say it.

use std::collections::BTreeMap;

use bulkhead_docker_types::HostConfig;
use bulkhead_engine::ContainerDefaults;

/// Fills what stands in the container's record, as Docker does (moby: daemon/daemon_unix.go,
/// `adaptContainerSettings`; daemon/logs.go, `mergeAndVerifyLogConfig`); the rest of the defaults goes for
/// each start.
pub(crate) fn fill(host: &mut HostConfig, defaults: &ContainerDefaults) {
    let log = &mut host.log_config;
    if log.kind.is_empty() {
        log.kind = defaults.log_driver.to_string();
    }
    if log.kind == defaults.log_driver.to_string() {
        let own: BTreeMap<_, _> = std::mem::take(&mut log.config);
        log.config = defaults.log_options.given().clone().into_iter().chain(own).collect();
    }
    if host.shm_size == 0 {
        host.shm_size = i64::try_from(defaults.shm_size).unwrap_or(i64::MAX);
    }
    for (own, default) in [
        (&mut host.ipc_mode, defaults.ipc_mode.to_string()),
        (&mut host.cgroupns_mode, defaults.cgroupns_mode.to_string()),
        (&mut host.runtime, defaults.runtime.to_string()),
    ] {
        if own.is_empty() {
            *own = default;
        }
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_engine::{IpcMode, LogDriver, LogOptions};

    use super::*;

    #[test]
    fn what_is_said_goes_before_the_default() {
        let options = [("max-size", "1m"), ("max-file", "2")];
        let options = options.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let defaults = ContainerDefaults {
            log_options: LogOptions::parse(LogDriver::JsonFile, options).expect("options"),
            shm_size: 7,
            ipc_mode: IpcMode::Shareable,
            ..ContainerDefaults::default()
        };
        let mut host = HostConfig::default();
        host.log_config.config.insert("max-file".to_owned(), "9".to_owned());
        fill(&mut host, &defaults);
        assert_eq!((host.log_config.kind.as_str(), host.shm_size), ("json-file", 7));
        assert_eq!(
            (&*host.log_config.config["max-size"], &*host.log_config.config["max-file"]),
            ("1m", "9")
        );
        assert_eq!(host.ipc_mode, "shareable");

        let mut host =
            HostConfig { ipc_mode: "host".to_owned(), shm_size: 1, ..HostConfig::default() };
        host.log_config.kind = "local".to_owned();
        fill(&mut host, &defaults);
        assert!(host.log_config.config.is_empty(), "they are another driver's");
        assert_eq!((host.ipc_mode.as_str(), host.shm_size), ("host", 1));
    }
}
