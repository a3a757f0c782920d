use bulkhead_types::oci;
use rustix::fs::FileType;

use crate::FdIndex;
use crate::defaults;
use crate::mount_options::Bind;
use crate::plan::compile::absolute;
use crate::plan::{BundleSources, Node, PlanError, Step};

/// Device nodes and links of `/dev`; nothing where a directory of the host is bound there.
pub(super) fn steps(
    config: &oci::Config,
    sources: &BundleSources,
    steps: &mut Vec<Step>,
) -> Result<(), PlanError> {
    let bound = config.mounts.iter().any(|mount| {
        let is_dev = mount.destination.trim_end_matches('/') == "/dev";
        let bind = super::mounts::options(mount).ok().and_then(|it| it.bind);
        is_dev && (matches!(bind, Some(Bind::One | Bind::Recursive)) || mount.kind == "bind")
    });
    if bound {
        return Ok(());
    }
    // An image whose /dev is a link somewhere else would have its devices made there
    // (CVE-2026-41579, CVE-2026-47766); inside the root that is no danger, but no /dev either.
    steps.push(Step::CheckDirectory { path: "/dev".into() });
    let asked = config.linux.iter().flat_map(|it| &it.devices);
    for default in &defaults::DEVICES {
        if asked.clone().any(|device| device.path == default.path) {
            continue;
        }
        steps.push(Step::MakeNode(Node {
            path: default.path.into(),
            kind: FileType::CharacterDevice,
            device: rustix::fs::makedev(default.major, default.minor),
            mode: 0o666,
            uid: 0,
            gid: 0,
            made: None,
        }));
    }
    for device in asked {
        steps.push(Step::MakeNode(node(device, sources.devices.get(&device.path).copied())?));
    }
    for (path, to) in defaults::DEVICE_LINKS {
        // the multiplexer of an image would be the host's
        let replace = path == "/dev/ptmx";
        steps.push(Step::Link { path: path.into(), to: to.to_owned(), replace });
    }
    Ok(())
}

fn node(device: &oci::Device, made: Option<FdIndex>) -> Result<Node, PlanError> {
    let kind = match device.kind.as_str() {
        "c" | "u" => FileType::CharacterDevice,
        "b" => FileType::BlockDevice,
        "p" => FileType::Fifo,
        other => {
            let text =
                format!("invalid type {other:?} of device {:?}: write c, b, u or p", device.path);
            return Err(PlanError::Invalid(text));
        }
    };
    let number = |number: i64| {
        u32::try_from(number).map_err(|_| {
            PlanError::Invalid(format!(
                "device {:?} has the number {number}, which is not from 0 to 4294967295",
                device.path
            ))
        })
    };
    let numbers = match kind {
        FileType::Fifo => 0,
        _ => rustix::fs::makedev(number(device.major)?, number(device.minor)?),
    };
    Ok(Node {
        path: absolute(&device.path)?,
        kind,
        device: numbers,
        mode: device.file_mode.unwrap_or(0o666) & 0o7777,
        uid: device.uid.unwrap_or(0),
        gid: device.gid.unwrap_or(0),
        made,
    })
}
