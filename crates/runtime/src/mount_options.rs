//! The options of a mount in `config.json`: which the kernel's mount takes, which the file system,
//! and which are the runtime's own.
//!
//! Words are those of mount(8) and of the specification's table (config.md, "Linux mount options").
//! What is none of them is passed on to the file system as a key, with a value behind `=`.

use bulkhead_sys::mount::{Attributes, Propagation};

/// What a list of options asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// Of this mount alone.
    pub set: Attributes,
    pub clear: Attributes,
    /// Of the mounts below it as well (`rro`, `rnosuid` …).
    pub recursive_set: Attributes,
    pub recursive_clear: Attributes,
    /// In their order; true is recursive.
    pub propagation: Vec<(Propagation, bool)>,
    pub bind: Option<Bind>,
    /// Keys of fsconfig(2) with their values; a flag has none.
    pub data: Vec<(String, Option<String>)>,
    /// `idmap` and `ridmap`: map owners, by the container's own mapping if the mount names none.
    pub id_map: Option<bool>,
    /// Fill a tmpfs with what lies below it.
    pub copy_up: bool,
    /// The source is not followed where it is a symbolic link.
    pub source_no_follow: bool,
    /// The destination is not followed where it is a symbolic link.
    pub destination_no_follow: bool,
    /// Make the same symbolic link instead of a mount where the source is one.
    pub copy_symlink: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bind {
    One,
    Recursive,
}

/// An option that contradicts the table: a word of the runtime's own with a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid mount option {0:?}: it takes no value of this kind")]
pub struct InvalidMountOption(pub String);

impl MountOptions {
    /// Reads a list; later options win over earlier ones.
    ///
    /// # Errors
    /// A `idmap=` or `ridmap=` with a value (crun's extension of mappings in the option itself),
    /// and an option with a zero byte.
    pub fn parse<S: AsRef<str>>(options: &[S]) -> Result<Self, InvalidMountOption> {
        let mut parsed = Self::default();
        for option in options {
            parsed.take(option.as_ref())?;
        }
        Ok(parsed)
    }

    fn take(&mut self, option: &str) -> Result<(), InvalidMountOption> {
        if let Some((set, clear)) = attribute(option) {
            self.clear = Attributes(self.clear.0 & !set.0 | clear.0);
            self.set = Attributes(self.set.0 & !clear.0 & !atime(clear) | set.0);
            return Ok(());
        }
        if let Some((set, clear)) = option.strip_prefix('r').and_then(attribute) {
            self.recursive_clear = Attributes(self.recursive_clear.0 & !set.0 | clear.0);
            self.recursive_set =
                Attributes(self.recursive_set.0 & !clear.0 & !atime(clear) | set.0);
            return Ok(());
        }
        if let Some(propagation) = propagation(option) {
            self.propagation.push(propagation);
            return Ok(());
        }
        match option {
            "" | "defaults" | "remount" | "nouser" | "noauto" | "auto" | "user" => {}
            "bind" => self.bind = Some(self.bind.unwrap_or(Bind::One)),
            "rbind" => self.bind = Some(Bind::Recursive),
            "idmap" => self.id_map = Some(false),
            "ridmap" => self.id_map = Some(true),
            "tmpcopyup" => self.copy_up = true,
            "src-nofollow" => self.source_no_follow = true,
            "dest-nofollow" => self.destination_no_follow = true,
            "copy-symlink" => (self.copy_symlink, self.source_no_follow) = (true, true),
            // what mount(8) turns into flags of the superblock by another name than its own
            "async" => self.flag("sync", false),
            "nomand" => self.flag("mand", false),
            "nolazytime" => self.flag("lazytime", false),
            "noiversion" => self.flag("iversion", false),
            "loud" => self.flag("silent", false),
            "sync" | "dirsync" | "mand" | "lazytime" | "iversion" | "silent" => {
                self.flag(option, true);
            }
            other if other.contains('\0') => return Err(InvalidMountOption(option.to_owned())),
            other => match other.split_once('=') {
                Some(("idmap" | "ridmap", _)) => {
                    return Err(InvalidMountOption(option.to_owned()));
                }
                Some((key, value)) => self.data.push((key.to_owned(), Some(value.to_owned()))),
                None => self.data.push((other.to_owned(), None)),
            },
        }
        Ok(())
    }

    fn flag(&mut self, name: &str, wanted: bool) {
        self.data.retain(|(key, _)| key != name);
        if wanted {
            self.data.push((name.to_owned(), None));
        }
    }
}

/// Every option that `features` lists: the words above, in the order of the alphabet.
pub fn known() -> Vec<&'static str> {
    let mut known: Vec<&str> = ATTRIBUTES.iter().map(|(name, _, _)| *name).collect();
    known.extend(RECURSIVE);
    known.extend(PROPAGATIONS.iter().map(|(name, _, _)| *name));
    known.extend([
        "async",
        "bind",
        "copy-symlink",
        "defaults",
        "dest-nofollow",
        "dirsync",
        "idmap",
        "iversion",
        "lazytime",
        "loud",
        "mand",
        "noiversion",
        "nolazytime",
        "nomand",
        "rbind",
        "remount",
        "ridmap",
        "silent",
        "src-nofollow",
        "sync",
        "tmpcopyup",
    ]);
    known.sort_unstable();
    known
}

const NONE: Attributes = Attributes(0);

/// (option, attributes that it sets, attributes that it clears)
const ATTRIBUTES: [(&str, Attributes, Attributes); 18] = [
    ("atime", NONE, Attributes::ATIME),
    ("dev", NONE, Attributes::NODEV),
    ("diratime", NONE, Attributes::NODIRATIME),
    ("exec", NONE, Attributes::NOEXEC),
    ("noatime", Attributes::NOATIME, Attributes::ATIME),
    ("nodev", Attributes::NODEV, NONE),
    ("nodiratime", Attributes::NODIRATIME, NONE),
    ("noexec", Attributes::NOEXEC, NONE),
    ("norelatime", NONE, Attributes::ATIME),
    ("nostrictatime", NONE, Attributes::ATIME),
    ("nosuid", Attributes::NOSUID, NONE),
    ("nosymfollow", Attributes::NOSYMFOLLOW, NONE),
    ("relatime", NONE, Attributes::ATIME),
    ("ro", Attributes::RDONLY, NONE),
    ("rw", NONE, Attributes::RDONLY),
    ("strictatime", Attributes::STRICTATIME, Attributes::ATIME),
    ("suid", NONE, Attributes::NOSUID),
    ("symfollow", NONE, Attributes::NOSYMFOLLOW),
];

/// The same with an `r` before them: for the mounts below as well (config.md).
const RECURSIVE: [&str; 18] = [
    "ratime",
    "rdev",
    "rdiratime",
    "rexec",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "rrelatime",
    "rro",
    "rrw",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
];

const PROPAGATIONS: [(&str, Propagation, bool); 8] = [
    ("private", Propagation::Private, false),
    ("rprivate", Propagation::Private, true),
    ("rshared", Propagation::Shared, true),
    ("rslave", Propagation::Slave, true),
    ("runbindable", Propagation::Unbindable, true),
    ("shared", Propagation::Shared, false),
    ("slave", Propagation::Slave, false),
    ("unbindable", Propagation::Unbindable, false),
];

fn attribute(option: &str) -> Option<(Attributes, Attributes)> {
    ATTRIBUTES.iter().find(|(name, _, _)| *name == option).map(|(_, set, clear)| (*set, *clear))
}

/// The ways of keeping access times are one number: clearing one clears them all.
fn atime(clear: Attributes) -> u64 {
    if clear.0 & Attributes::ATIME.0 != 0 { Attributes::ATIME.0 } else { 0 }
}

/// Reads `private`, `rslave` and the like; true is recursive.
pub fn propagation(option: &str) -> Option<(Propagation, bool)> {
    let found = PROPAGATIONS.iter().find(|(name, _, _)| *name == option);
    found.map(|(_, propagation, recursive)| (*propagation, *recursive))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(options: &str) -> MountOptions {
        MountOptions::parse(&options.split(',').collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn options_go_where_they_belong() {
        let it = parse(
            "rbind,ro,nosuid,noexec,suid,rslave,rro,rnodev,mode=755,size=64k,nr_inodes=5,sync",
        );
        assert_eq!(it.bind, Some(Bind::Recursive));
        assert_eq!(it.set, Attributes::RDONLY.with(Attributes::NOEXEC));
        assert_eq!(it.clear, Attributes::NOSUID);
        assert_eq!(it.recursive_set, Attributes::RDONLY.with(Attributes::NODEV));
        assert_eq!(it.propagation, [(Propagation::Slave, true)]);
        let data: Vec<_> =
            it.data.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
        let want = [
            ("mode", Some("755")),
            ("size", Some("64k")),
            ("nr_inodes", Some("5")),
            ("sync", None),
        ];
        assert_eq!(data, want);
        assert_eq!(parse("sync,async").data, []);
        assert!(parse("tmpcopyup").copy_up);
        assert_eq!(parse("ridmap").id_map, Some(true));
        assert!(MountOptions::parse(&["idmap=uids=0-1-2"]).is_err());
    }

    #[test]
    fn of_the_ways_to_keep_access_times_the_last_wins() {
        for (options, set) in [
            ("noatime", Attributes::NOATIME),
            ("noatime,strictatime", Attributes::STRICTATIME),
            ("strictatime,noatime", Attributes::NOATIME),
            ("noatime,relatime", NONE),
            ("noatime,nodiratime", Attributes::NOATIME.with(Attributes::NODIRATIME)),
            ("noatime,atime", NONE),
        ] {
            let it = parse(options);
            assert_eq!(it.set, set, "{options}");
            // EINVAL of mount_setattr(2) if one is set without clearing the others
            assert_eq!(it.clear, it.clear.with(Attributes::ATIME), "{options}");
            let recursive: Vec<String> =
                options.split(',').map(|option| format!("r{option}")).collect();
            assert_eq!(MountOptions::parse(&recursive).unwrap().recursive_set, set, "{options}");
        }
    }

    #[test]
    fn every_known_option_is_known() {
        for option in known() {
            assert_eq!(
                parse(option).data.len(),
                parse(option).data.iter().filter(|(_, value)| value.is_none()).count()
            );
            let passed_on = parse(option).data.iter().any(|(key, _)| key == option);
            let of_superblock =
                ["sync", "dirsync", "mand", "lazytime", "iversion", "silent"].contains(&option);
            assert_eq!(passed_on, of_superblock, "{option}");
        }
        assert!(known().contains(&"rro"));
    }

    proptest! {
        #[test]
        fn any_words_are_survived(options in proptest::collection::vec("[a-z=0-9-]{0,12}", 0..8)) {
            if let Ok(it) = MountOptions::parse(&options) {
                prop_assert_eq!(it.set.0 & it.clear.0 & !Attributes::ATIME.0, 0);
                prop_assert_eq!(it.recursive_set.0 & it.recursive_clear.0 & !Attributes::ATIME.0, 0);
            }
        }
    }
}
