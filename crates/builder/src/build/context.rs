use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;

use bulkhead_sys::path;
use rustix::fs::{FileType, Mode, OFlags};

use crate::BuildError;
use crate::ignore::Ignore;
use crate::request::{BuildRequest, DockerfileSource};

/// Reads the Dockerfile out of the context. A `dockerfile` does where `Dockerfile` is asked for.
pub(super) fn dockerfile(request: &BuildRequest) -> Result<String, BuildError> {
    let name = match &request.dockerfile {
        DockerfileSource::Text(text) => return Ok(text.clone()),
        DockerfileSource::InContext(name) if name.is_empty() => "Dockerfile",
        DockerfileSource::InContext(name) => name,
    };
    let mut text = read(request, name)?;
    if text.is_none() && name == "Dockerfile" {
        text = read(request, "dockerfile")?;
    }
    text.ok_or_else(|| BuildError::NoDockerfile(name.to_owned()))
}

/// `NAME.dockerignore` beside the Dockerfile, else `.dockerignore` at the top of the context.
pub(super) fn ignore(request: &BuildRequest) -> Result<Ignore, BuildError> {
    let DockerfileSource::InContext(name) = &request.dockerfile else {
        return Ok(Ignore::default());
    };
    let own = format!("{name}.dockerignore");
    for name in [own.as_str(), ".dockerignore"] {
        if let Some(text) = read(request, name)? {
            return Ignore::parse(&text).map_err(|pattern| BuildError::Io {
                what: format!("{name}: wrong pattern {pattern:?}"),
                cause: io::ErrorKind::InvalidInput.into(),
            });
        }
    }
    Ok(Ignore::default())
}

fn read(request: &BuildRequest, name: &str) -> Result<Option<String>, BuildError> {
    let failed = |cause| BuildError::Io { what: format!("read {name}"), cause };
    // Not to wait for a writer if the context has a pipe of that name.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match path::open(request.context.as_fd(), Path::new(name), flags, Mode::empty()) {
        Ok(file) => file,
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(failed(error)),
    };
    let stat = rustix::fs::fstat(&file).map_err(|error| failed(error.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    // One byte more than the parser takes: it has the words for a file that is too large.
    let read = std::fs::File::from(file).take(LARGEST).read_to_end(&mut bytes);
    read.map_err(failed)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

const LARGEST: u64 = (4 << 20) + 1;
