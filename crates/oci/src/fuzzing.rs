//! What the fuzz targets see of this crate; no build but theirs has it.

/// The uid and gid of `exec --user`.
pub fn user(text: &str) -> Option<(u32, u32)> {
    crate::commands::exec::parse_user(text).ok().map(|user| (user.uid, user.gid))
}
