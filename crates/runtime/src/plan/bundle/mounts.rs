use std::path::{Path, PathBuf};

use bulkhead_sys::mount::{Attributes, Depth, Propagation};
use bulkhead_types::oci;

use crate::mount_options::{Bind, MountOptions};
use crate::plan::compile::{absolute, cgroup_steps};
use crate::plan::{
    AttributeChange, BundleSources, CgroupMount, NewMount, PlanError, Refused, Step, Tree,
};

/// The mounts of `config.json`, in their order.
pub(super) fn steps(
    config: &oci::Config,
    sources: &BundleSources,
    root: Option<(Propagation, bool)>,
    steps: &mut Vec<Step>,
) -> Result<(), PlanError> {
    let outside = matches!(root, Some((Propagation::Shared, _)));
    for (index, mount) in config.mounts.iter().enumerate() {
        let options = options(mount)?;
        let target = target(&mount.destination)?;
        if let Some(to) = sources.links.get(&index) {
            steps.push(Step::Link { path: target, to: to.clone(), replace: false });
            continue;
        }
        if is_bind(mount, &options) {
            steps.push(bind(mount, index, options, target, sources, outside));
            continue;
        }
        match (mount.kind.as_str(), &sources.cgroup) {
            ("cgroup", CgroupMount::Hierarchies(host)) => {
                cgroup_steps(host, &[], &target, options.set, options.data, steps);
            }
            ("cgroup", CgroupMount::Groups(groups)) => {
                group_steps(groups, &target, options.set, steps);
            }
            _ => {
                let label = config.linux.as_ref().map_or("", |it| it.mount_label.as_str());
                let mut new = new_mount(mount, options, label);
                if let ("cgroup2", CgroupMount::Hierarchies(host)) = (&*new.kind, &sources.cgroup) {
                    new.kept_flags.clone_from(&host.cgroup2_flags);
                }
                steps.push(Step::Mount { mount: new, target });
            }
        }
    }
    Ok(())
}

pub(super) fn options(mount: &oci::Mount) -> Result<MountOptions, PlanError> {
    MountOptions::parse(&mount.options).map_err(|error| PlanError::Invalid(error.to_string()))
}

pub(super) fn is_bind(mount: &oci::Mount, options: &MountOptions) -> bool {
    options.bind.is_some() || mount.kind == "bind"
}

/// A destination that is not absolute is taken from the root, with what runc calls a warning.
fn target(destination: &str) -> Result<PathBuf, PlanError> {
    if destination.starts_with('/') || destination.is_empty() {
        return absolute(destination);
    }
    absolute(&format!("/{destination}"))
}

fn bind(
    mount: &oci::Mount,
    index: usize,
    options: MountOptions,
    target: PathBuf,
    sources: &BundleSources,
    outside: bool,
) -> Step {
    let tree = match sources.binds.get(&index) {
        Some(fd) => Tree::Detached(*fd),
        None => Tree::Host {
            path: PathBuf::from(&mount.source),
            recursive: options.bind == Some(Bind::Recursive),
            changes: changes(&options),
        },
    };
    let mut propagation = options.propagation;
    if propagation.is_empty() {
        // a clone is a peer of what it was cloned from
        propagation.push((Propagation::Private, true));
    } else if !outside {
        // as under runc, where the source is seen through a copy of the host's mounts: what the
        // container mounts reaches the host only if the root is shared too
        propagation.insert(0, (Propagation::Slave, true));
    }
    Step::Bind { tree, target, follow: !options.destination_no_follow, propagation }
}

/// What options change of mounts that exist.
pub(crate) fn changes(options: &MountOptions) -> Vec<AttributeChange> {
    let none = Attributes::default();
    [
        (Depth::Tree, options.recursive_clear, options.recursive_set),
        (Depth::One, options.clear, options.set),
    ]
    .into_iter()
    .filter(|(_, clear, set)| (*clear, *set) != (none, none))
    .map(|(depth, clear, set)| AttributeChange { depth, clear, set })
    .collect()
}

fn new_mount(mount: &oci::Mount, options: MountOptions, label: &str) -> NewMount {
    let kind = if mount.kind.is_empty() { "none" } else { mount.kind.as_str() };
    let refused = match kind {
        "proc" => Refused::Bind("/proc".into()),
        "sysfs" => Refused::Bind("/sys".into()),
        "cgroup2" => Refused::Bind("/sys/fs/cgroup".into()),
        _ => Refused::Fail,
    };
    let mut data = options.data;
    let labelled = !matches!(kind, "proc" | "sysfs" | "mqueue" | "cgroup2");
    if !label.is_empty() && labelled {
        data.push(("context".to_owned(), Some(label.to_owned())));
    }
    NewMount {
        kind: kind.to_owned(),
        source: if mount.source.is_empty() { kind.to_owned() } else { mount.source.clone() },
        options: data,
        attributes: options.set.with(options.recursive_set),
        propagation: options.propagation,
        refused,
        copy_up: options.copy_up,
        kept_flags: Vec::new(),
    }
}

/// v1 without a cgroup namespace: one directory for each hierarchy, holding the container's group.
fn group_steps(
    groups: &[(String, crate::FdIndex)],
    target: &Path,
    attributes: Attributes,
    steps: &mut Vec<Step>,
) {
    let writable = Attributes(attributes.0 & !Attributes::RDONLY.0);
    let mount = NewMount {
        kind: "tmpfs".to_owned(),
        source: "tmpfs".to_owned(),
        options: vec![("mode".to_owned(), Some("755".to_owned()))],
        attributes: writable,
        propagation: Vec::new(),
        refused: Refused::Fail,
        copy_up: false,
        kept_flags: Vec::new(),
    };
    steps.push(Step::Mount { mount, target: target.to_owned() });
    for (name, group) in groups {
        steps.push(Step::Attach {
            mount: *group,
            target: target.join(name),
            directory: true,
            attributes,
        });
        if name.contains(',') {
            steps.extend(name.split(',').map(|controller| Step::Link {
                path: target.join(controller),
                to: name.clone(),
                replace: false,
            }));
        }
    }
    if attributes.contains(Attributes::RDONLY) {
        steps.push(Step::Seal { target: target.to_owned() });
    }
}
