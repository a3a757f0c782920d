//! From what was asked to be mounted (`-v`, `--mount`, `--tmpfs`, `--volumes-from` and the image's
//! volumes) to one list without clashes.

use bulkhead_types::Name;

use crate::mounts::{
    BindOptions, Fill, MissingSource, MountOptions, MountPoint, MountRequest, TmpfsOptions,
    VolumeOptions,
};
use crate::{Class, ContainerConfig, EngineError, HostConfig};

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
            all.push(volume);
        }
    }
    all.sort_by(|one, other| {
        let depth = |mount: &MountRequest| mount.target.matches('/').count();
        depth(one).cmp(&depth(other)).then_with(|| one.target.cmp(&other.target))
    });
    Ok(all)
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
        let target = clean(target, target)?;
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
            "Subpath '{subpath}' must be a relative path that stays in the volume"
        ));
    }
    Ok(())
}

/// Reads `[source:]target[:options]`.
pub(crate) fn parse_bind(text: &str) -> Result<MountRequest, EngineError> {
    let invalid = || EngineError::invalid(format!("invalid volume specification: '{text}'"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, words) = match parts.as_slice() {
        [target] => ("", *target, ""),
        [source, target] if !source.is_empty() => (*source, *target, ""),
        [source, target, options] if !source.is_empty() => (*source, *target, *options),
        _ => return Err(invalid()),
    };
    let is_path = source.starts_with('/');
    let mut readonly = false;
    let mut bind = BindOptions { missing: MissingSource::MakeDirectory, ..BindOptions::default() };
    let mut volume = VolumeOptions::default();
    for option in words.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" | "readonly" => readonly = true,
            // SELinux labels mean nothing on a host without it, and the three of macOS never do.
            "rw" | "z" | "Z" | "cached" | "delegated" | "consistent" => {}
            "nocopy" if !is_path => volume.fill = Fill::Leave,
            "private" | "rprivate" => bind.propagation = option.parse()?,
            "shared" | "rshared" | "slave" | "rslave" if is_path => {
                bind.propagation = option.parse()?;
            }
            // A bind is not filled from the image, so there is nothing to leave.
            "nocopy" => {}
            "U" => {
                return Err(EngineError::new(
                    Class::Unsupported,
                    format!(
                        "option \"U\" of '{text}' is not supported: files keep their owners through \
                         an id-mapped mount; leave it out"
                    ),
                ));
            }
            _ => return Err(invalid()),
        }
    }
    if !is_path && !source.is_empty() {
        source.parse::<Name>().map_err(|_| invalid_volume_name(source))?;
    }
    Ok(MountRequest {
        source: source.to_owned(),
        target: clean(target, text)?,
        readonly,
        options: if is_path { MountOptions::Bind(bind) } else { MountOptions::Volume(volume) },
    })
}

/// The options of the mount at `target`, where the request says any: how a record of before mounts
/// had their own is completed.
pub(crate) fn options_at(host: &HostConfig, target: &str) -> Option<MountOptions> {
    let binds = host.binds.iter().map(|bind| &bind.mount);
    let asked = binds.chain(&host.mounts).find(|mount| mount.target == target);
    let tmpfs = |(path, options): (&String, &TmpfsOptions)| {
        let cleaned = clean(path, path).ok()?;
        (cleaned == target).then(|| MountOptions::Tmpfs(options.clone()))
    };
    asked.map(|mount| mount.options.clone()).or_else(|| host.tmpfs.iter().find_map(tmpfs))
}

pub(crate) fn invalid_volume_name(name: &str) -> EngineError {
    EngineError::invalid(format!(
        "\"{name}\" includes invalid characters for a local volume name, only \
         \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use \
         absolute path"
    ))
}

fn add(all: &mut Vec<MountRequest>, mount: MountRequest) -> Result<(), EngineError> {
    if all.iter().any(|other| other.target == mount.target) {
        return Err(EngineError::invalid(format!("Duplicate mount point: {}", mount.target)));
    }
    all.push(mount);
    Ok(())
}

/// The target without `.`, `..` and double slashes, taken literally: links are resolved inside the
/// container when it starts.
fn clean(target: &str, specification: &str) -> Result<String, EngineError> {
    if !target.starts_with('/') {
        return Err(EngineError::invalid(format!(
            "invalid volume specification: '{specification}': invalid mount path: '{target}' mount \
             path must be absolute"
        )));
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            other => parts.push(other),
        }
    }
    if parts.is_empty() {
        return Err(EngineError::invalid(format!(
            "invalid volume specification: '{specification}': destination can't be '/'"
        )));
    }
    Ok(format!("/{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounts::{MountType, Propagation};

    fn one(bind: &str) -> Result<MountRequest, String> {
        parse_bind(bind).map_err(|error| error.message)
    }

    #[test]
    fn binds_are_read_as_docker_reads_them() {
        let mount = one("/src:/a//b/./c/../d:ro,z").unwrap();
        assert_eq!((mount.kind(), mount.source.as_str()), (MountType::Bind, "/src"));
        assert_eq!((mount.target.as_str(), mount.readonly), ("/a/b/d", true));
        assert_eq!(one("data:/data").unwrap().kind(), MountType::Volume);
        assert_eq!(one("/data").unwrap().source, "", "an anonymous volume");
        let MountOptions::Bind(bind) = one("/a:/b:rslave,ro").unwrap().options else { panic!() };
        assert_eq!(bind.propagation, Propagation::Rslave);
        assert_eq!(bind.missing, MissingSource::MakeDirectory);
        let MountOptions::Volume(volume) = one("a1:/b:nocopy").unwrap().options else { panic!() };
        assert_eq!(volume.fill, Fill::Leave);
        for (wrong, why) in [
            ("/a:b", "must be absolute"),
            ("/a:/", "destination can't be '/'"),
            ("/a:/b:nope", "invalid volume specification"),
            ("/a:/b:ro:x", "invalid volume specification"),
            (":/b", "invalid volume specification"),
            ("../x:/b", "includes invalid characters for a local volume name"),
            ("data:/b:shared", "invalid volume specification"),
            ("/a:/b:U", "not supported"),
        ] {
            let error = one(wrong).unwrap_err();
            assert!(error.contains(why), "{wrong}: {error}");
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
            ("vol", "/x", volume("/a"), "must be a relative path that stays in the volume"),
            ("vol", "/x", volume("a/../../b"), "must be a relative path that stays in the volume"),
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
        let MountOptions::Tmpfs(tmpfs) = options_at(&host, "/run").unwrap() else { panic!() };
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
