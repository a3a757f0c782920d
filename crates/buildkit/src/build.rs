//! A build of a client's Dockerfile: its files fetched, the build run and shown.

use std::collections::HashMap;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use bulkhead_build_service::{
    BuildError, BuildService, Built, ContextDirectory, CredentialSource, DockerfileSource, Events,
    ServiceError,
};
use bulkhead_sys::path;
use rustix::fs::{Mode, OFlags};
use tonic::Status;

use crate::BuildKit;
use crate::job::Job;
use crate::options::Options;
use crate::receive::{Wanted, receive};
use crate::session::Session;
use crate::status::Words;
use crate::step::Step;

impl BuildKit {
    /// The front end `dockerfile.v0`.
    pub(crate) async fn dockerfile(
        &self,
        job: &Job,
        options: &HashMap<String, String>,
    ) -> Result<Built, Status> {
        let mut options = Options::read(options, job.host_network)?;
        let session = self.sessions.find(&job.session).await?;
        let (dockerfile, context) = (
            self.session_of(&options, &options.dockerfile, &session).await?,
            self.session_of(&options, &options.context, &session).await?,
        );
        let what = format!("[internal] load build definition from {}", options.filename);
        let step = Step::begin(job, &what).await;
        let definition = self.definition(&dockerfile, &options, &step).await;
        let definition = step.end(definition).await?;
        let words = Words::new(definition.vertex);
        for warning in &options.warnings {
            job.shown.push(words.warning(warning.clone())).await;
        }

        options.build.dockerfile = DockerfileSource::Text(definition.text);
        // before anything is sent that may be large
        BuildService::check(&options.build).map_err(|error| Status::unknown(worded(&error)))?;

        let ignore = match definition.ignore {
            Some(text) => text,
            None => {
                let step = Step::begin(job, "[internal] load .dockerignore").await;
                let wanted = Wanted {
                    directory: &options.context,
                    follow: vec![".dockerignore".to_owned()],
                    ..Wanted::default()
                };
                let read = async {
                    let directory = self.fetch(&context, &wanted, &step).await?;
                    let root = opened(&directory)?;
                    Ok(read_text(root.as_fd(), ".dockerignore")?.unwrap_or_default())
                };
                let read = read.await;
                step.end(read).await?
            }
        };
        let step = Step::begin(job, "[internal] load build context").await;
        let wanted =
            Wanted { directory: &options.context, exclude: patterns(&ignore), ..Wanted::default() };
        let files = self.fetch(&context, &wanted, &step).await;
        let files = step.end(files).await?;

        options.build.credentials = CredentialSource::Asked(session);
        self.run(job, options, files, words).await
    }

    /// The session that serves a directory.
    async fn session_of(
        &self,
        options: &Options,
        directory: &str,
        own: &Arc<Session>,
    ) -> Result<Arc<Session>, Status> {
        match options.sessions.get(directory) {
            Some(id) => self.sessions.find(id).await,
            None => Ok(Arc::clone(own)),
        }
    }

    async fn run(
        &self,
        job: &Job,
        options: Options,
        context: ContextDirectory,
        mut words: Words,
    ) -> Result<Built, Status> {
        let (events, mut told) = Events::channel();
        let building = async {
            let built = self.builds.build(options.build, context, &events).await;
            // The last of the events, for whoever waits for them.
            drop(events);
            built
        };
        let showing = async {
            while let Some(event) = told.recv().await {
                if let Some(message) = words.of(event) {
                    job.shown.push(message).await;
                }
            }
        };
        let (built, ()) = tokio::join!(building, showing);
        match built {
            Ok(built) => Ok(built),
            Err(error) => {
                let why = worded(&error);
                job.shown.push(words.failure(&why)).await;
                Err(Status::unknown(why))
            }
        }
    }

    /// The Dockerfile's text, and the patterns that lie beside it.
    async fn definition(
        &self,
        session: &Arc<Session>,
        options: &Options,
        step: &Step<'_>,
    ) -> Result<Definition, Status> {
        let name = options.filename.as_str();
        let own = format!("{name}.dockerignore");
        // As BuildKit, which takes a `dockerfile` where a `Dockerfile` is asked for.
        let path = Path::new(name);
        let lower = (path.file_name() == Some("Dockerfile".as_ref()))
            .then(|| path.with_file_name("dockerfile").to_string_lossy().into_owned());
        let names = [Some(name.to_owned()), Some(own.clone()), lower.clone()];
        let wanted = Wanted {
            directory: &options.dockerfile,
            follow: names.into_iter().flatten().collect(),
            ..Wanted::default()
        };
        let directory = self.fetch(session, &wanted, step).await?;
        let root = opened(&directory)?;
        let mut text = read_text(root.as_fd(), name)?;
        if let (None, Some(lower)) = (&text, lower) {
            text = read_text(root.as_fd(), &lower)?;
        }
        let text = text.ok_or_else(|| {
            Status::not_found(format!(
                "failed to read dockerfile: open {name}: no such file or directory"
            ))
        })?;
        let ignore = read_text(root.as_fd(), &own)?;
        Ok(Definition { text, ignore, vertex: step.digest().to_owned() })
    }

    /// Fetches files of the client's into a directory of their own.
    async fn fetch(
        &self,
        session: &Session,
        wanted: &Wanted<'_>,
        step: &Step<'_>,
    ) -> Result<ContextDirectory, Status> {
        let builds = self.builds.clone();
        let made = tokio::task::spawn_blocking(move || builds.context()).await;
        let directory = made
            .map_err(|panic| Status::internal(panic.to_string()))?
            .map_err(|error| Status::internal(error.to_string()))?;
        let into = opened(&directory)?;
        receive(session, wanted, into, step).await?;
        Ok(directory)
    }
}

struct Definition {
    text: String,
    /// `NAME.dockerignore`.
    ignore: Option<String>,
    vertex: String,
}

fn opened(directory: &ContextDirectory) -> Result<OwnedFd, Status> {
    directory.open().map_err(|error| Status::internal(error.to_string()))
}

/// A file's text; `None` where there is none of this name.
fn read_text(root: BorrowedFd<'_>, name: &str) -> Result<Option<String>, Status> {
    let failed = |error: std::io::Error| Status::unknown(format!("read {name}: {error}"));
    let file = match path::open(root, Path::new(name), OFlags::RDONLY, Mode::empty()) {
        Ok(file) => std::fs::File::from(file),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(Status::unknown(format!("{name} is no file")));
    }
    let mut bytes = Vec::new();
    // One byte more than the parser takes: it has the words for a file that is too large.
    file.take(LARGEST).read_to_end(&mut bytes).map_err(failed)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

const LARGEST: u64 = (4 << 20) + 1;

/// The patterns of a .dockerignore as the protocol has them (moby/patternmatcher: ignorefile).
fn patterns(text: &str) -> Vec<String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().filter(|line| !line.starts_with('#')).map(str::trim);
    let pattern = |line: &str| {
        let (mark, path) = match line.strip_prefix('!') {
            Some(path) => ("!", path.trim()),
            None => ("", line),
        };
        let mut parts: Vec<&str> = Vec::new();
        for part in path.split('/').filter(|part| !matches!(*part, "" | ".")) {
            match (part, parts.last()) {
                ("..", Some(last)) if *last != ".." => drop(parts.pop()),
                _ => parts.push(part),
            }
        }
        let path = if parts.is_empty() { ".".to_owned() } else { parts.join("/") };
        format!("{mark}{path}")
    };
    lines.filter(|line| !matches!(*line, "" | "!")).map(pattern).collect()
}

/// BuildKit's words where its users look for them.
fn worded(error: &ServiceError) -> String {
    match error {
        ServiceError::Build(BuildError::Failed { command, code }) => {
            format!("process {command:?} did not complete successfully: exit code: {code}")
        }
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_the_ignore_file() {
        let text =
            "\u{feff}# a comment\n\n  /node_modules/ \n!  ./keep/../kept\n*.log\n# no\n.\n!\n";
        assert_eq!(patterns(text), ["node_modules", "!kept", "*.log", "."]);
    }
}
