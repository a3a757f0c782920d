//! The words of profiles, which are libseccomp's (config-linux.md, "Seccomp"), and what they mean.

use bulkhead_sys::seccomp::Flags;

use super::SeccompError;
use super::profile::{Action, Comparison, Condition, EPERM, Rule};
use super::table::Call;

pub(super) const ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

pub(super) const OPERATORS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];

/// Those of the specification. A machine runs the calls of a few: the others change nothing.
pub(super) const ARCHITECTURES: [&str; 23] = [
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_M68K",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_SH",
    "SCMP_ARCH_SHEB",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
];

pub(super) const FLAGS: [&str; 4] = [
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];

/// Calls of architectures for which there is no table: a profile that is for every machine names
/// some, as podman's does.
const ELSEWHERE: [&str; 22] = [
    "cachectl",
    "get_tls",
    "multiplexer",
    "riscv_flush_icache",
    "riscv_hwprobe",
    "rtas",
    "s390_guarded_storage",
    "s390_pci_mmio_read",
    "s390_pci_mmio_write",
    "s390_runtime_instr",
    "s390_sthyi",
    "spu_create",
    "spu_run",
    "subpage_prot",
    "swapcontext",
    "switch_endian",
    "sys_debug_setcontext",
    "syscall",
    "sysmips",
    "timerfd",
    "usr26",
    "usr32",
];

/// Whether any architecture of Linux has a call of this name.
pub(super) fn is_call(name: &str) -> bool {
    Call::named(name).is_some() || ELSEWHERE.binary_search(&name).is_ok()
}

/// `data` is an errno for `SCMP_ACT_ERRNO`, a message to the tracer for `SCMP_ACT_TRACE`, and of no
/// meaning to the others.
pub(super) fn action(name: &str, data: Option<u32>) -> Result<Action, SeccompError> {
    let data_up_to = |limit: u16| match data {
        None => Ok(EPERM),
        Some(number) => match u16::try_from(number) {
            Ok(number) if number <= limit => Ok(number),
            _ => Err(SeccompError::Errno(number)),
        },
    };
    Ok(match name {
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_ERRNO" => Action::Errno(data_up_to(MAX_ERRNO)?),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        "SCMP_ACT_LOG" => Action::Log,
        "SCMP_ACT_NOTIFY" => Action::Notify,
        "SCMP_ACT_TRACE" => Action::Trace(data_up_to(u16::MAX)?),
        "SCMP_ACT_TRAP" => Action::Trap,
        other => return Err(SeccompError::Action(other.to_owned())),
    })
}

/// linux/err.h: the kernel lowers a greater one to this.
const MAX_ERRNO: u16 = 4095;

pub(super) fn condition(
    index: u32,
    operator: &str,
    value: u64,
    value_two: u64,
) -> Result<Condition, SeccompError> {
    let comparison = match operator {
        "SCMP_CMP_EQ" => Comparison::Equal(value),
        "SCMP_CMP_GE" => Comparison::GreaterOrEqual(value),
        "SCMP_CMP_GT" => Comparison::Greater(value),
        "SCMP_CMP_LE" => Comparison::LessOrEqual(value),
        "SCMP_CMP_LT" => Comparison::Less(value),
        "SCMP_CMP_MASKED_EQ" => Comparison::MaskedEqual { mask: value, value: value_two },
        "SCMP_CMP_NE" => Comparison::NotEqual(value),
        other => return Err(SeccompError::Operator(other.to_owned())),
    };
    match index {
        index @ 0..=5 => Ok(Condition { argument: index as u8, comparison }),
        index => Err(SeccompError::ArgumentIndex(index)),
    }
}

/// One rule, or several: two tests of the same argument are alternatives, which is what runc makes
/// of them since libseccomp cannot join them.
pub(super) fn rules(calls: Vec<Call>, action: Action, conditions: Vec<Condition>) -> Vec<Rule> {
    let repeated = conditions.iter().enumerate().any(|(index, condition)| {
        conditions[..index].iter().any(|earlier| earlier.argument == condition.argument)
    });
    if !repeated {
        return vec![Rule { calls, action, conditions }];
    }
    let alternative = |it| Rule { calls: calls.clone(), action, conditions: vec![it] };
    conditions.into_iter().map(alternative).collect()
}

/// `SECCOMP_FILTER_FLAG_TSYNC` is known and does nothing, as in runc: a process that is about to
/// execute its program has one thread.
pub(super) fn flag(name: &str) -> Result<Flags, SeccompError> {
    Ok(match name {
        "SECCOMP_FILTER_FLAG_LOG" => Flags::LOG,
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => Flags::SPEC_ALLOW,
        "SECCOMP_FILTER_FLAG_TSYNC" => Flags::NONE,
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => Flags::WAIT_KILLABLE_RECV,
        other => return Err(SeccompError::Flag(other.to_owned())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_on_the_lists_is_read() {
        assert!(ACTIONS.iter().all(|name| action(name, Some(2)).is_ok()));
        assert!(OPERATORS.iter().all(|name| condition(5, name, 1, 1).is_ok()));
        assert!(FLAGS.iter().all(|name| flag(name).is_ok()));
        for list in [&ACTIONS[..], &OPERATORS, &ARCHITECTURES, &FLAGS, &ELSEWHERE] {
            assert!(list.is_sorted());
        }
    }

    #[test]
    fn data_is_for_two_actions() {
        for (name, data, want) in [
            ("SCMP_ACT_ERRNO", None, 0x0005_0001),
            ("SCMP_ACT_ERRNO", Some(0), 0x0005_0000),
            ("SCMP_ACT_ERRNO", Some(4095), 0x0005_0fff),
            ("SCMP_ACT_TRACE", None, 0x7ff0_0001),
            ("SCMP_ACT_TRACE", Some(0xffff), 0x7ff0_ffff),
            ("SCMP_ACT_KILL", None, 0),
            ("SCMP_ACT_NOTIFY", None, 0x7fc0_0000),
        ] {
            assert_eq!(action(name, data).unwrap().value(), want, "{name} {data:?}");
        }
        assert!(action("SCMP_ACT_ERRNO", Some(4096)).is_err());
        assert!(action("SCMP_ACT_TRACE", Some(0x1_0000)).is_err());
    }
}
