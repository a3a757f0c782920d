//! Hooks: programs that are run at points of a container's life, with its state on their standard
//! input (config.md, "POSIX-platform Hooks").
#![allow(clippy::disallowed_types, reason = "hooks are programs, by the specification")]

use std::io::Write;
use std::os::fd::BorrowedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bulkhead_types::oci;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A hook that failed, in the words of runc, which people search for.
#[derive(Debug, thiserror::Error)]
#[error("error running {name} hook #{number}: {reason}")]
pub struct HookError {
    pub name: String,
    /// From 0.
    pub number: usize,
    pub reason: String,
    /// Of a hook that ended by itself.
    pub exit_status: Option<i32>,
}

/// Where hooks write to; without a file, what one has written is quoted if it fails.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outputs<'a> {
    pub stdout: Option<BorrowedFd<'a>>,
    pub stderr: Option<BorrowedFd<'a>>,
}

/// Runs hooks one after the other; the first that fails ends the list.
///
/// A hook runs in the bundle, or in `/` if that is not there (for those that run in the container),
/// with the environment that it names; one that names none inherits, as under runc and crun. Its
/// output is quoted in the error.
pub fn run_all(
    name: &str,
    hooks: &[oci::Hook],
    state: &oci::State,
    outputs: Outputs<'_>,
) -> Result<(), HookError> {
    for (number, hook) in hooks.iter().enumerate() {
        run(hook, state, outputs).map_err(|failed| failed.of(name, number))?;
    }
    Ok(())
}

/// The same, but goes on past failures and returns them all (runtime.md: a poststart or poststop
/// hook that fails is only warned of).
pub fn run_each(
    name: &str,
    hooks: &[oci::Hook],
    state: &oci::State,
    outputs: Outputs<'_>,
) -> Vec<HookError> {
    let failed = hooks.iter().enumerate().filter_map(|(number, hook)| {
        let failed = run(hook, state, outputs).err()?;
        Some(failed.of(name, number))
    });
    failed.collect()
}

struct Failed {
    reason: String,
    exit_status: Option<i32>,
}

impl Failed {
    fn of(self, name: &str, number: usize) -> HookError {
        let Self { reason, exit_status } = self;
        HookError { name: name.to_owned(), number, reason, exit_status }
    }
}

impl From<String> for Failed {
    fn from(reason: String) -> Self {
        Self { reason, exit_status: None }
    }
}

fn run(hook: &oci::Hook, state: &oci::State, outputs: Outputs<'_>) -> Result<(), Failed> {
    let failed = |error: std::io::Error| Failed::from(format!("{}: {error}", hook.path));
    let input = serde_json::to_vec(state).map_err(|error| error.to_string())?;
    let mut command = Command::new(&hook.path);
    if let Some((first, rest)) = hook.args.split_first() {
        command.arg0(first).args(rest);
    }
    let bundle = Path::new(&state.bundle);
    command.current_dir(if bundle.is_dir() { bundle } else { Path::new("/") });
    if !hook.env.is_empty() {
        command.env_clear();
    }
    for variable in &hook.env {
        if let Some((name, value)) = variable.split_once('=').filter(|(name, _)| !name.is_empty()) {
            command.env(name, value);
        }
    }
    let output = std::fs::File::from(output_file().map_err(|errno| failed(errno.into()))?);
    let shared = |file: Option<BorrowedFd<'_>>| match file {
        Some(file) => file.try_clone_to_owned().map(Stdio::from),
        None => output.try_clone().map(Stdio::from),
    };
    command.stdin(Stdio::piped());
    command.stdout(shared(outputs.stdout).map_err(failed)?);
    command.stderr(shared(outputs.stderr).map_err(failed)?);
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // a hook need not read its state
        let _ = stdin.write_all(&input);
    }
    let timeout = hook.timeout.and_then(|seconds| u64::try_from(seconds).ok());
    if let Some(seconds) = timeout
        && !ends_within(child.id(), Duration::from_secs(seconds)).map_err(|e| failed(e.into()))?
    {
        let _ = child.kill();
        let _ = child.wait();
        return Err(format!("{} did not end within its timeout of {seconds} s", hook.path).into());
    }
    let status = child.wait().map_err(failed)?;
    if status.success() {
        return Ok(());
    }
    let said = said(output);
    let reason = format!(
        "{status}, output: {said}",
        status = status.to_string().replace("exit status: ", "exit status ")
    );
    Err(Failed { reason, exit_status: status.code() })
}

/// A file without a name, rather than a pipe that a hook could fill while nobody reads.
fn output_file() -> Result<std::os::fd::OwnedFd, Errno> {
    rustix::fs::memfd_create(c"hook", rustix::fs::MemfdFlags::CLOEXEC)
}

/// The first kilobytes of what a hook has written.
fn said(mut output: std::fs::File) -> String {
    use std::io::{Read, Seek};
    const LONGEST: u64 = 4096;
    let mut bytes = Vec::new();
    if output.rewind().is_ok() {
        let _ = output.take(LONGEST).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).trim_end().to_owned()
}

/// Waits for the end of a child that has not been waited for; false when time is up.
fn ends_within(pid: u32, patience: Duration) -> Result<bool, Errno> {
    let deadline = Instant::now() + patience;
    let pid = Pid::from_raw(pid as i32).ok_or(Errno::SRCH)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => {
                let _ = pidfd_send_signal(&pidfd, Signal::KILL);
                return Ok(false);
            }
            Ok(_) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> oci::State {
        oci::State {
            oci_version: oci::VERSION.into(),
            id: "box".into(),
            status: oci::Status::Creating,
            pid: 7,
            bundle: "/b".into(),
            annotations: Default::default(),
        }
    }

    fn shell(script: &str) -> oci::Hook {
        oci::Hook {
            path: "/bin/sh".into(),
            args: vec!["sh".into(), "-c".into(), script.into()],
            env: vec!["NAME=value".into()],
            timeout: None,
        }
    }

    #[test]
    fn a_hook_reads_the_state_and_has_the_environment_that_it_names() {
        let script = r#"read state; case $state in *'"pid":7'*) ;; *) exit 3;; esac
            [ "$NAME" = value ] && [ -z "$CARGO" ] && [ -z "$HOME" ]"#;
        run_all("prestart", &[shell(script)], &state(), Outputs::default()).unwrap();
    }

    #[test]
    fn the_first_failure_is_told_with_what_it_said() {
        let hooks = [shell("exit 0"), shell("echo out; echo error >&2; exit 3"), shell("exit 4")];
        let error = run_all("createRuntime", &hooks, &state(), Outputs::default()).unwrap_err();
        let want = "error running createRuntime hook #1: exit status 3, output: out\nerror";
        assert_eq!(error.to_string(), want);
        let failed = run_each("poststop", &hooks, &state(), Outputs::default());
        assert_eq!(failed.iter().map(|it| it.exit_status).collect::<Vec<_>>(), [Some(3), Some(4)]);
        let missing = oci::Hook { path: "/nowhere/hook".into(), ..Default::default() };
        let error =
            run_all("prestart", &[missing], &state(), Outputs::default()).unwrap_err().to_string();
        assert!(error.contains("/nowhere/hook: No such file"), "{error}");
    }

    #[test]
    fn what_a_hook_says_goes_where_it_is_told() {
        use std::io::{Read, Seek};
        use std::os::fd::AsFd;
        let mut stdout = std::fs::File::from(output_file().unwrap());
        let outputs = Outputs { stdout: Some(stdout.as_fd()), stderr: None };
        let hooks = [shell("echo out; echo error >&2"), shell("echo out; echo error >&2; exit 3")];
        let error = run_all("prestart", &hooks, &state(), outputs).unwrap_err().to_string();
        assert!(error.ends_with("exit status 3, output: error"), "{error}");
        let mut text = String::new();
        stdout.rewind().unwrap();
        stdout.read_to_string(&mut text).unwrap();
        assert_eq!(text, "out\nout\n");
    }

    #[test]
    fn a_hook_that_takes_too_long_is_killed() {
        let script = "exec sleep 1000";
        let hook = oci::Hook { timeout: Some(1), ..shell(script) };
        let error =
            run_all("poststart", &[hook], &state(), Outputs::default()).unwrap_err().to_string();
        assert!(error.contains("did not end within its timeout of 1 s"), "{error}");
    }

    #[test]
    fn a_hook_that_reads_nothing_is_fine() {
        let long = oci::State { bundle: "b".repeat(1 << 20), ..state() };
        run_all("prestart", &[shell("exec <&-; exit 0")], &long, Outputs::default()).unwrap();
    }
}
