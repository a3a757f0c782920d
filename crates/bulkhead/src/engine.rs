//! `bulkhead engine`: the engine alone, with the sockets of Docker's API.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use bulkhead_docker_api::Role;
use bulkhead_engine::Engine;
use clap::Args;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::background::{self, BackgroundArguments, READY};
use crate::failure::Failure;

#[derive(Debug, Clone, Args)]
pub struct EngineArguments {
    #[command(flatten)]
    pub background: BackgroundArguments,
    /// Where images, volumes and records are kept
    #[arg(long, default_value = "/var/lib/bulkhead")]
    pub data: PathBuf,
    /// Where sockets are; emptied by a reboot
    #[arg(long, default_value = "/run/bulkhead")]
    pub run: PathBuf,
    /// One more socket of Docker's API: PATH, or with less than all of it PATH:role=read-only or
    /// PATH:label=KEY[=VALUE]; `group=NAME` is who may use it (repeatable)
    #[arg(long, value_name = "PATH[:OPTION,…]")]
    pub socket: Vec<Socket>,
    /// The bridge that containers are plugged into
    #[arg(long, default_value = "bulkhead0")]
    pub bridge: String,
    /// The bridge's address, such as 172.30.0.1/16 (default: the first free one from 172.17.0.1/16)
    #[arg(long, value_parser = address_and_prefix)]
    pub bridge_address: Option<(Ipv4Addr, u8)>,
    /// The name of the cgroups that hold the containers'
    #[arg(long, default_value = "bulkhead")]
    pub cgroup_parent: String,
    /// How many empty compartments are kept ready for the next containers (0: none)
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(..=64))]
    pub compartments: u8,
    /// A registry to reach by plain HTTP (repeatable)
    #[arg(long)]
    pub insecure_registry: Vec<String>,
    /// Where images without a registry in their name are looked for first, such as
    /// https://mirror.example (repeatable)
    #[arg(long)]
    pub registry_mirror: Vec<bulkhead_image::Mirror>,
    /// Bytes that all containers' logs together may have, such as 10g; then the oldest rotated files of
    /// whoever has most go (default: no limit but each log's own)
    #[arg(long, value_parser = bulkhead_types::parse_size)]
    pub log_budget: Option<u64>,
    /// Who reaches published ports: everywhere; host (this host and its containers alone); or blocks of
    /// addresses besides these, such as 192.0.2.0/24,2001:db8::/32. What the host's firewall drops
    /// is dropped all the same
    #[arg(long, value_name = "POLICY", default_value = "everywhere")]
    pub publish_policy: bulkhead_network::PublishPolicy,
}

fn address_and_prefix(text: &str) -> Result<(Ipv4Addr, u8), String> {
    let wrong = || format!("{text:?} is not an address with a prefix, such as 172.30.0.1/16");
    let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
    let prefix =
        prefix.parse().ok().filter(|prefix| (8..=30).contains(prefix)).ok_or_else(wrong)?;
    Ok((address.parse().map_err(|_| wrong())?, prefix))
}

/// A socket of the API besides the engine's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    path: PathBuf,
    role: Role,
    group: Option<String>,
}

impl FromStr for Socket {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let options = ["role=", "label=", "group="];
        let is_option = |at: &usize| options.iter().any(|word| text[at + 1..].starts_with(word));
        let colon = text.match_indices(':').map(|(at, _)| at).find(is_option);
        let (path, words) = match colon {
            Some(at) => (&text[..at], &text[at + 1..]),
            None => (text, ""),
        };
        if !Path::new(path).is_absolute() || path.ends_with('/') {
            return Err(format!(
                "{path:?} is no place for a socket: name a file from / on, such as \
                 /run/proxy/docker.sock:role=read-only"
            ));
        }
        let (groups, role): (Vec<&str>, Vec<&str>) =
            words.split(',').partition(|word| word.starts_with("group="));
        let role = role.join(",").parse().map_err(|error| format!("{error}"))?;
        let group = groups.first().map(|word| word["group=".len()..].to_owned());
        Ok(Self { path: path.into(), role, group })
    }
}

/// `bulkhead engine`.
pub fn run(arguments: EngineArguments) -> Result<(), Failure> {
    let (background, run) = (arguments.background.clone(), arguments.run.clone());
    background::run(&background, &run, async move {
        let (stop, stopped) = watch::channel(false);
        let running = Running::start(&arguments, &stop, &stopped).await?;
        running.announce()?;
        println!("{READY}");
        background::wait_for_end(stopped).await?;
        stop.send_replace(true);
        running.end().await;
        Ok(())
    })
}

/// An engine with its sockets.
pub struct Running {
    pub engine: Arc<Engine>,
    /// The engine's own.
    pub socket: PathBuf,
    run: PathBuf,
    others: Vec<PathBuf>,
    servers: JoinSet<std::io::Result<()>>,
}

impl Running {
    pub async fn start(
        arguments: &EngineArguments,
        stop: &watch::Sender<bool>,
        stopped: &watch::Receiver<bool>,
    ) -> Result<Self, Failure> {
        let socket = arguments.run.join("docker.sock");
        for (place, other) in arguments.socket.iter().enumerate() {
            let before = arguments.socket[..place].iter().map(|before| &before.path);
            if before.chain([&socket]).any(|path| *path == other.path) {
                return Err(Failure::new(format!(
                    "there are two sockets at {}: give each --socket a path of its own",
                    other.path.display()
                )));
            }
        }
        let engine = Engine::open(options(arguments)?).await;
        let engine = engine.map_err(|cause| Failure::new(cause.to_string()))?;
        bulkhead_docker_api::sweep(&engine);
        let mut running = Self {
            engine,
            socket,
            run: arguments.run.clone(),
            others: Vec::new(),
            servers: JoinSet::new(),
        };
        let own = Socket { path: running.socket.clone(), role: Role::default(), group: None };
        running.serve(&own, stop, stopped)?;
        for other in &arguments.socket {
            running.serve(other, stop, stopped)?;
            running.others.push(other.path.clone());
        }
        Ok(running)
    }

    fn serve(
        &mut self,
        socket: &Socket,
        stop: &watch::Sender<bool>,
        stopped: &watch::Receiver<bool>,
    ) -> Result<(), Failure> {
        let listener = bulkhead_docker_api::listen(&socket.path, socket.group.as_deref());
        let listener = listener.map_err(|cause| {
            Failure::new(format!("cannot listen on {}: {cause}", socket.path.display()))
        })?;
        let engine = Arc::clone(&self.engine);
        let limited = socket.role.is_limited();
        let routes = bulkhead_docker_api::router(engine, stop.clone(), socket.role.clone());
        let most = limited.then_some(LIMITED_CONNECTIONS);
        self.servers.spawn(bulkhead_docker_api::serve(listener, routes, stopped.clone(), most));
        Ok(())
    }

    /// Writes down which process this is, and says where it listens.
    pub fn announce(&self) -> Result<(), Failure> {
        let pid = self.run.join("bulkhead.pid");
        std::fs::write(&pid, format!("{}\n", std::process::id()))
            .map_err(|cause| Failure::new(format!("cannot write {}: {cause}", pid.display())))?;
        for socket in [&self.socket].into_iter().chain(&self.others) {
            println!("Docker API  unix://{}", socket.display());
        }
        tracing::info!("ready");
        Ok(())
    }

    /// What is under way is finished by the next start; waiting for slow clients helps nobody.
    pub async fn end(mut self) {
        self.servers.shutdown().await;
        for socket in &self.others {
            let _ = std::fs::remove_file(socket);
        }
    }
}

/// The clients that a socket with less than all rights may have at once; the next one waits in the
/// kernel. They share the process's descriptors with those of the engine's own.
const LIMITED_CONNECTIONS: usize = 128;

fn options(arguments: &EngineArguments) -> Result<bulkhead_engine::Options, Failure> {
    Ok(bulkhead_engine::Options {
        data: arguments.data.clone(),
        run: arguments.run.clone(),
        program: std::env::current_exe()?,
        bridge: arguments.bridge.clone(),
        bridge_address: arguments.bridge_address,
        cgroup_parent: arguments.cgroup_parent.clone(),
        compartments: arguments.compartments,
        first_id: FIRST_ID,
        registries: bulkhead_image::RegistryOptions {
            insecure_registries: arguments.insecure_registry.clone(),
            registry_mirrors: arguments.registry_mirror.clone(),
        },
        log_budget: arguments.log_budget,
        publish_policy: arguments.publish_policy.clone(),
        aws: aws_environment(),
    })
}

/// Who this machine is to AWS, as the SDKs read it. Of no use to containers, which never see it.
fn aws_environment() -> bulkhead_engine::AwsEnvironment {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    bulkhead_engine::AwsEnvironment {
        region: variable("AWS_REGION"),
        access_key_id: variable("AWS_ACCESS_KEY_ID"),
        secret_access_key: variable("AWS_SECRET_ACCESS_KEY"),
        session_token: variable("AWS_SESSION_TOKEN"),
    }
}

/// The first host id of containers' user namespaces: above what distributions give to users
/// (subuid(5) ranges of useradd start at 100,000 and rarely reach this far), below 2^31.
const FIRST_ID: u32 = 1_000_000_000;

/// Tears down what an engine that is not running any more has left (`bulkhead down`). Returns how many
/// containers ran still.
pub async fn clean_up(data: &Path, run: &Path) -> Result<u64, Failure> {
    use clap::Parser;

    #[derive(Parser)]
    struct Defaults {
        #[command(flatten)]
        arguments: EngineArguments,
    }
    let defaults = Defaults::parse_from(["engine"]).arguments;
    let arguments = EngineArguments {
        data: data.to_owned(),
        run: run.to_owned(),
        // Those that the engine has recorded, whatever flags it was started with.
        bridge: String::new(),
        cgroup_parent: String::new(),
        ..defaults
    };
    let engine = Engine::open_to_tear_down(options(&arguments)?).await;
    let engine = engine.map_err(|cause| Failure::new(cause.to_string()))?;
    let info = engine.info();
    engine.tear_down().await.map_err(|cause| Failure::new(cause.to_string()))?;
    Ok((info.running + info.paused) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_a_path_and_what_it_is_for() {
        let read = |text: &str| text.parse::<Socket>();
        let all = read("/run/a.sock").unwrap();
        assert_eq!((all.path, all.role, all.group), ("/run/a.sock".into(), Role::default(), None));
        let less = read("/run/a:b.sock:label=a=b:c,group=ops,role=read-only").unwrap();
        assert_eq!(less.path, Path::new("/run/a:b.sock"));
        assert_eq!(less.role.to_string(), "role=read-only,label=a=b:c");
        assert_eq!(less.group.as_deref(), Some("ops"));
        for wrong in ["a.sock", "/run/", "/run/a.sock:role=admin", ":role=read-only", "/a:label="] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
