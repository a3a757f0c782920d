//! Log drivers that send what a container writes elsewhere: what their options mean, how each writes a
//! record, and how a log that is on this machine is read for them, from where they came to.
//!
//! Nothing here knows a container but by [`Origin`], and nobody waits but who sends.

mod awslogs;
mod compress;
mod connection;
mod container;
mod destination;
mod fluentd;
mod follower;
mod gelf;
mod http;
mod journald;
mod msgpack;
mod options;
mod origin;
mod record;
mod segment;
mod sender;
mod signature;
mod syslog;
mod tag;

pub use awslogs::AwsEnvironment;
pub use compress::{Compressed, clear, compress};
pub use container::Container;
pub use destination::Destination;
pub use follower::{Batch, Follower, Position, link_log};
pub use options::{OptionError, Remote};
pub use origin::{Origin, Selection};
pub use record::Record;
pub use segment::{Identity, Segment};
pub use sender::Sender;
