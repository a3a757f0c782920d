//! Device rules as the v1 controller takes them: a mode, and exceptions to it.
//!
//! The kernel allows all or nothing and keeps exceptions of (kind, major, minor), each with the
//! kinds of access it is for; to take one back it wants the same triple. So the list is played
//! through here first, and only the difference is written, without a moment in which a running
//! container misses a device that it keeps (runc: devices/devices_emulator.go).

use std::collections::BTreeMap;

use super::list::Entry;
use super::{DeviceAccess, DeviceKind, DeviceRule};
use crate::cgroup::CgroupError;

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(in crate::cgroup) struct State {
    /// Whether what has no exception is allowed.
    allow: bool,
    exceptions: BTreeMap<Key, i32>,
}

/// Major, minor and kind; the order is that in which exceptions are written.
type Key = (Option<u32>, Option<u32>, DeviceKind);

impl State {
    /// Plays a list through, from nothing allowed.
    ///
    /// # Errors
    /// [`CgroupError::DeviceHole`] if an entry takes back a part of a wider one: v1 cannot.
    pub fn of(entries: &[Entry]) -> Result<Self, CgroupError> {
        let mut state = Self::default();
        entries.iter().try_for_each(|entry| state.apply(entry))?;
        Ok(state)
    }

    /// Reads `devices.list`. Of a group in which all is allowed it does not tell the exceptions.
    pub fn parse(list: &str) -> Option<Self> {
        let mut state = Self::default();
        for line in list.lines() {
            let rule: DeviceRule = line.trim_end().parse().ok()?;
            match rule.kind {
                DeviceKind::All => return Some(Self { allow: true, ..Self::default() }),
                kind => {
                    *state.exceptions.entry((rule.major, rule.minor, kind)).or_default() |=
                        rule.access.bits();
                }
            }
        }
        Some(state)
    }

    pub fn allows_all(&self) -> bool {
        self.allow && self.exceptions.is_empty()
    }

    /// The allowances, see [`super::allowed_devices`].
    pub fn allowed(&self) -> Option<Vec<DeviceRule>> {
        if self.allow {
            return (!self.exceptions.is_empty()).then(Vec::new);
        }
        let rule = |((major, minor, kind), bits): (&Key, &i32)| DeviceRule {
            kind: *kind,
            major: *major,
            minor: *minor,
            access: DeviceAccess::of_bits(*bits),
        };
        Some(self.exceptions.iter().map(rule).collect())
    }

    fn apply(&mut self, entry: &Entry) -> Result<(), CgroupError> {
        if entry.is_whole() {
            *self = Self { allow: entry.allow, exceptions: BTreeMap::new() };
            return Ok(());
        }
        let DeviceRule { kind, major, minor, access } = entry.rule;
        let kinds: &[DeviceKind] = match kind {
            DeviceKind::All => &[DeviceKind::Block, DeviceKind::Character],
            DeviceKind::Block => &[DeviceKind::Block],
            DeviceKind::Character => &[DeviceKind::Character],
        };
        for kind in kinds {
            if entry.allow == self.allow {
                self.take_back(&entry.rule, *kind)?;
            } else if access.bits() != 0 {
                *self.exceptions.entry((major, minor, *kind)).or_default() |= access.bits();
            }
        }
        Ok(())
    }

    fn take_back(&mut self, rule: &DeviceRule, kind: DeviceKind) -> Result<(), CgroupError> {
        let bits = rule.access.bits();
        let within = |outer: Option<u32>, inner| outer.is_none() || outer == inner;
        let meet = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
        for (key, kept) in &mut self.exceptions {
            let (major, minor, of_kind) = *key;
            if of_kind != kind || !meet(major, rule.major) || !meet(minor, rule.minor) {
                continue;
            }
            if within(rule.major, major) && within(rule.minor, minor) {
                *kept &= !bits;
            } else if *kept & bits != 0 {
                let access = DeviceAccess::of_bits(*kept);
                let wider = DeviceRule { kind, major, minor, access };
                return Err(CgroupError::DeviceHole {
                    rule: rule.to_string(),
                    wider: wider.to_string(),
                });
            }
        }
        self.exceptions.retain(|_, kept| *kept != 0);
        Ok(())
    }

    /// The writes that lead from here to `target`: whether to `devices.allow` or `devices.deny`,
    /// and what.
    pub fn transition(&self, target: &Self) -> Vec<(bool, String)> {
        let mut writes = Vec::new();
        let none = BTreeMap::new();
        // the exceptions of a group that allows all are unknown, so it starts over
        let old = if self.allow || target.allow {
            writes.push((target.allow, "a".to_owned()));
            &none
        } else {
            &self.exceptions
        };
        let differences = |from: &BTreeMap<Key, i32>, to: &BTreeMap<Key, i32>, allow: bool| {
            let lines = from.iter().filter_map(|(key, bits)| {
                let bits = bits & !to.get(key).unwrap_or(&0);
                let (major, minor, kind) = *key;
                let rule = DeviceRule { kind, major, minor, access: DeviceAccess::of_bits(bits) };
                (bits != 0).then(|| (allow, rule.to_string()))
            });
            lines.collect::<Vec<_>>()
        };
        writes.extend(differences(old, &target.exceptions, target.allow));
        writes.extend(differences(&target.exceptions, old, !target.allow));
        writes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::list::{tests::entries, with_defaults};
    use super::*;

    fn list(texts: &[&str]) -> Vec<Entry> {
        let entry =
            |text: &&str| Entry { allow: text.starts_with('+'), rule: text[1..].parse().unwrap() };
        texts.iter().map(entry).collect()
    }

    fn writes(from: &str, to: &[&str]) -> String {
        let target = State::of(&list(to)).unwrap();
        let writes = State::parse(from).unwrap().transition(&target);
        let sign = |allow| if allow { '+' } else { '-' };
        let texts = writes.iter().map(|(allow, text)| format!("{}{text}", sign(*allow)));
        texts.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn only_differences_are_written() {
        for (from, to, want) in [
            ("a *:* rwm\n", &["-a *:* rwm", "+c 1:3 rwm"][..], "-a, +c 1:3 rwm"),
            ("a *:* rwm\n", &[], "-a"),
            ("c 1:3 rwm\nb 8:* r\n", &["+c 1:3 rwm", "+b 8:* r"], ""),
            ("c 1:3 rwm\n", &["+c 1:3 r", "+c 1:5 w"], "-c 1:3 wm, +c 1:5 w"),
            ("c 1:3 rwm\n", &["+a *:* rwm", "-b 8:0 w"], "+a, -b 8:0 w"),
            ("a *:* rwm\n", &["+a *:* rwm"], "+a"),
            ("", &["+a *:* r"], "+b *:* r, +c *:* r"),
            ("", &["+c 1:3 r", "+c 1:3 w", "-c 1:3 r"], "+c 1:3 w"),
            // narrower allowances go with the wider denial
            (
                "c 1:3 rwm\nc 1:5 rwm\n",
                &["+c 1:3 rwm", "+c 1:5 rwm", "-c 1:* w"],
                "-c 1:3 w, -c 1:5 w",
            ),
        ] {
            assert_eq!(writes(from, to), want, "{from:?} {to:?}");
        }
        assert_eq!(State::parse("c 1:3\n"), None);
    }

    #[test]
    fn a_hole_in_a_wider_rule_is_refused() {
        for texts in [
            &["+c 1:* rwm", "-c 1:3 w"][..],
            &["+c *:3 r", "-c 1:* r"],
            &["+a *:* rwm", "-b *:* rwm", "+b 8:0 rwm"],
            &["+a *:* r", "-c 1:3 r"],
        ] {
            let error = State::of(&list(texts)).unwrap_err().to_string();
            assert!(error.contains("not supported by devices cgroupv1"), "{error}");
        }
        State::of(&list(&["+c *:* m", "-c 1:3 w"])).unwrap();
        // what Docker gives an ordinary and a privileged container
        for allow in [false, true] {
            let rule = serde_json::json!({ "allow": allow, "access": "rwm" });
            let state =
                State::of(&with_defaults(&[serde_json::from_value(rule).unwrap()]).unwrap());
            assert_eq!(state.unwrap().allows_all(), allow);
        }
    }

    proptest! {
        #[test]
        fn the_state_is_what_the_list_says(
            entries in entries(), major in 0u32..4, minor in 0u32..4, character: bool,
        ) {
            let kind = if character { DeviceKind::Character } else { DeviceKind::Block };
            let names = |of: DeviceKind, a: Option<u32>, b: Option<u32>| {
                (of == kind || of == DeviceKind::All)
                    && a.is_none_or(|it| it == major) && b.is_none_or(|it| it == minor)
            };
            let mut want = 0;
            for Entry { allow, rule } in &entries {
                if names(rule.kind, rule.major, rule.minor) {
                    let bits = rule.access.bits();
                    want = if *allow { want | bits } else { want & !bits };
                }
            }
            if let Ok(state) = State::of(&entries) {
                let excepted = state.exceptions.iter()
                    .filter(|((a, b, of), _)| names(*of, *a, *b))
                    .fold(0, |bits, (_, more)| bits | more);
                prop_assert_eq!(if state.allow { 7 & !excepted } else { excepted }, want);
            }
        }

        #[test]
        fn a_transition_arrives(from in entries(), to in entries()) {
            let (Ok(from), Ok(to)) = (State::of(&from), State::of(&to)) else { return Ok(()) };
            // the kernel's way: exceptions are named by the same triple
            let mut state = from.clone();
            for (allow, text) in from.transition(&to) {
                if text == "a" {
                    state = State { allow, exceptions: BTreeMap::new() };
                    continue;
                }
                let DeviceRule { kind, major, minor, access } = text.parse().unwrap();
                let bits = state.exceptions.entry((major, minor, kind)).or_default();
                *bits = if allow == state.allow { *bits & !access.bits() } else { *bits | access.bits() };
                state.exceptions.retain(|_, bits| *bits != 0);
            }
            prop_assert_eq!(state, to);
        }
    }
}
