//! HTTP as a test speaks it: one request per connection, over a stream that was opened in the
//! daemon's network namespace. Small enough to be written here; a client library could not be told
//! to open its sockets in another namespace, nor to send a false `Host`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result};

/// What a server answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    /// The first header of that name, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// Sends a request and reads the whole answer.
pub fn request(
    stream: TcpStream,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<Answer> {
    let headers = [headers, &[("Connection", "close")]].concat();
    let (reader, mut answer) = begin(stream, "1.1", method, path, &headers, body)?;
    let length = answer.header("content-length").and_then(|length| length.parse().ok());
    let mut bytes = Vec::new();
    reader.take(length.unwrap_or(u64::MAX)).read_to_end(&mut bytes).context("read the body")?;
    answer.body = String::from_utf8_lossy(&bytes).into_owned();
    Ok(answer)
}

/// Asks for a stream, and reads as far as its head; the body, which may never end, is left to the
/// caller. In HTTP/1.0, where a body comes as it is, without the lengths of its pieces.
pub fn open(
    stream: TcpStream,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<(BufReader<TcpStream>, Answer)> {
    begin(stream, "1.0", "GET", path, headers, "")
}

fn begin(
    mut stream: TcpStream,
    version: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<(BufReader<TcpStream>, Answer)> {
    let mut head = format!("{method} {path} HTTP/{version}\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head.push_str(&format!("Host: {}\r\n", stream.peer_addr()?));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).with_context(|| format!("{method} {path}"))?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.with_context(|| format!("{method} {path}: a status in {line:?}"))?;
    let mut headers = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Ok((reader, Answer { status, headers, body: String::new() }))
}

/// `name=value&…` as a form sends it.
pub fn form(fields: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}
