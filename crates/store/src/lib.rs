//! The truth on disk: one trait shaped like etcd's data model, embedded (redb) for one machine.
//!
//! Keys are byte strings in order, values are bytes with the revision that wrote them, changes
//! happen in transactions that compare first, and a watch tells of those that happen from then on.
#![forbid(unsafe_code)]

mod disk;
mod embedded;
mod journal;
mod mirror;
mod record;
mod store;
mod witness;

pub use embedded::Embedded;
pub use record::{load, load_all, put};
pub use store::{Change, Compare, Durability, Entry, Revision, Store, StoreError, Write};
