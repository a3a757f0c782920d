//! The security modules that the host's kernel has.

use bulkhead_types::oci::Config;

use crate::log::Log;

/// Takes out of `config` what this kernel has no security module for, with a warning: as under
/// crun, a configuration made for another host runs, confined by everything else that it asks for.
///
/// A label that a module of the kernel does not know stays, and is an error later.
pub fn admit(config: &mut Config, log: &Log) {
    let left_out = |label: &mut String, field: &str, module: &str| {
        log.warn(&format!("this kernel runs without {module}: {field} of config.json is left out"));
        label.clear();
    };
    if let Some(process) = &mut config.process {
        if !process.selinux_label.is_empty() && !has_selinux() {
            left_out(&mut process.selinux_label, "process.selinuxLabel", "SELinux");
        }
        if !process.apparmor_profile.is_empty() && !has_apparmor() {
            left_out(&mut process.apparmor_profile, "process.apparmorProfile", "AppArmor");
        }
    }
    if let Some(linux) = &mut config.linux
        && !linux.mount_label.is_empty()
        && !has_selinux()
    {
        left_out(&mut linux.mount_label, "linux.mountLabel", "SELinux");
    }
}

/// Whether SELinux is on: its file system is there only then.
fn has_selinux() -> bool {
    std::path::Path::new("/sys/fs/selinux/enforce").exists()
}

fn has_apparmor() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|text| text.starts_with(b"Y"))
}
