//! The first packet of a connection, each way: which protocol its sender speaks. Its form is the
//! same in every version, so that two of different versions can tell.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

/// Goes up with every change of what `wire` and `protocol` send, and of what they take from the
/// runtime: a warden outlives the program that started it, and messages have no names in them.
pub(crate) const VERSION: u32 = 4;

const GREETING: &str = "bulkhead-warden ";

/// Longer than any hello.
const ROOM: usize = 64;

pub(crate) fn send(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    let hello = format!("{GREETING}{VERSION}");
    let flags = SendFlags::NOSIGNAL;
    rustix::io::retry_on_intr(|| rustix::net::send(socket, hello.as_bytes(), flags)).map(drop)
}

/// Takes the peer's hello; `None` is the end of the connection, or something else than a hello:
/// versions of before it said none, and let go of who says one.
pub(crate) fn receive(socket: BorrowedFd<'_>, flags: RecvFlags) -> Result<Option<u32>, Errno> {
    let mut packet = [0; ROOM];
    let (length, _) =
        rustix::io::retry_on_intr(|| rustix::net::recv(socket, &mut packet[..], flags))?;
    Ok(read(&packet[..length]))
}

fn read(packet: &[u8]) -> Option<u32> {
    std::str::from_utf8(packet).ok()?.strip_prefix(GREETING)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use bulkhead_types::Digest;

    use super::*;

    #[test]
    fn only_a_hello_is_one() {
        assert_eq!(read(b"bulkhead-warden 7"), Some(7));
        for wrong in [&b""[..], b"\0\x01", b"bulkhead-warden ", b"bulkhead-warden x", b"hello"] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }

    /// Messages are fields in their order and variants by their number (postcard), so the types are
    /// the format.
    #[test]
    fn the_version_goes_up_with_the_format() {
        let sources = [
            include_str!("wire.rs"),
            include_str!("protocol.rs"),
            include_str!("../../runtime/src/spec.rs"),
        ];
        let mut types = String::new();
        for source in sources {
            let mut is_type = false;
            for line in source.lines() {
                is_type |= line.starts_with("pub struct ") || line.starts_with("pub enum ");
                if is_type && !line.trim_start().starts_with("//") {
                    types += line.trim();
                    types.push('\n');
                }
                is_type &= !(line == "}" || line.ends_with(");") || line.ends_with("{}"));
            }
        }
        assert_eq!(
            (VERSION, Digest::of(types.as_bytes()).short()),
            (4, "a40972ac440d".to_owned()),
            "what a warden hears or says has changed: raise VERSION, and note the new digest here"
        );
    }
}
