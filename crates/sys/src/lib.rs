//! The kernel: the only crate with `unsafe`.
//!
//! What rustix has is used from rustix directly; this crate adds the calls it lacks, the one path
//! layer, and nothing that knows what a container is.

pub mod path;
pub mod testing;
mod unshare;

pub use unshare::unshare;
