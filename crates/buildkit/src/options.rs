//! What a build is to be, as a client's `FrontendOpt` says it (moby/buildkit: frontend/dockerui).
//!
//! Every key is done, refused by name, or has no meaning here.

use std::collections::{BTreeMap, HashMap};

use bulkhead_build_service::Build;
use bulkhead_engine::{HostConfig, Ulimit};
use bulkhead_types::image::Platform;
use tonic::Status;

/// A build of a Dockerfile in a client's directories.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// All but the Dockerfile's text and the credentials.
    pub(crate) build: Build,
    /// The Dockerfile's path in its directory.
    pub(crate) filename: String,
    /// By which names the client knows the directories of the context and of the Dockerfile.
    pub(crate) context: String,
    pub(crate) dockerfile: String,
    /// Sessions of directories that are not of the job's own: bake has one for all of its targets.
    pub(crate) sessions: BTreeMap<String, String>,
    /// What the client should know of what it asked for.
    pub(crate) warnings: Vec<String>,
}

impl Options {
    /// Reads a request's options; `host_network` says whether its client allows the host's network.
    pub(crate) fn read(
        options: &HashMap<String, String>,
        host_network: bool,
    ) -> Result<Self, Status> {
        let mut all = Self {
            filename: "Dockerfile".to_owned(),
            context: "context".to_owned(),
            dockerfile: "dockerfile".to_owned(),
            ..Self::default()
        };
        // in an order of their own, so that the same request has the same sentence
        let mut keys: Vec<(&String, &String)> = options.iter().collect();
        keys.sort();
        for (key, value) in keys {
            all.take(key, value, host_network)?;
        }
        Ok(all)
    }

    fn take(&mut self, key: &str, value: &str, host_network: bool) -> Result<(), Status> {
        let host = &mut self.build.host;
        if let Some(name) = key.strip_prefix("build-arg:") {
            return self.argument(name, value);
        }
        if let Some(name) = key.strip_prefix("label:") {
            self.build.labels.insert(name.to_owned(), value.to_owned());
            return Ok(());
        }
        if let Some(directory) = key.strip_prefix("local-sessionid:") {
            self.sessions.insert(directory.to_owned(), value.to_owned());
            return Ok(());
        }
        if let Some(name) = key.strip_prefix("context:") {
            return match value.starts_with("docker-image://") {
                true => {
                    self.build.contexts.insert(name.to_owned(), value.to_owned());
                    Ok(())
                }
                false => Err(refused(&format!("--build-context {name}={value}"), "name an image")),
            };
        }
        match key {
            "filename" => self.filename = value.to_owned(),
            "contextkey" => self.context = value.to_owned(),
            "dockerfilekey" => self.dockerfile = value.to_owned(),
            "target" => self.build.target = Some(value.to_owned()).filter(|it| !it.is_empty()),
            "no-cache" if value.is_empty() => self.build.no_cache = true,
            "no-cache" => return Err(refused("--no-cache-filter", "use --no-cache")),
            "image-resolve-mode" => self.build.pull = value == "pull",
            "platform" => check_platform(value)?,
            "multi-platform" if matches!(value, "" | "false" | "0") => {}
            "multi-platform" => return Err(refused("a build for several platforms", "name one")),
            "force-network-mode" if value == "host" && !host_network => {
                return Err(Status::permission_denied(
                    "network.host is not allowed: build with --allow network.host",
                ));
            }
            "force-network-mode" => {
                let mode = value.parse();
                host.network_mode = mode.map_err(|error| invalid(key, &format!("{error}")))?;
            }
            "add-hosts" => {
                for entry in value.split(',').filter(|entry| !entry.is_empty()) {
                    let named = entry.replacen('=', ":", 1).parse();
                    let named = named.map_err(|error| invalid("--add-host", &format!("{error}")));
                    host.extra_hosts.push(named?);
                }
            }
            "shm-size" => host.shm_size = number(key, value)?,
            "memory" => host.memory = number(key, value)?,
            "memswap" => host.memory_swap = number(key, value)?,
            "cpushares" => host.cpu_shares = number(key, value)?,
            "cpuperiod" => host.cpu_period = number(key, value)?,
            "cpuquota" => host.cpu_quota = number(key, value)?,
            "cpusetcpus" => host.cpuset_cpus = value.to_owned(),
            "cpusetmems" => host.cpuset_mems = value.to_owned(),
            "ulimit" => ulimits(host, value)?,
            "cgroup-parent" if value.is_empty() => {}
            "cgroup-parent" => return Err(refused("--cgroup-parent", "leave it out")),
            "hostname" if value.is_empty() => {}
            "hostname" => return Err(refused("a host name of RUN", "leave it out")),
            "requestid" => {
                return Err(refused(&format!("--check or --call ({value})"), "leave it out"));
            }
            "context" => {
                return Err(refused("a build context by its address", "name a directory"));
            }
            "contextsubdir" if value.is_empty() => {}
            "contextsubdir" => return Err(refused("a part of a context", "name its directory")),
            "cache-imports" | "cache-from" if matches!(value, "" | "[]") => {}
            "cache-imports" | "cache-from" => self.warnings.push(
                "of --cache-from no step is used again that was not built on this machine"
                    .to_owned(),
            ),
            // asked for by their own methods, or the client's own notes
            "frontend.caps" | "source" | "cmdline" => {}
            _ if key.starts_with("vcs:") || key.starts_with("sharedkey:localdir:") => {}
            _ if key.starts_with("attest:") && value == "disabled=true" => {}
            _ if key.starts_with("attest:") => {
                return Err(refused(
                    &format!("an attestation ({})", &key["attest:".len()..]),
                    "use --provenance=false --sbom=false",
                ));
            }
            _ => return Err(refused(&format!("the option {key}"), "leave it out")),
        }
        Ok(())
    }

    fn argument(&mut self, name: &str, value: &str) -> Result<(), Status> {
        match name {
            "BUILDKIT_SYNTAX" if !is_own_syntax(value) => {
                return Err(refused(
                    &format!("the syntax {value}"),
                    "the built-in one is that of docker/dockerfile",
                ));
            }
            "BUILDKIT_MULTI_PLATFORM" if matches!(value, "1" | "true") => {
                return Err(refused("a build for several platforms", "name one"));
            }
            "BUILDKIT_SANDBOX_HOSTNAME" => {
                return Err(refused("a host name of RUN", "leave it out"));
            }
            "BUILDKIT_INLINE_CACHE" | "SOURCE_DATE_EPOCH" | "BUILDKIT_DOCKERFILE_CHECK" => {
                self.warnings.push(format!("{name} has no effect on this builder yet"));
            }
            _ => {}
        }
        self.build.arguments.insert(name.to_owned(), Some(value.to_owned()));
        Ok(())
    }
}

/// Whether a front end is the one that is built in.
pub(crate) fn is_own_syntax(reference: &str) -> bool {
    let name = reference.trim_start_matches("docker.io/");
    name == "docker/dockerfile" || name.starts_with("docker/dockerfile:")
}

pub(crate) fn refused(what: &str, instead: &str) -> Status {
    // buildx shows other codes than this one by their names
    Status::unknown(format!("{what} is not supported yet: {instead}"))
}

fn invalid(key: &str, why: &str) -> Status {
    Status::invalid_argument(format!("{key}: {why}"))
}

fn number<T: std::str::FromStr>(key: &str, value: &str) -> Result<T, Status> {
    value.parse().map_err(|_| invalid(key, &format!("{value:?} is no number that it can be")))
}

/// `NAME=SOFT:HARD`, with commas between.
fn ulimits(host: &mut HostConfig, value: &str) -> Result<(), Status> {
    for entry in value.split(',').filter(|entry| !entry.is_empty()) {
        let parts = entry.split_once('=').and_then(|(name, limits)| {
            let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
            Some((name, soft.parse().ok()?, hard.parse().ok()?))
        });
        let (name, soft, hard) = parts
            .ok_or_else(|| invalid("--ulimit", &format!("{entry:?} is not NAME=SOFT:HARD")))?;
        let limit = Ulimit::new(name, soft, hard);
        host.ulimits.push(limit.map_err(|error| invalid("--ulimit", &error.to_string()))?);
    }
    Ok(())
}

fn check_platform(value: &str) -> Result<(), Status> {
    let own = Platform::host();
    let own = format!("{}/{}", own.os, own.architecture);
    let is_own =
        |name: &str| name == own || name.strip_prefix(&own).is_some_and(|it| it.starts_with('/'));
    match value.is_empty() || is_own(value) {
        true => Ok(()),
        false => {
            Err(refused(&format!("--platform {value}"), &format!("this machine builds for {own}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(options: &[(&str, &str)]) -> Result<Options, Status> {
        let pairs = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Options::read(&pairs.collect(), false)
    }

    #[test]
    fn what_buildx_sends_is_understood() {
        let options = read(&[
            ("filename", "deploy/Dockerfile"),
            ("target", "web"),
            ("build-arg:A", "1"),
            ("label:a", "b"),
            ("no-cache", ""),
            ("image-resolve-mode", "local"),
            ("add-hosts", "db=10.0.0.1,six=fd00::1"),
            ("ulimit", "nofile=10:20"),
            ("shm-size", "1048576"),
            ("context:ubuntu", "docker-image://debian:bookworm"),
            ("sharedkey:localdir:context", "x"),
            ("vcs:localdir:context", "."),
            ("frontend.caps", "moby.buildkit.frontend.contexts+forward"),
        ]);
        let options = options.expect("valid");
        let build = &options.build;
        assert_eq!(options.filename, "deploy/Dockerfile");
        assert_eq!(build.target.as_deref(), Some("web"));
        assert_eq!(build.arguments["A"].as_deref(), Some("1"));
        assert_eq!((build.no_cache, build.pull, build.host.shm_size), (true, false, 1 << 20));
        assert_eq!(build.host.extra_hosts.len(), 2);
        assert_eq!(build.host.ulimits, [Ulimit::new("nofile", 10, 20).expect("a limit")]);
        assert_eq!(build.contexts["ubuntu"], "docker-image://debian:bookworm");
        assert!(options.warnings.is_empty());
    }

    #[test]
    fn what_is_not_done_is_said() {
        for (key, value, part) in [
            ("no-cache", "base", "--no-cache-filter"),
            ("platform", "linux/s390x", "--platform linux/s390x"),
            ("platform", "linux/amd64,linux/arm64", "--platform"),
            ("force-network-mode", "host", "--allow network.host"),
            ("context", "https://x/y.git", "address"),
            ("context:src", "local:src", "--build-context src=local:src"),
            ("build-arg:BUILDKIT_SYNTAX", "example/own", "the syntax example/own"),
            ("attest:sbom", "", "--sbom=false"),
            ("ulimit", "nofile", "--ulimit"),
            ("memory", "-1", "memory"),
            ("bogus", "x", "the option bogus"),
            ("requestid", "frontend.lint", "--check"),
        ] {
            let error = read(&[(key, value)]).expect_err(part);
            assert!(error.message().contains(part), "{key}: {}", error.message());
        }
        let warned = read(&[("build-arg:SOURCE_DATE_EPOCH", "0")]).expect("a hint");
        assert!(warned.warnings[0].contains("SOURCE_DATE_EPOCH"));
    }
}
