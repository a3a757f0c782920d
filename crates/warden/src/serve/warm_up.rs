//! What a compartment does while it has nothing to do: it reads the order of an ordinary container.
//!
//! A copy of a process has none of its code and little of its heap in memory of its own; the first
//! use of each page is a fault. Those of reading an order are a tenth of a start.

use bulkhead_runtime::plan::Host;
use bulkhead_runtime::{
    Capabilities, ContainerSpec, Device, FdIndex, Namespaces, Plan, ProcessSpec, Seccomp, User,
    defaults,
};
use bulkhead_types::IdMap;

use super::order::{Order, Received};
use crate::wire;

/// The order as it would come in; none where an ordinary container cannot be.
pub(super) fn order(host: &Host) -> Option<Vec<u8>> {
    let plan = Plan::container(&container(host), host).ok()?.encode().ok()?;
    let order = Order { plan: plan.into(), cgroup: None, stdio: true, waits: false };
    wire::encode(&order).ok()
}

/// Reads it.
pub(super) fn read(order: &[u8]) {
    let Ok(Received(order)) = wire::decode(order) else { return };
    let _ = Plan::decode(&order.plan);
}

fn container(host: &Host) -> ContainerSpec {
    let device = |(index, device): (usize, &defaults::DefaultDevice)| Device {
        path: device.path.to_owned(),
        fd: FdIndex(index as u16 + 1),
    };
    ContainerSpec {
        hostname: "warm-up".to_owned(),
        domainname: String::new(),
        namespaces: Namespaces::PRIVATE,
        id_range: Some(IdMap::new(1 << 20, 1 << 16)),
        rootfs: FdIndex(0),
        rootfs_readonly: false,
        mounts: defaults::mounts(false, defaults::SHM_SIZE),
        devices: defaults::DEVICES.iter().enumerate().map(device).collect(),
        masked_paths: defaults::masked_paths(false),
        readonly_paths: defaults::readonly_paths(false),
        sysctls: defaults::network_sysctls(1 << 16),
        cgroup_v1_procs: (0..host.cgroups.len() as u16).map(FdIndex).collect(),
        cgroup_v2: None,
        cgroup_v1_groups: Vec::new(),
        process: ProcessSpec {
            arguments: vec!["sh".to_owned()],
            environment: vec![defaults::PATH.to_owned()],
            working_directory: "/".to_owned(),
            user: User { name: String::new(), additional_groups: Vec::new() },
            terminal: false,
            terminal_size: (0, 0),
            capabilities: Capabilities::OWN_NETWORK,
            no_new_privileges: false,
            seccomp: Seccomp::WithoutPackets,
            rlimits: defaults::rlimits(),
            oom_score_adj: None,
            init: false,
            landlock: None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_one() {
        let order = order(&Host::parse("2:cpu:/\n0::/\n")).expect("an ordinary container");
        let Received(order) = wire::decode(&order).expect("what was encoded");
        let plan = Plan::decode(&order.plan).expect("a plan");
        assert!(plan.fits_ahead());
    }
}
