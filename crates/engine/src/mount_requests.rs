//! What is mounted into a container: `-v`, `--mount`, `--tmpfs` and the image's volumes, resolved
//! into one list without clashes.

use bulkhead_types::Name;

use crate::{ContainerConfig, EngineError, HostConfig, MountPoint, MountRequest, MountType};

/// One mount as it was asked for, with the traits of the syntax it was written in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub kind: MountType,
    /// Host path or volume name; empty draws a volume.
    pub source: String,
    pub target: String,
    pub readonly: bool,
    /// `-v` makes a missing source directory, `--mount` does not.
    pub make_source: bool,
}

/// Every mount of a container, in the order of the paths they lie on, so that `/a/b` comes after
/// `/a`.
pub(crate) fn wanted(
    config: &ContainerConfig,
    host: &HostConfig,
) -> Result<Vec<Wanted>, EngineError> {
    let mut all = Vec::new();
    for bind in &host.binds {
        add(&mut all, parse_bind(bind)?)?;
    }
    for mount in &host.mounts {
        add(&mut all, from_request(mount)?)?;
    }
    for target in host.tmpfs.keys() {
        let mount = Wanted {
            kind: MountType::Tmpfs,
            source: String::new(),
            target: clean(target, target)?,
            readonly: false,
            make_source: false,
        };
        add(&mut all, mount)?;
    }
    for target in &config.volumes {
        let target = clean(target, target)?;
        // What the user mounts there replaces the image's volume.
        if !all.iter().any(|mount| mount.target == target) {
            all.push(Wanted {
                kind: MountType::Volume,
                source: String::new(),
                target,
                readonly: false,
                make_source: false,
            });
        }
    }
    all.sort_by(|one, other| {
        let depth = |mount: &Wanted| mount.target.matches('/').count();
        depth(one).cmp(&depth(other)).then_with(|| one.target.cmp(&other.target))
    });
    Ok(all)
}

/// The tmpfs mount options of a target: `--tmpfs`'s text or `--mount`'s fields.
pub(crate) fn tmpfs_options(host: &HostConfig, mount: &MountPoint) -> Vec<String> {
    if let Some(request) = host
        .mounts
        .iter()
        .find(|request| request.kind == MountType::Tmpfs && request.target == mount.target)
    {
        let mut options = Vec::new();
        if request.tmpfs_size != 0 {
            options.push(format!("size={}", request.tmpfs_size));
        }
        if request.tmpfs_mode != 0 {
            options.push(format!("mode={:o}", request.tmpfs_mode));
        }
        return options;
    }
    let text = host
        .tmpfs
        .iter()
        .find(|(target, _)| clean(target, target).is_ok_and(|target| target == mount.target))
        .map_or("", |(_, options)| options.as_str());
    text.split(',')
        .filter(|option| {
            ["size=", "mode=", "uid=", "gid=", "nr_inodes=", "nr_blocks="]
                .iter()
                .any(|known| option.starts_with(known))
        })
        .map(str::to_owned)
        .collect()
}

fn parse_bind(text: &str) -> Result<Wanted, EngineError> {
    let invalid = || EngineError::invalid(format!("invalid volume specification: '{text}'"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        [target] => ("", *target, ""),
        [source, target] if !source.is_empty() => (*source, *target, ""),
        [source, target, options] if !source.is_empty() => (*source, *target, *options),
        _ => return Err(invalid()),
    };
    let mut readonly = false;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" | "readonly" => readonly = true,
            // SELinux labels mean nothing on a host without it, and propagation stays private:
            // a container never sees the host's later mounts, nor the host the container's.
            "rw" | "z" | "Z" | "nocopy" | "private" | "rprivate" | "cached" | "delegated"
            | "consistent" | "U" => {}
            "shared" | "rshared" | "slave" | "rslave" => {
                return Err(EngineError::new(
                    crate::Class::Unsupported,
                    format!(
                        "mount propagation {option:?} of '{text}' is not supported; leave it out"
                    ),
                ));
            }
            _ => return Err(invalid()),
        }
    }
    let is_path = source.starts_with('/');
    if !is_path && !source.is_empty() {
        source.parse::<Name>().map_err(|_| invalid_volume_name(source))?;
    }
    Ok(Wanted {
        kind: if is_path { MountType::Bind } else { MountType::Volume },
        source: source.to_owned(),
        target: clean(target, text)?,
        readonly,
        make_source: is_path,
    })
}

fn from_request(request: &MountRequest) -> Result<Wanted, EngineError> {
    let invalid = |why: &str| {
        EngineError::invalid(format!(
            "invalid mount config for type {:?}: {why}",
            match request.kind {
                MountType::Bind => "bind",
                MountType::Volume => "volume",
                MountType::Tmpfs => "tmpfs",
            }
        ))
    };
    if request.target.is_empty() {
        return Err(invalid("field Target must not be empty"));
    }
    match request.kind {
        MountType::Bind if request.source.is_empty() => {
            return Err(invalid("field Source must not be empty"));
        }
        MountType::Bind if !request.source.starts_with('/') => {
            return Err(invalid(&format!(
                "invalid mount path: '{}' mount path must be absolute",
                request.source
            )));
        }
        MountType::Tmpfs if !request.source.is_empty() => {
            return Err(invalid("field Source must not be specified"));
        }
        MountType::Volume if !request.source.is_empty() => {
            request.source.parse::<Name>().map_err(|_| invalid_volume_name(&request.source))?;
        }
        _ => {}
    }
    Ok(Wanted {
        kind: request.kind,
        source: request.source.clone(),
        target: clean(&request.target, &request.target)?,
        readonly: request.readonly,
        make_source: false,
    })
}

pub(crate) fn invalid_volume_name(name: &str) -> EngineError {
    EngineError::invalid(format!(
        "\"{name}\" includes invalid characters for a local volume name, only \
         \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use \
         absolute path"
    ))
}

fn add(all: &mut Vec<Wanted>, mount: Wanted) -> Result<(), EngineError> {
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

    fn one(bind: &str) -> Result<Wanted, String> {
        let host = HostConfig { binds: vec![bind.to_owned()], ..HostConfig::default() };
        wanted(&ContainerConfig::default(), &host)
            .map(|mut all| all.remove(0))
            .map_err(|error| error.message)
    }

    #[test]
    fn binds_are_read_as_docker_reads_them() {
        let mount = one("/src:/a//b/./c/../d:ro,z").unwrap();
        assert_eq!((mount.kind, mount.source.as_str()), (MountType::Bind, "/src"));
        assert_eq!((mount.target.as_str(), mount.readonly), ("/a/b/d", true));
        assert_eq!(one("data:/data").unwrap().kind, MountType::Volume);
        assert_eq!(one("/data").unwrap().source, "", "an anonymous volume");
        for (wrong, why) in [
            ("/a:b", "must be absolute"),
            ("/a:/", "destination can't be '/'"),
            ("/a:/b:nope", "invalid volume specification"),
            ("/a:/b:ro:x", "invalid volume specification"),
            (":/b", "invalid volume specification"),
            ("../x:/b", "includes invalid characters for a local volume name"),
            ("/a:/b:shared", "not supported"),
        ] {
            let error = one(wrong).unwrap_err();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }

    #[test]
    fn mounts_are_joined_ordered_and_unique() {
        let config = ContainerConfig {
            volumes: vec!["/var/data".into(), "/x".into()],
            ..ContainerConfig::default()
        };
        let mut host = HostConfig {
            binds: vec!["/h:/var/data/deep".into(), "vol:/x".into()],
            tmpfs: [("/run".to_owned(), "size=1m,noexec".to_owned())].into(),
            ..HostConfig::default()
        };
        let all = wanted(&config, &host).unwrap();
        let targets: Vec<&str> = all.iter().map(|mount| mount.target.as_str()).collect();
        assert_eq!(targets, ["/run", "/x", "/var/data", "/var/data/deep"]);
        let point = MountPoint {
            kind: MountType::Tmpfs,
            name: None,
            source: String::new(),
            target: "/run".into(),
            readonly: false,
        };
        assert_eq!(tmpfs_options(&host, &point), ["size=1m"]);
        host.binds.push("/other:/x".into());
        assert!(wanted(&config, &host).unwrap_err().message.contains("Duplicate mount point: /x"));
    }
}
