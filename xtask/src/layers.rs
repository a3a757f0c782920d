//! The arrows between crates: each may depend on those below it, never on those beside or above, and
//! some never reach some others, by whatever way.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::setup;
use crate::target;

/// Lowest first; crates of one layer do not know each other, but for those named in [`BESIDE`].
const LAYERS: &[&[&str]] = &[
    &["sys", "types", "docker-types", "failpoint"],
    &["archive"],
    &["runtime", "network", "image", "store", "logs"],
    &["warden", "resolver", "oci", "builder", "ecs", "registry"],
    &["engine"],
    &["build-service"],
    &["buildkit"],
    &["docker-api", "aws-api"],
    &["agent", "console"],
    &["bulkhead"],
];

/// (crate, crate of its own layer that it may use)
const BESIDE: &[(&str, &str)] = &[];

/// (crates, what none of them may reach, why)
const NEVER: &[(&[&str], &[&str], &str)] = &[
    (
        &["agent"],
        &["bulkhead-engine", "bulkhead-docker-api"],
        "it drives an engine by Docker's API alone, so that it can drive a Docker host too",
    ),
    (
        &["console"],
        &["bulkhead-engine", "bulkhead-docker-api"],
        "it shows what the control plane knows, which may run on another machine",
    ),
    (
        &["ecs", "aws-api"],
        &["bulkhead-engine", "bulkhead-runtime", "bulkhead-network"],
        "the control plane has no containers of its own",
    ),
    (
        &["network", "image", "store", "logs", "builder", "ecs", "engine"],
        &["axum", "clap"],
        "domain crates serve no HTTP and read no command line",
    ),
    (
        &["sys", "types", "runtime", "warden", "resolver", "oci"],
        &["tokio", "hyper", "axum", "clap", "tracing-subscriber"],
        "they fork, and live for milliseconds or for ever: no threads, no runtime",
    ),
];

pub fn check() -> Result<()> {
    let graph = Graph::read()?;
    let layer_of = |name: &str| LAYERS.iter().position(|layer| layer.contains(&name));
    for own in &graph.own {
        let layer = layer_of(own);
        ensure!(layer.is_some(), "crate {own} has no layer: add it to xtask/src/layers.rs");
        for used in &graph.needs[&format!("bulkhead-{own}")] {
            let Some(used) = used.strip_prefix("bulkhead-") else { continue };
            let allowed = layer_of(used) < layer || BESIDE.contains(&(own.as_str(), used));
            ensure!(allowed, "crate {own} depends on {used}, which is not below it");
        }
    }
    for (crates, forbidden, why) in NEVER {
        for name in *crates {
            let start = format!("bulkhead-{name}");
            for forbidden in *forbidden {
                if let Some(way) = graph.way(&start, forbidden) {
                    anyhow::bail!("{} is not allowed: {why}", way.join(" → "));
                }
            }
        }
    }
    Ok(())
}

/// What each package needs to be built and run, without what its tests need.
struct Graph {
    /// The names of the crates in `crates/`, without `bulkhead-`; the program's own is `bulkhead`.
    own: BTreeSet<String>,
    needs: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    fn read() -> Result<Self> {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let said = Command::new(cargo)
            .args(["metadata", "--format-version", "1", "--filter-platform", &target::host()?])
            .current_dir(setup::root())
            .stderr(Stdio::inherit())
            .output()
            .context("run cargo metadata")?;
        ensure!(said.status.success(), "cargo metadata failed");
        let metadata: Value = serde_json::from_slice(&said.stdout)?;
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let mut names = BTreeMap::new();
        let mut own = BTreeSet::new();
        let crates = setup::root().join("crates");
        for package in list(&metadata["packages"]) {
            let text = |key: &str| package[key].as_str().unwrap_or_default().to_owned();
            let name = text("name");
            if text("manifest_path").starts_with(&*crates.to_string_lossy()) {
                let short = name.strip_prefix("bulkhead-").unwrap_or("bulkhead");
                own.insert(short.to_owned());
            }
            // the program would be taken for a prefix
            let name = if name == "bulkhead" { "bulkhead-bulkhead".to_owned() } else { name };
            names.insert(text("id"), name);
        }
        let mut needs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for node in list(&metadata["resolve"]["nodes"]) {
            let name = |id: &Value| names.get(id.as_str().unwrap_or_default()).cloned();
            let Some(from) = name(&node["id"]) else { continue };
            let to = needs.entry(from).or_default();
            for needed in list(&node["deps"]) {
                // "dev" is for tests, and null for everything else
                let normal = list(&needed["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
                to.extend(name(&needed["pkg"]).filter(|_| normal));
            }
        }
        Ok(Self { own, needs })
    }

    /// A shortest way from one package to another.
    fn way(&self, from: &str, to: &str) -> Option<Vec<String>> {
        let mut ways = std::collections::VecDeque::from([vec![from.to_owned()]]);
        let mut seen = BTreeSet::new();
        while let Some(way) = ways.pop_front() {
            let last = way.last()?;
            if last == to {
                return Some(way);
            }
            for next in self.needs.get(last).into_iter().flatten() {
                if seen.insert(next.clone()) {
                    ways.push_back([way.as_slice(), std::slice::from_ref(next)].concat());
                }
            }
        }
        None
    }
}
