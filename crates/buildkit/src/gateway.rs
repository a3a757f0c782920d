//! `LLBBridge`: what a client asks for within its job, which it names in the metadata.

use std::collections::HashMap;
use std::sync::Arc;

use bollard_buildkit_proto::google::rpc;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_server::LlbBridge;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::{self, result};
use bulkhead_types::image::Platform;
use prost::Message as _;
use serde_json::json;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::job::Job;
use crate::options::{is_own_syntax, refused};
use crate::{BuildKit, capabilities};

/// The metadata that names a request's job.
const JOB: &str = "buildkit-controlapi-buildid";

impl BuildKit {
    async fn job_of<T>(&self, request: &Request<T>) -> Result<Arc<Job>, Status> {
        let name = request.metadata().get(JOB).and_then(|name| name.to_str().ok());
        let name =
            name.ok_or_else(|| Status::invalid_argument(format!("no {JOB} in the metadata")))?;
        self.jobs.find(name).await
    }

    /// Checks which front end is asked for: there is one, and it is built in.
    pub(crate) fn check_front_end(
        front_end: &str,
        options: &HashMap<String, String>,
    ) -> Result<(), Status> {
        let source = options.get("source").map_or("", String::as_str);
        match front_end {
            "dockerfile.v0" => Ok(()),
            "gateway.v0" if is_own_syntax(source) => Ok(()),
            "gateway.v0" => Err(refused(
                &format!("the front end {source}"),
                "the built-in one is that of docker/dockerfile",
            )),
            "" => Err(refused("a build by its definition (LLB)", "build a Dockerfile")),
            other => Err(refused(&format!("the front end {other}"), "build a Dockerfile")),
        }
    }
}

/// What a client does not need to build Dockerfiles, and is not told that it can.
fn not_offered<T>(method: &str) -> Result<Response<T>, Status> {
    Err(Status::unimplemented(format!("{method} is not supported by this builder")))
}

#[tonic::async_trait]
impl LlbBridge for BuildKit {
    async fn ping(
        &self,
        request: Request<frontend::PingRequest>,
    ) -> Result<Response<frontend::PongResponse>, Status> {
        self.job_of(&request).await?;
        Ok(Response::new(frontend::PongResponse {
            frontend_api_caps: capabilities::gateway(),
            llb_caps: capabilities::definitions(),
            workers: vec![self.worker()],
        }))
    }

    async fn solve(
        &self,
        request: Request<frontend::SolveRequest>,
    ) -> Result<Response<frontend::SolveResponse>, Status> {
        let job = self.job_of(&request).await?;
        let request = request.into_inner();
        Self::check_front_end(&request.frontend, &request.frontend_opt)?;
        if let Some(name) = request.frontend_inputs.keys().next() {
            return Err(refused(&format!("the input {name} of another build"), "build it first"));
        }
        let built = self.dockerfile(&job, &request.frontend_opt).await?;
        let config = self.builds.configuration(&built.image).await;
        let config = config.map_err(|error| Status::internal(error.to_string()))?;
        let platform = Platform::host();
        let name = format!("{}/{}", platform.os, platform.architecture);
        let platforms = json!({
            "Platforms": [{
                "ID": name,
                "Platform": { "architecture": platform.architecture, "os": platform.os },
            }],
        });
        let reference = frontend::Ref { id: job.keep(built), def: None };
        let result = frontend::Result {
            metadata: HashMap::from([
                ("containerimage.config".to_owned(), config),
                ("refs.platforms".to_owned(), platforms.to_string().into_bytes()),
            ]),
            result: Some(result::Result::Ref(reference)),
            ..frontend::Result::default()
        };
        Ok(Response::new(frontend::SolveResponse { result: Some(result), ..Default::default() }))
    }

    async fn evaluate(
        &self,
        request: Request<frontend::EvaluateRequest>,
    ) -> Result<Response<frontend::EvaluateResponse>, Status> {
        let job = self.job_of(&request).await?;
        let name = request.into_inner().r#ref;
        // What was solved is built: there is nothing that waits to be.
        match job.has(&name) {
            true => Ok(Response::new(frontend::EvaluateResponse {})),
            false => Err(Status::not_found(format!("no such result {name}"))),
        }
    }

    async fn r#return(
        &self,
        request: Request<frontend::ReturnRequest>,
    ) -> Result<Response<frontend::ReturnResponse>, Status> {
        let job = self.job_of(&request).await?;
        let request = request.into_inner();
        job.give_back(match request.error {
            Some(error) => Err(status_of(error)),
            None => Ok(request.result.unwrap_or_default()),
        })?;
        Ok(Response::new(frontend::ReturnResponse {}))
    }

    async fn warn(
        &self,
        request: Request<frontend::WarnRequest>,
    ) -> Result<Response<frontend::WarnResponse>, Status> {
        use bollard_buildkit_proto::moby::buildkit::v1::{StatusResponse, VertexWarning};
        let job = self.job_of(&request).await?;
        let warning = request.into_inner();
        let warnings = vec![VertexWarning {
            vertex: warning.digest,
            level: warning.level,
            short: warning.short,
            detail: warning.detail,
            url: warning.url,
            info: warning.info,
            ranges: warning.ranges,
        }];
        job.shown.push(StatusResponse { warnings, ..StatusResponse::default() }).await;
        Ok(Response::new(frontend::WarnResponse {}))
    }

    async fn resolve_image_config(
        &self,
        _: Request<frontend::ResolveImageConfigRequest>,
    ) -> Result<Response<frontend::ResolveImageConfigResponse>, Status> {
        not_offered("ResolveImageConfig")
    }

    async fn resolve_source_meta(
        &self,
        _: Request<frontend::ResolveSourceMetaRequest>,
    ) -> Result<Response<frontend::ResolveSourceMetaResponse>, Status> {
        not_offered("ResolveSourceMeta")
    }

    async fn read_file(
        &self,
        _: Request<frontend::ReadFileRequest>,
    ) -> Result<Response<frontend::ReadFileResponse>, Status> {
        not_offered("ReadFile")
    }

    async fn read_dir(
        &self,
        _: Request<frontend::ReadDirRequest>,
    ) -> Result<Response<frontend::ReadDirResponse>, Status> {
        not_offered("ReadDir")
    }

    async fn stat_file(
        &self,
        _: Request<frontend::StatFileRequest>,
    ) -> Result<Response<frontend::StatFileResponse>, Status> {
        not_offered("StatFile")
    }

    async fn inputs(
        &self,
        _: Request<frontend::InputsRequest>,
    ) -> Result<Response<frontend::InputsResponse>, Status> {
        not_offered("Inputs")
    }

    async fn new_container(
        &self,
        _: Request<frontend::NewContainerRequest>,
    ) -> Result<Response<frontend::NewContainerResponse>, Status> {
        not_offered("NewContainer")
    }

    async fn release_container(
        &self,
        _: Request<frontend::ReleaseContainerRequest>,
    ) -> Result<Response<frontend::ReleaseContainerResponse>, Status> {
        not_offered("ReleaseContainer")
    }

    type ExecProcessStream = tokio_stream::Empty<Result<frontend::ExecMessage, Status>>;

    async fn exec_process(
        &self,
        _: Request<Streaming<frontend::ExecMessage>>,
    ) -> Result<Response<Self::ExecProcessStream>, Status> {
        not_offered("ExecProcess")
    }

    async fn read_file_container(
        &self,
        _: Request<frontend::ReadFileRequest>,
    ) -> Result<Response<frontend::ReadFileResponse>, Status> {
        not_offered("ReadFileContainer")
    }

    async fn read_dir_container(
        &self,
        _: Request<frontend::ReadDirRequest>,
    ) -> Result<Response<frontend::ReadDirResponse>, Status> {
        not_offered("ReadDirContainer")
    }

    async fn stat_file_container(
        &self,
        _: Request<frontend::StatFileRequest>,
    ) -> Result<Response<frontend::StatFileResponse>, Status> {
        not_offered("StatFileContainer")
    }
}

/// A client's error as it is handed on, with its details.
fn status_of(error: rpc::Status) -> Status {
    let details = error.encode_to_vec();
    Status::with_details(Code::from(error.code), error.message, details.into())
}
