//! The ordered list of config.json (config-linux.md, "Allowed Device list").

use bulkhead_types::oci::DeviceAccessRule;

use super::{DeviceAccess, DeviceKind, DeviceRule};
use crate::cgroup::CgroupError;

/// Allows or denies what the rule names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cgroup) struct Entry {
    pub allow: bool,
    pub rule: DeviceRule,
}

impl Entry {
    /// Whether it is about every access to every device, so that nothing before it counts.
    pub fn is_whole(&self) -> bool {
        let DeviceRule { kind, major, minor, access } = self.rule;
        (kind, major, minor, access) == (DeviceKind::All, None, None, DeviceAccess::ALL)
    }
}

/// Reads a list and puts what is always allowed behind it, as runc does: nodes of any kind may be
/// made, and null, zero, full, random, urandom, tty, console and the terminals used.
///
/// # Errors
/// [`CgroupError::InvalidDeviceRule`] for a type, number or access that there is not.
pub(in crate::cgroup) fn with_defaults(
    rules: &[DeviceAccessRule],
) -> Result<Vec<Entry>, CgroupError> {
    let given = rules.iter().map(|rule| {
        parse(rule).ok_or_else(|| CgroupError::InvalidDeviceRule(Box::new(rule.clone())))
    });
    let defaults = DeviceRule::defaults().map(|rule| Ok(Entry { allow: true, rule }));
    given.chain(defaults).collect()
}

fn parse(rule: &DeviceAccessRule) -> Option<Entry> {
    let kind = match rule.kind.as_str() {
        "" | "a" => DeviceKind::All,
        "b" => DeviceKind::Block,
        "c" => DeviceKind::Character,
        _ => return None,
    };
    let number = |number: Option<i64>| match number {
        None | Some(-1) => Some(None),
        Some(number) => u32::try_from(number).ok().map(Some),
    };
    let access = match rule.access.as_str() {
        "" => DeviceAccess::ALL,
        letters => letters.parse().ok()?,
    };
    let (major, minor) = (number(rule.major)?, number(rule.minor)?);
    Some(Entry { allow: rule.allow, rule: DeviceRule { kind, major, minor, access } })
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub fn entries() -> impl Strategy<Value = Vec<Entry>> {
        let kind = prop_oneof![
            Just(DeviceKind::All),
            Just(DeviceKind::Block),
            Just(DeviceKind::Character)
        ];
        let number = || proptest::option::of(0u32..4);
        let access = prop_oneof![Just(7), 0..8].prop_map(DeviceAccess::of_bits);
        let entry = (any::<bool>(), kind, number(), number(), access)
            .prop_map(|(allow, kind, major, minor, access)| Entry {
                allow,
                rule: DeviceRule { kind, major, minor, access },
            })
            .boxed();
        let whole =
            any::<bool>().prop_map(|allow| Entry { allow, rule: "a *:* rwm".parse().unwrap() });
        proptest::collection::vec(prop_oneof![6 => entry, 1 => whole], 0..8)
    }

    #[test]
    fn entries_are_read_or_refused() {
        let rule = |text: &str| serde_json::from_str::<DeviceAccessRule>(text).unwrap();
        for (text, want) in [
            (r#"{"allow":false,"access":"rwm"}"#, "a *:* rwm"),
            (r#"{"allow":false}"#, "a *:* rwm"),
            (r#"{"allow":true,"type":"c","major":10,"minor":229,"access":"wr"}"#, "c 10:229 rw"),
            (r#"{"allow":true,"type":"b","major":8,"minor":-1,"access":"r"}"#, "b 8:* r"),
        ] {
            assert_eq!(parse(&rule(text)).unwrap().rule.to_string(), want, "{text}");
        }
        for text in [
            r#"{"allow":true,"type":"p","access":"r"}"#,
            r#"{"allow":true,"type":"c","major":-2,"access":"r"}"#,
            r#"{"allow":true,"type":"c","major":4294967296,"access":"r"}"#,
            r#"{"allow":true,"type":"c","access":"rx"}"#,
        ] {
            let error = with_defaults(&[rule(text)]).unwrap_err().to_string();
            assert!(error.starts_with("invalid device rule "), "{error}");
        }
        let list = with_defaults(&[]).unwrap();
        assert_eq!(list.len(), 11);
        assert!(list.iter().all(|it| it.allow && !it.is_whole()));
    }
}
