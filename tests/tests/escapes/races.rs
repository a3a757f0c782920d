//! Races for a mount's target.
