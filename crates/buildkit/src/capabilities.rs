//! What this builder can, in the names that BuildKit's clients ask for before they use it.

use bollard_buildkit_proto::moby::buildkit::v1::apicaps::ApiCap;
use bollard_buildkit_proto::moby::buildkit::v1::types::{BuildkitVersion, WorkerRecord};
use bollard_buildkit_proto::pb;
use bulkhead_types::image::Platform;

/// Of the gateway (frontend/gateway/pb/caps.go).
const GATEWAY: &[&str] = &[
    "solve.base",
    "return",
    "returnmap",
    "proto.refarray",
    "frontend.caps",
    "gateway.solve.metadata",
    "gateway.solve.evaluate",
    "gateway.evaluate",
    "gateway.warnings",
];

/// Of the definitions of builds (solver/pb/caps.go). Front ends refuse a builder without `file.base`.
const DEFINITIONS: &[&str] = &["source.local", "exec.meta.base", "file.base", "gc.freespacefilter"];

pub(crate) fn gateway() -> Vec<ApiCap> {
    caps(GATEWAY)
}

pub(crate) fn definitions() -> Vec<ApiCap> {
    caps(DEFINITIONS)
}

fn caps(names: &[&str]) -> Vec<ApiCap> {
    let cap = |id: &&str| ApiCap { id: (*id).to_owned(), enabled: true, ..ApiCap::default() };
    names.iter().map(cap).collect()
}

/// The one worker there is: the engine.
///
/// Without the label `org.mobyproject.buildkit.worker.snapshotter`, by which buildx knows a builder that
/// exports archives, attestations and several platforms (buildx: driver/docker/driver.go).
pub(crate) fn worker(gateway: Option<std::net::Ipv4Addr>) -> WorkerRecord {
    let platform = Platform::host();
    let label =
        |name: &str, value: String| (format!("org.mobyproject.buildkit.worker.{name}"), value);
    let mut labels = vec![label("executor", "bulkhead".to_owned())];
    labels.extend(gateway.map(|address| label("moby.host-gateway-ip", address.to_string())));
    WorkerRecord {
        id: "bulkhead".to_owned(),
        labels: labels.into_iter().collect(),
        platforms: vec![pb::Platform {
            architecture: platform.architecture,
            os: platform.os,
            variant: platform.variant.unwrap_or_default(),
            ..pb::Platform::default()
        }],
        buildkit_version: Some(version()),
        ..WorkerRecord::default()
    }
}

pub(crate) fn version() -> BuildkitVersion {
    BuildkitVersion {
        package: "bulkhead".to_owned(),
        version: concat!("v", env!("CARGO_PKG_VERSION")).to_owned(),
        revision: String::new(),
    }
}
