//! Archives on their way in and out, and how far they are.

use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bulkhead_types::Reference;
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Incoming;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::ReaderStream;

use crate::failure::Failure;

/// A repository with its registry, and a tag.
pub fn repository_and_tag(text: &str) -> Result<(String, String), Failure> {
    let reference = parse(text)?;
    let repository = format!("{}/{}", reference.domain(), reference.path());
    Ok((repository, reference.tag().unwrap_or("latest").to_owned()))
}

/// An image's name with whatever is left out filled in.
pub fn parse(text: &str) -> Result<Reference, Failure> {
    text.parse().map_err(|cause: bulkhead_types::InvalidReference| Failure::new(cause.to_string()))
}

/// How many bytes have passed, on a terminal's standard error; nothing elsewhere.
#[derive(Debug, Clone)]
pub struct Meter {
    bar: ProgressBar,
    passed: Arc<AtomicU64>,
}

impl Meter {
    /// `total` bytes are expected, if anybody knows.
    pub fn new(what: &str, total: Option<u64>) -> Self {
        Self::drawn(what, total, std::io::stderr().is_terminal())
    }

    /// One that counts and shows nothing.
    pub fn quiet() -> Self {
        Self::drawn("", None, false)
    }

    fn drawn(what: &str, total: Option<u64>, shown: bool) -> Self {
        let target =
            if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(total, target).with_prefix(what.to_owned());
        let style = match total {
            Some(_) => "{prefix} [{bar:40}] {decimal_bytes}/{decimal_total_bytes}",
            None => "{prefix} {decimal_bytes}",
        };
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { bar, passed: Arc::default() }
    }

    pub fn add(&self, bytes: usize) {
        self.passed.fetch_add(bytes as u64, Ordering::Relaxed);
        self.bar.inc(bytes as u64);
    }

    /// Takes the bar away, and returns how many bytes there were.
    pub fn finish(&self) -> u64 {
        self.bar.finish_and_clear();
        self.passed.load(Ordering::Relaxed)
    }
}

/// A reader or writer whose bytes are counted.
#[derive(Debug)]
pub struct Metered<T> {
    pub inner: T,
    pub meter: Meter,
}

impl<T: AsyncRead + Unpin> AsyncRead for Metered<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(context, buffer);
        self.meter.add(buffer.filled().len() - before);
        polled
    }
}

impl<T: Write> Write for Metered<T> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.meter.add(written);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

pub type Body = ReaderStream<Metered<Box<dyn AsyncRead + Send + Unpin>>>;

/// A file, or standard input where its name is `-`, with how much of it has been read.
pub async fn open(path: &Path, what: &str, quiet: bool) -> Result<(Body, Meter), Failure> {
    let (inner, size): (Box<dyn AsyncRead + Send + Unpin>, _) = match path.to_str() {
        Some("-") => (Box::new(tokio::io::stdin()), None),
        _ => {
            let cannot = |cause: std::io::Error| {
                Failure::new(format!("cannot read {}: {cause}", path.display()))
            };
            let file = tokio::fs::File::open(path).await.map_err(cannot)?;
            let found = file.metadata().await.map_err(cannot)?;
            if found.is_dir() {
                return Err(Failure::new(format!(
                    "cannot read {}: it is a directory, and no archive",
                    path.display()
                )));
            }
            (Box::new(file), Some(found.len()).filter(|_| found.is_file()))
        }
    };
    let meter = if quiet { Meter::quiet() } else { Meter::new(what, size) };
    let body = Metered { inner, meter: meter.clone() };
    Ok((ReaderStream::with_capacity(body, 256 * 1024), meter))
}

/// Writes an answer to standard output or to a file, which is there when it is whole and not before.
pub async fn save(
    answer: Response<Incoming>,
    output: Option<&Path>,
    what: &str,
) -> Result<(), Failure> {
    let Some(output) = output else {
        return copy(answer, std::io::stdout(), Meter::quiet()).await;
    };
    let cannot = |cause: &dyn std::fmt::Display| {
        Failure::new(format!("cannot write {}: {cause}", output.display()))
    };
    // a device or a pipe has no name of its own to be given at the end
    let special = std::fs::metadata(output).is_ok_and(|found| !found.is_file() && !found.is_dir());
    if special {
        let file =
            std::fs::OpenOptions::new().write(true).open(output).map_err(|cause| cannot(&cause))?;
        return copy(answer, file, Meter::new(what, None)).await;
    }
    let partial = partial(output)
        .ok_or_else(|| cannot(&"it names a directory: give it the name of a file"))?;
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&partial)
        .map_err(|cause| cannot(&cause))?;
    let meter = Meter::new(what, None);
    let written = copy(answer, &file, meter.clone()).await;
    meter.finish();
    let renamed =
        written.and_then(|()| std::fs::rename(&partial, output).map_err(|cause| cannot(&cause)));
    if renamed.is_err() {
        // the first error is the one to tell
        let _ = std::fs::remove_file(&partial);
    }
    renamed
}

/// Where a file is until it is whole.
fn partial(output: &Path) -> Option<PathBuf> {
    let name = output.file_name().filter(|_| !output.is_dir())?;
    let mut own = std::ffi::OsString::from(".");
    own.push(name);
    own.push(format!(".{}.partial", std::process::id()));
    Some(output.with_file_name(own))
}

async fn copy(answer: Response<Incoming>, mut to: impl Write, meter: Meter) -> Result<(), Failure> {
    let mut body = answer.into_body();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|cause| Failure::new(format!("the archive broke off: {cause}")))?;
        if let Ok(data) = frame.into_data() {
            to.write_all(&data)?;
            meter.add(data.len());
        }
    }
    to.flush().map_err(Failure::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_beside_where_it_will_be() {
        let path = partial(Path::new("/a/b.tar")).expect("a file");
        assert_eq!(path.parent(), Some(Path::new("/a")));
        assert!(path.to_string_lossy().ends_with(".partial"));
        assert_eq!(partial(Path::new("/")), None);
    }
}
