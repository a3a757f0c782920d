//! Where a container's group is, by config.json's `cgroupsPath` (config-linux.md, "Cgroups Path").

use std::borrow::Cow;

use super::CgroupError;
use super::hierarchy::{Hierarchies, Hierarchy, Mode, Version};

/// Reads `cgroupsPath` as runc's cgroupfs manager does: cleaned, so that `..` never leads above the
/// root; absolute is below the mounts, relative below the runtime's own cgroup, and nothing is the
/// relative `id`.
///
/// # Errors
/// [`CgroupError::InvalidPath`] if it is the root itself, or no file may have such a name.
pub fn oci_path(cgroups_path: &str, id: &str) -> Result<String, CgroupError> {
    let path = if cgroups_path.is_empty() { id } else { cgroups_path };
    let cleaned = clean(path);
    let valid = |name: &str| name.len() <= 255 && !name.contains(['\0', '\n']);
    if cleaned.is_empty() || !cleaned.split('/').all(valid) {
        return Err(CgroupError::InvalidPath(path.to_owned()));
    }
    Ok(if path.starts_with('/') { format!("/{cleaned}") } else { cleaned })
}

/// The way from a hierarchy's mount down to `path`, without a slash at either end.
///
/// For a relative path that is below the runtime's own group on v1, and beside it on v2, where a
/// group that has processes cannot hand on controllers (runc: fs/paths.go, fs2/defaultpath.go).
pub(super) fn below<'a>(
    hierarchies: &Hierarchies,
    hierarchy: &Hierarchy,
    path: &'a str,
) -> Result<Cow<'a, str>, CgroupError> {
    if let Some(absolute) = path.strip_prefix('/') {
        return Ok(Cow::Borrowed(absolute));
    }
    let own = own(hierarchies.own()?, hierarchies.mode(), hierarchy);
    Ok(Cow::Owned(clean(&format!("{own}/{path}"))))
}

fn own<'a>(cgroup: &'a str, mode: Mode, hierarchy: &Hierarchy) -> &'a str {
    let line = cgroup.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (names, path) = (fields.next()?, fields.next()?);
        let same = match hierarchy.version {
            Version::V2 => names.is_empty(),
            Version::V1 => names.split(',').eq(hierarchy.controllers.iter().map(String::as_str)),
        };
        same.then_some(path)
    });
    match (hierarchy.version, mode) {
        (Version::V2, Mode::V2) => {
            line.and_then(|path| path.rsplit_once('/')).map_or("", |(parent, _)| parent)
        }
        // v2 beside v1 has no controllers, and runc takes its root
        (Version::V2, _) => "",
        // the paths are those of the host, the mount may show a part of it
        (Version::V1, _) => line
            .and_then(|path| path.strip_prefix(hierarchy.mounted.trim_end_matches('/')))
            .filter(|path| path.is_empty() || path.starts_with('/'))
            .unwrap_or(""),
    }
}

/// Takes out empty names, `.` and `..` as if the path began at a root.
pub(super) fn clean(path: &str) -> String {
    let mut names = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    names.join("/")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_read_as_by_runc() {
        for (path, id, want) in [
            ("/a/b", "id", "/a/b"),
            ("a/b", "id", "a/b"),
            ("", "id", "id"),
            ("/a/../../../b", "id", "/b"),
            ("../../etc", "id", "etc"),
            ("//a//./b/", "id", "/a/b"),
            ("a/..//b", "id", "b"),
        ] {
            assert_eq!(oci_path(path, id).unwrap(), want, "{path:?}");
        }
        let long = format!("/{}", "x".repeat(256));
        for path in ["/", "/..", "..", ".", "a/..", "/a\nb", "a\0", &long] {
            assert!(matches!(oci_path(path, "id"), Err(CgroupError::InvalidPath(_))), "{path:?}");
        }
    }

    #[test]
    fn relative_paths_start_at_the_own_group() {
        let directory = tempfile::tempdir().unwrap();
        let hierarchy = |version, controllers: &[&str], mounted: &str| Hierarchy {
            root: super::super::tests::directory(directory.path()),
            version,
            mounted: mounted.to_owned(),
            controllers: controllers.iter().map(|it| (*it).to_owned()).collect(),
        };
        let text = "4:cpu,cpuacct:/docker/x/y\n3:memory:/a:b\n1:name=systemd:/\n0::/user/session\n";
        let cpu = ["cpu", "cpuacct"];
        for (hierarchy, mode, want) in [
            (hierarchy(Version::V1, &cpu, "/"), Mode::V1, "/docker/x/y"),
            (hierarchy(Version::V1, &cpu, "/docker/x"), Mode::Hybrid, "/y"),
            (hierarchy(Version::V1, &cpu, "/docker/x/y"), Mode::V1, ""),
            (hierarchy(Version::V1, &cpu, "/dock"), Mode::V1, ""),
            (hierarchy(Version::V1, &["memory"], "/"), Mode::V1, "/a:b"),
            (hierarchy(Version::V1, &["pids"], "/"), Mode::V1, ""),
            (hierarchy(Version::V2, &[], "/"), Mode::V2, "/user"),
            (hierarchy(Version::V2, &[], "/"), Mode::Hybrid, ""),
        ] {
            assert_eq!(own(text, mode, &hierarchy), want, "{hierarchy:?}");
        }
        assert_eq!(own("0::/\n", Mode::V2, &hierarchy(Version::V2, &[], "/")), "");
    }

    proptest! {
        #[test]
        fn no_path_leads_out(path in "[/.a]{0,12}|\\PC{0,12}", id in "[a-z.]{1,8}") {
            if let Ok(path) = oci_path(&path, &id) {
                let relative = path.strip_prefix('/').unwrap_or(&path);
                prop_assert!(!relative.is_empty());
                prop_assert!(relative.split('/').all(|it| !matches!(it, "" | "." | "..")), "{}", path);
                prop_assert_eq!(oci_path(&path, "other").unwrap(), path);
            }
        }
    }
}
