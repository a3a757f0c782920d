use std::os::fd::AsFd;
use std::path::Path;

use bulkhead_sys::landlock::{self, fs};
use bulkhead_sys::path;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{Walk, to_errno};
use crate::Landlock;
use crate::plan::failure::reason;

impl Walk<'_> {
    /// Restricts this process by Landlock; its root is the container's by now.
    pub(super) fn restrict(&mut self, policy: &Landlock) -> Result<(), Errno> {
        let handled = policy.handled(landlock::abi()).map_err(|lacking| {
            self.detail = lacking.to_string();
            Errno::OPNOTSUPP
        })?;
        if handled == Default::default() {
            return Ok(()); // best effort, in a kernel that can do nothing of it
        }
        let ruleset = landlock::create_ruleset(handled)?;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let root = rustix::fs::open(c"/", flags | OFlags::DIRECTORY, Mode::empty())?;
        for (path, mut access) in policy.path_rules(handled) {
            let opened = to_errno(path::open(root.as_fd(), Path::new(path), flags, Mode::empty()));
            let added = opened.and_then(|opened| {
                let kind = FileType::from_raw_mode(rustix::fs::fstat(&opened)?.st_mode);
                if kind != FileType::Directory {
                    access &= fs::OF_FILES;
                }
                landlock::allow_beneath(ruleset.as_fd(), opened.as_fd(), access)
            });
            added.inspect_err(|errno| {
                let reason = reason(*errno);
                self.detail = format!("landlock: the path {path:?} of the policy: {reason}");
            })?;
        }
        for (port, access) in policy.port_rules(handled) {
            landlock::allow_port(ruleset.as_fd(), port, access)?;
        }
        landlock::restrict_self(ruleset.as_fd())
    }
}
