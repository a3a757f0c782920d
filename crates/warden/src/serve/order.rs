//! What the warden says to a compartment.

use bulkhead_runtime::FdIndex;
use serde::{Deserialize, Serialize};

/// What makes a container of a compartment; the plan's descriptors travel along, and after them
/// those of the standard streams, if any.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order<'a> {
    #[serde(borrow)]
    pub plan: std::borrow::Cow<'a, [u8]>,
    pub cgroup: Option<FdIndex>,
    pub stdio: bool,
    /// Whether the process waits until the warden has set its limits.
    pub waits: bool,
}

/// An order that owns its bytes.
pub(super) struct Received(pub Order<'static>);

impl<'de> Deserialize<'de> for Received {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let order = Order::deserialize(deserializer)?;
        Ok(Self(Order { plan: order.plan.into_owned().into(), ..order }))
    }
}
