//! Where tasks go: a pure function from instances and a wish to a choice and the reasons against the rest.
//!
//! Filters first (state, agent, attributes, resources, constraints), then the strategies in order, each
//! keeping the best of what the one before left; what is still level is settled by chance, as ECS does.

use std::collections::BTreeMap;

use crate::attribute::Attribute;
use crate::error::{Error, Failure};
use crate::instance::ContainerInstance;
use crate::query::Query;
use crate::resources::{Remaining, Reservation};
use crate::status::InstanceStatus;
use crate::task_definition::{PlacementConstraint, PlacementStrategy};

/// An instance as placement sees it.
#[derive(Debug, Clone)]
pub struct Node {
    pub instance: ContainerInstance,
    pub remaining: Remaining,
    /// How many tasks of each group run there.
    pub groups: BTreeMap<String, usize>,
}

impl Node {
    pub fn new(instance: ContainerInstance, groups: BTreeMap<String, usize>) -> Self {
        let remaining = Remaining::read(&instance.remaining_resources);
        Self { instance, remaining, groups }
    }

    fn subject(&self, name: &str) -> Option<String> {
        let instance = &self.instance;
        if let Some(attribute) = name.strip_prefix("attribute:") {
            let own = instance.attributes.iter().find(|own| own.name == attribute)?;
            return Some(own.value.clone().unwrap_or_default());
        }
        match name {
            "agentConnected" => Some(instance.agent_connected.to_string()),
            "agentVersion" => instance.version_info.agent_version.clone(),
            "ec2InstanceId" => instance.ec2_instance_id.clone(),
            "registeredAt" => instance.registered_at.map(|time| time.to_string()),
            "runningTasksCount" => Some(instance.running_tasks_count.to_string()),
            _ => None,
        }
    }

    /// Whether `query` holds here; `task:group` holds where any group on the instance fits.
    pub(crate) fn matches(&self, query: &Query) -> bool {
        let any_group = self.groups.keys().any(|group| {
            query.holds(&|name: &str| match name {
                "task:group" => Some(group.clone()),
                other => self.subject(other),
            })
        });
        any_group || query.holds(&|name: &str| self.subject(name))
    }

    fn tasks_of(&self, group: &str) -> usize {
        self.groups.get(group).copied().unwrap_or(0)
    }
}

/// What a task to be placed asks for.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    pub group: String,
    pub reservation: Reservation,
    pub requires: Vec<Attribute>,
    /// At most one task of the group on an instance.
    distinct: bool,
    members: Vec<Query>,
    strategies: Vec<Strategy>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Strategy {
    PackCpu,
    PackMemory,
    SpreadInstances,
    SpreadAttribute(String),
}

impl Wish {
    /// Reads constraints and strategies as users write them.
    ///
    /// # Errors
    /// `InvalidParameterException` that names what is not known or too much.
    pub fn new(
        group: &str,
        reservation: Reservation,
        requires: Vec<Attribute>,
        constraints: &[PlacementConstraint],
        strategies: &[PlacementStrategy],
    ) -> Result<Self, Error> {
        if constraints.len() > 10 || strategies.len() > 5 {
            return Err(Error::invalid(
                "At most 10 placement constraints and 5 strategies are allowed.",
            ));
        }
        let mut wish = Self { group: group.into(), reservation, requires, ..Self::default() };
        for constraint in constraints {
            match &*constraint.kind {
                "distinctInstance" => wish.distinct = true,
                "memberOf" => {
                    let expression = constraint.expression.as_deref().unwrap_or_default();
                    wish.members.push(Query::parse(expression)?);
                }
                other => {
                    return Err(Error::invalid(format!(
                        "Invalid placement constraint '{other}': use distinctInstance or memberOf."
                    )));
                }
            }
        }
        for strategy in strategies {
            wish.strategies.extend(Strategy::parse(strategy)?);
        }
        Ok(wish)
    }

    /// Why the task cannot go to `node`, by ECS's words.
    pub fn refusal(&self, node: &Node) -> Option<&'static str> {
        if node.instance.status == InstanceStatus::Inactive {
            return Some("INACTIVE");
        }
        if !node.instance.agent_connected {
            return Some("AGENT");
        }
        let has = |wanted: &Attribute| {
            node.instance.attributes.iter().any(|own| {
                own.name == wanted.name && (wanted.value.is_none() || own.value == wanted.value)
            })
        };
        if !self.requires.iter().all(has) {
            return Some("ATTRIBUTE");
        }
        if let Some(shortage) = node.remaining.shortage(&self.reservation) {
            return Some(shortage.reason());
        }
        if self.distinct && node.tasks_of(&self.group) > 0 {
            return Some("distinctInstance placement constraint unsatisfied.");
        }
        if !self.members.iter().all(|query| node.matches(query)) {
            return Some("MemberOf placement constraint unsatisfied.");
        }
        None
    }
}

impl Strategy {
    fn parse(given: &PlacementStrategy) -> Result<Option<Self>, Error> {
        let field = given.field.as_deref().unwrap_or_default();
        let lower = field.to_ascii_lowercase();
        match (&*given.kind, &*lower) {
            ("random", _) => Ok(None),
            ("binpack", "cpu") => Ok(Some(Self::PackCpu)),
            ("binpack", "memory") => Ok(Some(Self::PackMemory)),
            ("spread", "instanceid" | "host") => Ok(Some(Self::SpreadInstances)),
            ("spread", _) if field.starts_with("attribute:") => {
                Ok(Some(Self::SpreadAttribute(field["attribute:".len()..].to_owned())))
            }
            ("binpack" | "spread", _) => Err(Error::invalid(format!(
                "Invalid field '{field}' of placement strategy {}: use cpu or memory with binpack, and instanceId, host or attribute:NAME with spread.",
                given.kind
            ))),
            (other, _) => Err(Error::invalid(format!(
                "Invalid placement strategy '{other}': use random, spread or binpack."
            ))),
        }
    }

    /// The lower the better.
    fn cost(&self, node: &Node, all: &[Node], group: &str) -> i64 {
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        match self {
            Self::PackCpu => node.remaining.cpu,
            Self::PackMemory => node.remaining.memory,
            Self::SpreadInstances => count(node.tasks_of(group)),
            Self::SpreadAttribute(name) => {
                let own = node.instance.attribute(name);
                let same = all.iter().filter(|other| other.instance.attribute(name) == own);
                count(same.map(|other| other.tasks_of(group)).sum())
            }
        }
    }
}

/// Places `count` tasks, booking each in `nodes`; answers with the index of each task's node, and one
/// failure per node for the first task that found no place.
///
/// `choose` picks one of that many equals.
pub fn place(
    nodes: &mut [Node],
    wish: &Wish,
    count: usize,
    mut choose: impl FnMut(usize) -> usize,
) -> (Vec<usize>, Vec<Failure>) {
    let mut placed = Vec::new();
    while placed.len() < count {
        let mut fitting: Vec<usize> =
            (0..nodes.len()).filter(|index| wish.refusal(&nodes[*index]).is_none()).collect();
        for strategy in &wish.strategies {
            let cost = |index: &usize| strategy.cost(&nodes[*index], nodes, &wish.group);
            let Some(best) = fitting.iter().map(cost).min() else { break };
            fitting.retain(|index| cost(index) == best);
        }
        if fitting.is_empty() {
            let failures = nodes.iter().filter_map(|node| {
                let reason = wish.refusal(node)?;
                let arn = Some(node.instance.container_instance_arn.to_string());
                Some(Failure { arn, reason: reason.into(), detail: None })
            });
            return (placed, failures.collect());
        }
        let chosen = fitting[choose(fitting.len())];
        let node = &mut nodes[chosen];
        node.remaining.take(&wish.reservation);
        *node.groups.entry(wish.group.clone()).or_default() += 1;
        placed.push(chosen);
    }
    (placed, Vec::new())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn node(name: &str, cpu: i64, memory: i64, ports: &[u16]) -> Node {
        let instance = ContainerInstance {
            container_instance_arn: name.into(),
            status: InstanceStatus::Active,
            agent_connected: true,
            attributes: vec![Attribute::new("zone", Some(&name[..1])), Attribute::new(name, None)],
            ..ContainerInstance::default()
        };
        let tcp_used = ports.iter().copied().collect();
        let remaining = Remaining { cpu, memory, tcp_used, udp_used: BTreeSet::new() };
        Node { instance, remaining, groups: BTreeMap::new() }
    }

    fn wish(port: u16, constraints: &str, strategies: &str) -> Wish {
        let tcp = if port == 0 { BTreeSet::new() } else { BTreeSet::from([port]) };
        let reservation = Reservation { cpu: 256, memory: 256, tcp, udp: BTreeSet::new() };
        Wish::new(
            "family:web",
            reservation,
            Vec::new(),
            &serde_json::from_str::<Vec<_>>(constraints).unwrap(),
            &serde_json::from_str::<Vec<_>>(strategies).unwrap(),
        )
        .unwrap()
    }

    fn names(nodes: &[Node], placed: &[usize]) -> String {
        let arns: Vec<_> =
            placed.iter().map(|index| &*nodes[*index].instance.container_instance_arn).collect();
        arns.join(" ")
    }

    #[test]
    fn every_instance_says_why_not() {
        let mut gone = node("a4", 1024, 1024, &[]);
        gone.instance.agent_connected = false;
        let mut nodes = [
            node("a1", 100, 1024, &[]),
            node("a2", 1024, 100, &[]),
            node("a3", 1024, 1024, &[80]),
            gone,
        ];
        let (placed, failures) = place(&mut nodes, &wish(80, "[]", "[]"), 1, |_| 0);
        let reasons: Vec<_> = failures.iter().map(|failure| &*failure.reason).collect();
        assert!(placed.is_empty());
        assert_eq!(reasons, ["RESOURCE:CPU", "RESOURCE:MEMORY", "RESOURCE:PORTS", "AGENT"]);
    }

    #[test]
    fn a_fixed_port_fits_once_per_instance() {
        let mut nodes = [node("a1", 1024, 1024, &[]), node("a2", 1024, 1024, &[])];
        let (placed, failures) = place(&mut nodes, &wish(80, "[]", "[]"), 3, |_| 0);
        assert_eq!((names(&nodes, &placed), failures.len()), ("a1 a2".into(), 2));
    }

    #[test]
    fn strategies_refine_each_other() {
        for (strategies, expected) in [
            (r#"[{"type":"binpack","field":"memory"}]"#, "b1 b1 a1 a1"),
            (r#"[{"type":"spread","field":"instanceId"}]"#, "a1 a2 b1 a1"),
            (
                r#"[{"type":"spread","field":"attribute:zone"},{"type":"binpack","field":"cpu"}]"#,
                "a1 b1 a1 b1",
            ),
            (r#"[{"type":"random"}]"#, "a1 a1 a1 a2"),
        ] {
            let mut nodes = [
                node("a1", 800, 1024, &[]),
                node("a2", 1024, 2048, &[]),
                node("b1", 1024, 512, &[]),
            ];
            let (placed, _) = place(&mut nodes, &wish(0, "[]", strategies), 4, |_| 0);
            assert_eq!(names(&nodes, &placed), expected, "{strategies}");
        }
    }

    #[test]
    fn constraints_keep_tasks_away() {
        let mut nodes = [node("a1", 9999, 9999, &[]), node("b1", 9999, 9999, &[])];
        let (placed, failures) =
            place(&mut nodes, &wish(0, r#"[{"type":"distinctInstance"}]"#, "[]"), 3, |_| 0);
        assert_eq!((names(&nodes, &placed), failures.len()), ("a1 b1".into(), 2));
        let member = r#"[{"type":"memberOf","expression":"attribute:zone == b"}]"#;
        let (placed, _) = place(&mut nodes, &wish(0, member, "[]"), 2, |_| 0);
        assert_eq!(names(&nodes, &placed), "b1 b1");
        let mut needy = wish(0, "[]", "[]");
        needy.requires = vec![Attribute::new("b1", None)];
        assert_eq!(needy.refusal(&nodes[0]), Some("ATTRIBUTE"));
        assert_eq!(needy.refusal(&nodes[1]), None);
    }
}
