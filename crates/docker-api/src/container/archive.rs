//! `docker cp` and `docker export`: a container's files as archives.

use std::io::{self, BufWriter};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use axum::body::Body;
use axum::extract::{self, Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bulkhead_engine::ContainerFiles;
use http::header::CONTENT_TYPE;
use http::{HeaderName, StatusCode};
use rustix::fs::{Mode, OFlags};
use tokio_util::io::ReaderStream;

use crate::Api;
use crate::error::{Answer, ApiError};
use crate::image::transfer::feed;
use crate::pack::{self, Found};
use crate::request::Query;
use crate::unpack::{Owners, Unpack};

const STAT: HeaderName = HeaderName::from_static("x-docker-container-path-stat");

/// `HEAD /containers/{id}/archive?path=…`: what is there.
pub(crate) async fn stat(
    State(api): State<Api>,
    extract::Path(name): extract::Path<String>,
    query: Query,
) -> Answer<Response> {
    let (_, found) = find(&api, &name, &query).await?;
    Ok(([(STAT, encoded(&found))], [(CONTENT_TYPE, "application/json")]).into_response())
}

/// `GET /containers/{id}/archive?path=…`: a file, or a directory with all below it.
pub(crate) async fn get(
    State(api): State<Api>,
    extract::Path(name): extract::Path<String>,
    query: Query,
) -> Answer<Response> {
    let (files, found) = find(&api, &name, &query).await?;
    let stat = encoded(&found);
    Ok(([(STAT, stat)], archive(files, found)?).into_response())
}

/// `GET /containers/{id}/export`: all of it.
pub(crate) async fn export(
    State(api): State<Api>,
    extract::Path(name): extract::Path<String>,
) -> Answer<Response> {
    let files = api.engine.files(api.engine.container_id(&name)?, Path::new("/")).await?;
    let found = pack::find(files.root.as_fd(), Path::new("/"));
    let found = found.map_err(|error| ApiError::internal(format!("open the root: {error}")))?;
    Ok(archive(files, found)?.into_response())
}

/// The archive as it is written by a thread that blocks.
fn archive(files: ContainerFiles, found: Found) -> Answer<impl IntoResponse> {
    let (reading, writing) = std::os::unix::net::UnixStream::pair()
        .and_then(|(reading, writing)| {
            reading.set_nonblocking(true)?;
            Ok((tokio::net::UnixStream::from_std(reading)?, writing))
        })
        .map_err(|error| ApiError::internal(format!("socketpair: {error}")))?;
    tokio::task::spawn_blocking(move || {
        // An archive that ends early is how the client learns of it: the status is long sent.
        if let Err(error) = found.pack(BufWriter::new(writing), files.range) {
            tracing::info!("files of a container were not sent to their end: {error}");
        }
    });
    let body = Body::from_stream(ReaderStream::new(reading));
    Ok(([(CONTENT_TYPE, "application/x-tar")], body))
}

/// `PUT /containers/{id}/archive?path=…`: unpacks the body into a directory.
pub(crate) async fn put(
    State(api): State<Api>,
    extract::Path(name): extract::Path<String>,
    query: Query,
    request: Request,
) -> Answer<StatusCode> {
    if api.engine.container(&name)?.host.readonly_rootfs {
        let message = "container rootfs is marked read-only";
        return Err(ApiError::new(StatusCode::FORBIDDEN, message));
    }
    let path = path(&query)?;
    let files = api.engine.files(api.engine.container_id(&name)?, &path).await?;
    let (stream, feed) = feed(request.into_body().into_data_stream())?;
    let keep_kinds = query.flag("noOverwriteDirNonDir");
    let unpacked = tokio::task::spawn_blocking(move || {
        let directory = directory(&files, &path, &name)?;
        let unpack = Unpack {
            root: files.root.as_fd(),
            below: &directory,
            owners: Owners::Archive(files.range),
            keep_kinds,
        };
        let stream = std::os::unix::net::UnixStream::from(stream);
        Ok::<_, ApiError>(unpack.run(stream)?)
    });
    unpacked.await.map_err(|panic| ApiError::internal(panic.to_string()))??;
    feed.await.map_err(|panic| ApiError::internal(panic.to_string()))?.map_err(|error| {
        ApiError::invalid(format!("the archive could not be received: {error}"))
    })?;
    Ok(StatusCode::OK)
}

/// The path, if it is a directory of the container.
fn directory(files: &ContainerFiles, path: &Path, name: &str) -> Result<PathBuf, ApiError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    match bulkhead_sys::path::open(files.root.as_fd(), &files.path, flags, Mode::empty()) {
        Ok(_) => Ok(files.path.strip_prefix("/").unwrap_or(&files.path).to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Err(ApiError::invalid("extraction point is not a directory"))
        }
        Err(error) => Err(missing(&error, path, name)),
    }
}

async fn find(api: &Api, name: &str, query: &Query) -> Answer<(ContainerFiles, Found)> {
    let path = path(query)?;
    let files = api.engine.files(api.engine.container_id(name)?, &path).await?;
    let found = pack::find(files.root.as_fd(), &files.path);
    let mut found = found.map_err(|error| missing(&error, &path, name))?;
    if let Some(name) = path.file_name() {
        // The root of a volume has the name of the place where it is mounted.
        found.name = name.to_owned();
    }
    Ok((files, found))
}

fn path(query: &Query) -> Result<PathBuf, ApiError> {
    match query.text("path") {
        "" => Err(ApiError::invalid("bad parameter: 'path' cannot be empty")),
        path => Ok(Path::new("/").join(path)),
    }
}

fn missing(error: &io::Error, path: &Path, name: &str) -> ApiError {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            ApiError::not_found(format!("Could not find the file {path} in container {name}"))
        }
        _ => ApiError::internal(format!("open {path} in container {name}: {error}")),
    }
}

fn encoded(found: &Found) -> String {
    STANDARD.encode(found.view().to_string())
}
