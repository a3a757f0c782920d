//! `POST /build`: the classic builder's protocol over Bulkhead's own Dockerfile frontend.

pub(crate) mod cache;
mod classic;
mod fields;
mod in_order;

use std::os::fd::AsFd;
use std::path::Path;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;
use bulkhead_archive::{Limits, Owners, Unpack, UnpackError};
use bulkhead_build_service::{
    BuildError, BuildService, ContextError, CredentialSource, Events, ServiceError,
};
use http::StatusCode;
use serde_json::json;

use crate::Api;
use crate::auth;
use crate::bodies::upload;
use crate::error::{Answer, ApiError};
use crate::lines;
use crate::request::Query;

use classic::{CacheFrom, ClassicOutput};
use fields::BuildQuery;

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/build", post(build))
        .route("/build/prune", post(cache::prune))
        .route("/build/cancel", post(cancel))
}

#[cfg(any(fuzzing, test))]
pub(crate) fn check_query(query: &Query) -> Result<(), ApiError> {
    BuildQuery::try_from(query).map(drop)
}

async fn build(State(api): State<Api>, query: Query, request: Request) -> Answer<Response> {
    let BuildQuery { mut build, references, quiet, cache_from } = BuildQuery::try_from(&query)?;
    let (found, missing) =
        cache_from.into_iter().partition(|name: &String| api.engine.images().find(name).is_ok());
    let cache_from = CacheFrom { found, missing };
    build.no_cache |= !cache_from.allows_cache();
    build.credentials = CredentialSource::Given(auth::registry_config(request.headers())?);
    let body = request.into_body().into_data_stream();
    lines::answer(|lines| async move {
        let builds = BuildService::new(api.engine);
        let (archive, fault) = upload(body)?;
        let service = builds.clone();
        let unpacked = tokio::task::spawn_blocking(move || {
            let context = service.context()?;
            let root = context.open()?;
            let unpack = Unpack {
                root: root.as_fd(),
                below: Path::new(""),
                owners: Owners::Engine,
                keep_kinds: false,
                limits: Limits::CONTEXT,
            };
            unpack.run(archive)?;
            Ok::<_, ApiError>(context)
        });
        let unpacked = unpacked.await.map_err(|panic| ApiError::internal(panic.to_string()))?;
        fault.check("the build context")?;
        let context = unpacked?;

        let output = ClassicOutput::new((!quiet).then(|| lines.clone()));
        output.cache_from(&cache_from).await;
        let (events, receiver) = Events::channel();
        let building = async {
            let built = builds.build(build, context, &events).await;
            // The last of the events, for whoever waits for them.
            drop(events);
            built
        };
        let (built, ()) = tokio::join!(building, output.show(receiver));
        let built = builds.publish(built?, references.clone()).await?;
        if quiet {
            lines.send(json!({ "stream": format!("{}\n", built.id) }));
            return Ok(());
        }
        let output = |text: String| lines.send(json!({ "stream": text }));
        lines.send(json!({ "aux": { "ID": built.id } }));
        output(format!("Successfully built {}\n", built.id.short()));
        for reference in &references {
            output(format!("Successfully tagged {}\n", reference.familiar()));
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
        match error.is_ours() {
            true => Self::internal(error.to_string()),
            false => Self::invalid(error.to_string()),
        }
    }
}

impl From<ServiceError> for ApiError {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Build(error) => error.into(),
            ServiceError::Context(error) => error.into(),
            ServiceError::Engine(error) => error.into(),
        }
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

/// BuildKit's clients cancel by a build's id; the classic protocol's close the connection.
async fn cancel() -> ApiError {
    ApiError::new(
        StatusCode::NOT_IMPLEMENTED,
        "cancelling a build by its id is BuildKit's and not supported: close the connection of \
         POST /build, which ends the build",
    )
}
