//! `POST /build`: the classic builder's protocol over Bulkhead's own Dockerfile frontend.

mod context;
mod executor;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;
use bulkhead_builder::{BuildError, BuildRequest};
use bulkhead_types::Reference;
use http::StatusCode;
use serde_json::{Value, json};

use crate::Api;
use crate::auth;
use crate::error::{Answer, ApiError};
use crate::image::transfer::{check_platform, feed};
use crate::lines;
use crate::request::Query;
use crate::unpack::{Owners, Unpack, UnpackError};

use context::{ContextDirectory, ContextError};
use executor::{EngineCache, EngineExecutor};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/build", post(build))
        .route("/build/prune", post(prune))
        .route("/build/cancel", post(async || StatusCode::NO_CONTENT))
}

/// Where contexts are unpacked.
pub(crate) fn temporary(data: &Path) -> PathBuf {
    data.join("builds")
}

pub(crate) use context::sweep;

/// What a query asks to build; the context comes with the body.
#[derive(Debug)]
struct Asked {
    dockerfile: String,
    references: Vec<Reference>,
    arguments: BTreeMap<String, Option<String>>,
    labels: BTreeMap<String, String>,
    target: Option<String>,
    no_cache: bool,
    pull: bool,
    quiet: bool,
    network: Option<String>,
    extra_hosts: Vec<String>,
    contexts: BTreeMap<String, String>,
}

impl TryFrom<&Query> for Asked {
    type Error = ApiError;

    fn try_from(query: &Query) -> Result<Self, ApiError> {
        if query.text("version") == "2" {
            return Err(ApiError::unsupported(
                "BuildKit's protocol is not supported; build with DOCKER_BUILDKIT=0",
            ));
        }
        if !query.text("remote").is_empty() {
            return Err(ApiError::unsupported(
                "building from an address is not supported; fetch the context and send it",
            ));
        }
        if query.flag("squash") {
            return Err(ApiError::unsupported("squashing layers is not supported; leave it out"));
        }
        check_platform(query.text("platform"))?;
        let tag = |text: &String| {
            text.parse().map_err(|_| {
                ApiError::invalid(format!(
                    "invalid argument {text:?} for t: invalid reference format"
                ))
            })
        };
        let some =
            |name: &str| query.value(name).filter(|text| !text.is_empty()).map(str::to_owned);
        Ok(Self {
            dockerfile: some("dockerfile").unwrap_or_else(|| "Dockerfile".to_owned()),
            references: query
                .all("t")
                .iter()
                .filter(|text| !text.is_empty())
                .map(tag)
                .collect::<Result<_, _>>()?,
            arguments: query.json("buildargs")?.unwrap_or_default(),
            labels: query.json("labels")?.unwrap_or_default(),
            target: some("target"),
            no_cache: query.flag("nocache"),
            pull: query.flag("pull"),
            quiet: query.flag("q"),
            network: some("networkmode").filter(|mode| mode != "default"),
            extra_hosts: query.all("extrahosts").to_vec(),
            contexts: query.json("buildcontexts")?.unwrap_or_default(),
        })
    }
}

impl Asked {
    fn request(&self, context: OwnedFd) -> BuildRequest {
        BuildRequest {
            context,
            dockerfile: self.dockerfile.clone(),
            arguments: self.arguments.clone(),
            labels: self.labels.clone(),
            target: self.target.clone(),
            no_cache: self.no_cache,
            pull: self.pull,
            network: self.network.clone(),
            extra_hosts: self.extra_hosts.clone(),
            contexts: self.contexts.clone(),
        }
    }
}

async fn build(State(api): State<Api>, query: Query, request: Request) -> Answer<Response> {
    let asked = Asked::try_from(&query)?;
    let credentials = auth::registry_config(request.headers())?;
    let body = request.into_body().into_data_stream();
    lines::answer(|lines| async move {
        let (archive, feed) = feed(body)?;
        let place = temporary(&api.engine.options().data);
        let unpacked = tokio::task::spawn_blocking(move || {
            let directory = ContextDirectory::make(&place)?;
            let root = directory.open()?;
            let stream = std::os::unix::net::UnixStream::from(archive);
            let unpack = Unpack {
                root: root.as_fd(),
                below: Path::new(""),
                owners: Owners::Engine,
                keep_kinds: false,
            };
            unpack.run(stream)?;
            Ok::<_, ApiError>((directory, root))
        });
        let unpacked = unpacked.await.map_err(|panic| ApiError::internal(panic.to_string()))?;
        // A context that could not be unpacked explains more than its sender's broken pipe.
        let (directory, root) = unpacked?;
        feed.await.map_err(|panic| ApiError::internal(panic.to_string()))?.map_err(|error| {
            ApiError::invalid(format!("the build context could not be received: {error}"))
        })?;

        let stream = lines.clone();
        let quiet = asked.quiet;
        let output = move |text: &str| {
            if !quiet {
                stream.send(json!({ "stream": text }));
            }
        };
        let executor = EngineExecutor {
            engine: api.engine.clone(),
            credentials,
            lines: (!quiet).then(|| lines.clone()),
        };
        let cache = EngineCache(api.engine.build_cache());
        // Until the image has its names, a removal of another must not sweep its layers.
        let _unnamed = api.engine.hold_content().await;
        let content = api.engine.content();
        let built =
            bulkhead_builder::build(asked.request(root), content, &cache, &executor, &output)
                .await?;
        // Removing the context is work for a thread that may block.
        tokio::task::spawn_blocking(move || drop(directory));

        api.engine.add_image(built.clone(), asked.references.clone()).await?;
        if quiet {
            lines.send(json!({ "stream": format!("{}\n", built.id) }));
            return Ok(());
        }
        lines.send(json!({ "aux": { "ID": built.id } }));
        output(&format!("Successfully built {}\n", built.id.short()));
        for reference in &asked.references {
            output(&format!("Successfully tagged {}\n", reference.familiar()));
        }
        Ok(())
    })
    .await
}

impl From<ContextError> for ApiError {
    fn from(error: ContextError) -> Self {
        Self::internal(error.to_string())
    }
}

impl From<UnpackError> for ApiError {
    fn from(error: UnpackError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<BuildError> for ApiError {
    fn from(error: BuildError) -> Self {
        let message = error.to_string();
        match error {
            BuildError::Dockerfile { .. } => Self::invalid(message),
            BuildError::Failed { code, .. } => Self { code: Some(code), ..Self::internal(message) },
            _ => Self::internal(message),
        }
    }
}

/// Steps that are cached hold layers of images that are there anyway, so there is nothing to free.
async fn prune() -> axum::Json<Value> {
    axum::Json(json!({ "CachesDeleted": null, "SpaceReclaimed": 0 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_is_understood() {
        let query = Query::parse(
            "t=web&t=127.0.0.1:5000/web:1&buildargs=%7B%22A%22:%221%22,%22B%22:null%7D&labels=%7B%22a\
             %22:%22b%22%7D&nocache=1&networkmode=default&target=&dockerfile=docker/Dockerfile&\
             buildcontexts=%7B%22ubuntu%22:%22docker-image://debian:bookworm%22%7D&version=1",
        );
        let asked = Asked::try_from(&query.expect("a query")).expect("valid");
        assert_eq!(asked.references[1].to_string(), "127.0.0.1:5000/web:1");
        assert_eq!(asked.arguments["A"].as_deref(), Some("1"));
        assert_eq!(asked.arguments["B"], None);
        assert_eq!(asked.contexts["ubuntu"], "docker-image://debian:bookworm");
        assert_eq!((asked.target, asked.network), (None, None));
        assert!(asked.no_cache && !asked.pull && !asked.quiet);
    }

    #[test]
    fn what_is_not_offered_is_said() {
        for (query, part) in [
            ("version=2", "DOCKER_BUILDKIT=0"),
            ("remote=https://x/y.git", "address"),
            ("t=UPPER", "invalid reference format"),
            ("buildargs=%7B", "buildargs"),
            ("platform=linux/s390x", "platform"),
        ] {
            let query = Query::parse(query).expect(query);
            let error = Asked::try_from(&query).expect_err(part);
            assert!(error.message.contains(part), "{}", error.message);
        }
    }
}
