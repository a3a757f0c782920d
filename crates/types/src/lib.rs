//! Names, digests, sizes and OCI types that every layer of Bulkhead shares.
//!
//! Nothing here talks to the kernel, the disk or the network: these are the values that the other
//! crates pass to each other, valid from birth (a constructor may fail, a method may not).
#![forbid(unsafe_code)]

mod build_step;
mod chain;
mod digest;
pub mod glob;
mod id;
mod id_map;
pub mod image;
pub mod oci;
mod port;
mod reference;
mod size;
mod time;

pub use build_step::{BuildStep, StepNetwork, Stream};
pub use chain::Chain;
pub use digest::{Digest, Hasher, InvalidDigest};
pub use id::{Id, InvalidId, InvalidName, Name};
pub use id_map::{IdMap, IdRange, NoWindowLeft, Window};
pub use jiff::Timestamp;
pub use jiff::tz::TimeZone;
pub use port::{InvalidPort, Port, Protocol};
pub use reference::{DEFAULT_DOMAIN, InvalidReference, Reference};
pub use size::{InvalidSize, binary_size, decimal_size, parse_size};
pub use time::{go_duration, go_duration_text, parse_moment};
