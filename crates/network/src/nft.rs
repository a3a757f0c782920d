//! nftables over nfnetlink: a small codec of our own, and the rules that stand on it.
//!
//! A change is one batch, and a batch is one transaction: packets see all of it or nothing.

mod attributes;
pub(crate) mod chains;
mod codec;
pub(crate) mod conntrack;
mod expression;
pub(crate) mod listing;
pub(crate) mod ruleset;
mod socket;

pub(crate) use codec::{Batch, Element, Family, Hook};
pub(crate) use expression::{Base, Meta, R0, Rule};
pub(crate) use socket::Nfnetlink;
