//! Runs a filter as the kernel would, for tests and fuzzing: what a call would come to, without
//! making it.

use bulkhead_sys::seccomp::Instruction;

/// `struct seccomp_data` (seccomp(2)) without the instruction pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// `AUDIT_ARCH_…` of linux/audit.h.
    pub audit: u32,
    pub number: u32,
    pub arguments: [u64; 6],
}

/// Why the kernel would refuse a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("a program has 1 to 4096 instructions, not {0}")]
    Length(usize),
    #[error("instruction {0} is none of those of seccomp filters")]
    Instruction(usize),
    #[error("instruction {0} loads from outside of the call's data")]
    Load(usize),
    #[error("instruction {0} jumps behind the program")]
    Jump(usize),
    #[error("the last instruction is no return")]
    NoReturn,
}

/// Checks what the kernel does (net/core/filter.c, `bpf_check_classic`; kernel/seccomp.c,
/// `seccomp_check_filter`), of the instructions that filters of libseccomp and of ours have.
pub fn validate(program: &[Instruction]) -> Result<(), Invalid> {
    if !(1..=MAXIMUM_LENGTH).contains(&program.len()) {
        return Err(Invalid::Length(program.len()));
    }
    let is_inside = |target: usize| target < program.len();
    for (at, instruction) in program.iter().enumerate() {
        match instruction.code {
            LOAD if instruction.k < DATA_SIZE && instruction.k.is_multiple_of(4) => {}
            LOAD => return Err(Invalid::Load(at)),
            AND | RETURN => {}
            JUMP_ALWAYS if is_inside((at + 1).saturating_add(instruction.k as usize)) => {}
            JUMP_EQUAL | JUMP_GREATER | JUMP_GREATER_OR_EQUAL | JUMP_SET
                if is_inside(at + 1 + usize::from(instruction.jump_true))
                    && is_inside(at + 1 + usize::from(instruction.jump_false)) => {}
            JUMP_ALWAYS | JUMP_EQUAL | JUMP_GREATER | JUMP_GREATER_OR_EQUAL | JUMP_SET => {
                return Err(Invalid::Jump(at));
            }
            _ => return Err(Invalid::Instruction(at)),
        }
    }
    match program.last() {
        Some(last) if last.code == RETURN => Ok(()),
        _ => Err(Invalid::NoReturn),
    }
}

/// The result of a program that is valid, `SECCOMP_RET_…` with data, and the instructions it took.
pub fn run(program: &[Instruction], call: &Call) -> Result<(u32, usize), Invalid> {
    let (mut accumulator, mut at, mut steps) = (0, 0, 0);
    // jumps go forward only, and the last instruction returns
    while let Some(it) = program.get(at) {
        at += 1;
        steps += 1;
        let branch = |holds: bool| usize::from(if holds { it.jump_true } else { it.jump_false });
        match it.code {
            LOAD => accumulator = call.word(it.k).ok_or(Invalid::Load(at - 1))?,
            AND => accumulator &= it.k,
            JUMP_ALWAYS => at = at.saturating_add(it.k as usize),
            JUMP_EQUAL => at += branch(accumulator == it.k),
            JUMP_GREATER => at += branch(accumulator > it.k),
            JUMP_GREATER_OR_EQUAL => at += branch(accumulator >= it.k),
            JUMP_SET => at += branch(accumulator & it.k != 0),
            RETURN => return Ok((it.k, steps)),
            _ => return Err(Invalid::Instruction(at - 1)),
        }
    }
    Err(Invalid::NoReturn)
}

impl Call {
    /// The 32 bits at an offset in the data.
    fn word(&self, offset: u32) -> Option<u32> {
        match offset {
            0 => Some(self.number),
            4 => Some(self.audit),
            8 | 12 => Some(0),
            _ => {
                let argument = self.arguments.get((offset as usize).checked_sub(16)? / 8)?;
                Some((argument >> (8 * (offset % 8))) as u32)
            }
        }
    }
}

const MAXIMUM_LENGTH: usize = 4096;
const DATA_SIZE: u32 = 64;

// linux/bpf_common.h
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP_ALWAYS: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
const JUMP_SET: u16 = 0x45;
const RETURN: u16 = 0x06;

#[cfg(test)]
mod tests {
    use super::*;

    const fn instruction(code: u16, jump_true: u8, jump_false: u8, k: u32) -> Instruction {
        Instruction { code, jump_true, jump_false, k }
    }

    const END: Instruction = instruction(RETURN, 0, 0, 7);

    #[test]
    fn what_the_kernel_refuses_is_invalid() {
        use bulkhead_sys::seccomp::{Flags, install};
        for (program, want) in [
            (vec![], Err(Invalid::Length(0))),
            (vec![END; 4097], Err(Invalid::Length(4097))),
            (vec![END; 4096], Ok(())),
            (vec![instruction(LOAD, 0, 0, 60), END], Ok(())),
            (vec![instruction(LOAD, 0, 0, 64), END], Err(Invalid::Load(0))),
            (vec![instruction(LOAD, 0, 0, 2), END], Err(Invalid::Load(0))),
            (vec![instruction(JUMP_ALWAYS, 0, 0, 1), END], Err(Invalid::Jump(0))),
            (vec![instruction(JUMP_ALWAYS, 0, 0, u32::MAX), END], Err(Invalid::Jump(0))),
            (vec![instruction(JUMP_SET, 0, 1, 1), END], Err(Invalid::Jump(0))),
            (vec![instruction(JUMP_EQUAL, 1, 0, 1), END, END], Ok(())),
            (vec![END, instruction(0xffff, 0, 0, 0), END], Err(Invalid::Instruction(1))),
            (vec![END, instruction(AND, 0, 0, 0)], Err(Invalid::NoReturn)),
        ] {
            assert_eq!(validate(&program), want);
            let kernel = std::thread::spawn(move || {
                rustix::thread::set_no_new_privs(true).unwrap();
                // ALLOW, so that the thread gets away
                let allow = |it: Instruction| {
                    if it.code == RETURN { instruction(RETURN, 0, 0, 0x7fff_0000) } else { it }
                };
                install(&program.into_iter().map(allow).collect::<Vec<_>>(), Flags::NONE)
            });
            assert_eq!(kernel.join().unwrap().is_ok(), want.is_ok());
        }
    }

    #[test]
    fn the_words_of_a_call_are_where_the_kernel_has_them() {
        let mut call = Call { audit: 2, number: 1, arguments: [0; 6] };
        call.arguments[0] = 4 << 32 | 3;
        call.arguments[5] = 6 << 32 | 5;
        for (offset, want) in [(0, 1), (4, 2), (16, 3), (20, 4), (56, 5), (60, 6)] {
            let program = [
                instruction(LOAD, 0, 0, offset),
                instruction(JUMP_EQUAL, 0, 1, want),
                END,
                instruction(RETURN, 0, 0, 0),
            ];
            assert_eq!(run(&program, &call), Ok((7, 3)), "{offset}");
        }
    }
}
