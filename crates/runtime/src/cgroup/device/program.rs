//! Device rules as an eBPF program for cgroup v2 (Linux: `BPF_PROG_TYPE_CGROUP_DEVICE`).

use bulkhead_sys::bpf::Instruction;

use super::list::Entry;
use super::{DeviceAccess, DeviceKind, DeviceRule};

/// Compiles an ordered list: the last entry that names the device decides, for each kind of access
/// on its own. Returns 1 if all that is asked is allowed, and 0 if not; what no entry names is not.
///
/// The program goes from the last entry to the first: an allowance takes its kinds off those still
/// asked for, a denial of one of those ends it.
pub(super) fn compile(entries: &[Entry]) -> Vec<Instruction> {
    let mut program = vec![
        load(TYPE, CONTEXT_ACCESS_TYPE),
        move_register(ACCESS, TYPE),
        and(TYPE, 0xffff),
        shift_right(ACCESS, 16),
        load(MAJOR, CONTEXT_MAJOR),
        load(MINOR, CONTEXT_MINOR),
    ];
    let whole = entries.iter().rposition(Entry::is_whole);
    for entry in entries[whole.map_or(0, |index| index + 1)..].iter().rev() {
        program.extend(block(entry));
    }
    let otherwise = whole.is_some_and(|index| entries[index].allow);
    program.extend([set(RESULT, otherwise.into()), exit()]);
    program
}

/// The instructions of one entry; whatever it does not decide jumps behind its last one.
fn block(Entry { allow, rule }: &Entry) -> Vec<Instruction> {
    let DeviceRule { kind, major, minor, access } = *rule;
    let mut block = Vec::with_capacity(9);
    match kind {
        DeviceKind::All => {}
        DeviceKind::Block => block.push(jump_unequal(TYPE, 1)),
        DeviceKind::Character => block.push(jump_unequal(TYPE, 2)),
    }
    block.extend(major.map(|major| jump_unequal(MAJOR, major as i32)));
    block.extend(minor.map(|minor| jump_unequal(MINOR, minor as i32)));
    if access != DeviceAccess::ALL {
        if *allow {
            block.push(and(ACCESS, !access.bits()));
            block.push(jump_unequal(ACCESS, 0));
        } else {
            block.push(move_register(SCRATCH, ACCESS));
            block.push(and(SCRATCH, access.bits()));
            block.push(jump_equal(SCRATCH, 0));
        }
    }
    block.extend([set(RESULT, (*allow).into()), exit()]);
    let end = block.len();
    for (index, instruction) in block.iter_mut().enumerate() {
        if instruction.code & CLASS == CLASS_JUMP32 {
            instruction.offset = i16::try_from(end - index - 1).expect("a block has 9 at most");
        }
    }
    block
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

fn jump_equal(register: u8, value: i32) -> Instruction {
    Instruction { code: 0x10 | CLASS_JUMP32, registers: register, offset: 0, immediate: value }
}

fn exit() -> Instruction {
    Instruction { code: 0x95, registers: 0, offset: 0, immediate: 0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::list::tests::entries;
    use super::super::{Devices, list};
    use super::*;

    #[test]
    fn the_program_opens_what_the_list_allows_and_nothing_else() {
        let list = list::with_defaults(&Devices::default().to_oci()).unwrap();
        let program = compile(&list);
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
        fn the_program_agrees_with_the_list(
            entries in entries(), kind in 1u32..3, major in 0u32..4, minor in 0u32..4,
            access in 1u32..8,
        ) {
            // the straightforward way: a set of what is allowed, changed entry by entry
            let mut allowed = 0;
            for Entry { allow, rule } in &entries {
                let of_kind = match rule.kind {
                    DeviceKind::All => true,
                    DeviceKind::Block => kind == 1,
                    DeviceKind::Character => kind == 2,
                };
                if of_kind && rule.major.is_none_or(|it| it == major)
                    && rule.minor.is_none_or(|it| it == minor)
                {
                    let bits = rule.access.bits() as u32;
                    allowed = if *allow { allowed | bits } else { allowed & !bits };
                }
            }
            let want = u64::from(access & !allowed == 0);
            prop_assert_eq!(run(&compile(&entries), kind, major, minor, access), want);
        }
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
                0x16 if registers[to] == immediate => at += it.offset as usize,
                0x56 | 0x16 => {}
                0x95 => return registers[0],
                other => panic!("instruction {other:#x}"),
            }
        }
    }
}
