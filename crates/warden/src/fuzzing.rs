//! What the fuzz targets see of this crate; no build but theirs has it.

use std::fmt::Debug;

use bulkhead_runtime::Plan;
use bulkhead_runtime::plan::Host;
use serde::{Serialize, de::DeserializeOwned};

use crate::wire::{Message, Numbered, Request, decode};

/// Decodes what a client could send, and compiles a container that it asks for.
pub fn request(payload: &[u8]) {
    let Some(numbered) = again::<Numbered>(payload) else { return };
    if let Request::Create(create) = &numbered.request {
        let host = Host::parse("4:cpu,cpuacct:/\n0::/\n");
        let _ = Plan::container(&create.spec, &host).map(|plan| plan.to_string());
    }
}

/// Decodes what a warden could answer.
pub fn message(payload: &[u8]) {
    again::<Message>(payload);
}

/// Decodes, encodes and decodes again.
fn again<T: DeserializeOwned + Serialize + Debug>(payload: &[u8]) -> Option<T> {
    let message: T = decode(payload).ok()?;
    let bytes = postcard::to_stdvec(&message).expect("what was decoded can be encoded");
    let same: T = decode(&bytes).expect("what was encoded can be decoded");
    assert_eq!(format!("{message:?}"), format!("{same:?}"));
    Some(message)
}
