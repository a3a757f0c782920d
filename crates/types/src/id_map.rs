//! Which host ids a user namespace shows as which (user_namespaces(7), "User and group ID
//! mappings"); the same map serves uids and gids.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A run of host user and group ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IdRange {
    pub first: u32,
    /// How many ids there are.
    pub size: u32,
}

impl IdRange {
    /// The first id after the range, which may be 2^32.
    pub fn end(self) -> u64 {
        u64::from(self.first) + u64::from(self.size)
    }

    pub fn overlaps(self, other: Self) -> bool {
        u64::from(self.first) < other.end() && u64::from(other.first) < self.end()
    }
}

/// The ids of a container: 0, 1, 2 … as the host's from `first` on, and windows for what lies above.
///
/// A record of a time without windows reads as a map that has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct IdMap {
    /// The host id that is 0 inside.
    pub first: u32,
    /// How many ids there are from 0 on.
    pub size: u32,
    #[serde(default)]
    windows: Windows,
}

/// Ids of a container above those from 0 on, and what they are on the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Window {
    /// The first id inside.
    pub inside: u32,
    /// The host id that it is.
    pub outside: u32,
    pub size: u32,
}

/// No more id can be had: the map has as many windows as it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoWindowLeft;

impl IdMap {
    /// What one container gets: every id that a 16-bit uid can name, and those that directory
    /// services and `useradd` give out right above. With it 12,000 containers fit between Bulkhead's
    /// first id and 2^32.
    pub const SIZE: u32 = 262_144;

    /// How many ids a window has; windows begin at multiples of it.
    pub const WINDOW: u32 = 65_536;

    pub const fn new(first: u32, size: u32) -> Self {
        const NONE: Window = Window { inside: 0, outside: 0, size: 0 };
        Self { first, size, windows: Windows([NONE; MOST_WINDOWS]) }
    }

    /// Where the window that holds `inside` begins, unless the map has that id already.
    pub fn lacks(&self, inside: u32) -> Option<u32> {
        self.outside(inside).is_none().then_some(inside - inside % Self::WINDOW)
    }

    /// Shows the host ids from `outside` on as those from `inside` on, one window of them.
    ///
    /// # Errors
    /// The map is full.
    pub fn add_window(&mut self, inside: u32, outside: u32) -> Result<(), NoWindowLeft> {
        let free = self.windows.0.iter_mut().find(|window| window.size == 0).ok_or(NoWindowLeft)?;
        // (uid_t) -1 is nobody's: it means "leave it" to the kernel's calls, which refuse a map with it
        let size = Self::WINDOW.min(u32::MAX - inside);
        *free = Window { inside, outside, size };
        Ok(())
    }

    /// Translates a host id into the namespace, if the map holds it.
    pub fn inside(&self, host: u32) -> Option<u32> {
        self.extents().find_map(|extent| {
            let offset = host.checked_sub(extent.outside).filter(|offset| *offset < extent.size)?;
            extent.inside.checked_add(offset)
        })
    }

    /// Translates an id of the namespace into the host's, if the map holds it.
    pub fn outside(&self, inside: u32) -> Option<u32> {
        self.extents().find_map(|extent| {
            let offset =
                inside.checked_sub(extent.inside).filter(|offset| *offset < extent.size)?;
            extent.outside.checked_add(offset)
        })
    }

    /// The host ids that nobody else may have.
    pub fn ranges(&self) -> impl Iterator<Item = IdRange> + use<> {
        self.extents().map(|extent| IdRange { first: extent.outside, size: extent.size })
    }

    /// What `/proc/PID/uid_map` and `gid_map` are given, in the one write that they take.
    pub fn lines(&self) -> String {
        use std::fmt::Write;
        let mut text = String::with_capacity(32);
        for Window { inside, outside, size } in self.extents() {
            let _ = writeln!(text, "{inside} {outside} {size}");
        }
        text
    }

    fn extents(&self) -> impl Iterator<Item = Window> + use<> {
        let base = Window { inside: 0, outside: self.first, size: self.size };
        let windows = self.windows.0.into_iter().take_while(|window| window.size != 0);
        std::iter::once(base).chain(windows)
    }
}

/// The kernel takes 340 lines; a container names a handful of users.
const MOST_WINDOWS: usize = 12;

/// In the order in which they came; those of no size come last and are none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Windows([Window; MOST_WINDOWS]);

impl Serialize for Windows {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().filter(|window| window.size != 0).collect::<Vec<_>>())
    }
}

impl<'de> Deserialize<'de> for Windows {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let list = Vec::<Window>::deserialize(deserializer)?;
        let mut windows = Self::default();
        if list.len() > windows.0.len() {
            return Err(serde::de::Error::invalid_length(list.len(), &"a few windows of ids"));
        }
        // what comes behind one of no size would be none either
        if list.iter().any(|window| window.size == 0) {
            return Err(serde::de::Error::custom("a window of ids has none"));
        }
        windows.0[..list.len()].copy_from_slice(&list);
        Ok(windows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_translated_both_ways_through_every_window() {
        let mut map = IdMap::new(1_000_000, 65_536);
        assert_eq!(map.lacks(65_535), None);
        assert_eq!(map.lacks(100_000), Some(65_536));
        map.add_window(65_536, 5_000_000).unwrap();
        assert_eq!(map.lacks(100_000), None);
        let last = u32::MAX - u32::MAX % IdMap::WINDOW;
        map.add_window(last, 7_000_000).unwrap();
        for (inside, outside) in [
            (0, Some(1_000_000)),
            (65_535, Some(1_065_535)),
            (65_536, Some(5_000_000)),
            (100_000, Some(5_034_464)),
            (131_072, None),
            (u32::MAX - 1, Some(7_000_000 + 65_534)),
            (u32::MAX, None),
        ] {
            assert_eq!(map.outside(inside), outside, "{inside}");
            if let Some(outside) = outside {
                assert_eq!(map.inside(outside), Some(inside), "{outside}");
            }
        }
        assert_eq!(map.inside(0), None);
        assert_eq!(map.lines(), "0 1000000 65536\n65536 5000000 65536\n4294901760 7000000 65535\n");
    }

    #[test]
    fn a_map_without_windows_is_read_as_it_was_written_before_there_were_any() {
        let map: IdMap = serde_json::from_str(r#"{"first":7,"size":65536}"#).unwrap();
        assert_eq!(map, IdMap::new(7, 65_536));
        let mut map = map;
        while map.add_window(1 << 20, 1 << 21).is_ok() {}
        let text = serde_json::to_string(&map).unwrap();
        assert_eq!(serde_json::from_str::<IdMap>(&text).unwrap(), map);
        let empty = text.replacen("\"size\":65536}", "\"size\":0}", 1);
        assert!(empty != text && serde_json::from_str::<IdMap>(&empty).is_err(), "{empty}");
    }
}
