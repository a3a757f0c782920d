//! Walls that a test can take away, to see that its attack is a real one.
//!
//! Only a build with the feature `weak` has them, and such a build is no release.

#[cfg(all(feature = "weak", not(debug_assertions)))]
compile_error!("the feature `weak` takes walls away: it is for tests and never for a release");

/// Whether `BULKHEAD_WEAK` takes this wall away.
#[cfg(feature = "weak")]
#[allow(clippy::disallowed_methods, reason = "a test says by it which wall")]
pub fn without(wall: &str) -> bool {
    std::env::var("BULKHEAD_WEAK").is_ok_and(|named| named == wall)
}

/// Never, in a build without the feature `weak`.
#[cfg(not(feature = "weak"))]
pub const fn without(_wall: &str) -> bool {
    false
}
