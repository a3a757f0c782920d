//! The file systems that a container mounts anew.

use std::path::Path;

use bulkhead_sys::mount::Attributes;

use super::{CgroupHierarchy, Host, PlanError, absolute};
use crate::plan::{NewMount, Refused, Step, Tree};
use crate::{FdIndex, Mount, MountKind};

pub(super) fn mount_steps(
    mount: &Mount,
    host: &Host,
    groups: &[(String, FdIndex)],
    steps: &mut Vec<Step>,
) -> Result<(), PlanError> {
    let target = absolute(&mount.target)?;
    let attributes = [
        (mount.readonly, Attributes::RDONLY),
        (mount.nosuid, Attributes::NOSUID),
        (mount.nodev, Attributes::NODEV),
        (mount.noexec, Attributes::NOEXEC),
    ];
    let attributes = attributes
        .iter()
        .filter(|(wanted, _)| *wanted)
        .fold(Attributes::default(), |all, (_, bit)| all.with(*bit));
    let new = |kind: &str, options: &[(&str, Option<&str>)], refused| NewMount {
        kind: kind.to_owned(),
        source: kind.to_owned(),
        propagation: Vec::new(),
        copy_up: false,
        kept_flags: Vec::new(),
        options: options
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.map(ToOwned::to_owned)))
            .collect(),
        attributes,
        refused,
    };
    let mount = match &mount.kind {
        MountKind::Proc => new("proc", &[], Refused::Bind("/proc".into())),
        MountKind::Sysfs => new("sysfs", &[], Refused::Bind("/sys".into())),
        MountKind::Mqueue => new("mqueue", &[], Refused::Skip),
        MountKind::Devpts => new(
            "devpts",
            &[("ptmxmode", Some("0666")), ("mode", Some("0620")), ("gid", Some("5"))],
            Refused::Fail,
        ),
        MountKind::Tmpfs { options } => {
            // POSIX shared memory; df(1) and monitoring know it by this name
            let source = if mount.target == "/dev/shm" { "shm" } else { "tmpfs" };
            tmpfs(source, options, attributes)
        }
        MountKind::Detached { fd, is_directory } => {
            let directory = *is_directory;
            steps.push(Step::Attach { mount: *fd, target, directory, attributes });
            return Ok(());
        }
        MountKind::Bound { fd, propagation } => {
            let (tree, propagation) = (Tree::Detached(*fd), vec![(*propagation, true)]);
            steps.push(Step::Bind { tree, target, follow: true, propagation });
            return Ok(());
        }
        MountKind::Cgroup => {
            cgroup_steps(host, groups, &target, attributes, Vec::new(), steps);
            return Ok(());
        }
    };
    steps.push(Step::Mount { mount, target });
    Ok(())
}

/// Cuts options in mount(8)'s words into those of the file system and those of the mount.
fn tmpfs(source: &str, options: &[String], attributes: Attributes) -> NewMount {
    let mut attributes = attributes.0;
    let mut kept = Vec::new();
    for option in options {
        let bit = match option.as_str() {
            "ro" | "rw" => Attributes::RDONLY,
            "nosuid" | "suid" => Attributes::NOSUID,
            "nodev" | "dev" => Attributes::NODEV,
            "noexec" | "exec" => Attributes::NOEXEC,
            other => {
                kept.push(match other.split_once('=') {
                    Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                    None => (other.to_owned(), None),
                });
                continue;
            }
        };
        let set = option.starts_with("no") || option == "ro";
        attributes = if set { attributes | bit.0 } else { attributes & !bit.0 };
    }
    let attributes = Attributes(attributes);
    NewMount {
        kind: "tmpfs".to_owned(),
        source: source.to_owned(),
        options: kept,
        attributes,
        propagation: Vec::new(),
        refused: Refused::Fail,
        copy_up: false,
        kept_flags: Vec::new(),
    }
}

/// `groups` are what is shown of v1, as far as they are known ([`ContainerSpec::cgroup_v1_groups`]).
/// `data` is for cgroup v2 alone: v1's options choose the hierarchy.
///
/// [`ContainerSpec::cgroup_v1_groups`]: crate::ContainerSpec::cgroup_v1_groups
pub(in crate::plan) fn cgroup_steps(
    host: &Host,
    groups: &[(String, FdIndex)],
    target: &Path,
    attributes: Attributes,
    data: Vec<(String, Option<String>)>,
    steps: &mut Vec<Step>,
) {
    let mount = |kind: &str, options| NewMount {
        kind: kind.to_owned(),
        source: kind.to_owned(),
        options,
        attributes,
        propagation: Vec::new(),
        refused: Refused::Skip,
        copy_up: false,
        kept_flags: Vec::new(),
    };
    if host.cgroups.iter().all(|it| *it == CgroupHierarchy::V2) {
        let target = target.to_owned();
        let kept_flags = host.cgroup2_flags.clone();
        let mount = NewMount { kept_flags, ..mount("cgroup2", data) };
        steps.push(Step::Mount { mount, target });
        return;
    }
    let mode = [("mode".to_owned(), Some("755".to_owned()))].to_vec();
    let writable = Attributes(attributes.0 & !Attributes::RDONLY.0);
    steps.push(Step::Mount {
        mount: NewMount { attributes: writable, ..mount("tmpfs", mode) },
        target: target.to_owned(),
    });
    for hierarchy in &host.cgroups {
        let CgroupHierarchy::V1(controllers) = hierarchy else {
            let target = target.join("unified");
            let kept_flags = host.cgroup2_flags.clone();
            let mount = NewMount { kept_flags, ..mount("cgroup2", vec![]) };
            steps.push(Step::Mount { mount, target });
            continue;
        };
        let (directory, options) = match controllers.strip_prefix("name=") {
            Some(name) => (name, vec![("name".to_owned(), Some(name.to_owned()))]),
            None => {
                let flags = controllers.split(',').map(|it| (it.to_owned(), None)).collect();
                (controllers.as_str(), flags)
            }
        };
        let target_directory = target.join(directory);
        steps.push(match groups.iter().find(|(name, _)| name == directory) {
            Some((_, group)) => Step::Attach {
                mount: *group,
                target: target_directory,
                directory: true,
                attributes,
            },
            None => Step::Mount { mount: mount("cgroup", options), target: target_directory },
        });
        if controllers.contains(',') {
            steps.extend(controllers.split(',').map(|controller| Step::Link {
                path: target.join(controller),
                to: controllers.clone(),
                replace: false,
            }));
        }
    }
    if attributes.0 & Attributes::RDONLY.0 != 0 {
        steps.push(Step::Seal { target: target.to_owned() });
    }
}
