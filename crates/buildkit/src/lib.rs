//! BuildKit's protocol as buildx and Compose speak it to an engine, on top of the engine's own builder.
//!
//! A client opens connections of two kinds, both HTTP/2 after an upgrade. On those of `POST /grpc` it is
//! the client: `control` has jobs and their progress, `gateway` what a client asks for within one. On
//! those of `POST /session` (`session`) the engine is the client, and asks for files and credentials.
//!
//! `options` reads what a build is to be, `build` makes it, `status` words its events, and `receive`
//! is the protocol in which files come.
#![forbid(unsafe_code)]

mod build;
mod cache;
mod capabilities;
mod control;
mod gateway;
mod job;
mod options;
mod receive;
mod session;
mod status;
mod step;

use std::collections::BTreeSet;
use std::sync::Arc;

use bollard_buildkit_proto::health::health_server::{Health, HealthServer};
use bollard_buildkit_proto::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
    health_check_response::ServingStatus,
};
use bollard_buildkit_proto::moby::buildkit::v1::control_server::ControlServer;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_server::LlbBridgeServer;
use bulkhead_build_service::BuildService;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::{Request, Response, Status};

use job::Jobs;
use session::Sessions;

/// What a client says of the session that it offers, in the headers of `POST /session`.
#[derive(Debug, Clone, Default)]
pub struct SessionOffer {
    /// `X-Docker-Expose-Session-Uuid`.
    pub id: String,
    /// `X-Docker-Expose-Session-Grpc-Method`: the paths of the methods that it serves.
    pub methods: BTreeSet<String>,
}

/// The builder of one engine for BuildKit's clients.
#[derive(Debug, Clone)]
pub struct BuildKit {
    builds: BuildService,
    sessions: Arc<Sessions>,
    jobs: Arc<Jobs>,
}

impl BuildKit {
    pub fn new(builds: BuildService) -> Self {
        Self { builds, sessions: Arc::default(), jobs: Arc::default() }
    }

    /// Serves a connection of `POST /grpc` until its client leaves.
    pub async fn serve<C>(&self, connection: C)
    where
        C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let once = tokio_stream::once(Ok::<_, std::io::Error>(session::Peer(connection)));
        let served = tonic::transport::Server::builder()
            .add_service(
                ControlServer::new(self.clone()).max_decoding_message_size(LARGEST_MESSAGE),
            )
            .add_service(
                LlbBridgeServer::new(self.clone()).max_decoding_message_size(LARGEST_MESSAGE),
            )
            .add_service(HealthServer::new(Serving))
            .serve_with_incoming(once)
            .await;
        if let Err(error) = served {
            tracing::debug!("a client of BuildKit's left: {error}");
        }
    }

    /// Takes a connection of `POST /session`, and returns when its client has left.
    pub async fn attach<C>(&self, offer: SessionOffer, connection: C)
    where
        C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.sessions.attach(offer, connection).await;
    }
}

/// As BuildKit's own limit (util/grpcutil): definitions of large builds are more than tonic's 4 MiB.
const LARGEST_MESSAGE: usize = 16 << 20;

/// gRPC's question whether there is anybody.
#[derive(Debug)]
struct Serving;

#[tonic::async_trait]
impl Health for Serving {
    async fn check(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(HealthCheckResponse { status: ServingStatus::Serving.into() }))
    }

    async fn list(
        &self,
        _: Request<HealthListRequest>,
    ) -> Result<Response<HealthListResponse>, Status> {
        let serving = HealthCheckResponse { status: ServingStatus::Serving.into() };
        Ok(Response::new(HealthListResponse { statuses: [(String::new(), serving)].into() }))
    }

    type WatchStream = tokio_stream::Once<Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let serving = HealthCheckResponse { status: ServingStatus::Serving.into() };
        Ok(Response::new(tokio_stream::once(Ok(serving))))
    }
}
