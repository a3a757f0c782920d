//! Which device nodes a cgroup's processes may use: the v1 controller's rules and the same as an
//! eBPF program for v2.

use bulkhead_sys::bpf::Instruction;
use serde::{Deserialize, Serialize};

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
    /// The allow list, or nothing if there is to be no restriction.
    pub(super) fn rules(&self) -> Option<Vec<DeviceRule>> {
        match self {
            Self::All => None,
            Self::DefaultAnd(more) => Some([&DeviceRule::defaults()[..], more].concat()),
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    All,
    Block,
    Character,
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
    let mut granted = DeviceAccess { read: false, write: false, mknod: false };
    for letter in access.chars() {
        match letter {
            'r' => granted.read = true,
            'w' => granted.write = true,
            'm' => granted.mknod = true,
            _ => return None,
        }
    }
    Some(DeviceRule { kind, major: number(major)?, minor: number(minor)?, access: granted })
}

impl std::fmt::Display for DeviceRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            DeviceKind::All => 'a',
            DeviceKind::Block => 'b',
            DeviceKind::Character => 'c',
        };
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |it| it.to_string());
        write!(f, "{kind} {}:{} ", number(self.major), number(self.minor))?;
        for (granted, letter) in
            [(self.access.read, "r"), (self.access.write, "w"), (self.access.mknod, "m")]
        {
            f.write_str(if granted { letter } else { "" })?;
        }
        Ok(())
    }
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

/// Compiles an allow list for `BPF_PROG_TYPE_CGROUP_DEVICE`: returns 1 for what a rule matches with
/// all the access that is asked, 0 for the rest. One rule has to grant all of it, as on v1.
pub(super) fn compile(rules: &[DeviceRule]) -> Vec<Instruction> {
    let mut program = vec![
        load(TYPE, CONTEXT_ACCESS_TYPE),
        move_register(ACCESS, TYPE),
        and(TYPE, 0xffff),
        shift_right(ACCESS, 16),
        load(MAJOR, CONTEXT_MAJOR),
        load(MINOR, CONTEXT_MINOR),
    ];
    for rule in rules {
        program.extend(block(rule));
    }
    program.extend([set(RESULT, 0), exit()]);
    program
}

/// The instructions of one rule; whatever does not match jumps behind its last one.
fn block(rule: &DeviceRule) -> Vec<Instruction> {
    let mut tests = Vec::new();
    match rule.kind {
        DeviceKind::All => {}
        DeviceKind::Block => tests.push(jump_unequal(TYPE, 1)),
        DeviceKind::Character => tests.push(jump_unequal(TYPE, 2)),
    }
    if rule.access != DeviceAccess::ALL {
        tests.push(move_register(SCRATCH, ACCESS));
        tests.push(and(SCRATCH, rule.access.bits()));
        tests.push(jump_unequal_register(SCRATCH, ACCESS));
    }
    tests.extend(rule.major.map(|major| jump_unequal(MAJOR, major as i32)));
    tests.extend(rule.minor.map(|minor| jump_unequal(MINOR, minor as i32)));
    let end = tests.len() + 2;
    for (index, instruction) in tests.iter_mut().enumerate() {
        if instruction.code & CLASS == CLASS_JUMP32 {
            instruction.offset = i16::try_from(end - index - 1).expect("a block has 9 at most");
        }
    }
    tests.extend([set(RESULT, 1), exit()]);
    tests
}

// Registers: the context comes in r1, which is free once everything is loaded.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const SCRATCH: u8 = 1;
const TYPE: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

// struct bpf_cgroup_dev_ctx; access in the high half of the first word, type in the low one
const CONTEXT_ACCESS_TYPE: i16 = 0;
const CONTEXT_MAJOR: i16 = 4;
const CONTEXT_MINOR: i16 = 8;

const CLASS: u8 = 0x07;
const CLASS_JUMP32: u8 = 0x06;

fn load(to: u8, offset: i16) -> Instruction {
    Instruction { code: 0x61, registers: CONTEXT << 4 | to, offset, immediate: 0 }
}

fn move_register(to: u8, from: u8) -> Instruction {
    Instruction { code: 0xbc, registers: from << 4 | to, offset: 0, immediate: 0 }
}

fn set(to: u8, value: i32) -> Instruction {
    Instruction { code: 0xb4, registers: to, offset: 0, immediate: value }
}

fn and(to: u8, value: i32) -> Instruction {
    Instruction { code: 0x54, registers: to, offset: 0, immediate: value }
}

fn shift_right(to: u8, bits: i32) -> Instruction {
    Instruction { code: 0x74, registers: to, offset: 0, immediate: bits }
}

fn jump_unequal(register: u8, value: i32) -> Instruction {
    Instruction { code: 0x50 | CLASS_JUMP32, registers: register, offset: 0, immediate: value }
}

fn jump_unequal_register(left: u8, right: u8) -> Instruction {
    Instruction { code: 0x58 | CLASS_JUMP32, registers: right << 4 | left, offset: 0, immediate: 0 }
}

fn exit() -> Instruction {
    Instruction { code: 0x95, registers: 0, offset: 0, immediate: 0 }
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

    #[test]
    fn the_program_opens_what_the_list_allows_and_nothing_else() {
        let program = compile(&Devices::default().rules().unwrap());
        for (kind, major, minor, access, allowed) in [
            (2, 1, 3, 2 | 4, 1),
            (2, 1, 3, 1, 1),
            (2, 136, 77, 2 | 4, 1),
            (2, 5, 2, 2, 1),
            (2, 8, 0, 1, 1), // mknod of anything
            (1, 8, 0, 1, 1),
            (1, 8, 0, 2, 0),    // but not its use
            (1, 1, 3, 2, 0),    // a ram disk, not /dev/null
            (2, 1, 1, 2, 0),    // /dev/mem
            (2, 10, 200, 2, 0), // tun
            (2, 8, 0, 1 | 2, 0),
        ] {
            assert_eq!(
                run(&program, kind, major, minor, access),
                allowed,
                "{kind} {major}:{minor}"
            );
        }
    }

    proptest! {
        #[test]
        fn the_program_agrees_with_the_rules(
            rules in proptest::collection::vec(rule(), 0..6),
            kind in 1u32..3, major in 0u32..4, minor in 0u32..4, access in 1u32..8,
        ) {
            let want = rules.iter().any(|rule: &DeviceRule| {
                let bits = rule.access.bits() as u32;
                let of_kind = match rule.kind {
                    DeviceKind::All => true,
                    DeviceKind::Block => kind == 1,
                    DeviceKind::Character => kind == 2,
                };
                of_kind && rule.major.is_none_or(|it| it == major)
                    && rule.minor.is_none_or(|it| it == minor) && access & !bits == 0
            });
            prop_assert_eq!(run(&compile(&rules), kind, major, minor, access), u64::from(want));
        }

        #[test]
        fn any_text_is_survived(text in "[abc 0-9:*rwm]{0,16}") {
            if let Ok(rule) = text.parse::<DeviceRule>() {
                prop_assert_eq!(rule.to_string().parse::<DeviceRule>(), Ok(rule));
            }
        }
    }

    fn rule() -> impl Strategy<Value = DeviceRule> {
        let kind = prop_oneof![
            Just(DeviceKind::All),
            Just(DeviceKind::Block),
            Just(DeviceKind::Character)
        ];
        let number = || proptest::option::of(0u32..4);
        (kind, number(), number(), any::<[bool; 3]>()).prop_map(|(kind, major, minor, access)| {
            let [read, write, mknod] = access;
            DeviceRule { kind, major, minor, access: DeviceAccess { read, write, mknod } }
        })
    }

    /// Interprets the few instructions that `compile` emits.
    fn run(program: &[Instruction], kind: u32, major: u32, minor: u32, access: u32) -> u64 {
        let mut registers = [0u64; 6];
        let mut at = 0;
        loop {
            let it = program[at];
            let (to, from) = ((it.registers & 15) as usize, (it.registers >> 4) as usize);
            let immediate = u64::from(it.immediate as u32);
            at += 1;
            match it.code {
                0x61 => {
                    registers[to] = match it.offset {
                        CONTEXT_ACCESS_TYPE => u64::from(access << 16 | kind),
                        CONTEXT_MAJOR => u64::from(major),
                        CONTEXT_MINOR => u64::from(minor),
                        other => panic!("load of {other}"),
                    }
                }
                0xbc => registers[to] = registers[from],
                0xb4 => registers[to] = immediate,
                0x54 => registers[to] &= immediate,
                0x74 => registers[to] >>= it.immediate,
                0x56 if registers[to] != immediate => at += it.offset as usize,
                0x5e if registers[to] != registers[from] => at += it.offset as usize,
                0x56 | 0x5e => {}
                0x95 => return registers[0],
                other => panic!("instruction {other:#x}"),
            }
        }
    }
}
