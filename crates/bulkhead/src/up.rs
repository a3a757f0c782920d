//! `bulkhead up`: engine, registry, control plane, agent and console of one machine, together.
//!
//! There is no clean-shutdown path that a start does not also need: containers belong to the warden
//! and go on when this process ends, however it ends.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use clap::Args;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::background::{self, Level, Log, READY};
use crate::configuration::{Configuration, Own, Sources, Up};
use crate::credentials::Credentials;
use crate::engine::{EngineArguments, Running, data_directory, run_directory};
use crate::failure::Failure;
use crate::listener;

#[derive(Debug, Clone, Args)]
pub struct UpArguments {
    #[command(flatten)]
    pub engine: EngineArguments,
    /// Where the ECS API listens [default: 127.0.0.1:7400]
    #[arg(long)]
    pub api: Option<SocketAddr>,
    /// Where the console listens [default: 127.0.0.1:7480]
    #[arg(long)]
    pub console: Option<SocketAddr>,
    /// Where the registry listens [default: 127.0.0.1:5000]
    #[arg(long)]
    pub registry: Option<SocketAddr>,
    /// The ECS cluster that this machine joins [default: default]
    #[arg(long)]
    pub cluster: Option<String>,
    /// The address by which this machine is reached from outside (default: the default route's)
    #[arg(long)]
    pub public_ip: Option<Ipv4Addr>,
}

pub fn run(arguments: UpArguments) -> Result<(), Failure> {
    let UpArguments { engine, api, console, registry, cluster, public_ip } = arguments;
    let up = Up { api, console, registry, cluster, public_ip };
    let sources = engine.sources(Own { up, ..Own::default() });
    let configuration = sources.read()?;
    if engine.validate {
        eprintln!("configuration OK");
        return Ok(());
    }
    let run = run_directory(&configuration.daemon);
    background::run(&engine.background, &run, &Log::of(&configuration.daemon)?, async |log| {
        serve(configuration, &sources, log).await
    })
}

async fn serve(
    configuration: Configuration,
    sources: &Sources,
    log: &Level,
) -> Result<(), Failure> {
    let (stop, stopped) = watch::channel(false);
    let up = configuration.own.up.clone();
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    // Before anything is made: what cannot listen leaves nothing.
    let registry = listen(up.registry.unwrap_or(local(5000)), "--registry").await?;
    let api = listen(up.api.unwrap_or(local(7400)), "--api").await?;
    let console = listen(up.console.unwrap_or(local(7480)), "--console").await?;
    let data = data_directory(&configuration.daemon);
    let data = data.as_path();
    let mut running = Running::start(configuration, &stop, &stopped).await?;
    let credentials = Credentials::open(data)?;

    let registry_address = registry.local_addr()?;
    let users: Arc<dyn bulkhead_registry::Users> = Arc::new(credentials.clone());
    let storage = data.join("registry");
    let registry_routes = bulkhead_registry::router(&storage, users).map_err(|cause| {
        Failure::new(format!("cannot open the registry's storage {}: {cause}", storage.display()))
    })?;
    spawn_http(registry, registry_routes, stopped.clone());

    let store = Arc::new(open_store(data)?);
    let control = Arc::new(bulkhead_ecs::Control::new(store, bulkhead_ecs::Options::default()));
    let api_address = api.local_addr()?;
    let keys: Arc<dyn bulkhead_aws_api::AccessKeys> = Arc::new(credentials.clone());
    spawn_http(api, bulkhead_aws_api::router(control.clone(), keys), stopped.clone());
    let console_address = console.local_addr()?;
    let users: Arc<dyn bulkhead_console::Users> = Arc::new(credentials.clone());
    spawn_http(console, bulkhead_console::router(control.clone(), users), stopped.clone());

    let listeners = [registry_address, api_address, console_address];
    let agent = agent_options(&up, &credentials, (&running.socket, data), &listeners)?;
    let agent = tokio::spawn(bulkhead_agent::run(agent, stopped.clone()));

    running.announce()?;
    println!("Registry    {registry_address}");
    println!("ECS API     http://{api_address}");
    println!("Console     http://{console_address}/");
    println!("{READY}");

    tokio::select! {
        ended = background::wait_for_end(stopped.clone(), || running.reload(sources, log)) => {
            ended?;
        }
        ended = agent => {
            // Only a state file that cannot be read ends the agent: nothing that a retry would mend.
            if let Ok(Err(cause)) = ended {
                return Err(Failure::new(cause.to_string()));
            }
        }
    }
    stop.send_replace(true);
    running.end().await;
    Ok(())
}

/// The agent of this machine: it knows the engine by its socket and the control plane by its port.
fn agent_options(
    up: &Up,
    credentials: &Credentials,
    (socket, data): (&Path, &Path),
    listeners: &[SocketAddr; 3],
) -> Result<bulkhead_agent::Options, Failure> {
    let addresses = bulkhead_network::Host::open()
        .and_then(|host| host.addresses())
        .map_err(|cause| Failure::new(format!("cannot read this machine's addresses: {cause}")))?;
    let private = addresses.first().copied();
    let [registry, api, _] = listeners;
    let keys = bulkhead_aws_api::sigv4::Credentials {
        access_key_id: credentials.access_key_id.clone(),
        secret_access_key: credentials.secret_access_key.clone(),
    };
    let login = bulkhead_agent::RegistryLogin {
        user: credentials.user.clone(),
        password: credentials.password.clone(),
    };
    Ok(bulkhead_agent::Options {
        cluster: up.cluster.clone().unwrap_or_else(|| "default".to_owned()),
        private_ip: private.map(Into::into),
        public_ip: up.public_ip.or(private).map(Into::into),
        reserved_ports: listeners.iter().map(SocketAddr::port).collect(),
        registries: [(registry.to_string(), login)].into(),
        ..bulkhead_agent::Options::new(
            &format!("http://{api}"),
            keys,
            socket.to_owned(),
            data.join("agent"),
        )
    })
}

/// The control plane's records, beside the engine's and apart from them: on many machines they are in etcd.
fn open_store(data: &Path) -> Result<bulkhead_store::Embedded, Failure> {
    bulkhead_store::Embedded::open(&data.join("control.redb"))
        .map_err(|cause| Failure::new(cause.to_string()))
}

async fn listen(address: SocketAddr, flag: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|cause| {
        Failure::new(format!(
            "cannot listen on {address} ({cause}): choose another address with {flag}"
        ))
    })
}

fn spawn_http(listener: TcpListener, routes: axum::Router, stopped: watch::Receiver<bool>) {
    let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limits = listener::Limits::of(descriptors.unwrap_or(u64::MAX), LISTENERS);
    tokio::spawn(listener::serve(listener, routes, limits, stopped));
}

/// Registry, ECS API and console.
const LISTENERS: u64 = 3;
