//! The first packet of a connection, each way: which protocol its sender speaks. Its form is the
//! same in every version, so that two of different versions can tell.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

/// Goes up with every change of what `wire` and `protocol` send: a resolver outlives the program
/// that started it, and messages have no names in them.
pub(crate) const VERSION: u32 = 1;

const GREETING: &str = "bulkhead-resolver ";
const END: &str = "end";

/// Longer than any hello.
const ROOM: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hello {
    Version(u32),
    /// Asks a resolver of whatever version to end, so that one of the caller's own can follow.
    End,
    /// The end of the connection, or something else than a hello.
    None,
}

pub(crate) fn send(socket: BorrowedFd<'_>, hello: Hello) -> Result<(), Errno> {
    let text = match hello {
        Hello::Version(version) => format!("{GREETING}{version}"),
        Hello::End => format!("{GREETING}{END}"),
        Hello::None => return Ok(()),
    };
    let flags = SendFlags::NOSIGNAL;
    rustix::io::retry_on_intr(|| rustix::net::send(socket, text.as_bytes(), flags)).map(drop)
}

pub(crate) fn receive(socket: BorrowedFd<'_>, flags: RecvFlags) -> Result<Hello, Errno> {
    let mut packet = [0; ROOM];
    let (length, _) =
        rustix::io::retry_on_intr(|| rustix::net::recv(socket, &mut packet[..], flags))?;
    Ok(read(&packet[..length]))
}

fn read(packet: &[u8]) -> Hello {
    let text = std::str::from_utf8(packet).ok().and_then(|text| text.strip_prefix(GREETING));
    match text {
        Some(END) => Hello::End,
        Some(version) => version.parse().map_or(Hello::None, Hello::Version),
        None => Hello::None,
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_types::Digest;

    use super::*;

    #[test]
    fn only_a_hello_is_one() {
        assert_eq!(read(b"bulkhead-resolver 7"), Hello::Version(7));
        assert_eq!(read(b"bulkhead-resolver end"), Hello::End);
        for wrong in [&b""[..], b"\0\x01", b"bulkhead-resolver ", b"bulkhead-resolver x", b"hello"]
        {
            assert_eq!(read(wrong), Hello::None, "{wrong:?}");
        }
    }

    /// Messages are fields in their order and variants by their number (postcard), so the types are
    /// the format.
    #[test]
    fn the_version_goes_up_with_the_format() {
        let mut types = String::new();
        for source in [include_str!("wire.rs"), include_str!("protocol.rs")] {
            let mut is_type = false;
            for line in source.lines() {
                is_type |= line.starts_with("pub struct ") || line.starts_with("pub enum ");
                if is_type && !line.trim_start().starts_with("//") {
                    types += line.trim();
                    types.push('\n');
                }
                is_type &= line != "}";
            }
        }
        assert_eq!(
            (VERSION, Digest::of(types.as_bytes()).short()),
            (1, "7350dd7acb7c".to_owned()),
            "what a resolver hears or says has changed: raise VERSION, and note the new digest here"
        );
    }
}
