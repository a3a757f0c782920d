//! What the engine says of itself: ping, version, info, disk usage.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use bulkhead_engine::LogDriver;
use bulkhead_types::Timestamp;
use bulkhead_types::image::Platform;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, PRAGMA};
use http::{HeaderName, Method};
use serde_json::{Value, json};

use crate::Api;
use crate::error::{Answer, ApiError};
use crate::request::Query;
use crate::version::ApiVersion;
use crate::{build, container, events, image, version, volume};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/version", get(version_answer))
        .route("/info", get(info))
        .route("/events", get(events::events))
        .route("/system/df", get(disk_usage))
}

/// `GET` and `HEAD /_ping`, with which every command of the CLI begins.
pub(crate) async fn ping(method: Method) -> Response {
    let headers = [
        (CACHE_CONTROL, "no-cache, no-store, must-revalidate"),
        (PRAGMA, "no-cache"),
        (CONTENT_TYPE, "text/plain; charset=utf-8"),
        (HeaderName::from_static("swarm"), "inactive"),
    ];
    if method == Method::HEAD {
        return (headers, [(CONTENT_LENGTH, "0")]).into_response();
    }
    (headers, "OK").into_response()
}

async fn version_answer(State(api): State<Api>) -> axum::Json<Value> {
    axum::Json(version_view(&api.engine.info().kernel))
}

fn version_view(kernel: &str) -> Value {
    let release = env!("CARGO_PKG_VERSION");
    let architecture = Platform::host().architecture;
    json!({
        "Platform": { "Name": "Bulkhead" },
        "Components": [{
            "Name": "Engine",
            "Version": release,
            "Details": {
                "ApiVersion": version::MAXIMUM.to_string(),
                "MinAPIVersion": version::MINIMUM.to_string(),
                "Os": "linux",
                "Arch": architecture,
                "KernelVersion": kernel,
                "Experimental": "false",
                "GitCommit": "",
                "GoVersion": "",
                "BuildTime": "",
            },
        }],
        "Version": release,
        "ApiVersion": version::MAXIMUM.to_string(),
        "MinAPIVersion": version::MINIMUM.to_string(),
        "GitCommit": "",
        "GoVersion": "",
        "Os": "linux",
        "Arch": architecture,
        "KernelVersion": kernel,
        "BuildTime": "",
    })
}

/// What Docker calls indexes: its own, and the registries that are reached by plain HTTP.
fn registries(mirrors: &[String], insecure: &[String]) -> Value {
    let config = |name: &str, mirrors: &[String], secure: bool| json!({ "Mirrors": mirrors, "Name": name, "Official": secure, "Secure": secure });
    let others = insecure.iter().map(|name| (name.clone(), config(name, &[], false)));
    let own = ("docker.io".to_owned(), config("docker.io", mirrors, true));
    Value::Object([own].into_iter().chain(others).collect())
}

async fn info(State(api): State<Api>) -> axum::Json<Value> {
    let info = api.engine.info();
    let settings = api.engine.settings();
    let mirrors: Vec<String> =
        settings.registries.registry_mirrors.iter().map(ToString::to_string).collect();
    let has = |controller| info.controllers.contains(&controller);
    let cgroups = if info.cgroup_version == "2" { "2" } else { "1" };
    let seccomp = format!("name=seccomp,profile={}", settings.containers.seccomp_name);
    let mut security = vec![seccomp.as_str(), "name=cgroupns"];
    if info.supports_idmapped_layers {
        security.push("name=userns");
    }
    if settings.containers.no_new_privileges {
        security.push("name=no-new-privileges");
    }
    let pools = api.engine.options().address_pools.given();
    let pools: Vec<Value> =
        pools.map(|(base, size)| json!({ "Base": base, "Size": size })).collect();
    let mut view = json!({
        "ID": info.id,
        "Containers": info.containers,
        "ContainersRunning": info.running,
        "ContainersPaused": info.paused,
        "ContainersStopped": info.stopped,
        "Images": info.images,
        "Driver": "overlay2",
        "DriverStatus": [["Supports d_type", "true"], ["ID-mapped layers", info.supports_idmapped_layers.to_string()]],
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "ipvlan", "macvlan", "null"],
            "Authorization": null,
            "Log": LogDriver::names(),
        },
        "MemoryLimit": has("memory"),
        "SwapLimit": has("memory"),
        "CpuCfsPeriod": has("cpu"),
        "CpuCfsQuota": has("cpu"),
        "CPUShares": has("cpu"),
        "CPUSet": has("cpuset"),
        "PidsLimit": has("pids"),
        "IPv4Forwarding": info.ipv4_forwarding,
        "Debug": settings.debug,
        "NFd": 0,
        "OomKillDisable": false,
        "NGoroutines": 0,
        "SystemTime": Timestamp::now().to_string(),
        "LoggingDriver": settings.containers.log_driver.to_string(),
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": cgroups,
        "NEventsListener": 0,
        "KernelVersion": info.kernel,
        "OperatingSystem": info.operating_system,
        "OSVersion": "",
        "OSType": "linux",
        "Architecture": std::env::consts::ARCH,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": {
            "IndexConfigs": registries(&mirrors, &settings.registries.insecure_registries),
            "InsecureRegistryCIDRs": ["127.0.0.0/8"],
            "Mirrors": mirrors,
        },
        "NCPU": info.cpus,
        "MemTotal": info.memory,
        "GenericResources": null,
        "DockerRootDir": info.data,
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Name": info.hostname,
        "Labels": settings.labels,
        "ExperimentalBuild": false,
        "ServerVersion": env!("CARGO_PKG_VERSION"),
        "Runtimes": {
            "bulkhead": { "path": "bulkhead" },
            "runc": { "path": "bulkhead" },
            "io.containerd.runc.v2": { "path": "bulkhead" },
        },
        "DefaultRuntime": settings.containers.runtime.to_string(),
        "Swarm": {
            "NodeID": "",
            "NodeAddr": "",
            "LocalNodeState": "inactive",
            "ControlAvailable": false,
            "Error": "",
            "RemoteManagers": null,
        },
        "LiveRestoreEnabled": true,
        "Isolation": "",
        "InitBinary": "",
        "ContainerdCommit": { "ID": "" },
        "RuncCommit": { "ID": "" },
        "InitCommit": { "ID": "" },
        "SecurityOptions": security,
        "FirewallBackend": { "Driver": "nftables" },
        "CDISpecDirs": [],
        "Warnings": info.warnings,
    });
    if !pools.is_empty() {
        view["DefaultAddressPools"] = pools.into();
    }
    axum::Json(view)
}

/// `GET /system/df`; `type` picks what is measured. Layers that images share are counted with each
/// of them.
async fn disk_usage(
    State(api): State<Api>,
    Extension(version): Extension<ApiVersion>,
    query: Query,
) -> Answer<axum::Json<Value>> {
    let known = ["container", "image", "volume", "build-cache"];
    let types = query.all("type");
    if let Some(unknown) = types.iter().find(|kind| !known.contains(&kind.as_str())) {
        return Err(ApiError::invalid(format!("unknown object type: {unknown}")));
    }
    let wanted = |kind: &str| types.is_empty() || types.iter().any(|wanted| wanted == kind);
    let containers = api.engine.containers();
    let mut answer = json!({});
    if wanted("image") {
        let images = api.engine.images().list();
        let layers: std::collections::BTreeSet<_> =
            images.iter().flat_map(|image| image.config.rootfs.diff_ids.iter().copied()).collect();
        let content = api.engine.content();
        let sizes = layers.into_iter().filter_map(|id| content.layer_size(id).ok());
        answer["LayersSize"] = json!(sizes.sum::<u64>());
        let summary = |one| image::summary(one, &containers, version);
        answer["Images"] = images.iter().map(summary).collect();
    }
    if wanted("container") {
        let mut summaries =
            container::list::Summaries::new(&api, container::list::link_names(&api, &containers));
        let mut rows = Vec::new();
        for one in &containers {
            let mut row = summaries.summary(one);
            row.size = container::list::size(&api, one.id).await?;
            rows.push(json!(row));
        }
        answer["Containers"] = rows.into();
    }
    if wanted("volume") {
        let mut rows = Vec::new();
        for one in &api.engine.volumes().list() {
            rows.push(volume::with_usage(&api, one, &containers).await);
        }
        answer["Volumes"] = rows.into();
    }
    if wanted("build-cache") {
        answer["BuildCache"] = build::cache::views(&api.engine.build_cache().list().await?).into();
    }
    Ok(axum::Json(answer))
}
