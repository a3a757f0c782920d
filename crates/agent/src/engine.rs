//! The Docker API, reduced to what tasks need.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use bollard::auth::DockerCredentials;
use bollard::errors::Error;
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerStateStatusEnum, HealthStatusEnum,
    SystemInfo,
};
use bollard::query_parameters::{
    CreateContainerOptions, CreateImageOptions, EventsOptions, InspectContainerOptions,
    ListContainersOptions, RemoveContainerOptions, RemoveVolumeOptions, StartContainerOptions,
    StopContainerOptions,
};
use bollard::{ClientVersion, Docker};
use bulkhead_types::{Chain, Port};
use futures_util::{Stream, StreamExt, TryStreamExt};
use serde_json::Value;

use crate::create::{NAME_LABEL, TASK_LABEL};
use crate::options::RegistryLogin;
use crate::plan::{Found, Phase};

/// A container engine behind its Docker API.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    docker: Docker,
}

/// What the engine answered when it did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EngineError {
    /// Its own words.
    #[error("Error response from daemon: {0}")]
    Refused(String),
    /// It could not be asked: wait until it is back.
    #[error("the engine's Docker API does not answer: {0}")]
    Unreachable(String),
}

impl From<Error> for EngineError {
    fn from(error: Error) -> Self {
        match error {
            Error::DockerResponseServerError { message, .. } => Self::Refused(message),
            Error::DockerStreamError { error } => Self::Refused(error),
            Error::JsonDataError { message, .. } => {
                Self::Refused(format!("an answer that is not understood: {message}"))
            }
            other => Self::Unreachable(Chain(&other).to_string()),
        }
    }
}

impl Engine {
    /// A client of the API at `socket`, which must be there.
    pub(crate) fn connect(socket: &Path) -> Result<Self, EngineError> {
        let docker = Docker::connect_with_unix(&socket.to_string_lossy(), TIMEOUT, API)?;
        Ok(Self { docker })
    }

    pub(crate) async fn info(&self) -> Result<SystemInfo, EngineError> {
        Ok(self.docker.info().await?)
    }

    /// The containers of a task, by their names in it.
    pub(crate) async fn find(&self, task: &str) -> Result<BTreeMap<String, Found>, EngineError> {
        let label = format!("{TASK_LABEL}={task}");
        let options = ListContainersOptions {
            all: true,
            filters: Some(HashMap::from([("label".to_owned(), vec![label])])),
            ..ListContainersOptions::default()
        };
        let mut found = BTreeMap::new();
        for summary in self.docker.list_containers(Some(options)).await? {
            let Some(id) = summary.id else { continue };
            match self.docker.inspect_container(&id, None::<InspectContainerOptions>).await {
                Ok(inspected) => found.extend(read(inspected)),
                // removed since it was listed
                Err(Error::DockerResponseServerError { status_code: 404, .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(found)
    }

    /// Pulls an image; where that fails, one of that name which is there already will do, as with ECS's
    /// agent (`ECS_IMAGE_PULL_BEHAVIOR=default`).
    pub(crate) async fn pull(
        &self,
        image: &str,
        registries: &HashMap<String, RegistryLogin>,
    ) -> Result<(), EngineError> {
        let (name, tag) = split_image(image);
        let options = CreateImageOptions {
            from_image: Some(name.to_owned()),
            tag: Some(tag.to_owned()),
            ..CreateImageOptions::default()
        };
        let login = registry_of(image).and_then(|host| Some((host, registries.get(host)?)));
        let credentials = login.map(|(host, login)| DockerCredentials {
            username: Some(login.user.clone()),
            password: Some(login.password.clone()),
            serveraddress: Some(host.to_owned()),
            ..DockerCredentials::default()
        });
        let progress = self.docker.create_image(Some(options), None, credentials);
        let Err(error) = progress.try_for_each(|_| async { Ok(()) }).await else { return Ok(()) };
        let error = EngineError::from(error);
        if matches!(error, EngineError::Refused(_))
            && self.docker.inspect_image(image).await.is_ok()
        {
            tracing::warn!(image, error = %Chain(&error), "the pull failed; using the image that is here");
            return Ok(());
        }
        Err(error)
    }

    /// The digest by which a registry knows an image that is here.
    pub(crate) async fn digest(&self, image: &str) -> Option<String> {
        let inspected = self.docker.inspect_image(image).await.ok()?;
        let first = inspected.repo_digests?.into_iter().next()?;
        first.split_once('@').map(|(_, digest)| digest.to_owned())
    }

    /// Creates a container from the JSON of Docker's create request; answers with its id.
    pub(crate) async fn create(&self, name: &str, body: Value) -> Result<String, EngineError> {
        let body: ContainerCreateBody = serde_json::from_value(body).map_err(|error| {
            EngineError::Refused(format!("invalid container settings: {error}"))
        })?;
        let options = CreateContainerOptions { name: Some(name.to_owned()), ..Default::default() };
        Ok(self.docker.create_container(Some(options), body).await?.id)
    }

    pub(crate) async fn start(&self, id: &str) -> Result<(), EngineError> {
        Ok(self.docker.start_container(id, None::<StartContainerOptions>).await?)
    }

    /// SIGTERM, and SIGKILL after `seconds`.
    pub(crate) async fn stop(&self, id: &str, seconds: i32) -> Result<(), EngineError> {
        let options = StopContainerOptions { signal: None, t: Some(seconds) };
        absent_is_fine(self.docker.stop_container(id, Some(options)).await)
    }

    /// Removes a stopped container and its anonymous volumes.
    pub(crate) async fn remove(&self, id: &str) -> Result<(), EngineError> {
        let options = RemoveContainerOptions { v: true, ..RemoveContainerOptions::default() };
        absent_is_fine(self.docker.remove_container(id, Some(options)).await)
    }

    pub(crate) async fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        absent_is_fine(self.docker.remove_volume(name, None::<RemoveVolumeOptions>).await)
    }

    /// The ARNs of tasks with whose containers something happens, or happened in the last second: what
    /// falls between a look at the containers and the beginning of the stream is in the stream.
    pub(crate) fn events(&self) -> impl Stream<Item = Result<String, EngineError>> + use<> {
        let filters = HashMap::from([
            ("type".to_owned(), vec!["container".to_owned()]),
            ("label".to_owned(), vec![TASK_LABEL.to_owned()]),
        ]);
        let since = Some((jiff::Timestamp::now().as_second() - 1).to_string());
        let options = EventsOptions { since, filters: Some(filters), ..EventsOptions::default() };
        self.docker.events(Some(options)).filter_map(|event| async {
            match event {
                Ok(event) => event.actor?.attributes?.remove(TASK_LABEL).map(Ok),
                Err(error) => Some(Err(error.into())),
            }
        })
    }
}

fn absent_is_fine(result: Result<(), Error>) -> Result<(), EngineError> {
    match result {
        // 304: not running; 404: not there
        Ok(()) | Err(Error::DockerResponseServerError { status_code: 304 | 404, .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn read(inspected: ContainerInspectResponse) -> Option<(String, Found)> {
    let labels = inspected.config.and_then(|config| config.labels)?;
    let name = labels.get(NAME_LABEL)?.clone();
    let state = inspected.state.unwrap_or_default();
    // a container that was started and ended is exited; one that could not start stays created
    let phase = match state.status {
        Some(ContainerStateStatusEnum::EXITED | ContainerStateStatusEnum::DEAD) => {
            Phase::Exited(state.exit_code.unwrap_or(-1))
        }
        Some(ContainerStateStatusEnum::CREATED) | None => Phase::Created,
        Some(_) => Phase::Running,
    };
    let mut bindings = Vec::new();
    for (port, hosts) in inspected.network_settings.and_then(|net| net.ports).unwrap_or_default() {
        let Ok(port) = port.parse::<Port>() else { continue };
        for host in hosts.into_iter().flatten() {
            let Some(outside) = host.host_port.and_then(|port| port.parse().ok()) else { continue };
            let address = host.host_ip.filter(|ip| !ip.is_empty());
            bindings.push((
                port.number(),
                port.protocol().to_string(),
                address.unwrap_or_else(|| "0.0.0.0".into()),
                outside,
            ));
        }
    }
    bindings.sort();
    let health = state.health.and_then(|health| health.status);
    Some((
        name,
        Found {
            id: inspected.id.unwrap_or_default(),
            docker_name: inspected.name.unwrap_or_default().trim_start_matches('/').to_owned(),
            phase,
            healthy: health == Some(HealthStatusEnum::HEALTHY),
            out_of_memory: state.oom_killed == Some(true),
            bindings,
            image_digest: None,
        },
    ))
}

/// Name and tag or digest. Docker pulls every tag of a name that is given without one.
fn split_image(image: &str) -> (&str, &str) {
    if let Some((name, digest)) = image.split_once('@') {
        return (name, digest);
    }
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (image, "latest"),
    }
}

/// The host of an image's registry, where its name begins with one.
fn registry_of(image: &str) -> Option<&str> {
    let (host, _) = image.split_once('/')?;
    (host.contains(['.', ':']) || host == "localhost").then_some(host)
}

/// Seconds for a request until its answer begins: a stop may take its whole grace period, a pull longer.
const TIMEOUT: u64 = 2 * 60 * 60;
/// What Docker 25 and later speak, and Bulkhead.
const API: &ClientVersion = &ClientVersion { major_version: 1, minor_version: 44 };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_names_are_taken_apart() {
        for (image, name, tag, host) in [
            ("nginx", "nginx", "latest", None),
            ("library/nginx:1", "library/nginx", "1", None),
            ("127.0.0.1:5000/proxy", "127.0.0.1:5000/proxy", "latest", Some("127.0.0.1:5000")),
            ("localhost/a/b:x", "localhost/a/b", "x", Some("localhost")),
            ("r.example/a@sha256:00", "r.example/a", "sha256:00", Some("r.example")),
        ] {
            assert_eq!((split_image(image), registry_of(image)), ((name, tag), host));
        }
    }
}
