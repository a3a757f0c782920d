//! Which device nodes a cgroup's processes may use: the v1 controller's rules and the same as an
//! eBPF program for v2.

use bulkhead_types::oci::DeviceAccessRule;
use serde::{Deserialize, Serialize};

use super::CgroupError;

mod attach;
mod list;
mod program;
mod transition;

/// What a cgroup may do with devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Devices {
    /// Everything, as for a privileged container.
    All,
    /// What [`DeviceRule::defaults`] lists, and these.
    DefaultAnd(Vec<DeviceRule>),
}

impl Default for Devices {
    fn default() -> Self {
        Self::DefaultAnd(Vec::new())
    }
}

impl Devices {
    /// The same as config.json has it; the defaults are added to those when they are set.
    pub(super) fn to_oci(&self) -> Vec<DeviceAccessRule> {
        let all = DeviceAccessRule { allow: true, access: "rwm".into(), ..Default::default() };
        match self {
            Self::All => vec![all],
            Self::DefaultAnd(more) => {
                let more = more.iter().map(|rule| DeviceAccessRule {
                    allow: true,
                    kind: rule.kind.letter().to_string(),
                    major: rule.major.map(i64::from),
                    minor: rule.minor.map(i64::from),
                    access: rule.access.to_string(),
                });
                std::iter::once(DeviceAccessRule { allow: false, ..all }).chain(more).collect()
            }
        }
    }
}

/// Allows one device, or a range of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    pub kind: DeviceKind,
    /// `None` is every number.
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub access: DeviceAccess,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DeviceKind {
    All,
    Block,
    Character,
}

impl DeviceKind {
    fn letter(self) -> char {
        match self {
            Self::All => 'a',
            Self::Block => 'b',
            Self::Character => 'c',
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceAccess {
    pub read: bool,
    pub write: bool,
    pub mknod: bool,
}

impl DeviceAccess {
    pub const ALL: Self = Self { read: true, write: true, mknod: true };
    pub const MKNOD: Self = Self { read: false, write: false, mknod: true };

    /// As in linux/bpf.h, `BPF_DEVCG_ACC_…`.
    fn bits(self) -> i32 {
        i32::from(self.mknod) | i32::from(self.read) << 1 | i32::from(self.write) << 2
    }

    fn of_bits(bits: i32) -> Self {
        Self { mknod: bits & 1 != 0, read: bits & 2 != 0, write: bits & 4 != 0 }
    }
}

impl std::fmt::Display for DeviceAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (granted, letter) in [(self.read, "r"), (self.write, "w"), (self.mknod, "m")] {
            f.write_str(if granted { letter } else { "" })?;
        }
        Ok(())
    }
}

impl std::str::FromStr for DeviceAccess {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut granted = Self { read: false, write: false, mknod: false };
        for letter in text.chars() {
            match letter {
                'r' => granted.read = true,
                'w' => granted.write = true,
                'm' => granted.mknod = true,
                _ => return Err(()),
            }
        }
        Ok(granted)
    }
}

/// Why a rule of `--device-cgroup-rule` was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid device cgroup format '{0}': write TYPE MAJOR:MINOR ACCESS, such as 'c 10:200 rwm'"
)]
pub struct InvalidDeviceRule(String);

impl std::str::FromStr for DeviceRule {
    type Err = InvalidDeviceRule;

    /// Reads the v1 controller's own notation (Linux: admin-guide/cgroup-v1/devices.rst), which is
    /// also that of `--device-cgroup-rule`: `c 1:3 rw`, `b 8:* r`, `a *:* rwm`.
    fn from_str(text: &str) -> Result<Self, InvalidDeviceRule> {
        parse(text).ok_or_else(|| InvalidDeviceRule(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<DeviceRule> {
    let mut fields = text.split(' ');
    let (kind, numbers, access) = (fields.next()?, fields.next()?, fields.next()?);
    if fields.next().is_some() || access.is_empty() {
        return None;
    }
    let kind = match kind {
        "a" => DeviceKind::All,
        "b" => DeviceKind::Block,
        "c" => DeviceKind::Character,
        _ => return None,
    };
    let number = |text: &str| match text {
        "*" => Some(None),
        // u32::from_str admits a plus sign
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok().map(Some),
        _ => None,
    };
    let (major, minor) = numbers.split_once(':')?;
    Some(DeviceRule {
        kind,
        major: number(major)?,
        minor: number(minor)?,
        access: access.parse().ok()?,
    })
}

impl std::fmt::Display for DeviceRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |it| it.to_string());
        let (major, minor) = (number(self.major), number(self.minor));
        write!(f, "{} {major}:{minor} {}", self.kind.letter(), self.access)
    }
}

/// What a list allows: `None` is everything. Everything with exceptions cannot be told so, and is
/// nothing.
pub(super) fn allowed_devices(
    rules: &[DeviceAccessRule],
) -> Result<Option<Vec<DeviceRule>>, CgroupError> {
    Ok(transition::State::of(&list::with_defaults(rules)?)?.allowed())
}

impl DeviceRule {
    /// Docker's list (moby: daemon/pkg/oci/defaults.go; runc adds the rest): nodes of any kind may
    /// be made, but only the harmless ones and terminals can be opened.
    pub fn defaults() -> [Self; 11] {
        let character = |major, minor| Self {
            kind: DeviceKind::Character,
            major,
            minor,
            access: DeviceAccess::ALL,
        };
        let mknod = |kind| Self { kind, major: None, minor: None, access: DeviceAccess::MKNOD };
        [
            mknod(DeviceKind::Character),
            mknod(DeviceKind::Block),
            character(Some(1), Some(3)), // null
            character(Some(1), Some(5)), // zero
            character(Some(1), Some(7)), // full
            character(Some(1), Some(8)), // random
            character(Some(1), Some(9)), // urandom
            character(Some(5), Some(0)), // tty
            character(Some(5), Some(1)), // console
            character(Some(5), Some(2)), // ptmx
            character(Some(136), None),  // pts
        ]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rules_are_read_and_written_as_the_controller_does() {
        for text in ["c 1:3 rwm", "b 8:* r", "a *:* rwm", "c 4095:1048575 m", "c *:* wm"] {
            assert_eq!(text.parse::<DeviceRule>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "c",
            "c 1:3",
            "c 1:3 ",
            "d 1:3 r",
            "c 1 r",
            "c -1:3 r",
            "c +1:3 r",
            "c 1:3 x",
            "c 1:3 r r",
            "c 1:3  r",
            "c 4294967296:1 r",
            "c :1 r",
            "c 1: r",
        ] {
            let error = text.parse::<DeviceRule>().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("invalid device cgroup format '{text}'")),
                "{error}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "[abc 0-9:*rwm]{0,16}") {
            if let Ok(rule) = text.parse::<DeviceRule>() {
                prop_assert_eq!(rule.to_string().parse::<DeviceRule>(), Ok(rule));
            }
        }
    }
}
