//! Which unit a container has, and where systemd puts it.

use super::SystemdError;

/// A scope (or a slice) for one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Such as `system.slice`.
    pub slice: String,
    /// Such as `docker-ID.scope`.
    pub name: String,
    /// What the description says.
    pub id: String,
}

impl Unit {
    /// Reads a `cgroupsPath` of the form `slice:prefix:name`, as runc with `--systemd-cgroup`. A
    /// name that ends with `.slice` is a slice, every other one is the scope `prefix-name.scope`.
    /// An empty path is `id` in the usual slice, and so is an empty slice: `system.slice`, or
    /// `user.slice` of a user's own systemd.
    ///
    /// # Errors
    /// [`SystemdError::InvalidPath`] and [`SystemdError::InvalidSlice`].
    pub fn parse(cgroups_path: &str, id: &str, user: bool) -> Result<Self, SystemdError> {
        let usual = if user { "user.slice" } else { "system.slice" };
        let (slice, prefix, name) = match cgroups_path.split(':').collect::<Vec<_>>()[..] {
            [""] => (usual, "bulkhead", id),
            ["", prefix, name] => (usual, prefix, name),
            [slice, prefix, name] => (slice, prefix, name),
            _ => return Err(SystemdError::InvalidPath(cgroups_path.to_owned())),
        };
        expand_slice(slice)?;
        let name = if name.ends_with(".slice") {
            name.to_owned()
        } else {
            format!("{prefix}-{name}.scope")
        };
        // systemd.unit(5): what a unit's name may have, and it is a directory's name too
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
        if name.len() > 255 || !name.bytes().all(valid) {
            return Err(SystemdError::InvalidPath(cgroups_path.to_owned()));
        }
        Ok(Self { slice: slice.to_owned(), name, id: id.to_owned() })
    }

    pub fn is_slice(&self) -> bool {
        self.name.ends_with(".slice")
    }

    /// The path below the hierarchies' roots; `manager` is the group of the systemd that has the
    /// unit, which is empty or `/` for the host's.
    pub fn path(&self, manager: &str) -> Result<String, SystemdError> {
        let slice = expand_slice(&self.slice)?;
        let parts = [manager.trim_matches('/'), slice.trim_matches('/'), &self.name];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        Ok(format!("/{}", parts.join("/")))
    }
}

/// `a-b.slice` lies in `a.slice` (systemd.slice(5)).
fn expand_slice(slice: &str) -> Result<String, SystemdError> {
    let invalid = || SystemdError::InvalidSlice(slice.to_owned());
    let name = slice.strip_suffix(".slice").ok_or_else(invalid)?;
    if name == "-" {
        return Ok("/".to_owned());
    }
    if name.contains('/') || name.split('-').any(str::is_empty) {
        return Err(invalid());
    }
    let ends = name.match_indices('-').map(|(index, _)| index).chain([name.len()]);
    Ok(ends.map(|end| format!("/{}.slice", &name[..end])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_a_unit() {
        for (path, user, slice, name, group) in [
            ("", false, "system.slice", "bulkhead-id.scope", "/system.slice/bulkhead-id.scope"),
            ("::x", false, "system.slice", "-x.scope", "/system.slice/-x.scope"),
            (":runc:x", true, "user.slice", "runc-x.scope", "/user.slice/runc-x.scope"),
            (
                "a-b.slice:cri:x",
                false,
                "a-b.slice",
                "cri-x.scope",
                "/a.slice/a-b.slice/cri-x.scope",
            ),
            ("-.slice:cri:x", false, "-.slice", "cri-x.scope", "/cri-x.scope"),
            ("a.slice::a-b.slice", false, "a.slice", "a-b.slice", "/a.slice/a-b.slice"),
        ] {
            let unit = Unit::parse(path, "id", user).unwrap();
            assert_eq!((unit.slice.as_str(), unit.name.as_str()), (slice, name), "{path}");
            assert_eq!(unit.path("").unwrap(), group, "{path}");
            assert_eq!(unit.is_slice(), path.ends_with(".slice"));
        }
        let unit = Unit::parse("a.slice:p:x", "id", true).unwrap();
        let manager = "/user.slice/user-5.slice/user@5.service";
        assert_eq!(unit.path(manager).unwrap(), format!("{manager}/a.slice/p-x.scope"));
        for (path, want) in [
            (
                "/a/b",
                "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd \
                cgroups, got \"/a/b\" instead",
            ),
            ("a:b:c:d", "expected cgroupsPath to be of format"),
            ("a.slice:../x:y", "expected cgroupsPath to be of format"),
            ("a:b:c", "invalid slice name: a"),
            ("a--b.slice:b:c", "invalid slice name: a--b.slice"),
            ("-a.slice:b:c", "invalid slice name: -a.slice"),
            ("a/b.slice:b:c", "invalid slice name: a/b.slice"),
            (".slice:b:c", "invalid slice name: .slice"),
        ] {
            let error = Unit::parse(path, "id", false).unwrap_err().to_string();
            assert!(error.starts_with(want), "{error}");
        }
    }
}
