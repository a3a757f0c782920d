//! Profiles of the OCI runtime specification (config-linux.md, "Seccomp"), which are resolved
//! already: dockerd, containerd and Podman write them into `config.json`.

use bulkhead_sys::seccomp::Flags;
use bulkhead_types::oci::{Seccomp, SeccompRule};

use super::profile::{Action, Profile, Rule};
use super::table::{Architecture, Call};
use super::{SeccompError, names};

/// What a profile cannot say for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompileOptions {
    /// Where the profile lets `socket` through for some arguments only, `socketcall(SYS_SOCKET)` of
    /// 32-bit x86 fails with ENOSYS. Its arguments lie in memory that a filter cannot see, so it
    /// would be a way around: Docker's default profile lets it through, and libseccomp does for any
    /// profile that has a rule on `socket`. The direct call is there since Linux 4.3.
    pub close_socketcall: bool,
}

impl Default for CompileOptions {
    fn default() -> Self {
        Self { close_socketcall: true }
    }
}

/// `machine` is the architectures that it runs, the native one first. `None` if there is neither a default action nor a rule, which is no filter to runc.
pub(super) fn profile(
    seccomp: &Seccomp,
    options: CompileOptions,
    machine: &[Architecture],
) -> Result<Option<Profile>, SeccompError> {
    if seccomp.default_action.is_empty() && seccomp.syscalls.is_empty() {
        return Ok(None);
    }
    let default = action(&seccomp.default_action, seccomp.default_errno_ret)?;
    if default == Action::Notify {
        return Err(SeccompError::NotifyDefault);
    }
    for name in &seccomp.architectures {
        if names::ARCHITECTURES.binary_search(&name.as_str()).is_err() {
            return Err(SeccompError::Architecture(name.clone()));
        }
    }
    // the native one is always meant, as with libseccomp
    let is_named = |it: &Architecture| {
        *it == machine[0] || seccomp.architectures.iter().any(|name| name == it.profile_name())
    };
    let mut rules = Vec::with_capacity(seccomp.syscalls.len());
    for entry in &seccomp.syscalls {
        rules.extend(resolve(entry)?);
    }
    Ok(Some(Profile {
        default,
        architectures: machine.iter().copied().filter(is_named).collect(),
        rules,
        close_socketcall: options.close_socketcall,
    }))
}

/// How the filter is installed, and whether it has a listener.
pub(super) fn installation(seccomp: &Seccomp) -> Result<(Flags, bool), SeccompError> {
    let listener = seccomp.syscalls.iter().any(|entry| entry.action == NOTIFY);
    if listener && seccomp.listener_path.is_empty() {
        return Err(SeccompError::NoListener);
    }
    // runc's and crun's default where there is no list; an empty list is none at all
    let Some(names) = &seccomp.flags else { return Ok((Flags::SPEC_ALLOW, listener)) };
    let mut flags = Flags::NONE;
    for name in names {
        flags = flags.with(names::flag(name)?);
    }
    // the kernel refuses it where no call can ever wait
    Ok((if listener { flags } else { flags.without(Flags::WAIT_KILLABLE_RECV) }, listener))
}

/// Names that no architecture has are left out: a profile may be newer than this program, or older
/// than the machine's architecture.
fn resolve(entry: &SeccompRule) -> Result<Vec<Rule>, SeccompError> {
    let action = action(&entry.action, entry.errno_ret)?;
    let mut calls = Vec::with_capacity(entry.names.len());
    for name in &entry.names {
        match (name.as_str(), action) {
            ("", _) => return Err(SeccompError::EmptyName),
            ("write", Action::Notify) => return Err(SeccompError::NotifyWrite),
            (name, _) => calls.extend(Call::named(name)),
        }
    }
    let conditions = entry
        .args
        .iter()
        .map(|it| names::condition(it.index, &it.op, it.value, it.value_two))
        .collect::<Result<_, _>>()?;
    Ok(names::rules(calls, action, conditions))
}

/// With other actions than two an errno is an error (config-linux.md, `errnoRet`).
fn action(name: &str, errno_ret: Option<u32>) -> Result<Action, SeccompError> {
    let action = names::action(name, errno_ret)?;
    match action {
        Action::Errno(_) | Action::Trace(_) => Ok(action),
        _ if errno_ret.is_none() => Ok(action),
        _ => Err(SeccompError::ErrnoOfAction(name.to_owned())),
    }
}

const NOTIFY: &str = "SCMP_ACT_NOTIFY";
