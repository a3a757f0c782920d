//! The numbers of system calls, by name and architecture: `syscalls.txt`, read by the compiler.

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
pub(super) const NATIVE: &[Architecture] = Architecture::ON_X86_64;
#[cfg(target_arch = "aarch64")]
pub(super) const NATIVE: &[Architecture] = Architecture::ON_AARCH64;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!(
    "seccomp tables exist for x86_64 and aarch64: add this architecture's to syscalls.txt"
);

pub(super) const X32_BIT: u32 = 0x4000_0000;

impl Architecture {
    pub const ALL: [Self; 5] = [Self::X86_64, Self::X86, Self::X32, Self::Aarch64, Self::Arm];

    #[allow(dead_code, reason = "the build script and tests know machines of either kind")]
    pub const ON_X86_64: &[Self] = &[Self::X86_64, Self::X86, Self::X32];

    #[allow(dead_code, reason = "the build script and tests know machines of either kind")]
    pub const ON_AARCH64: &[Self] = &[Self::Aarch64, Self::Arm];

    /// `seccomp_data.arch` (linux/audit.h, `AUDIT_ARCH_…`).
    pub fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// Whether calls have arguments of 64 bits. libseccomp takes x32 for one that has not.
    pub fn is_64_bit(self) -> bool {
        matches!(self, Self::X86_64 | Self::Aarch64)
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

    /// Numbers, as they stand in `seccomp_data.nr`, and calls, in ascending order. Two names of one
    /// number follow each other.
    pub fn calls(self) -> &'static [(u32, Call)] {
        let (sorted, length) = &SORTED[self as usize];
        &sorted[..*length]
    }
}

/// A system call that the table has under some architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Call(u16);

impl Call {
    pub const COUNT: usize = COUNT;

    pub const fn named(name: &str) -> Option<Self> {
        let mut slot = hash(name.as_bytes());
        loop {
            match SLOTS[slot % SLOT_COUNT] {
                EMPTY => return None,
                index if same(NAMES[index as usize], name) => return Some(Self(index)),
                _ => slot += 1,
            }
        }
    }

    /// For names that the source has as literals: one that the table lacks does not compile.
    pub const fn known(name: &str) -> Self {
        Self::named(name).expect("syscalls.txt has the name")
    }

    #[cfg(test)]
    pub const fn name(self) -> &'static str {
        NAMES[self.0 as usize]
    }

    /// Its place in a list of [`Self::COUNT`].
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

struct Entry {
    name: &'static str,
    numbers: [Option<u32>; 5],
}

const TEXT: &str = include_str!("syscalls.txt");
const COUNT: usize = count();

static TABLE: [Entry; COUNT] = parse();

static NAMES: [&str; COUNT] = names();

static SORTED: [([(u32, Call); COUNT], usize); 5] = [sort(0), sort(1), sort(2), sort(3), sort(4)];

/// Open addressing: names are looked up some 400 times for a profile.
static SLOTS: [u16; SLOT_COUNT] = slots();
const SLOT_COUNT: usize = 2048;
const EMPTY: u16 = u16::MAX;

/// FNV-1a.
const fn hash(name: &[u8]) -> usize {
    let (mut hash, mut at) = (0x811c_9dc5_u32, 0);
    while at < name.len() {
        hash = (hash ^ name[at] as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    (hash ^ hash >> 15) as usize
}

const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}

const fn names() -> [&'static str; COUNT] {
    let (mut names, mut index) = ([""; COUNT], 0);
    while index < COUNT {
        names[index] = TABLE[index].name;
        index += 1;
    }
    names
}

const fn slots() -> [u16; SLOT_COUNT] {
    let mut slots = [EMPTY; SLOT_COUNT];
    let mut index = 0;
    while index < COUNT {
        let mut slot = hash(NAMES[index].as_bytes()) % SLOT_COUNT;
        while slots[slot] != EMPTY {
            slot = (slot + 1) % SLOT_COUNT;
        }
        slots[slot] = index as u16;
        index += 1;
    }
    slots
}

/// Up to the separator, and what is behind it.
const fn cut(text: &'static str, separator: u8) -> (&'static str, &'static str) {
    let mut at = 0;
    while at < text.len() {
        if text.as_bytes()[at] == separator {
            let (before, rest) = text.split_at(at);
            return (before, rest.split_at(1).1);
        }
        at += 1;
    }
    (text, "")
}

const fn count() -> usize {
    let (mut rest, mut count) = (TEXT, 0);
    while !rest.is_empty() {
        count += (rest.as_bytes()[0] != b'#') as usize;
        rest = cut(rest, b'\n').1;
    }
    count
}

const fn parse() -> [Entry; COUNT] {
    let mut table = [const { Entry { name: "", numbers: [None; 5] } }; COUNT];
    let (mut rest, mut index) = (TEXT, 0);
    while !rest.is_empty() {
        let (line, below) = cut(rest, b'\n');
        rest = below;
        if line.as_bytes()[0] == b'#' {
            continue;
        }
        let (name, mut fields) = cut(line, b' ');
        table[index].name = name;
        let mut column = 0;
        while column < 5 {
            let (field, others) = cut(fields, b' ');
            fields = others;
            table[index].numbers[column] = match (number(field), column) {
                (Some(number), X32) => Some(number | X32_BIT),
                (number, _) => number,
            };
            column += 1;
        }
        index += 1;
    }
    table
}

const X32: usize = Architecture::X32 as usize;

const fn number(field: &str) -> Option<u32> {
    if field.as_bytes()[0] == b'-' {
        return None;
    }
    let (mut number, mut at) = (0, 0);
    while at < field.len() {
        number = number * 10 + (field.as_bytes()[at] - b'0') as u32;
        at += 1;
    }
    Some(number)
}

/// One column by number, and its length.
const fn sort(column: usize) -> ([(u32, Call); COUNT], usize) {
    let mut sorted = [(0, Call(0)); COUNT];
    let (mut length, mut index) = (0, 0);
    while index < COUNT {
        if let Some(number) = TABLE[index].numbers[column] {
            let mut at = length;
            while at > 0 && sorted[at - 1].0 > number {
                sorted[at] = sorted[at - 1];
                at -= 1;
            }
            sorted[at] = (number, Call(index as u16));
            length += 1;
        }
        index += 1;
    }
    (sorted, length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_what_the_table_has() {
        let mut lines = 0;
        for line in TEXT.lines().filter(|line| !line.starts_with('#')) {
            let fields: Vec<&str> = line.split(' ').collect();
            let call = Call::named(fields[0]).unwrap();
            assert_eq!((call.name(), call.index()), (fields[0], lines));
            for (architecture, field) in Architecture::ALL.into_iter().zip(&fields[1..]) {
                let bit = if architecture == Architecture::X32 { X32_BIT } else { 0 };
                let want = field.parse::<u32>().ok().map(|number| number | bit);
                let mut found = architecture.calls().iter().filter(|(_, it)| *it == call);
                assert_eq!(
                    found.next().map(|(number, _)| *number),
                    want,
                    "{architecture:?} {line}"
                );
                assert_eq!(found.next(), None);
            }
            lines += 1;
        }
        assert_eq!(lines, Call::COUNT);
        for architecture in Architecture::ALL {
            assert!(architecture.calls().is_sorted(), "{architecture:?}");
        }
    }

    #[test]
    fn other_names_are_unknown() {
        for name in ["", "rea", "reads", "READ", "no_such_call", "read\0", "é"] {
            assert_eq!(Call::named(name), None, "{name}");
        }
    }
}
