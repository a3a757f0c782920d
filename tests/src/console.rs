//! The console as a program sees it: log-in, pages, and the stream of what changes.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::Daemon;
use crate::http::{self, Answer};

/// Where the console listens in the daemon's network namespace.
pub const PORT: u16 = 7480;

/// A log-in.
#[derive(Debug)]
pub struct Session<'a> {
    daemon: &'a Daemon,
    cookie: String,
}

impl<'a> Session<'a> {
    pub fn begin(daemon: &'a Daemon) -> Result<Self> {
        let keys = daemon.credentials()?;
        let text = |name: &str| keys[name].as_str().unwrap_or_default().to_owned();
        let body = http::form(&[("user", &text("user")), ("password", &text("password"))]);
        let answer = request(daemon, "POST", "/login", &[FORM], &body)?;
        ensure!(answer.status == 303, "the log-in answered {}: {}", answer.status, answer.body);
        let cookie = answer.header("set-cookie").context("a cookie")?;
        let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
        Ok(Self { daemon, cookie })
    }

    pub fn get(&self, path: &str) -> Result<Answer> {
        request(self.daemon, "GET", path, &[("Cookie", &self.cookie)], "")
    }

    /// Posts a form, as a page of the console's own does.
    pub fn post(&self, path: &str, fields: &[(&str, &str)]) -> Result<Answer> {
        let headers = [FORM, ("Cookie", &self.cookie), ("Origin", "http://127.0.0.1:7480")];
        request(self.daemon, "POST", path, &headers, &http::form(fields))
    }

    /// As `post`, but from a page of another site.
    pub fn post_from(&self, origin: &str, path: &str) -> Result<Answer> {
        let headers = [FORM, ("Cookie", &self.cookie), ("Origin", origin)];
        request(self.daemon, "POST", path, &headers, "")
    }

    /// Everything that changes from here on.
    pub fn live(&self) -> Result<Live> {
        let stream = self.daemon.connect(PORT)?;
        let headers = [("Cookie", self.cookie.as_str()), ("Accept", "text/event-stream")];
        let (lines, answer) = http::open(stream, "/live", &headers)?;
        ensure!(answer.status == 200, "the stream answered {}", answer.status);
        Ok(Live { lines })
    }
}

const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

/// A request to the console by one who may not be logged in.
pub fn request(
    daemon: &Daemon,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<Answer> {
    http::request(daemon.connect(PORT)?, method, path, headers, body)
}

/// The console's event stream.
#[derive(Debug)]
pub struct Live {
    lines: BufReader<TcpStream>,
}

/// Longer than anything here takes on a busy machine; a test that waits so long has failed.
const TIMEOUT: Duration = Duration::from_secs(90);

impl Live {
    /// The next event of that name for which `wanted` holds.
    pub fn until(&mut self, name: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let begin = Instant::now();
        let (mut line, mut event, mut last) = (String::new(), String::new(), Value::Null);
        while begin.elapsed() < TIMEOUT {
            line.clear();
            ensure!(self.lines.read_line(&mut line)? > 0, "the stream ended; last event: {last}");
            if let Some(found) = line.strip_prefix("event:") {
                event = found.trim().to_owned();
            } else if let Some(data) = line.strip_prefix("data:")
                && event == name
            {
                last = serde_json::from_str(data.trim())?;
                if wanted(&last) {
                    return Ok(last);
                }
            }
        }
        bail!("it did not come within {TIMEOUT:?}; last event: {last}")
    }

    /// Reads to the end of the stream; an error if it is still open after a while.
    pub fn end(mut self) -> Result<()> {
        let mut line = String::new();
        let begin = Instant::now();
        while self.lines.read_line(&mut line)? > 0 {
            ensure!(begin.elapsed() < TIMEOUT, "the stream goes on");
        }
        Ok(())
    }
}
