//! Request lines as Docker takes them: Go's server passes on `?filters={"name":["x"]}` as people write
//! it for curl, with characters that RFC 3986 wants encoded and hyper refuses.
//!
//! Only the first line of a connection is looked at: who writes by hand sends one request over each.

use std::io::Cursor;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::UnixStream;

/// As much of a line as is looked at: longer ones are no person's.
const LONGEST: usize = 8 << 10;

/// What a connection that has sent a first line becomes: itself, or one that reads a mended line first.
pub(crate) enum Opened<M> {
    AsItIs(UnixStream),
    Mended(M),
}

/// Waits for the first bytes, which stay where they are unless their line has to be mended.
pub(crate) async fn open(
    mut stream: UnixStream,
) -> std::io::Result<Opened<impl AsyncRead + AsyncWrite + Unpin + Send>> {
    let mut line = vec![0; LONGEST];
    let seen = stream
        .async_io(tokio::io::Interest::READABLE, || {
            let (_, seen) =
                rustix::net::recv(&stream, &mut line[..], rustix::net::RecvFlags::PEEK)?;
            Ok(seen)
        })
        .await?;
    line.truncate(seen);
    let Some((length, mended)) = mended(&line) else { return Ok(Opened::AsItIs(stream)) };
    stream.read_exact(&mut line[..length]).await?;
    let (rest, answer) = stream.into_split();
    Ok(Opened::Mended(tokio::io::join(Cursor::new(mended).chain(rest), answer)))
}

/// The length of the first line and what it should have been, if that is something else.
fn mended(bytes: &[u8]) -> Option<(usize, Vec<u8>)> {
    let length = bytes.iter().position(|byte| *byte == b'\n')? + 1;
    let line = &bytes[..length];
    let begin = line.iter().position(|byte| *byte == b' ')? + 1;
    let end = line.iter().rposition(|byte| *byte == b' ')?;
    let target = line.get(begin..end)?;
    if !target.iter().copied().any(is_unwise) {
        return None;
    }
    let mut mended = line[..begin].to_vec();
    for byte in target {
        match is_unwise(*byte) {
            true => mended.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            false => mended.push(*byte),
        }
    }
    mended.extend_from_slice(&line[end..]);
    Some((length, mended))
}

/// Not in a URI (RFC 3986, appendix D.2: "unwise"), and nothing but themselves to Go.
fn is_unwise(byte: u8) -> bool {
    matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_be_in_a_uri_is_encoded() {
        let quoted =
            b"GET /containers/json?filters={\"name\":[\"x\"]} HTTP/1.1\r\nHost: \"d\"\r\n\r\n";
        let (length, line) = mended(quoted).expect("it is mended");
        assert_eq!(&quoted[length..], b"Host: \"d\"\r\n\r\n");
        assert_eq!(
            line,
            b"GET /containers/json?filters=%7B%22name%22:[%22x%22]%7D HTTP/1.1\r\n".to_vec()
        );
        for whole in [
            &b"GET /containers/json?filters=%7B%7D HTTP/1.1\r\n"[..],
            b"GET /x?a=\"",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\"\n",
            b"GET \"\n",
            b"\n",
            b"",
        ] {
            assert_eq!(mended(whole), None, "{}", String::from_utf8_lossy(whole));
        }
    }
}
