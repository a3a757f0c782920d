//! What the runtime makes of `config.json` before it is compiled: what is left out with a warning,
//! and what comes from the caller.

use std::path::Path;

use bulkhead_runtime::Capabilities;
use bulkhead_runtime::capabilities::CapabilitySets;
use bulkhead_runtime::plan::KINDS;
use bulkhead_runtime::seccomp::{self, Cache, CompileOptions, Compiled};
use bulkhead_types::oci::{self, Config, NamespaceKind};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::log::Log;

/// Says which capabilities the container will not have, as config.md asks.
pub fn warn_of_capabilities(config: &Config, log: &Log) {
    let names = config.process.as_ref().and_then(|process| process.capabilities.as_ref());
    let Some(names) = names else { return };
    let (sets, unknown) = CapabilitySets::from_names(names);
    for name in unknown {
        warn_of_unknown(&name, log);
    }
    let has_users = config
        .linux
        .iter()
        .flat_map(|linux| &linux.namespaces)
        .any(|namespace| namespace.kind == NamespaceKind::User);
    if has_users {
        return;
    }
    let Ok(own) = rustix::thread::capabilities(None) else { return };
    let missing = sets.permitted.without(Capabilities(own.permitted.bits()));
    if missing != Capabilities::NONE {
        let names = missing.names().join(", ");
        log.warn(&format!(
            "the runtime does not have these capabilities to give, they are left out: {names}"
        ));
    }
}

/// Says that a capability is no name of one.
pub fn warn_of_unknown(capability: &str, log: &Log) {
    log.warn(&format!("capability {capability} is not known here and is left out"));
}

/// Compiles `linux.seccomp`. Where it filters `socket` by its arguments, 32-bit `socketcall` is
/// closed too, which hides them; the annotation `io.bulkhead.seccomp.socketcall=open` opens it.
/// A name that is not known is passed over, or an error where crun's annotation says so (crun.1,
/// `run.oci.seccomp_fail_unknown_syscall`).
///
/// What was compiled is kept below `root`, for the next one with this profile.
pub fn compile_filter(config: &Config, root: &Path) -> Result<Option<Compiled>> {
    let Some(profile) = config.linux.as_ref().and_then(|linux| linux.seccomp.as_ref()) else {
        return Ok(None);
    };
    let open = config.annotations.get(SOCKETCALL).is_some_and(|value| value == "open");
    let options = CompileOptions { close_socketcall: !open };
    let wrong = |error: seccomp::SeccompError| Error::Config(error.to_string());
    if config.annotations.get(FAIL_UNKNOWN).is_some_and(|value| value != "0") {
        seccomp::refuse_unknown_calls(profile).map_err(wrong)?;
    }
    let compiled = match filters(root) {
        Some(cache) => cache.filter(profile, options),
        None => seccomp::compile_oci(profile, options),
    };
    let compiled = compiled.map_err(wrong)?;
    // who names a listener gets one, even of a filter that notifies of nothing
    let listened = !profile.listener_path.is_empty();
    Ok(compiled.map(|compiled| Compiled { listener: compiled.listener || listened, ..compiled }))
}

/// The compiled filters in `root`; none where that is not there yet, or is another's.
fn filters(root: &Path) -> Option<Cache> {
    // no id of a container begins with a dot
    let path = root.join(".seccomp");
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || rustix::fs::open(&path, flags, Mode::empty());
    let directory = match open() {
        Err(Errno::NOENT) => {
            rustix::fs::mkdir(&path, Mode::RWXU).ok()?;
            open()
        }
        other => other,
    };
    Cache::open(directory.ok()?).ok()
}

const FAIL_UNKNOWN: &str = "run.oci.seccomp_fail_unknown_syscall";
const SOCKETCALL: &str = "io.bulkhead.seccomp.socketcall";

/// Passes on sockets that the caller has from socket activation (sd_listen_fds(3)): they come before
/// those of `--preserve-fds`, and the container's first process is the one they are for.
pub fn pass_sockets(config: &mut Config) -> u32 {
    let variable = |name: &str| std::env::var(name).ok();
    let Some(count) = variable("LISTEN_FDS").and_then(|count| count.parse().ok()) else { return 0 };
    if let Some(process) = &mut config.process {
        process.env.push(format!("LISTEN_FDS={count}"));
        process.env.push("LISTEN_PID=1".to_owned());
        process
            .env
            .extend(variable("LISTEN_FDNAMES").map(|names| format!("LISTEN_FDNAMES={names}")));
    }
    count
}

/// A user namespace without mappings gets the caller's own ids, as under crun.
pub fn fill_id_maps(config: &mut Config, log: &Log) {
    let Some(linux) = &mut config.linux else { return };
    let own = linux
        .namespaces
        .iter()
        .any(|namespace| namespace.kind == NamespaceKind::User && namespace.path.is_empty());
    if !own || !linux.uid_mappings.is_empty() || !linux.gid_mappings.is_empty() {
        return;
    }
    let map = |host_id| vec![oci::IdMapping { container_id: 0, host_id, size: 1 }];
    linux.uid_mappings = map(rustix::process::geteuid().as_raw());
    linux.gid_mappings = map(rustix::process::getegid().as_raw());
    log.warn(
        "config.json has a user namespace without mappings: only root is mapped, to the caller",
    );
}

pub fn mentions(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|part| part == word)
}

pub fn not_ours(config: &Config) -> i32 {
    let listed = config.linux.iter().flat_map(|linux| &linux.namespaces);
    listed.fold(0, |all, namespace| {
        let name = namespace.kind.file();
        all | KINDS.iter().find(|(_, known)| *known == name).map_or(0, |(flag, _)| *flag)
    })
}
