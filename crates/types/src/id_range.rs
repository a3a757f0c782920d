use serde::{Deserialize, Serialize};

/// A run of host user and group ids that a user namespace shows as 0, 1, 2 ….
///
/// The same run serves uids and gids (user_namespaces(7), "User and group ID mappings").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct IdRange {
    /// The host id that is 0 inside.
    pub first: u32,
    /// How many ids there are.
    pub size: u32,
}

impl IdRange {
    /// What one container gets: every id that a 16-bit uid can name.
    pub const SIZE: u32 = 65_536;

    /// Translates a host id into the namespace, if the range holds it.
    pub fn inside(self, host: u32) -> Option<u32> {
        host.checked_sub(self.first).filter(|inside| *inside < self.size)
    }

    /// Translates an id of the namespace into the host's, if the range holds it.
    pub fn outside(self, inside: u32) -> Option<u32> {
        (inside < self.size).then(|| self.first.checked_add(inside)).flatten()
    }
}
