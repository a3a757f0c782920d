//! A profile with its conditions resolved: which call, with which arguments, ends in which action.

use std::collections::HashMap;

use super::SeccompError;
use super::table::Architecture;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Profile {
    pub default: Action,
    /// Those that processes may use; a call of another one kills.
    pub architectures: Vec<Architecture>,
    pub rules: Vec<Rule>,
}

/// The rules that speak of a name, each with its place in the profile.
pub(super) type RulesByName<'a> = HashMap<&'a str, Vec<(usize, &'a Rule)>>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub names: Vec<String>,
    pub action: Action,
    /// All of them have to hold.
    pub conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Allow,
    Errno(u16),
    KillProcess,
    KillThread,
    Log,
    Trace(u16),
    Trap,
}

impl Action {
    /// What the filter returns (linux/seccomp.h).
    pub fn value(self) -> u32 {
        match self {
            Self::Allow => 0x7fff_0000,
            Self::Errno(errno) => 0x0005_0000 | u32::from(errno),
            Self::KillProcess => 0x8000_0000,
            Self::KillThread => 0,
            Self::Log => 0x7ffc_0000,
            Self::Trace(data) => 0x7ff0_0000 | u32::from(data),
            Self::Trap => 0x0003_0000,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    /// 0 to 5.
    pub argument: u8,
    pub comparison: Comparison,
}

/// Comparisons are unsigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal(u64),
    NotEqual(u64),
    Less(u64),
    LessOrEqual(u64),
    Greater(u64),
    GreaterOrEqual(u64),
    MaskedEqual { mask: u64, value: u64 },
}

impl Profile {
    pub fn by_name(&self) -> RulesByName<'_> {
        let mut by_name = RulesByName::new();
        for (index, rule) in self.rules.iter().enumerate() {
            for name in &rule.names {
                by_name.entry(name).or_default().push((index, rule));
            }
        }
        by_name
    }

    /// What becomes of a call of these names, as a list: the first whose conditions hold.
    ///
    /// As in libseccomp a rule without conditions stands above those with some, and a rule whose
    /// action is the default one says nothing.
    pub fn rules_for(
        &self,
        by_name: &RulesByName<'_>,
        names: &[&str],
    ) -> Vec<(Vec<Condition>, Action)> {
        let mut rules: Vec<(usize, &Rule)> = names
            .iter()
            .filter_map(|name| by_name.get(name))
            .flatten()
            .filter(|(_, rule)| rule.action != self.default)
            .copied()
            .collect();
        rules.sort_by_key(|(index, _)| *index);
        if let Some((_, rule)) = rules.iter().find(|(_, rule)| rule.conditions.is_empty()) {
            return vec![(Vec::new(), rule.action)];
        }
        rules.into_iter().map(|(_, rule)| (rule.conditions.clone(), rule.action)).collect()
    }

    /// For numbers that no table has. A profile that lets unlisted calls through lets these too.
    pub fn unknown(&self) -> Action {
        match self.default {
            Action::Allow | Action::Log | Action::Trace(_) => self.default,
            Action::Errno(_) | Action::KillProcess | Action::KillThread | Action::Trap => {
                Action::Errno(ENOSYS)
            }
        }
    }
}

/// Whether the kernel takes only the low 32 bits of an argument, being an `int`.
///
/// The comparison must do the same: with all 64 bits compared, socket(2^32 + AF_VSOCK) is a family
/// above AF_VSOCK to the filter, and AF_VSOCK to the kernel.
pub(super) fn is_int(name: &str, argument: u8) -> bool {
    matches!((name, argument), ("socket", 0..=2) | ("socketpair", 0..=2) | ("socketcall", 0))
        || (name, argument) == ("personality", 0)
}

pub(super) fn errno(number: Option<u32>) -> Result<u16, SeccompError> {
    match number {
        None => Ok(EPERM),
        Some(number @ 0..=4095) => Ok(number as u16),
        Some(number) => Err(SeccompError::Errno(number)),
    }
}

pub(super) const EPERM: u16 = 1;
pub(super) const ENOSYS: u16 = 38;
