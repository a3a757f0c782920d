//! `bulkhead up`: engine, registry, control plane, agent and console of one machine, together.
//!
//! There is no clean-shutdown path that a start does not also need: containers belong to the warden
//! and go on when this process ends, however it ends.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulkhead_engine::Engine;
use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::credentials::Credentials;
use crate::failure::Failure;
use crate::listener;
use crate::log_file::LogFile;

#[derive(Debug, Clone, Args)]
pub struct UpArguments {
    /// Return when everything is ready, and go on in the background
    #[arg(short, long)]
    pub detach: bool,
    /// Where images, volumes and records are kept
    #[arg(long, default_value = "/var/lib/bulkhead")]
    pub data: PathBuf,
    /// Where sockets are; emptied by a reboot
    #[arg(long, default_value = "/run/bulkhead")]
    pub run: PathBuf,
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
    /// Where the ECS API listens
    #[arg(long, default_value = "127.0.0.1:7400")]
    pub api: SocketAddr,
    /// Where the console listens
    #[arg(long, default_value = "127.0.0.1:7480")]
    pub console: SocketAddr,
    /// Where the registry listens
    #[arg(long, default_value = "127.0.0.1:5000")]
    pub registry: SocketAddr,
    /// The ECS cluster that this machine joins
    #[arg(long, default_value = "default")]
    pub cluster: String,
    /// The address by which this machine is reached from outside (default: the default route's)
    #[arg(long)]
    pub public_ip: Option<Ipv4Addr>,
    /// A registry to reach by plain HTTP (repeatable)
    #[arg(long)]
    pub insecure_registry: Vec<String>,
    /// Where images without a registry in their name are looked for first, such as
    /// https://mirror.example (repeatable)
    #[arg(long)]
    pub registry_mirror: Vec<bulkhead_image::Mirror>,
    /// Set by --detach: this is the process in the background
    #[arg(long, hide = true)]
    pub in_background: bool,
}

fn address_and_prefix(text: &str) -> Result<(Ipv4Addr, u8), String> {
    let wrong = || format!("{text:?} is not an address with a prefix, such as 172.30.0.1/16");
    let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
    let prefix =
        prefix.parse().ok().filter(|prefix| (8..=30).contains(prefix)).ok_or_else(wrong)?;
    Ok((address.parse().map_err(|_| wrong())?, prefix))
}

pub fn run(arguments: UpArguments) -> Result<(), Failure> {
    crate::host::check()?;
    if arguments.detach {
        return detach(&arguments);
    }
    if arguments.in_background {
        // Not a group leader, being a fresh child: this cannot fail, and nothing depends on it.
        let _ = rustix::process::setsid();
    }
    let filter = tracing_subscriber::EnvFilter::try_from_env("BULKHEAD_LOG")
        .unwrap_or_else(|_| "info".into());
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter);
    if arguments.in_background {
        let path = log_path(&arguments.run);
        let log = LogFile::of_process(path.clone());
        let log = log.map_err(|cause| unwritable(&path, &cause))?;
        subscriber.with_ansi(false).with_writer(Arc::new(log)).init();
    } else {
        subscriber
            .with_writer(std::io::stderr)
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .init();
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(arguments))
}

/// Starts this command again in a session of its own, and waits for the line that says it is ready.
fn detach(arguments: &UpArguments) -> Result<(), Failure> {
    let is_new = !arguments.run.exists();
    std::fs::create_dir_all(&arguments.run).map_err(|cause| {
        Failure::new(format!("cannot make {}: {cause}", arguments.run.display()))
    })?;
    let path = log_path(&arguments.run);
    let log = crate::log_file::open(&path).map_err(|cause| unwritable(&path, &cause))?;
    let begin = log.metadata()?.len();
    let rest =
        std::env::args_os().skip(1).filter(|argument| argument != "-d" && argument != "--detach");
    let program = std::env::current_exe()?;
    let mut child = std::process::Command::new(program)
        .args(rest)
        .arg("--in-background")
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(log)
        .spawn()?;
    let output = child.stdout.take().expect("it was piped just above");
    for line in BufReader::new(output).lines() {
        let line = line?;
        match line.as_str() {
            READY => return Ok(()),
            line => println!("{line}"),
        }
    }
    let status = child.wait()?;
    let mut said = std::fs::read(&path).unwrap_or_default();
    // What earlier ones have said is no reason of this one's.
    said.drain(..said.len().min(usize::try_from(begin).unwrap_or(usize::MAX)));
    let said = String::from_utf8_lossy(&said);
    let last = said.lines().rfind(|line| line.starts_with("bulkhead: ")).unwrap_or_default();
    let reason = match last.strip_prefix("bulkhead: ") {
        Some(reason) => {
            // Said in full here, and nothing else was made: then nothing of it stays.
            let only_log = said.lines().count() == 1 && begin == 0;
            if is_new && only_log && std::fs::remove_file(&path).is_ok() {
                let _ = std::fs::remove_dir(&arguments.run);
            }
            reason.to_owned()
        }
        None => format!("it did not start ({status}); see {}", path.display()),
    };
    Err(Failure::new(reason))
}

fn log_path(run: &Path) -> PathBuf {
    run.join("bulkhead.log")
}

fn unwritable(path: &Path, cause: &std::io::Error) -> Failure {
    Failure::new(format!("cannot write {}: {cause}", path.display()))
}

/// What the process in the background says when every socket listens.
const READY: &str = "bulkhead is up";

async fn serve(arguments: UpArguments) -> Result<(), Failure> {
    let (stop, stopped) = watch::channel(false);
    // Before anything is made: what cannot listen leaves nothing.
    let registry = listen(arguments.registry, "--registry").await?;
    let api = listen(arguments.api, "--api").await?;
    let console = listen(arguments.console, "--console").await?;
    let engine = Engine::open(engine_options(&arguments)?).await;
    let engine = engine.map_err(|cause| Failure::new(cause.to_string()))?;
    let credentials = Credentials::open(&arguments.data)?;

    let socket = arguments.run.join("docker.sock");
    let docker = bulkhead_docker_api::listen(&socket, None)
        .map_err(|cause| Failure::new(format!("cannot listen on {}: {cause}", socket.display())))?;
    let docker_routes = bulkhead_docker_api::router(engine.clone(), stop.clone());
    let docker = tokio::spawn(bulkhead_docker_api::serve(docker, docker_routes, stopped.clone()));

    let registry_address = registry.local_addr()?;
    let users: Arc<dyn bulkhead_registry::Users> = Arc::new(credentials.clone());
    let storage = arguments.data.join("registry");
    let registry_routes = bulkhead_registry::router(&storage, users).map_err(|cause| {
        Failure::new(format!("cannot open the registry's storage {}: {cause}", storage.display()))
    })?;
    spawn_http(registry, registry_routes, stopped.clone());

    let store = Arc::new(open_store(&arguments.data)?);
    let control = Arc::new(bulkhead_ecs::Control::new(store, bulkhead_ecs::Options::default()));
    let api_address = api.local_addr()?;
    let keys: Arc<dyn bulkhead_aws_api::AccessKeys> = Arc::new(credentials.clone());
    spawn_http(api, bulkhead_aws_api::router(control.clone(), keys), stopped.clone());
    let console_address = console.local_addr()?;
    let users: Arc<dyn bulkhead_console::Users> = Arc::new(credentials.clone());
    spawn_http(console, bulkhead_console::router(control.clone(), users), stopped.clone());

    let listeners = [registry_address, api_address, console_address];
    let agent = agent_options(&arguments, &credentials, &socket, &listeners)?;
    let agent = tokio::spawn(bulkhead_agent::run(agent, stopped.clone()));

    let pid = arguments.run.join("bulkhead.pid");
    std::fs::write(&pid, format!("{}\n", std::process::id()))
        .map_err(|cause| Failure::new(format!("cannot write {}: {cause}", pid.display())))?;
    println!("Docker API  unix://{}", socket.display());
    println!("Registry    {registry_address}");
    println!("ECS API     http://{api_address}");
    println!("Console     http://{console_address}/");
    println!("{READY}");
    tracing::info!("ready");

    tokio::select! {
        ended = wait_for_end(stopped.clone()) => ended?,
        ended = agent => {
            // Only a state file that cannot be read ends the agent: nothing that a retry would mend.
            if let Ok(Err(cause)) = ended {
                return Err(Failure::new(cause.to_string()));
            }
        }
    }
    stop.send_replace(true);
    // What is under way is finished by the next start; waiting for slow clients helps nobody.
    docker.abort();
    Ok(())
}

fn engine_options(arguments: &UpArguments) -> Result<bulkhead_engine::Options, Failure> {
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
    })
}

/// The first host id of containers' user namespaces: above what distributions give to users
/// (subuid(5) ranges of useradd start at 100,000 and rarely reach this far), below 2^31.
const FIRST_ID: u32 = 1_000_000_000;

/// The agent of this machine: it knows the engine by its socket and the control plane by its port.
fn agent_options(
    arguments: &UpArguments,
    credentials: &Credentials,
    socket: &Path,
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
        cluster: arguments.cluster.clone(),
        private_ip: private.map(Into::into),
        public_ip: arguments.public_ip.or(private).map(Into::into),
        reserved_ports: listeners.iter().map(SocketAddr::port).collect(),
        registries: [(registry.to_string(), login)].into(),
        ..bulkhead_agent::Options::new(
            &format!("http://{api}"),
            keys,
            socket.to_owned(),
            arguments.data.join("agent"),
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

async fn wait_for_end(mut stopped: watch::Receiver<bool>) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = stopped.wait_for(|stop| *stop) => {}
    }
    Ok(())
}

/// Tears down what an engine that is not running any more has left (`bulkhead down`). Returns how many
/// containers ran still.
pub async fn clean_up(data: &Path, run: &Path) -> Result<u64, Failure> {
    use clap::Parser;

    #[derive(Parser)]
    struct Defaults {
        #[command(flatten)]
        arguments: UpArguments,
    }
    let defaults = Defaults::parse_from(["up"]).arguments;
    let arguments = UpArguments {
        data: data.to_owned(),
        run: run.to_owned(),
        // Those that the engine has recorded, whatever flags it was started with.
        bridge: String::new(),
        cgroup_parent: String::new(),
        ..defaults
    };
    let engine = Engine::open_to_tear_down(engine_options(&arguments)?).await;
    let engine = engine.map_err(|cause| Failure::new(cause.to_string()))?;
    let info = engine.info();
    engine.tear_down().await.map_err(|cause| Failure::new(cause.to_string()))?;
    Ok((info.running + info.paused) as u64)
}

/// A process that serves a socket, to be waited for.
#[derive(Debug)]
pub struct Server(rustix::fd::OwnedFd);

impl Server {
    /// The process that listens on `socket`, if one does.
    pub fn find(socket: &Path) -> Option<Self> {
        let stream = std::os::unix::net::UnixStream::connect(socket).ok()?;
        let peer = rustix::net::sockopt::socket_peercred(&stream).ok()?;
        rustix::process::pidfd_open(peer.pid, rustix::process::PidfdFlags::empty()).ok().map(Self)
    }

    /// Returns when it has ended, or says that it has not within half a minute.
    pub fn wait(&self) -> Result<(), Failure> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let timeout = Timespec { tv_sec: 30, tv_nsec: 0 };
        let mut polled = [PollFd::new(&self.0, PollFlags::IN)];
        match poll(&mut polled, Some(&timeout)) {
            Ok(0) => Err(Failure::new("the engine did not end within 30 seconds: see its log")),
            Ok(_) => Ok(()),
            Err(cause) => Err(std::io::Error::from(cause).into()),
        }
    }
}
