//! The numbers of system calls, by name and architecture.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

/// An architecture whose calls a process of this machine may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Architecture {
    X86_64,
    /// 32-bit x86, by `int 0x80` from 64-bit code too.
    X86,
    /// 64-bit x86 with 32-bit pointers: bit 30 of the number, and the same audit value as x86-64.
    X32,
    Aarch64,
    Arm,
}

/// The machine's own architecture first, then those that it also runs.
#[cfg(target_arch = "x86_64")]
pub(super) const NATIVE: [Architecture; 3] =
    [Architecture::X86_64, Architecture::X86, Architecture::X32];
#[cfg(target_arch = "aarch64")]
pub(super) const NATIVE: [Architecture; 2] = [Architecture::Aarch64, Architecture::Arm];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!(
    "seccomp tables exist for x86_64 and aarch64: add this architecture's to syscalls.txt"
);

pub(super) const X32_BIT: u32 = 0x4000_0000;

impl Architecture {
    pub const ALL: [Self; 5] = [Self::X86_64, Self::X86, Self::X32, Self::Aarch64, Self::Arm];

    /// `seccomp_data.arch` (linux/audit.h, `AUDIT_ARCH_…`).
    pub fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// The name in a profile's `architectures` and `archMap`.
    pub fn profile_name(self) -> &'static str {
        match self {
            Self::X86_64 => "SCMP_ARCH_X86_64",
            Self::X86 => "SCMP_ARCH_X86",
            Self::X32 => "SCMP_ARCH_X32",
            Self::Aarch64 => "SCMP_ARCH_AARCH64",
            Self::Arm => "SCMP_ARCH_ARM",
        }
    }

    /// The name in a profile's `includes` and `excludes`.
    pub fn go_name(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::X86 => "x86",
            Self::X32 => "x32",
            Self::Aarch64 => "arm64",
            Self::Arm => "arm",
        }
    }

    /// Names and numbers, as they stand in `seccomp_data.nr`.
    pub fn calls(self) -> impl Iterator<Item = (&'static str, u32)> {
        TABLE.iter().filter_map(move |(name, numbers)| Some((*name, numbers[self as usize]?)))
    }

    /// The same the other way round; two names of one number are both kept.
    pub fn names(self) -> BTreeMap<u32, Vec<&'static str>> {
        let mut names: BTreeMap<u32, Vec<&'static str>> = BTreeMap::new();
        for (name, number) in self.calls() {
            names.entry(number).or_default().push(name);
        }
        names
    }
}

/// Parsed once; the file is part of the program.
static TABLE: LazyLock<HashMap<&'static str, [Option<u32>; 5]>> = LazyLock::new(|| {
    let lines = include_str!("syscalls.txt").lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let mut fields = line.split(' ');
            let name = fields.next().unwrap_or_default();
            let mut numbers = [None; 5];
            for (number, field) in numbers.iter_mut().zip(fields) {
                *number = field.parse().ok();
            }
            let x32 = &mut numbers[Architecture::X32 as usize];
            *x32 = x32.map(|number| number | X32_BIT);
            (name, numbers)
        })
        .collect()
});
