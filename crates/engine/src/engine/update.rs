//! `docker update`: other limits and another restart policy, also while the container runs.

use std::sync::Arc;

use bulkhead_types::Id;

use crate::blocking::blocking;
use crate::{Class, Engine, EngineError, HostConfig, RestartPolicy, Update, limits};

impl Engine {
    /// Changes what is given, first in the cgroup and then on record. Returns warnings for what this
    /// host cannot limit.
    ///
    /// # Errors
    /// What [`limits::check`] says of the whole, and whatever the kernel refuses, such as a limit of
    /// memory below what is in use; nothing is changed then.
    pub async fn update(
        self: &Arc<Self>,
        id: Id,
        update: Update,
    ) -> Result<Vec<String>, EngineError> {
        let guard = self.containers.exclusive(id).await?;
        let engine = Arc::clone(self);
        blocking(move |may_block| {
            let _guard = guard;
            let record = engine.containers.record(id)?;
            let old = &record.container.host;
            let new = apply(old, update)?;
            // What is not limited any more has to be said to a cgroup, which keeps what it has.
            let changed = |host: &HostConfig| limits::limits(host, Vec::new());
            let (limits, warnings) = changed(&new)?.without_absent(&engine.cgroups.hierarchies);
            if record.is_running() {
                let cgroup = engine.cgroups.of(id)?;
                if let Err(error) = cgroup.update(&limits) {
                    let (before, _) = changed(old)?.without_absent(&engine.cgroups.hierarchies);
                    if let Err(error) = cgroup.update(&before) {
                        tracing::warn!(container = %record.container.name, %error, "undo an update");
                    }
                    return Err(EngineError::new(
                        Class::Conflict,
                        format!("Cannot update container {id}: {error}"),
                    ));
                }
            }
            let container =
                engine.containers.change(may_block, id, |record| record.container.host = new.clone())?;
            engine.events.container(&container, "update", &[]);
            Ok(warnings)
        })
        .await
    }
}

/// The configuration as it is afterwards (moby: container/container_unix.go, `UpdateContainer`).
fn apply(old: &HostConfig, update: Update) -> Result<HostConfig, EngineError> {
    let Update { restart_policy, .. } = &update;
    let mut new = old.clone();
    if let Some(policy) = restart_policy {
        check_policy(old, policy)?;
        new.restart_policy = *policy;
    }
    let bandwidth = update.cpu_period.is_some() || update.cpu_quota.is_some();
    if bandwidth && old.nano_cpus > 0 || update.nano_cpus.is_some() && quota(old) {
        return Err(EngineError::new(
            Class::Conflict,
            "Conflicting options: CPU Period or Quota cannot be updated as NanoCPUs has already been \
             set, nor the other way round",
        ));
    }
    // A limit above that of memory and swap takes that along, where the old one was Docker's default.
    if let (Some(memory), None) = (update.memory, update.memory_swap)
        && old.memory_swap > 0
        && memory > old.memory_swap.unsigned_abs()
    {
        return Err(EngineError::new(
            Class::Conflict,
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap \
             at the same time",
        ));
    }
    fn set<T>(place: &mut T, value: Option<T>) {
        if let Some(value) = value {
            *place = value;
        }
    }
    set(&mut new.memory, update.memory);
    set(&mut new.memory_reservation, update.memory_reservation);
    set(&mut new.memory_swap, update.memory_swap);
    set(&mut new.cpu_shares, update.cpu_shares);
    set(&mut new.nano_cpus, update.nano_cpus);
    set(&mut new.cpu_period, update.cpu_period);
    set(&mut new.cpu_quota, update.cpu_quota);
    set(&mut new.cpuset_cpus, update.cpuset_cpus);
    set(&mut new.cpuset_mems, update.cpuset_mems);
    set(&mut new.block_io.weight, update.blkio_weight);
    if update.pids_limit.is_some() {
        new.pids_limit = update.pids_limit;
    }
    limits::check(&new)?;
    Ok(new)
}

fn quota(host: &HostConfig) -> bool {
    host.cpu_period > 0 || host.cpu_quota > 0
}

fn check_policy(host: &HostConfig, policy: &RestartPolicy) -> Result<(), EngineError> {
    if host.auto_remove && *policy != RestartPolicy::No {
        return Err(EngineError::invalid(
            "Restart policy cannot be updated because AutoRemove is enabled for the container",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_replaces_what_was() {
        let old = HostConfig { memory: 64 << 20, cpu_shares: 512, ..HostConfig::default() };
        let policy = RestartPolicy::Always;
        let update = Update {
            memory: Some(128 << 20),
            pids_limit: Some(-1),
            restart_policy: Some(policy),
            ..Update::default()
        };
        let new = apply(&old, update).unwrap();
        assert_eq!((new.memory, new.cpu_shares, new.pids_limit), (128 << 20, 512, Some(-1)));
        assert_eq!(new.restart_policy, policy);

        let swap = HostConfig { memory: 64 << 20, memory_swap: 128 << 20, ..HostConfig::default() };
        let cpus = HostConfig { nano_cpus: 1_000_000_000, ..HostConfig::default() };
        let removed = HostConfig { auto_remove: true, ..HostConfig::default() };
        for (old, update, why) in [
            (&old, Update { memory: Some(1), ..Update::default() }, "Minimum memory limit"),
            (&swap, Update { memory: Some(256 << 20), ..Update::default() }, "memoryswap"),
            (&cpus, Update { cpu_quota: Some(1000), ..Update::default() }, "NanoCPUs"),
            (
                &removed,
                Update { restart_policy: Some(policy), ..Update::default() },
                "AutoRemove is enabled",
            ),
        ] {
            let error = apply(old, update).unwrap_err();
            assert!(error.message.contains(why), "{error}");
        }
    }
}
