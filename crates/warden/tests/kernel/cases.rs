//! The cases by what they are about.

mod compartments;
mod exec;
mod isolation;
mod lifecycle;
mod streams;

pub use lifecycle::client;

/// A case by its name.
pub type Case = (&'static str, fn());

pub fn all() -> impl Iterator<Item = &'static Case> {
    [compartments::ALL, isolation::ALL, lifecycle::ALL, streams::ALL, exec::ALL]
        .into_iter()
        .flatten()
}

macro_rules! cases {
    ($($name:ident),* $(,)?) => { pub const ALL: &[crate::cases::Case] = &[$((stringify!($name), $name)),*]; };
}
use cases;
