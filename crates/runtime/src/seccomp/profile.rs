//! A profile with its conditions resolved: which call, with which arguments, ends in which action.

use super::table::{Architecture, Call};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Profile {
    pub default: Action,
    /// Those that processes may use; a call of another one kills.
    pub architectures: Vec<Architecture>,
    pub rules: Vec<Rule>,
    /// Where `socket` depends on its arguments, `socketcall(SYS_SOCKET)` of 32-bit x86 is ENOSYS.
    pub close_socketcall: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub calls: Vec<Call>,
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
    Notify,
    Trace(u16),
    Trap,
}

impl Action {
    /// What the filter returns (linux/seccomp.h).
    pub const fn value(self) -> u32 {
        match self {
            Self::Allow => 0x7fff_0000,
            Self::Errno(errno) => 0x0005_0000 | errno as u32,
            Self::KillProcess => 0x8000_0000,
            Self::KillThread => 0,
            Self::Log => 0x7ffc_0000,
            Self::Notify => 0x7fc0_0000,
            Self::Trace(data) => 0x7ff0_0000 | data as u32,
            Self::Trap => 0x0003_0000,
        }
    }

    /// Whether the call may be made after all; a tracer is asked to know what it does.
    pub fn is_permissive(self) -> bool {
        matches!(self, Self::Allow | Self::Log | Self::Trace(_))
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
    /// For numbers that no table has. A profile that lets unlisted calls through lets these too.
    pub fn unknown(&self) -> Action {
        if self.default.is_permissive() { self.default } else { Action::Errno(ENOSYS) }
    }

    /// For architectures that the profile does not name (libseccomp: `SCMP_FLTATR_ACT_BADARCH`).
    pub const FOREIGN: Action = Action::KillThread;
}

/// Whether the kernel takes only the low 32 bits of an argument, being an `int`.
///
/// The comparison must do the same: with all 64 bits compared, socket(2^32 + AF_VSOCK) is a family
/// above AF_VSOCK to the filter, and AF_VSOCK to the kernel.
pub(super) fn is_int(call: Call, argument: u8) -> bool {
    const SOCKET: Call = Call::known("socket");
    const SOCKETPAIR: Call = Call::known("socketpair");
    const PERSONALITY: Call = Call::known("personality");
    match call {
        SOCKET | SOCKETPAIR => argument <= 2,
        PERSONALITY => argument == 0,
        _ => false,
    }
}

pub(super) const EPERM: u16 = 1;
pub(super) const ENOSYS: u16 = 38;
