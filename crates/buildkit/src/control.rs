//! `Control`: jobs, their progress and their exports, and what this builder is.

use std::collections::HashMap;

use bollard_buildkit_proto::moby::buildkit::v1::control_server::Control;
use bollard_buildkit_proto::moby::buildkit::v1::frontend;
use bollard_buildkit_proto::moby::buildkit::v1::types::WorkerRecord;
use bollard_buildkit_proto::moby::buildkit::v1::{
    BuildHistoryEvent, BuildHistoryRequest, BytesMessage, DiskUsageRequest, DiskUsageResponse,
    Exporter, InfoRequest, InfoResponse, ListWorkersRequest, ListWorkersResponse, PruneRequest,
    SolveRequest, SolveResponse, StatusRequest, StatusResponse, UpdateBuildHistoryRequest,
    UpdateBuildHistoryResponse, UsageRecord,
};
use bulkhead_build_service::Built;
use bulkhead_engine::EngineError;
use bulkhead_types::{Reference, Timestamp};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use crate::job::Job;
use crate::options::refused;
use crate::step::Step;
use crate::{BuildKit, SessionOffer, cache, capabilities};

impl BuildKit {
    pub(crate) fn worker(&self) -> WorkerRecord {
        capabilities::worker(self.builds.host_gateway())
    }

    /// What the client makes of its job: either it returns a result, or the request says all.
    async fn result_of(
        &self,
        job: &Job,
        request: &SolveRequest,
        returned: tokio::sync::oneshot::Receiver<Result<frontend::Result, Status>>,
    ) -> Result<Option<Built>, Status> {
        if !request.frontend.is_empty() {
            Self::check_front_end(&request.frontend, &request.frontend_attrs)?;
            return self.dockerfile(job, &request.frontend_attrs).await.map(Some);
        }
        let returned = returned.await;
        let result = returned.map_err(|_| Status::cancelled("the client left"))??;
        let names: Vec<String> = match result.result {
            None => Vec::new(),
            Some(frontend::result::Result::Ref(it)) => vec![it.id],
            Some(frontend::result::Result::RefDeprecated(id)) => vec![id],
            Some(frontend::result::Result::Refs(all)) => {
                all.refs.into_values().map(|it| it.id).collect()
            }
            Some(frontend::result::Result::RefsDeprecated(all)) => all.refs.into_values().collect(),
        };
        match names.iter().filter(|name| !name.is_empty()).collect::<Vec<_>>().as_slice() {
            [] => Ok(None),
            [name] => match job.take(name) {
                Some(built) => Ok(Some(built)),
                None => Err(Status::not_found(format!("no such result {name}"))),
            },
            _ => Err(refused("a result for several platforms", "build one at a time")),
        }
    }

    /// The exporter `moby`: the image becomes one of the engine's.
    async fn export(
        &self,
        job: &Job,
        exporters: &[Exporter],
        built: Built,
    ) -> Result<HashMap<String, String>, Status> {
        let mut response = HashMap::new();
        // nobody wants more than that it was built
        let Some(exporter) = exporters.first() else { return Ok(response) };
        let names = names(exporter)?;
        let step = Step::begin(job, "exporting to image").await;
        step.done("exporting layers").await;
        let published = self.builds.publish(built, names.clone()).await;
        let published = published.map_err(|error| Status::unknown(error.to_string()));
        if let Ok(image) = &published {
            step.done(&format!("writing image {}", image.id)).await;
            for name in &names {
                step.done(&format!("naming to {name}")).await;
            }
        }
        let image = step.end(published).await?;
        response.insert("containerimage.config.digest".to_owned(), image.id.to_string());
        response.insert("containerimage.digest".to_owned(), image.id.to_string());
        if !names.is_empty() {
            let names: Vec<String> = names.iter().map(Reference::to_string).collect();
            response.insert("image.name".to_owned(), names.join(","));
        }
        Ok(response)
    }
}

/// Bytes of a session that are passed on at once.
const PIECE: usize = 32 << 10;

fn offer(metadata: &MetadataMap) -> Result<SessionOffer, Status> {
    let all = |name: &str| {
        let values = metadata.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.map(str::to_owned).collect::<Vec<_>>()
    };
    let id = all("x-docker-expose-session-uuid").pop().filter(|id| !id.is_empty());
    let id = id.ok_or_else(|| Status::invalid_argument("a session needs an id"))?;
    let methods = all("x-docker-expose-session-grpc-method").into_iter().collect();
    Ok(SessionOffer { id, methods })
}

fn internal(error: EngineError) -> Status {
    Status::internal(error.to_string())
}

/// What of a request is not offered.
fn check(request: &SolveRequest) -> Result<(), Status> {
    let has_definition = request.definition.as_ref().is_some_and(|it| !it.def.is_empty());
    if has_definition {
        return Err(refused("a build by its definition (LLB)", "build a Dockerfile"));
    }
    if let Some(name) = request.frontend_inputs.keys().next() {
        return Err(refused(&format!("the input {name} of another build"), "build it first"));
    }
    if request.source_policy.is_some() || !request.source_policy_session.is_empty() {
        return Err(refused("a policy of sources", "build without it"));
    }
    let exported = request.cache.iter().flat_map(|cache| &cache.exports);
    if let Some(cache) = exported.into_iter().find(|cache| cache.r#type != "inline") {
        return Err(refused(&format!("--cache-to type={}", cache.r#type), "leave it out"));
    }
    for name in &request.entitlements {
        if name != "network.host" {
            return Err(refused(&format!("--allow {name}"), "leave it out"));
        }
    }
    if request.exporters.len() > 1 {
        return Err(refused("more than one --output", "name one"));
    }
    exporters(request).iter().try_for_each(|exporter| names(exporter).map(drop))
}

/// Old clients have one, outside of the list.
fn exporters(request: &SolveRequest) -> Vec<Exporter> {
    if !request.exporters.is_empty() {
        return request.exporters.clone();
    }
    match request.exporter_deprecated.as_str() {
        "" => Vec::new(),
        kind => vec![Exporter {
            r#type: kind.to_owned(),
            attrs: request.exporter_attrs_deprecated.clone(),
        }],
    }
}

/// The names that an exporter gives the image, if it is one that is done.
fn names(exporter: &Exporter) -> Result<Vec<Reference>, Status> {
    if exporter.r#type != "moby" {
        return Err(refused(
            &format!("--output type={}", exporter.r#type),
            "build an image, and save or export it",
        ));
    }
    let is_off = |value: &str| matches!(value, "" | "false" | "0");
    let mut names = Vec::new();
    for (key, value) in &exporter.attrs {
        match key.as_str() {
            "name" => {
                for name in value.split(',').filter(|name| !name.is_empty()) {
                    let name = name.parse().map_err(|_| {
                        Status::invalid_argument(format!(
                            "invalid tag {name:?}: invalid reference format"
                        ))
                    })?;
                    names.push(name);
                }
            }
            // the client's own work, by the engine's API
            "push" | "registry.insecure" | "prefer-image-digest" => {}
            "oci-artifact" | "unpack" | "push-by-digest" if is_off(value) => {}
            "unpack" => {}
            _ => return Err(refused(&format!("--output {key}={value}"), "leave it out")),
        }
    }
    Ok(names)
}

#[tonic::async_trait]
impl Control for BuildKit {
    async fn solve(
        &self,
        request: Request<SolveRequest>,
    ) -> Result<Response<SolveResponse>, Status> {
        let mut request = request.into_inner();
        let exporters = exporters(&request);
        let name = std::mem::take(&mut request.r#ref);
        let host_network = request.entitlements.iter().any(|name| name == "network.host");
        let (running, returned) = self.jobs.begin(name, request.session.clone(), host_network)?;
        check(&request)?;
        let built = self.result_of(&running.job, &request, returned).await?;
        let exporter_response = match built {
            Some(built) => self.export(&running.job, &exporters, built).await?,
            None => HashMap::new(),
        };
        Ok(Response::new(SolveResponse { exporter_response }))
    }

    type StatusStream = ReceiverStream<Result<StatusResponse, Status>>;

    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<Self::StatusStream>, Status> {
        let job = self.jobs.find(&request.into_inner().r#ref).await?;
        // Before the answer: whoever watches misses nothing.
        let (sender, receiver) = mpsc::channel(4);
        drop(job.shown.watch()?);
        tokio::spawn(async move {
            let Ok(watching) = job.shown.watch() else { return };
            loop {
                let message = tokio::select! {
                    message = watching.next() => message,
                    () = sender.closed() => None,
                };
                let Some(message) = message else { return };
                if sender.send(Ok(message)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn list_workers(
        &self,
        _: Request<ListWorkersRequest>,
    ) -> Result<Response<ListWorkersResponse>, Status> {
        Ok(Response::new(ListWorkersResponse { record: vec![self.worker()] }))
    }

    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        Ok(Response::new(InfoResponse { buildkit_version: Some(capabilities::version()) }))
    }

    async fn disk_usage(
        &self,
        request: Request<DiskUsageRequest>,
    ) -> Result<Response<DiskUsageResponse>, Status> {
        let request = request.into_inner();
        if request.age_limit != 0 || request.filter.iter().any(|filter| !filter.is_empty()) {
            return Err(refused("a filter of buildx du", "leave it out"));
        }
        let entries = self.builds.cached().await.map_err(internal)?;
        let record = entries.iter().map(cache::record).collect();
        Ok(Response::new(DiskUsageResponse { record }))
    }

    type PruneStream = tokio_stream::Iter<std::vec::IntoIter<Result<UsageRecord, Status>>>;

    async fn prune(
        &self,
        request: Request<PruneRequest>,
    ) -> Result<Response<Self::PruneStream>, Status> {
        let options = cache::options(&request.into_inner(), Timestamp::now())?;
        let Some(options) = options else {
            return Ok(Response::new(tokio_stream::iter(Vec::new())));
        };
        let entries = self.builds.cached().await.map_err(internal)?;
        let pruned = self.builds.prune(options).await.map_err(internal)?;
        let records: Vec<_> = cache::pruned(&entries, &pruned.keys).into_iter().map(Ok).collect();
        Ok(Response::new(tokio_stream::iter(records)))
    }

    type SessionStream = ReceiverStream<Result<BytesMessage, Status>>;

    /// A session as messages of this connection, where bake opens one: what comes is as on one of
    /// `POST /session`.
    async fn session(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let offer = offer(request.metadata())?;
        let mut incoming = request.into_inner();
        let (ours, theirs) = tokio::io::duplex(PIECE);
        let (mut from_engine, mut to_engine) = tokio::io::split(theirs);
        let (sender, receiver) = mpsc::channel(4);
        tokio::spawn(async move {
            while let Ok(Some(message)) = incoming.message().await {
                if to_engine.write_all(&message.data).await.is_err() {
                    break;
                }
            }
            let _ = to_engine.shutdown().await;
        });
        tokio::spawn(async move {
            let mut piece = vec![0; PIECE];
            while let Ok(length @ 1..) = from_engine.read(&mut piece).await {
                let data = piece[..length].to_vec();
                if sender.send(Ok(BytesMessage { data })).await.is_err() {
                    break;
                }
            }
        });
        let buildkit = self.clone();
        tokio::spawn(async move { buildkit.attach(offer, ours).await });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    type ListenBuildHistoryStream = tokio_stream::Empty<Result<BuildHistoryEvent, Status>>;

    async fn listen_build_history(
        &self,
        _: Request<BuildHistoryRequest>,
    ) -> Result<Response<Self::ListenBuildHistoryStream>, Status> {
        Err(Status::unimplemented("this builder keeps no history of builds"))
    }

    async fn update_build_history(
        &self,
        _: Request<UpdateBuildHistoryRequest>,
    ) -> Result<Response<UpdateBuildHistoryResponse>, Status> {
        Err(Status::unimplemented("this builder keeps no history of builds"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exporter(kind: &str, attributes: &[(&str, &str)]) -> Exporter {
        let pairs = attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Exporter { r#type: kind.to_owned(), attrs: pairs.collect() }
    }

    #[test]
    fn an_image_has_the_names_that_are_asked_for() {
        let named = names(&exporter(
            "moby",
            &[("name", "docker.io/library/a:1,b.example/c"), ("push", "true")],
        ));
        let named: Vec<String> = named.expect("names").iter().map(Reference::to_string).collect();
        assert_eq!(named.len(), 2, "{named:?}");
        for (exporter, part) in [
            (exporter("local", &[]), "--output type=local"),
            (exporter("moby", &[("name", "UPPER")]), "invalid reference format"),
            (exporter("moby", &[("compression", "zstd")]), "--output compression=zstd"),
        ] {
            let error = names(&exporter).expect_err(part);
            assert!(error.message().contains(part), "{}", error.message());
        }
    }

    #[test]
    fn what_is_not_offered_is_refused_by_name() {
        use bollard_buildkit_proto::moby::buildkit::v1::{CacheOptions, CacheOptionsEntry};
        let cache = |kind: &str| SolveRequest {
            cache: Some(CacheOptions {
                exports: vec![CacheOptionsEntry { r#type: kind.to_owned(), ..Default::default() }],
                ..CacheOptions::default()
            }),
            ..SolveRequest::default()
        };
        let allows = |name: &str| SolveRequest {
            entitlements: vec![name.to_owned()],
            ..SolveRequest::default()
        };
        check(&cache("inline")).expect("a hint");
        check(&allows("network.host")).expect("is done");
        for (request, part) in [
            (cache("registry"), "--cache-to type=registry"),
            (allows("security.insecure"), "--allow security.insecure"),
        ] {
            let error = check(&request).expect_err(part);
            assert!(error.message().contains(part), "{}", error.message());
        }
    }
}
