//! `docker cp` and `docker export`: a container's files as archives.

use std::io::{self, BufWriter};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use axum::extract::{self, Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bulkhead_archive::{Limits, Owners, Unpack, pack_contents};
use bulkhead_engine::{ContainerAction, ContainerFiles};
use http::header::CONTENT_TYPE;
use http::{HeaderName, StatusCode};
use rustix::fs::{Mode, OFlags};

use super::found::{self, Found};
use crate::Api;
use crate::bodies::{download, upload};
use crate::error::{Answer, ApiError};
use crate::request::Query;

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
    let asked = ContainerAction::ArchivePath(query.text("path").to_owned());
    api.engine.container_event(api.engine.container_id(&name)?, asked);
    let body = download("an archive of a container's files", move |to| {
        let packed = found.pack(BufWriter::new(to), files.range);
        drop(files); // whole, and only now: its mounts and its lock end with it
        packed
    })?;
    Ok(([(STAT, stat)], [TAR], body).into_response())
}

/// `GET /containers/{id}/export`: all of it.
pub(crate) async fn export(
    State(api): State<Api>,
    extract::Path(name): extract::Path<String>,
) -> Answer<Response> {
    let id = api.engine.container_id(&name)?;
    let files = api.engine.files(id).await?;
    api.engine.container_event(id, ContainerAction::Export);
    let body = download("a container's export", move |to| {
        let packed = pack_contents(BufWriter::new(to), files.root.as_fd(), files.range);
        drop(files); // as above
        packed
    })?;
    Ok(([TAR], body).into_response())
}

const TAR: (HeaderName, &str) = (CONTENT_TYPE, "application/x-tar");

/// `PUT /containers/{id}/archive?path=…`: unpacks the body into a directory.
pub(crate) async fn put(
    State(api): State<Api>,
    extract::Path(name): extract::Path<String>,
    query: Query,
    request: Request,
) -> Answer<StatusCode> {
    let path = path(&query)?;
    let id = api.engine.container_id(&name)?;
    let files = api.engine.files(id).await?;
    let (stream, fault) = upload(request.into_body().into_data_stream())?;
    let keep_kinds = query.flag("noOverwriteDirNonDir");
    let unpacked = tokio::task::spawn_blocking(move || {
        check_directory(&files, &path, &name)?;
        let unpack = Unpack {
            root: files.root.as_fd(),
            below: path.strip_prefix("/").unwrap_or(&path),
            owners: Owners::Archive(files.range),
            keep_kinds,
            limits: Limits::COPY,
        };
        Ok::<_, ApiError>(unpack.run(stream)?)
    });
    let unpacked = unpacked.await.map_err(|panic| ApiError::internal(panic.to_string()))?;
    fault.check("the archive")?;
    unpacked?;
    let into = ContainerAction::ExtractToDir(query.text("path").to_owned());
    api.engine.container_event(id, into);
    Ok(StatusCode::OK)
}

/// Refuses a path that is no directory of the container, or one that cannot be written to.
fn check_directory(files: &ContainerFiles, path: &Path, name: &str) -> Result<(), ApiError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    match bulkhead_sys::path::open(files.root.as_fd(), path, flags, Mode::empty()) {
        Ok(directory) => Ok(files.check_writable(directory.as_fd())?),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Err(ApiError::invalid("extraction point is not a directory"))
        }
        Err(error) => Err(missing(&error, path, name)),
    }
}

async fn find(api: &Api, name: &str, query: &Query) -> Answer<(ContainerFiles, Found)> {
    let path = path(query)?;
    let files = api.engine.files(api.engine.container_id(name)?).await?;
    let found = found::find(files.root.as_fd(), &path);
    let found = found.map_err(|error| missing(&error, &path, name))?;
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
