//! The arrows between crates: each may depend on those below it, never on those beside or above.

use anyhow::{Result, ensure};

use crate::setup;

/// Lowest first; crates of one layer do not know each other, but for those named in [`BESIDE`].
const LAYERS: &[&[&str]] = &[
    &["sys", "types", "failpoint"],
    &["runtime", "network", "image", "store"],
    &["warden", "oci", "builder", "ecs", "registry"],
    &["engine"],
    &["docker-api", "aws-api"],
    &["agent", "console"],
    &["bulkhead"],
];

/// (crate, crate of its own layer that it may use)
const BESIDE: &[(&str, &str)] = &[];

pub fn check() -> Result<()> {
    let layer_of = |name: &str| LAYERS.iter().position(|layer| layer.contains(&name));
    for entry in std::fs::read_dir(setup::root().join("crates"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let layer = layer_of(&name);
        ensure!(layer.is_some(), "crate {name} has no layer: add it to xtask/src/layers.rs");
        let manifest = std::fs::read_to_string(entry.path().join("Cargo.toml"))?;
        let dependencies = manifest.split("[dev-dependencies]").next().unwrap_or_default();
        for line in dependencies.lines() {
            let Some(used) = line.strip_prefix("bulkhead-") else { continue };
            let used = used.split(['.', ' ', '=']).next().unwrap_or_default();
            let allowed = layer_of(used) < layer || BESIDE.contains(&(name.as_str(), used));
            ensure!(allowed, "crate {name} depends on {used}, which is not below it");
        }
    }
    Ok(())
}
