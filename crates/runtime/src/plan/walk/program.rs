use std::ffi::CString;
use std::os::fd::AsFd;

use bulkhead_sys::process;
use bulkhead_types::oci;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::Walk;
use crate::FdIndex;
use crate::hook::{self, Outputs};
use crate::plan::{Program, Step};

impl Walk<'_> {
    /// Looks for the program before the container is said to be created, as runc does, so that a
    /// name that is wrong is an error of `create`.
    pub(super) fn find(&mut self, steps: &[Step]) -> Result<(), Errno> {
        let candidates = steps.iter().find_map(|step| match step {
            Step::Execute { candidates, .. } => Some(candidates),
            _ => None,
        });
        let mut reason = Errno::NOENT;
        for (index, candidate) in candidates.into_iter().flatten().enumerate() {
            match rustix::fs::stat(candidate) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                    reason = Errno::ISDIR;
                }
                Ok(stat) if stat.st_mode & 0o111 == 0 => reason = Errno::ACCESS,
                Ok(_) => {
                    self.found = index;
                    return Ok(());
                }
                // of several directories of PATH one may be closed to us
                Err(Errno::ACCESS) => reason = Errno::ACCESS,
                Err(Errno::LOOP) => reason = Errno::LOOP,
                Err(_) => {}
            }
        }
        Err(reason)
    }

    pub(super) fn run_hooks(
        &mut self,
        name: &str,
        hooks: &[oci::Hook],
        state: &oci::State,
        files: [Option<FdIndex>; 2],
    ) -> Result<(), Errno> {
        let state = oci::State { pid: self.pid, ..state.clone() };
        let file = |index: Option<FdIndex>| index.map(|it| self.descriptor(it)).transpose();
        let outputs = Outputs { stdout: file(files[0])?, stderr: file(files[1])? };
        hook::run_all(name, hooks, &state, outputs).map_err(|error| {
            self.detail = error.to_string();
            Errno::CANCELED
        })?;
        // one that waits for its start holds no file of the host that it could write to
        for file in [outputs.stdout, outputs.stderr].into_iter().flatten() {
            process::close_one(file)?;
        }
        Ok(())
    }

    /// A label that the next execve(2) gives. It is written through a procfs of our own, in which
    /// a container cannot put another file in the place of this one (CVE-2019-16884).
    pub(super) fn set_label(&mut self, file: &str, label: &str) -> Result<(), Errno> {
        let proc = self.proc.as_ref().ok_or(Errno::BADF)?;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let path = format!("thread-self/attr/{file}");
        let written = rustix::fs::openat(proc.as_fd(), path.as_str(), flags, Mode::empty())
            .and_then(|file| rustix::io::write(file, label.as_bytes()));
        written.map(drop).inspect_err(|errno| {
            let reason = crate::plan::failure::reason(*errno);
            self.detail = match label.strip_prefix("exec ") {
                // what AppArmor says of a name that it does not know
                Some(profile) if *errno == Errno::NOENT && file.starts_with("apparmor") => format!(
                    "unable to apply apparmor profile: {profile:?} is not loaded on this host: \
                     load it with apparmor_parser(8)"
                ),
                _ => format!("unable to apply label {label:?}: write `/proc/{path}`: {reason}"),
            };
        })
    }
}

/// Tries each candidate; returns why none could be executed.
pub(super) fn execute(candidates: &[CString], searched: bool, program: &Program) -> Errno {
    let mut reason = Errno::NOENT;
    for candidate in candidates {
        match process::execve(candidate, &program.arguments, &program.environment) {
            Errno::NOENT | Errno::NOTDIR if searched => {}
            // as execvp(3): go on, but remember that there was something
            Errno::ACCESS if searched => reason = Errno::ACCESS,
            error => return error,
        }
    }
    reason
}
