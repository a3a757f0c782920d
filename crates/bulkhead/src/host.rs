//! What this machine must have before anything can start, each said in one sentence.

use crate::failure::Failure;

/// RHEL 9's kernel, and so the oldest that is supported.
const OLDEST_KERNEL: (u32, u32) = (5, 14);

/// Checks for root, the kernel's version and cgroups.
pub fn check() -> Result<(), Failure> {
    require_root("up")?;
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    check_kernel(&release)?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").map_err(|cause| {
        Failure::new(format!("cannot read /proc/self/mountinfo ({cause}): mount /proc first"))
    })?;
    check_cgroups(&mounts)
}

pub fn require_root(command: &str) -> Result<(), Failure> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Failure::new(format!("`bulkhead {command}` needs root: run it with sudo")))
}

/// The first two numbers of a kernel's release.
pub fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse().ok());
    Some((numbers.next()?, numbers.next().unwrap_or(0)))
}

fn check_kernel(release: &str) -> Result<(), Failure> {
    if version(release).is_some_and(|version| version >= OLDEST_KERNEL) {
        return Ok(());
    }
    let (major, minor) = OLDEST_KERNEL;
    Err(Failure::new(format!(
        "Linux {release} is too old: Bulkhead needs {major}.{minor} or newer, so upgrade the kernel"
    )))
}

fn check_cgroups(mountinfo: &str) -> Result<(), Failure> {
    let mounted = mountinfo
        .lines()
        .filter_map(|line| line.split_once(" - "))
        .any(|(_, rest)| rest.starts_with("cgroup ") || rest.starts_with("cgroup2 "));
    if mounted {
        return Ok(());
    }
    Err(Failure::new(
        "no cgroup hierarchy is mounted: mount one with `mount -t cgroup2 cgroup2 /sys/fs/cgroup` and try again",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_are_named() {
        for good in ["5.14.0-70.el9", "6.18.44", "5.15", "7.0-rc1"] {
            assert!(check_kernel(good).is_ok(), "{good}");
        }
        for bad in ["5.13.19", "4.19.0", "3.10.0-1160", "x"] {
            let failure = check_kernel(bad).expect_err(bad);
            assert!(failure.message.contains(bad) && failure.message.contains("5.14"));
        }
    }

    #[test]
    fn missing_cgroups_are_told() {
        assert!(check_cgroups("28 23 0:25 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n").is_ok());
        assert!(
            check_cgroups("28 23 0:25 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n").is_ok()
        );
        assert!(check_cgroups("22 27 0:21 / /proc rw - proc proc rw\n").is_err());
    }
}
