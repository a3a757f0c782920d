//! The Docker API, reduced to what tasks need.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use bulkhead_aws_api::acs::HealthStatus;
use bulkhead_docker_types::{
    ContainerId, ContainerInspect, EventMessage, ImageInspect, Progress, SystemInfo,
};
use bulkhead_types::{Chain, Port};
use futures_util::{Stream, StreamExt, TryStreamExt};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::create::{DockerVolume, NAME_LABEL, TASK_LABEL};
use crate::docker::{Docker, DockerError, filters, target};
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

impl From<DockerError> for EngineError {
    fn from(error: DockerError) -> Self {
        match error {
            DockerError::Refused { message, .. } => Self::Refused(message),
            DockerError::NotUnderstood(_) => Self::Refused(error.to_string()),
            DockerError::Unreachable(reason) => Self::Unreachable(reason),
        }
    }
}

impl Engine {
    /// A client of the API at `socket`.
    pub(crate) fn at(socket: &Path) -> Self {
        Self { docker: Docker::at(socket) }
    }

    pub(crate) async fn info(&self) -> Result<SystemInfo, EngineError> {
        Ok(self.docker.get("/info").await?)
    }

    /// The containers of a task, by their names in it.
    pub(crate) async fn find(&self, task: &str) -> Result<BTreeMap<String, Found>, EngineError> {
        let label = format!("{TASK_LABEL}={task}");
        let query = [("all", "1"), ("filters", &filters(&[("label", &label)]))];
        let listed: Vec<ContainerId> =
            self.docker.get(&target(&["containers", "json"], &query)).await?;
        let mut found = BTreeMap::new();
        for ContainerId { id } in listed {
            match self.docker.get(&target(&["containers", &id, "json"], &[])).await {
                Ok(inspected) => found.extend(read(inspected)),
                // removed since it was listed
                Err(DockerError::Refused { status: StatusCode::NOT_FOUND, .. }) => {}
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
        let Err(error) = self.try_pull(image, registries).await else { return Ok(()) };
        if matches!(error, EngineError::Refused(_)) && self.inspect_image(image).await.is_ok() {
            tracing::warn!(image, error = %Chain(&error), "the pull failed; using the image that is here");
            return Ok(());
        }
        Err(error)
    }

    async fn try_pull(
        &self,
        image: &str,
        registries: &HashMap<String, RegistryLogin>,
    ) -> Result<(), EngineError> {
        let (name, tag) = split_image(image);
        let request = target(&["images", "create"], &[("fromImage", name), ("tag", tag)]);
        let login = registry_of(image).and_then(|host| Some((host, registries.get(host)?)));
        let login = login.map(|(host, RegistryLogin { user, password })| {
            json!({"username": user, "password": password, "serveraddress": host})
        });
        let progress = self.docker.progress::<Progress>(&request, login.as_ref()).await?;
        let told = progress.map_err(EngineError::from).try_for_each(async |line| {
            line.error.map_or(Ok(()), |error| Err(EngineError::Refused(error)))
        });
        told.await
    }

    async fn inspect_image(&self, image: &str) -> Result<ImageInspect, DockerError> {
        self.docker.get(&target(&["images", image, "json"], &[])).await
    }

    /// The digest by which a registry knows an image that is here.
    pub(crate) async fn digest(&self, image: &str) -> Option<String> {
        let inspected = self.inspect_image(image).await.ok()?;
        let first = inspected.repo_digests.into_iter().next()?;
        first.split_once('@').map(|(_, digest)| digest.to_owned())
    }

    /// Creates a container from the JSON of Docker's create request; answers with its id.
    pub(crate) async fn create(&self, name: &str, body: &Value) -> Result<String, EngineError> {
        let request = target(&["containers", "create"], &[("name", name)]);
        let made: ContainerId = self.docker.post(&request, body).await?;
        Ok(made.id)
    }

    pub(crate) async fn start(&self, id: &str) -> Result<(), EngineError> {
        let request = target(&["containers", id, "start"], &[]);
        Ok(self.docker.ask(Method::POST, &request).await?)
    }

    /// SIGTERM, and SIGKILL after `seconds`.
    pub(crate) async fn stop(&self, id: &str, seconds: i32) -> Result<(), EngineError> {
        let request = target(&["containers", id, "stop"], &[("t", &seconds.to_string())]);
        absent_is_fine(self.docker.ask(Method::POST, &request).await)
    }

    /// Removes a stopped container and its anonymous volumes.
    pub(crate) async fn remove(&self, id: &str) -> Result<(), EngineError> {
        let request = target(&["containers", id], &[("v", "1")]);
        absent_is_fine(self.docker.ask(Method::DELETE, &request).await)
    }

    /// Makes a volume, or finds the one that is so already; one that is not to be made must be there.
    pub(crate) async fn provide_volume(&self, volume: &DockerVolume) -> Result<(), EngineError> {
        let Some(create) = &volume.create else {
            let known =
                self.docker.ask(Method::GET, &target(&["volumes", &volume.name], &[])).await;
            return match known {
                Err(DockerError::Refused { status: StatusCode::NOT_FOUND, .. }) => {
                    Err(EngineError::Refused(format!(
                        "volume {} does not exist, and autoprovision is false",
                        volume.name
                    )))
                }
                other => Ok(other?),
            };
        };
        let body = serde_json::to_value(create)
            .map_err(|error| EngineError::Refused(error.to_string()))?;
        self.docker.post::<Value>("/volumes/create", &body).await?;
        Ok(())
    }

    pub(crate) async fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        absent_is_fine(self.docker.ask(Method::DELETE, &target(&["volumes", name], &[])).await)
    }

    /// The ARNs of tasks with whose containers something happens, or happened in the last second: what
    /// falls between a look at the containers and the beginning of the stream is in the stream.
    pub(crate) fn events(&self) -> impl Stream<Item = Result<String, EngineError>> + use<> {
        let since = (jiff::Timestamp::now().as_second() - 1).to_string();
        let filters = filters(&[("type", "container"), ("label", TASK_LABEL)]);
        let request = target(&["events"], &[("since", &since), ("filters", &filters)]);
        let docker = self.docker.clone();
        let begun = async move { docker.follow::<EventMessage>(&request).await };
        futures_util::stream::once(begun).try_flatten().filter_map(async |event| match event {
            // Each probe of a health check is told by three of these, and changes nothing.
            Ok(event) if event.action.starts_with("exec_") => None,
            Ok(event) => event.actor.attributes.get(TASK_LABEL).cloned().map(Ok),
            Err(error) => Some(Err(error.into())),
        })
    }
}

fn absent_is_fine(result: Result<(), DockerError>) -> Result<(), EngineError> {
    match result {
        Ok(()) | Err(DockerError::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn read(inspected: ContainerInspect) -> Option<(String, Found)> {
    let name = inspected.config.labels.get(NAME_LABEL)?.clone();
    let state = inspected.state;
    // a container that was started and ended is exited; one that could not start stays created
    let phase = match state.status.as_str() {
        "exited" | "dead" => Phase::Exited(state.exit_code.unwrap_or(-1)),
        "created" | "" => Phase::Created,
        _ => Phase::Running,
    };
    let mut bindings = Vec::new();
    for (port, hosts) in inspected.network_settings.ports {
        let Ok(port) = port.parse::<Port>() else { continue };
        for host in hosts.into_iter().flatten() {
            let Ok(outside) = host.host_port.parse() else { continue };
            let address = Some(host.host_ip).filter(|address| !address.is_empty());
            bindings.push((
                port.number(),
                port.protocol().to_string(),
                address.unwrap_or_else(|| "0.0.0.0".into()),
                outside,
            ));
        }
    }
    bindings.sort();
    Some((
        name,
        Found {
            id: inspected.id,
            docker_name: inspected.name.trim_start_matches('/').to_owned(),
            phase,
            // before the first start Docker says the year 1
            started_at: state.started_at.parse().ok().filter(|_| phase != Phase::Created),
            health: match state.health.status.as_str() {
                "healthy" => HealthStatus::Healthy,
                "unhealthy" => HealthStatus::Unhealthy,
                _ => HealthStatus::Unknown,
            },
            out_of_memory: state.oom_killed,
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
