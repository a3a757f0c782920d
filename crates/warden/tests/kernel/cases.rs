//! The cases by what they are about.

mod compartments;
mod exec;
mod isolation;
mod landlock;
mod lifecycle;
mod streams;

pub use landlock::connect_to_abstract;
pub use lifecycle::client;

/// A case by its name.
pub type Case = (&'static str, fn());

pub fn all() -> impl Iterator<Item = &'static Case> {
    let parts =
        [compartments::ALL, isolation::ALL, landlock::ALL, lifecycle::ALL, streams::ALL, exec::ALL];
    parts.into_iter().flatten()
}

macro_rules! cases {
    ($($name:ident),* $(,)?) => { pub const ALL: &[crate::cases::Case] = &[$((stringify!($name), $name)),*]; };
}
use cases;
