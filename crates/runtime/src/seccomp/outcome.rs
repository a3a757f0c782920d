//! What becomes of the calls of one number: what libseccomp makes of the same rules, but for what
//! the module above lists.

use super::profile::{Action, Comparison, Condition, ENOSYS, Profile, is_int};
use super::table::{Architecture, Call};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Always(Action),
    /// By arguments: [`Outcomes::tested`] has the rules.
    Tested(u32),
}

/// All tests of a rule have to hold for its action.
pub(super) type TestedRule = (Vec<Test>, Action);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Test {
    pub condition: Condition,
    /// Looks at the low 32 bits only, of the argument and of the value.
    pub low_only: bool,
}

#[derive(Debug)]
pub(super) struct Outcomes<'a> {
    profile: &'a Profile,
    /// By call: the action of the first rule without conditions.
    unconditional: [Option<Action>; Call::COUNT],
    /// By call: whether there are rules with conditions.
    conditional: [bool; Call::COUNT],
    tested: Vec<Vec<TestedRule>>,
}

impl<'a> Outcomes<'a> {
    pub fn new(profile: &'a Profile) -> Self {
        let mut unconditional = [None; Call::COUNT];
        let mut conditional = [false; Call::COUNT];
        // a rule whose action is the default one says nothing
        for rule in profile.rules.iter().filter(|rule| rule.action != profile.default) {
            for call in &rule.calls {
                if rule.conditions.is_empty() {
                    unconditional[call.index()].get_or_insert(rule.action);
                } else {
                    conditional[call.index()] = true;
                }
            }
        }
        Self { profile, unconditional, conditional, tested: Vec::new() }
    }

    /// `calls` are the names of one number.
    pub fn of(&mut self, architecture: Architecture, calls: &[(u32, Call)]) -> Outcome {
        if let [(_, call)] = calls {
            let multiplexed = architecture == Architecture::X86 && [SOCKETCALL, IPC].contains(call);
            let always = self.unconditional[call.index()];
            if !self.conditional[call.index()] && (always.is_some() || !multiplexed) {
                let always = Outcome::Always(always.unwrap_or(self.profile.default));
                return if multiplexed { self.closed(*call, always) } else { always };
            }
            let outcome = self.by_arguments(architecture, calls);
            return if multiplexed { self.closed(*call, outcome) } else { outcome };
        }
        self.by_arguments(architecture, calls)
    }

    /// The rules of an [`Outcome::Tested`]: the first that holds, else the profile's default.
    pub fn tested(&self, index: u32) -> &[TestedRule] {
        &self.tested[index as usize]
    }

    fn by_arguments(&mut self, architecture: Architecture, calls: &[(u32, Call)]) -> Outcome {
        let mut rules: Vec<TestedRule> = Vec::new();
        // most names of a profile stand in rules without conditions, which need not be searched
        let may_be_always = calls.iter().any(|(_, call)| {
            self.unconditional[call.index()].is_some() || [SOCKETCALL, IPC].contains(call)
        });
        for rule in &self.profile.rules {
            let is_about_others = rule.conditions.is_empty() && !may_be_always;
            if rule.action == self.profile.default || is_about_others {
                continue;
            }
            for named in &rule.calls {
                let own = calls.iter().any(|(_, call)| call == named);
                let member = if own { None } else { member(architecture, calls, *named) };
                if !own && member.is_none() {
                    continue;
                }
                let mut conditions = rule.conditions.clone();
                if let Some(member) = member {
                    conditions.retain(|condition| condition.argument != 0);
                    conditions
                        .push(Condition { argument: 0, comparison: Comparison::Equal(member) });
                }
                let tests = tests(architecture, *named, conditions);
                if tests.is_empty() {
                    // above those with conditions, wherever it stands
                    return Outcome::Always(rule.action);
                }
                let at = rules.iter().position(|(other, _)| precedes(&tests, other));
                rules.insert(at.unwrap_or(rules.len()), (tests, rule.action));
            }
        }
        if rules.is_empty() {
            return Outcome::Always(self.profile.default);
        }
        self.add(rules)
    }

    fn add(&mut self, rules: Vec<TestedRule>) -> Outcome {
        self.tested.push(rules);
        Outcome::Tested(self.tested.len() as u32 - 1)
    }

    /// Puts a rule against `socketcall(SYS_SOCKET)` above the others if `socket` depends on its
    /// arguments, which lie in memory that a filter cannot see here, and the call would be let
    /// through.
    fn closed(&mut self, call: Call, outcome: Outcome) -> Outcome {
        if !self.profile.close_socketcall || call != SOCKETCALL || !self.conditional[SOCKET.index()]
        {
            return outcome;
        }
        let socket = self.by_arguments(Architecture::X86, &[(0, SOCKET)]);
        let mut rules = match outcome {
            Outcome::Always(action) => vec![(Vec::new(), action)],
            Outcome::Tested(index) => self.tested[index as usize].clone(),
        };
        if matches!(socket, Outcome::Always(_)) || !lets_through(&rules, self.profile.default) {
            return outcome;
        }
        let is_socket = Condition { argument: 0, comparison: Comparison::Equal(SYS_SOCKET) };
        let tests = vec![Test { condition: is_socket, low_only: true }];
        rules.insert(0, (tests, Action::Errno(ENOSYS)));
        self.add(rules)
    }
}

/// The conditions that can fail, as they apply to a call on an architecture.
fn tests(architecture: Architecture, call: Call, mut conditions: Vec<Condition>) -> Vec<Test> {
    let is_64_bit = architecture.is_64_bit();
    let can_fail = |mask: u64| if is_64_bit { mask != 0 } else { mask as u32 != 0 };
    conditions.retain(|condition| match condition.comparison {
        Comparison::MaskedEqual { mask, .. } => can_fail(mask),
        _ => true,
    });
    conditions.sort_by_key(|condition| condition.argument);
    let test = |condition: Condition| Test {
        condition,
        low_only: !is_64_bit || is_int(call, condition.argument),
    };
    conditions.into_iter().map(test).collect()
}

/// Whether libseccomp tests `new` before `other`, which has come earlier (its src/db.c,
/// `_db_tree_add`): by argument, kind of comparison and value, so that among the rules on one
/// argument a narrower one comes first. Rules of which neither is before the other stay as they come.
fn precedes(new: &[Test], other: &[Test]) -> bool {
    for (new, other) in new.iter().zip(other) {
        for (new, other) in nodes(*new).into_iter().zip(nodes(*other)) {
            if !new.is_same(&other) {
                return other.is_below(&new);
            }
        }
    }
    new.len() < other.len()
}

/// A comparison of up to 32 bits, or of what a 32-bit architecture takes for 64.
struct Node {
    argument: u8,
    kind: u8,
    class: u8,
    mask: u64,
    value: u64,
    smaller_first: bool,
}

impl Node {
    fn is_same(&self, other: &Self) -> bool {
        (self.argument, self.kind, self.mask, self.value)
            == (other.argument, other.kind, other.mask, other.value)
    }

    fn is_below(&self, other: &Self) -> bool {
        match (self.argument, self.class).cmp(&(other.argument, other.class)) {
            std::cmp::Ordering::Equal if self.smaller_first => self.value > other.value,
            std::cmp::Ordering::Equal => self.value < other.value,
            order => order.is_lt(),
        }
    }
}

/// The high half and the low one, or one for both.
fn nodes(test: Test) -> Vec<Node> {
    const MASKED: u8 = 0;
    const EQUAL: u8 = 1;
    const GREATER: u8 = 2;
    const GREATER_OR_EQUAL: u8 = 3;
    let (kind, class, mask, value) = match test.condition.comparison {
        Comparison::MaskedEqual { mask, value } => (MASKED, 3, mask, value & mask),
        Comparison::Equal(value) | Comparison::NotEqual(value) => (EQUAL, 3, u64::MAX, value),
        Comparison::LessOrEqual(value) => (GREATER, 2, u64::MAX, value),
        Comparison::Less(value) => (GREATER_OR_EQUAL, 2, u64::MAX, value),
        Comparison::GreaterOrEqual(value) => (GREATER_OR_EQUAL, 1, u64::MAX, value),
        Comparison::Greater(value) => (GREATER, 1, u64::MAX, value),
    };
    let argument = test.condition.argument;
    let smaller_first = class == 2;
    let node = |kind, mask, value| Node { argument, kind, class, mask, value, smaller_first };
    if test.low_only {
        return vec![node(kind, mask, value)];
    }
    let high = if kind == GREATER_OR_EQUAL { GREATER } else { kind };
    vec![
        node(high, mask >> 32, value >> 32),
        node(kind, mask & u64::from(u32::MAX), value & u64::from(u32::MAX)),
    ]
}

/// Whether a call whose first argument is SYS_SOCKET may end in a permissive action.
fn lets_through(rules: &[TestedRule], default: Action) -> bool {
    for (tests, action) in rules {
        let (first, others): (Vec<&Test>, Vec<&Test>) =
            tests.iter().partition(|test| test.condition.argument == 0);
        if !first.iter().all(|test| test.condition.comparison.holds_low(SYS_SOCKET)) {
            continue;
        }
        if action.is_permissive() || others.is_empty() {
            return action.is_permissive();
        }
    }
    default.is_permissive()
}

impl Comparison {
    /// As on an architecture of 32 bits.
    fn holds_low(self, argument: u64) -> bool {
        let low = |value: u64| u64::from(value as u32);
        match self {
            Self::Equal(value) => argument == low(value),
            Self::NotEqual(value) => argument != low(value),
            Self::Less(value) => argument < low(value),
            Self::LessOrEqual(value) => argument <= low(value),
            Self::Greater(value) => argument > low(value),
            Self::GreaterOrEqual(value) => argument >= low(value),
            Self::MaskedEqual { mask, value } => argument & low(mask) == low(value & mask),
        }
    }
}

/// 32-bit x86 has two calls that stand for many: the first argument says which. A rule on one of the
/// many is a rule on that too (libseccomp: src/syscalls.c, `abi_rule_add`). Their own arguments lie
/// in memory then, so a condition on the first is lost, and one on another means nothing.
fn member(architecture: Architecture, calls: &[(u32, Call)], named: Call) -> Option<u64> {
    let members: &[(Call, u64)] = match calls {
        [(_, SOCKETCALL)] if architecture == Architecture::X86 => &SOCKET_CALLS,
        [(_, IPC)] if architecture == Architecture::X86 => &IPC_CALLS,
        _ => return None,
    };
    members.iter().find(|(call, _)| *call == named).map(|(_, number)| *number)
}

const SOCKET: Call = Call::known("socket");
const SOCKETCALL: Call = Call::known("socketcall");
const IPC: Call = Call::known("ipc");

/// The number of socket(2) among those of socketcall(2).
const SYS_SOCKET: u64 = 1;

/// linux/net.h.
const SOCKET_CALLS: [(Call, u64); 20] = [
    (SOCKET, SYS_SOCKET),
    (Call::known("bind"), 2),
    (Call::known("connect"), 3),
    (Call::known("listen"), 4),
    (Call::known("accept"), 5),
    (Call::known("getsockname"), 6),
    (Call::known("getpeername"), 7),
    (Call::known("socketpair"), 8),
    (Call::known("send"), 9),
    (Call::known("recv"), 10),
    (Call::known("sendto"), 11),
    (Call::known("recvfrom"), 12),
    (Call::known("shutdown"), 13),
    (Call::known("setsockopt"), 14),
    (Call::known("getsockopt"), 15),
    (Call::known("sendmsg"), 16),
    (Call::known("recvmsg"), 17),
    (Call::known("accept4"), 18),
    (Call::known("recvmmsg"), 19),
    (Call::known("sendmmsg"), 20),
];

/// linux/ipc.h.
const IPC_CALLS: [(Call, u64); 12] = [
    (Call::known("semop"), 1),
    (Call::known("semget"), 2),
    (Call::known("semctl"), 3),
    (Call::known("semtimedop"), 4),
    (Call::known("msgsnd"), 11),
    (Call::known("msgrcv"), 12),
    (Call::known("msgget"), 13),
    (Call::known("msgctl"), 14),
    (Call::known("shmat"), 21),
    (Call::known("shmdt"), 22),
    (Call::known("shmget"), 23),
    (Call::known("shmctl"), 24),
];
