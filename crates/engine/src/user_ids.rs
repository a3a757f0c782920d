//! The ids of the host that containers' users have.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use bulkhead_image::Content;
use bulkhead_runtime::user::resolve;
use bulkhead_sys::path;
use bulkhead_types::{Digest, IdMap, IdRange};
use bulkhead_warden::Client;
use rustix::fs::{FileType, Mode, OFlags};

use crate::containers::Known;
use crate::data_dir::DataDir;
use crate::error::io_error;
use crate::namespaces::{NamespaceModes, UserNamespace};
use crate::{Class, EngineError, HostConfig, UsernsMode};

/// Said when the engine starts, by `docker info`, and to whoever creates a container.
pub(crate) const NO_IDMAPPED_LAYERS: &str = "this kernel or file system cannot map the owners of \
    image layers (Linux 5.19 with ext4, xfs or btrfs can), so containers run without a user \
    namespace, as with --userns=host: root in them is root of this machine";

/// What this host can give containers of ids. Which are taken is in the containers' records.
#[derive(Debug)]
pub(crate) struct UserIds {
    first: u32,
    /// Whether containers can have user namespaces of their own: their layers' owners are mapped.
    pub(crate) idmapped_layers: bool,
}

impl UserIds {
    /// Tries on the data directory's file system whether owners can be mapped, and warns if not.
    pub(crate) fn probe(first: u32, warden: &Client, data: &DataDir) -> Result<Self, EngineError> {
        let users: OwnedFd = warden.user_namespace(IdMap::new(first, IdMap::SIZE))?;
        let idmapped_layers = data.supports_idmapped_layers(&users)?;
        if !idmapped_layers {
            tracing::warn!("{NO_IDMAPPED_LAYERS}");
        }
        Ok(Self { first, idmapped_layers })
    }

    /// Which user namespace a container gets, on a host that may be unable to give it its own.
    pub(crate) fn namespace(
        &self,
        modes: &NamespaceModes,
        known: &Known,
        host: &HostConfig,
    ) -> Result<UserNamespace, EngineError> {
        match modes.user(known, host)? {
            UserNamespace::Own if self.idmapped_layers => Ok(UserNamespace::Own),
            UserNamespace::Own if host.userns_mode == UsernsMode::Default => {
                Ok(UserNamespace::Host)
            }
            UserNamespace::Own => Err(EngineError::new(Class::Unsupported, NO_IDMAPPED_LAYERS)),
            users => Ok(users),
        }
    }

    /// The ids of a container that is about to be recorded; `None` are the host's. `wanted` are ids
    /// that it has to have, whatever they are. The caller holds the allocation lock.
    pub(crate) fn lease(
        &self,
        known: &Known,
        users: UserNamespace,
        wanted: &[u32],
    ) -> Result<Option<IdMap>, EngineError> {
        match users {
            UserNamespace::Host => Ok(None),
            // one user namespace has one map, which cannot be extended once it is written
            UserNamespace::Of(map) => Ok(Some(map)),
            UserNamespace::Own => {
                let maps =
                    known.entries.values().filter_map(|entry| entry.record.container.id_range);
                let taken = maps.flat_map(|map| map.ranges()).collect();
                id_map(self.first, wanted, taken).map(Some)
            }
        }
    }
}

/// Ids that a container will meet, as far as it can be known before it runs: its user and groups,
/// those by name as its image knows them, the owners of what is bound into it, and those of its image's files.
pub(crate) fn wanted<'a>(
    user: &str,
    groups: &[String],
    bind_sources: impl Iterator<Item = &'a str>,
    layers: &[Digest],
    content: &Content,
) -> Result<Vec<u32>, EngineError> {
    let words = || user.split(':').chain(groups.iter().map(String::as_str));
    let mut ids: Vec<u32> = words().filter_map(|word| word.parse().ok()).collect();
    let is_name = |word: &str| !word.is_empty() && word != "root" && word.parse::<u32>().is_err();
    if words().any(is_name) {
        let passwd = image_file(content, layers, "etc/passwd")?;
        let group = image_file(content, layers, "etc/group")?;
        // One that is not there is told at the start, by which time a volume may have it.
        if let Ok(found) = resolve(user, groups, &passwd, &group) {
            ids.push(found.uid);
            ids.extend(found.additional_gids);
        }
    }
    ids.retain(|id| *id <= i32::MAX.cast_unsigned());
    for source in bind_sources {
        // one that is missing is made, for root, or is an error of its own
        let Ok(source) = path::open_host(Path::new(source), OFlags::PATH) else { continue };
        let Ok(stat) = rustix::fs::fstat(&source) else { continue };
        ids.extend([stat.st_uid, stat.st_gid]);
    }
    for layer in layers {
        ids.extend(content.layer_owners(*layer)?);
    }
    Ok(ids)
}

/// The text of a file of an image's root; none if it is not there, or behind a link that leads out of
/// its layer. `layers` are the lowest first.
fn image_file(content: &Content, layers: &[Digest], name: &str) -> Result<Vec<u8>, EngineError> {
    for layer in layers.iter().rev() {
        let root = content.layer(*layer)?;
        let open = |flags| path::open(root.as_fd(), Path::new(name), flags, Mode::empty());
        let Ok(found) = open(OFlags::PATH | OFlags::CLOEXEC) else { continue };
        let kind = rustix::fs::fstat(&found).map(|stat| FileType::from_raw_mode(stat.st_mode));
        if kind != Ok(FileType::RegularFile) {
            // a whiteout: an upper layer has removed it; or a device, which is not to be opened
            break;
        }
        let file = open(OFlags::RDONLY | OFlags::CLOEXEC);
        let file = File::from(file.map_err(io_error("open the image's users"))?);
        let mut text = Vec::new();
        let read = file.take(LONGEST_FILE).read_to_end(&mut text);
        read.map_err(io_error("read the image's users"))?;
        return Ok(text);
    }
    Ok(Vec::new())
}

/// What is read of a list of users, in bytes: as much as at the start.
const LONGEST_FILE: u64 = 1 << 20;

/// Ids above those that every container has which the words of a build's step name, as in `RUN
/// useradd -u 1234567 app`: nothing has them yet, and the map cannot grow while the step runs. A
/// number that is no id costs a window, so there are few.
pub(crate) fn named<'a>(words: impl Iterator<Item = &'a str>) -> Vec<u32> {
    let mut ids: Vec<u32> = Vec::new();
    let numbers = words
        .flat_map(|word| word.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '.'))
        .filter_map(|word| word.parse().ok())
        .filter(|id| (IdMap::SIZE..=i32::MAX.cast_unsigned()).contains(id));
    for id in numbers {
        if !ids.iter().any(|other| other / IdMap::WINDOW == id / IdMap::WINDOW) {
            ids.push(id);
        }
    }
    ids.truncate(NAMED_WINDOWS);
    ids
}

/// A third of what a map holds: the others are for what the step's image has.
const NAMED_WINDOWS: usize = 4;

/// A map of host ids from `first` on that are in no range of `taken`: those that every container has,
/// from the bottom, and a window from the top for each of `wanted` that is not among them.
fn id_map(first: u32, wanted: &[u32], mut taken: Vec<IdRange>) -> Result<IdMap, EngineError> {
    let none_left =
        || EngineError::internal("every host user id is taken by a container; remove some");
    let base = lowest_free(first, IdMap::SIZE, &taken).ok_or_else(none_left)?;
    taken.push(base);
    let mut map = IdMap::new(base.first, base.size);
    for id in wanted {
        let Some(inside) = map.lacks(*id) else { continue };
        let window = highest_free(first, IdMap::WINDOW, &taken).ok_or_else(none_left)?;
        taken.push(window);
        map.add_window(inside, window.first).map_err(|_| {
            EngineError::invalid(format!(
                "id {id}: the users, groups and bind mounts of one container are spread over too \
                 many ranges of ids; use --userns=host"
            ))
        })?;
    }
    Ok(map)
}

fn lowest_free(first: u32, size: u32, taken: &[IdRange]) -> Option<IdRange> {
    let mut taken: Vec<IdRange> = taken.to_vec();
    taken.sort_by_key(|range| range.first);
    let mut candidate = IdRange { first, size };
    for range in taken {
        if candidate.overlaps(range) {
            candidate.first = u32::try_from(range.end()).ok()?;
        }
    }
    (candidate.end() <= LAST).then_some(candidate)
}

fn highest_free(first: u32, size: u32, taken: &[IdRange]) -> Option<IdRange> {
    let mut taken: Vec<IdRange> = taken.to_vec();
    taken.sort_by_key(|range| std::cmp::Reverse(range.end()));
    let mut candidate = IdRange { first: u32::try_from(LAST - u64::from(size)).ok()?, size };
    for range in taken {
        if candidate.overlaps(range) {
            candidate.first = range.first.checked_sub(size)?;
        }
    }
    (candidate.first >= first).then_some(candidate)
}

/// The end of what is given out; the very last id is no user's.
const LAST: u64 = 0xffff_0000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_reused_from_the_bottom_and_never_shared() {
        let range = |first, size| IdRange { first, size };
        let nth = |n: u32| range(1_000_000 + n * IdMap::SIZE, IdMap::SIZE);
        let first = |taken: Vec<IdRange>| id_map(1_000_000, &[], taken).unwrap().first;
        assert_eq!(first(vec![]), nth(0).first);
        assert_eq!(first(vec![nth(3), nth(0), nth(1)]), nth(2).first);
        // what was recorded when containers had fewer ids
        assert_eq!(first(vec![range(1_000_000, 65_536)]), 1_065_536);
        let hole = vec![range(1_000_000, 65_536), range(1_131_072, 65_536)];
        assert_eq!(first(hole), 1_196_608);
        assert!(id_map(u32::MAX - 10, &[], vec![]).is_err());
    }

    #[test]
    fn wanted_ids_have_windows_of_their_own() {
        let wanted = [0, 1000, 262_143, 1_000_640_000, 1_000_640_001, i32::MAX as u32];
        let mut taken: Vec<IdRange> = Vec::new();
        for _ in 0..100 {
            let map = id_map(1_000_000_000, &wanted, taken.clone()).unwrap();
            for id in wanted {
                let outside = map.outside(id).unwrap();
                assert!(outside >= 1_000_000_000);
                assert_eq!(map.inside(outside), Some(id));
                assert!(
                    !taken.iter().any(|range| range.overlaps(IdRange { first: outside, size: 1 }))
                );
            }
            assert_eq!(map.ranges().count(), 3);
            taken.extend(map.ranges());
        }
        let scattered: Vec<u32> = (0..100).map(|n| n * 1_000_000).collect();
        let error = id_map(1_000_000_000, &scattered, vec![]).unwrap_err();
        assert!(error.message.contains("--userns=host"), "{error}");
    }

    #[test]
    fn steps_name_their_ids() {
        for (words, ids) in [
            (
                &["sh", "-c", "useradd -u 1234567 -m x && chown -R 1234568:1234567 /x"][..],
                &[1_234_567][..],
            ),
            (&["UID=300000", "adduser -D -u $UID app"][..], &[300_000][..]),
            (&["echo a:x:400000:400000:: >> /etc/passwd"][..], &[400_000][..]),
            (
                &[
                    "useradd -u 262143 x; curl v1.20240101.tgz; echo 3000000000 x2147483 99999999999",
                ][..],
                &[][..],
            ),
            (
                &["1000000 2000000 3000000 4000000 5000000"][..],
                &[1_000_000, 2_000_000, 3_000_000, 4_000_000][..],
            ),
        ] {
            assert_eq!(named(words.iter().copied()), ids, "{words:?}");
        }
    }
}
