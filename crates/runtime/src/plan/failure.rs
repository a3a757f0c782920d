use rustix::io::Errno;

use super::{Entrance, Plan, Program, Step};

/// Why a process could not be started: which step failed, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub step: u16,
    pub errno: i32,
    /// More than the number says, such as a user that is not in `/etc/passwd`.
    pub detail: String,
}

impl Failure {
    /// Something outside the plan that went wrong before or beside it.
    pub fn of_parent(what: &str, errno: Errno) -> Self {
        let detail = format!("{what}: {}", reason(errno));
        Self { step: u16::MAX, errno: errno.raw_os_error(), detail }
    }
}

impl Plan {
    /// Words a failure as runc does, since Docker's clients find their exit status in it:
    /// "executable file not found" and "no such file or directory" are 127, "permission denied"
    /// 126 (docker/cli: cli/command/container/run.go, `runStartContainerErr`).
    pub fn describe(&self, failure: &Failure) -> String {
        describe(&self.steps, &self.program, failure)
    }
}

pub(super) fn describe(steps: &[Step], program: &Program, failure: &Failure) -> String {
    let reason = if failure.detail.is_empty() {
        reason(Errno::from_raw_os_error(failure.errno))
    } else {
        failure.detail.clone()
    };
    let Some(step) = steps.get(usize::from(failure.step)) else {
        // the parent's part, which it has worded itself
        return reason;
    };
    match step {
        Step::Execute { candidates, .. } if candidates.is_empty() => {
            "config.json has no process, or one without args: give it a program to run".to_owned()
        }
        Step::Execute { searched: true, .. } if failure.errno == Errno::NOENT.raw_os_error() => {
            format!("exec: {:?}: executable file not found in $PATH", program.name)
        }
        Step::FindProgram if failure.errno == Errno::NOENT.raw_os_error() => {
            let name = &program.name;
            if name.contains('/') {
                format!("exec: {name:?}: stat {name}: {reason}")
            } else {
                format!("exec: {name:?}: executable file not found in $PATH")
            }
        }
        // runc says the first half or the second, by the version of Go; Docker before 23 and podman
        // know the second alone, for their exit status 126
        Step::FindProgram if failure.errno == Errno::ISDIR.raw_os_error() => {
            format!("exec: {:?}: {reason}: permission denied", program.name)
        }
        Step::Execute { .. } | Step::FindProgram => {
            format!("exec: {:?}: {reason}", program.name)
        }
        Step::Mount { mount, target } => {
            let (kind, target) = (&mount.kind, target.display());
            let links = [Errno::LOOP, Errno::NOTDIR].map(Errno::raw_os_error);
            if ["proc", "sysfs"].contains(&kind.as_str()) && links.contains(&failure.errno) {
                return format!("filesystem {kind:?} must be mounted on ordinary directory");
            }
            format!("error mounting {kind:?} to rootfs at \"{target}\": {reason}")
        }
        Step::Bind { tree, target, .. } => {
            format!("error mounting {tree} to rootfs at \"{}\": {reason}", target.display())
        }
        Step::Hooks { .. } => reason,
        Step::Landlock(_) if !failure.detail.is_empty() => reason,
        Step::WorkingDirectory(path) => {
            format!("chdir to cwd ({:?}) set in config.json failed: {reason}", path.display())
        }
        Step::LookUpUser(_) | Step::SetIdentity { .. } if !failure.detail.is_empty() => reason,
        Step::Sysctl { name, .. } => format!("sysctl {name:?} could not be set: {reason}"),
        // it names the profile
        Step::Label { .. } if !failure.detail.is_empty() => reason,
        Step::EnterRoot(Entrance::Pivot) if failure.errno == Errno::INVAL.raw_os_error() => {
            format!(
                "pivot_root: {reason}: on an initial ram disk, which nothing can pivot away from, use \
             --no-pivot"
            )
        }
        step => format!("{step}: {reason}"),
    }
}

/// strerror(3)'s text in Go's spelling, which is what Docker's clients compare with.
pub(super) fn reason(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_spelled_as_go_does() {
        assert_eq!(reason(Errno::NOENT), "no such file or directory");
        assert_eq!(reason(Errno::ACCESS), "permission denied");
        assert_eq!(reason(Errno::NOEXEC), "exec format error");
    }
}
