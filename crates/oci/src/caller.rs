//! Whose runtime this is: root's of the host, or a user's.
//!
//! Rootless podman and Docker call the runtime in a user namespace where the user is root. To the
//! kernel that is still the user, who may not write to `/run` and has a systemd of their own; it is told
//! apart as runc does (runc: rootless_linux.go).

use std::ffi::OsString;
use std::path::PathBuf;

use bulkhead_runtime::cgroup::systemd::{Instance, SystemdError};

/// What tells who it is.
struct Caller {
    is_root: bool,
    /// Of the host, not of a container's or a user's own.
    initial: bool,
    user: Option<OsString>,
}

impl Caller {
    fn this() -> Self {
        let is_root = rustix::process::geteuid().is_root();
        // who is not root is a user, wherever
        let initial = !is_root || bulkhead_sys::namespace::is_initial_user();
        Self { is_root, initial, user: std::env::var_os("USER") }
    }

    fn is_host_root(&self) -> bool {
        self.is_root && self.initial
    }

    /// Root of a container that has a user namespace is no user: there `USER` is `root`, if anything.
    fn is_user(&self) -> bool {
        !self.is_root || !self.initial && self.user.as_ref().is_none_or(|user| user != "root")
    }

    fn root(&self, runtime_directory: Option<OsString>) -> PathBuf {
        match runtime_directory {
            Some(own) if !own.is_empty() && self.is_user() => {
                PathBuf::from(own).join("bulkhead/oci")
            }
            _ => PathBuf::from("/run/bulkhead/oci"),
        }
    }
}

/// Whether this is root of the host: to that alone the kernel gives devices and any score for the OOM
/// killer.
pub fn is_host_root() -> bool {
    Caller::this().is_host_root()
}

/// `--root` where none is given: `/run/bulkhead/oci`, for users a directory of their own.
pub fn default_root() -> PathBuf {
    // most have none of their own: nothing is to be asked then
    let own = std::env::var_os("XDG_RUNTIME_DIR");
    if own.is_none() {
        return PathBuf::from("/run/bulkhead/oci");
    }
    Caller::this().root(own)
}

/// The systemd that makes this caller's cgroups.
///
/// # Errors
/// A user without privileges has one of their own, or none.
pub fn systemd() -> Result<Instance, SystemdError> {
    let caller = Caller::this();
    if !caller.is_user() {
        return Ok(Instance::System);
    }
    let variable = |name: &str| std::env::var(name).ok();
    let (bus, runtime) = (variable("DBUS_SESSION_BUS_ADDRESS"), variable("XDG_RUNTIME_DIR"));
    match Instance::user(bus.as_deref(), runtime.as_deref()) {
        // a service in a container has no `USER`, and systemd there is its own
        Err(SystemdError::NoUserBus) if caller.is_root => Ok(Instance::System),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_told_from_root_in_every_namespace() {
        let caller = |is_root, initial, user: &str| Caller {
            is_root,
            initial,
            user: (!user.is_empty()).then(|| user.into()),
        };
        for (who, host_root, user) in [
            (caller(true, true, "root"), true, false),
            // sudo(8) may keep the name of who called it
            (caller(true, true, "alice"), true, false),
            (caller(false, true, "alice"), false, true),
            (caller(true, false, "alice"), false, true),
            (caller(true, false, ""), false, true),
            (caller(true, false, "root"), false, false),
        ] {
            assert_eq!((who.is_host_root(), who.is_user()), (host_root, user), "{:?}", who.user);
            let own = who.root(Some("/run/user/1000".into()));
            let wanted = if user { "/run/user/1000/bulkhead/oci" } else { "/run/bulkhead/oci" };
            assert_eq!(own, PathBuf::from(wanted));
            assert_eq!(who.root(None), PathBuf::from("/run/bulkhead/oci"));
            assert_eq!(who.root(Some("".into())), PathBuf::from("/run/bulkhead/oci"));
        }
    }
}
