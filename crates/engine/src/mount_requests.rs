//! From what was asked to be mounted (`-v`, `--mount`, `--tmpfs`, `--volumes-from` and the image's
//! volumes) to one list without clashes.

use bulkhead_types::Name;

use crate::bind::{clean_target, invalid_volume_name};
use crate::mounts::{
    BindOptions, Fill, MountOptions, MountPoint, MountRequest, MountType, VolumeOptions,
};
use crate::{ContainerConfig, EngineError, HostConfig};

/// Every mount of a container, in the order of the paths they lie on, so that `/a/b` comes after
/// `/a`. What the request mounts wins over what comes from other containers, of those the last one
/// wins, and the image's volumes come where nothing else does (moby: daemon/volumes.go,
/// `registerMountPoints`).
pub(crate) fn wanted(
    config: &ContainerConfig,
    host: &HostConfig,
    inherited: Vec<MountRequest>,
) -> Result<Vec<MountRequest>, EngineError> {
    let mut all: Vec<MountRequest> = Vec::new();
    for bind in &host.binds {
        check_driver(host, &bind.mount)?;
        add(&mut all, bind.mount.clone())?;
    }
    for mount in &host.mounts {
        add(&mut all, mount.clone())?;
    }
    for (target, options) in &host.tmpfs {
        let options = MountOptions::Tmpfs(options.clone());
        add(&mut all, MountRequest::new("", target, false, options)?)?;
    }
    let own = all.len();
    for mount in inherited {
        match all.iter().position(|other| other.target == mount.target) {
            Some(place) if place >= own => all[place] = mount,
            Some(_) => {}
            None => all.push(mount),
        }
    }
    for target in &config.volumes {
        let options = MountOptions::Volume(VolumeOptions::default());
        let volume = MountRequest::new("", target, false, options)?;
        if !all.iter().any(|mount| mount.target == volume.target) {
            check_driver(host, &volume)?;
            all.push(volume);
        }
    }
    all.sort_by(|one, other| {
        let depth = |mount: &MountRequest| mount.target.matches('/').count();
        depth(one).cmp(&depth(other)).then_with(|| one.target.cmp(&other.target))
    });
    Ok(all)
}

/// A driver that is not there is missed by the first volume that is to be its own, and not before
/// (moby: daemon/create_unix.go).
fn check_driver(host: &HostConfig, mount: &MountRequest) -> Result<(), EngineError> {
    match host.volume_driver.as_str() {
        "" | "local" => Ok(()),
        driver if mount.kind() == MountType::Volume => Err(no_driver(driver)),
        _ => Ok(()),
    }
}

/// What Docker says of a volume driver that it does not have. Not "not found": clients would take that
/// for a missing image.
fn no_driver(driver: &str) -> EngineError {
    EngineError::invalid(format!(
        "error looking up volume plugin {driver}: plugin {driver:?} not found; the only driver is \
         local"
    ))
}

impl MountRequest {
    /// A mount that is whole: its target is an absolute path without `.`, `..` and double slashes,
    /// its source what its kind needs.
    ///
    /// # Errors
    /// In Docker's words, where it is not.
    pub fn new(
        source: &str,
        target: &str,
        readonly: bool,
        options: MountOptions,
    ) -> Result<Self, EngineError> {
        let kind = options.kind().name();
        let invalid = |why: String| {
            EngineError::invalid(format!("invalid mount config for type \"{kind}\": {why}"))
        };
        if target.is_empty() {
            return Err(invalid("field Target must not be empty".to_owned()));
        }
        match &options {
            MountOptions::Bind(_) if source.is_empty() => {
                return Err(invalid("field Source must not be empty".to_owned()));
            }
            MountOptions::Bind(_) if !source.starts_with('/') => {
                return Err(invalid(format!(
                    "invalid mount path: '{source}' mount path must be absolute"
                )));
            }
            MountOptions::Bind(BindOptions {
                below: crate::mounts::MountsBelow::FollowReadonly,
                ..
            }) if !readonly => {
                return Err(invalid(
                    "ReadOnlyForceRecursive asks for a mount that is read-only".to_owned(),
                ));
            }
            MountOptions::Tmpfs(_) if !source.is_empty() => {
                return Err(invalid("field Source must not be specified".to_owned()));
            }
            MountOptions::Volume(volume) => {
                if !source.is_empty() {
                    source.parse::<Name>().map_err(|_| invalid_volume_name(source))?;
                }
                check_subpath(source, &volume.subpath).map_err(invalid)?;
            }
            _ => {}
        }
        let target = clean_target(target, target)?;
        Ok(Self { source: source.to_owned(), target, readonly, options })
    }

    /// What another container has because this one has it. The volume is not filled again.
    pub(crate) fn inherited(point: &MountPoint, readonly: bool) -> Self {
        let mut options = point.options.clone();
        if let MountOptions::Volume(volume) = &mut options {
            volume.fill = Fill::Leave;
        }
        Self {
            source: point.name.clone().unwrap_or_else(|| point.source.clone()),
            target: point.target.clone(),
            readonly: point.readonly || readonly,
            options,
        }
    }
}

/// A directory of a volume is named by a relative path that stays in it; whether it is there, and
/// no link leads out, is seen when it is opened.
fn check_subpath(volume: &str, subpath: &str) -> Result<(), String> {
    if subpath.is_empty() {
        return Ok(());
    }
    if volume.is_empty() {
        return Err("Subpath asks for a volume that has a name".to_owned());
    }
    if subpath.starts_with('/') || subpath.split('/').any(|part| part == "..") {
        return Err(format!(
            "subpath must be a relative path within the volume, and is {subpath:?}"
        ));
    }
    Ok(())
}

fn add(all: &mut Vec<MountRequest>, mount: MountRequest) -> Result<(), EngineError> {
    if all.iter().any(|other| other.target == mount.target) {
        return Err(EngineError::invalid(format!("Duplicate mount point: {}", mount.target)));
    }
    all.push(mount);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounts::MissingSource;
    use crate::tmpfs_options::TmpfsOptions;

    #[test]
    fn a_driver_that_is_not_there_is_missed_by_the_first_volume() {
        let host = |binds: &[&str]| HostConfig {
            volume_driver: "nfs".to_owned(),
            binds: binds.iter().map(|bind| bind.parse().unwrap()).collect(),
            ..HostConfig::default()
        };
        let of_image =
            ContainerConfig { volumes: vec!["/data".to_owned()], ..ContainerConfig::default() };
        let none = ContainerConfig::default();
        wanted(&none, &host(&["/src:/a"]), Vec::new()).expect("no volume is made");
        wanted(&of_image, &host(&["/src:/data"]), Vec::new()).expect("nor here");
        for (config, host) in [(&none, host(&["data:/a"])), (&of_image, host(&[]))] {
            let error = wanted(config, &host, Vec::new()).unwrap_err();
            assert!(error.message.starts_with("error looking up volume plugin nfs"), "{error}");
        }
    }

    #[test]
    fn a_mount_is_whole_or_refused() {
        let bind = || MountOptions::Bind(BindOptions::default());
        let volume = |subpath: &str| {
            MountOptions::Volume(VolumeOptions {
                subpath: subpath.to_owned(),
                ..VolumeOptions::default()
            })
        };
        let tmpfs = || MountOptions::Tmpfs(TmpfsOptions::default());
        let mount = MountRequest::new("/data", "/x/../y", true, bind()).unwrap();
        let MountOptions::Bind(options) = &mount.options else { panic!() };
        assert_eq!((mount.target.as_str(), options.missing), ("/y", MissingSource::Refuse));
        for (source, target, options, why) in [
            ("", "/x", bind(), "field Source must not be empty"),
            ("a", "/x", bind(), "must be absolute"),
            ("/a", "", bind(), "field Target must not be empty"),
            ("/a", "/x", tmpfs(), "field Source must not be specified"),
            ("a/b", "/x", volume(""), "invalid characters for a local volume name"),
            ("vol", "/x", volume("/a"), "must be a relative path within the volume"),
            ("vol", "/x", volume("a/../../b"), "must be a relative path within the volume"),
            ("", "/x", volume("a"), "a volume that has a name"),
        ] {
            let error = MountRequest::new(source, target, false, options).unwrap_err().message;
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn mounts_are_joined_ordered_and_unique() {
        let config = ContainerConfig {
            volumes: vec!["/var/data".into(), "/x".into()],
            ..ContainerConfig::default()
        };
        let mut host = HostConfig {
            binds: ["/h:/var/data/deep", "vol:/x"].map(|bind| bind.parse().unwrap()).into(),
            tmpfs: [("/run".to_owned(), TmpfsOptions::parse("size=1m,noexec").unwrap())].into(),
            ..HostConfig::default()
        };
        let all = wanted(&config, &host, Vec::new()).unwrap();
        let targets: Vec<&str> = all.iter().map(|mount| mount.target.as_str()).collect();
        assert_eq!(targets, ["/run", "/x", "/var/data", "/var/data/deep"]);
        let MountOptions::Tmpfs(tmpfs) = &all[0].options else { panic!() };
        assert_eq!(tmpfs.words(), ["size=1m", "noexec"]);
        host.binds.push("/other:/x".parse().unwrap());
        let error = wanted(&config, &host, Vec::new()).unwrap_err();
        assert!(error.message.contains("Duplicate mount point: /x"));
    }

    #[test]
    fn of_other_containers_mounts_the_last_wins_and_none_over_the_requests() {
        let host =
            HostConfig { binds: vec!["/mine:/a1".parse().unwrap()], ..HostConfig::default() };
        let config = ContainerConfig { volumes: vec!["/b1".into()], ..ContainerConfig::default() };
        let from = |source: &str, target: &str| {
            let options = MountOptions::Volume(VolumeOptions::default());
            MountRequest::new(source, target, false, options).unwrap()
        };
        let inherited = vec![from("first", "/b1"), from("second", "/b1"), from("third", "/a1")];
        let all = wanted(&config, &host, inherited).unwrap();
        let sources: Vec<&str> = all.iter().map(|mount| mount.source.as_str()).collect();
        assert_eq!(sources, ["/mine", "second"]);
    }
}
