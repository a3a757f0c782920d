use std::collections::BTreeSet;

use crate::instance::Resource;
use crate::task::TaskOverride;
use crate::task_definition::Definition;

/// What a task takes from an instance from its placement until it is STOPPED.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reservation {
    /// CPU units, 1,024 to a processor.
    pub cpu: i64,
    /// MiB.
    pub memory: i64,
    /// Fixed host ports; dynamic ones are the agent's affair.
    pub tcp: BTreeSet<u16>,
    pub udp: BTreeSet<u16>,
}

impl Reservation {
    /// The task's own cpu and memory where given, else the sums over its containers, overrides first.
    pub fn of(definition: &Definition, overrides: &TaskOverride) -> Self {
        let number =
            |text: &Option<String>| text.as_ref().and_then(|text| text.parse::<i64>().ok());
        let containers = definition.container_definitions.iter().map(|container| {
            let over = overrides.container(&container.name);
            let cpu = over.and_then(|over| over.cpu).unwrap_or(container.cpu);
            let soft =
                over.and_then(|over| over.memory_reservation).or(container.memory_reservation);
            let hard = over.and_then(|over| over.memory).or(container.memory);
            (cpu, soft.or(hard).unwrap_or(0))
        });
        let (cpu, memory) = containers.fold((0, 0), |sum, own| (sum.0 + own.0, sum.1 + own.1));
        let (mut tcp, mut udp) = (BTreeSet::new(), BTreeSet::new());
        // in awsvpc mode the ports are those of the task's own interface
        if definition.network() != "awsvpc" {
            for mapping in definition.container_definitions.iter().flat_map(|c| &c.port_mappings) {
                let port = mapping.host_port.and_then(|port| u16::try_from(port).ok());
                if let Some(port @ 1..) = port {
                    let udp_mapping = mapping.protocol.as_deref() == Some("udp");
                    if udp_mapping { &mut udp } else { &mut tcp }.insert(port);
                }
            }
        }
        Self {
            cpu: number(&overrides.cpu).or_else(|| number(&definition.cpu)).unwrap_or(cpu),
            memory: number(&overrides.memory)
                .or_else(|| number(&definition.memory))
                .unwrap_or(memory),
            tcp,
            udp,
        }
    }
}

/// What an instance still has: the `remainingResources` of the API, in which the port sets name
/// the ports **in use**.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remaining {
    pub cpu: i64,
    pub memory: i64,
    pub tcp_used: BTreeSet<u16>,
    pub udp_used: BTreeSet<u16>,
}

/// The resource that was short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortage {
    Cpu,
    Memory,
    Ports,
}

impl Shortage {
    /// ECS's reason in `failures`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Cpu => "RESOURCE:CPU",
            Self::Memory => "RESOURCE:MEMORY",
            Self::Ports => "RESOURCE:PORTS",
        }
    }
}

impl Remaining {
    pub fn read(resources: &[Resource]) -> Self {
        let ports = |name| {
            let set = resources.iter().find(|resource| resource.name == name);
            set.map(|set| {
                set.string_set_value.iter().filter_map(|port| port.parse().ok()).collect()
            })
            .unwrap_or_default()
        };
        let number = |name| {
            let resource = resources.iter().find(|resource| resource.name == name);
            resource.map_or(0, |resource| i64::from(resource.integer_value))
        };
        Self {
            cpu: number("CPU"),
            memory: number("MEMORY"),
            tcp_used: ports("PORTS"),
            udp_used: ports("PORTS_UDP"),
        }
    }

    /// Puts the values back into the API's form, leaving resources of other names alone.
    pub fn write(&self, resources: &mut [Resource]) {
        let integer = |number: i64| i32::try_from(number).unwrap_or(i32::MAX);
        let set = |ports: &BTreeSet<u16>| ports.iter().map(u16::to_string).collect();
        for resource in resources {
            match &*resource.name {
                "CPU" => resource.integer_value = integer(self.cpu),
                "MEMORY" => resource.integer_value = integer(self.memory),
                "PORTS" => resource.string_set_value = set(&self.tcp_used),
                "PORTS_UDP" => resource.string_set_value = set(&self.udp_used),
                _ => {}
            }
        }
    }

    /// The first resource that is short for `wanted`.
    pub fn shortage(&self, wanted: &Reservation) -> Option<Shortage> {
        if wanted.cpu > self.cpu {
            return Some(Shortage::Cpu);
        }
        if wanted.memory > self.memory {
            return Some(Shortage::Memory);
        }
        let taken =
            !wanted.tcp.is_disjoint(&self.tcp_used) || !wanted.udp.is_disjoint(&self.udp_used);
        taken.then_some(Shortage::Ports)
    }

    pub fn take(&mut self, wanted: &Reservation) {
        self.cpu -= wanted.cpu;
        self.memory -= wanted.memory;
        self.tcp_used.extend(&wanted.tcp);
        self.udp_used.extend(&wanted.udp);
    }

    pub fn give_back(&mut self, taken: &Reservation) {
        self.cpu += taken.cpu;
        self.memory += taken.memory;
        self.tcp_used.retain(|port| !taken.tcp.contains(port));
        self.udp_used.retain(|port| !taken.udp.contains(port));
    }
}
