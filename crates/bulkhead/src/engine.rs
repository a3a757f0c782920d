//! `bulkhead engine`: the engine alone, with the sockets of Docker's API.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulkhead_docker_api::{Listener, Role, Tls, TlsFiles};
use bulkhead_engine::Engine;
use clap::Args;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::address::{Place, Socket};
use crate::background::{self, BackgroundArguments, Level, Log, READY};
use crate::configuration::{Configuration, DAEMON_FILE, Daemon, DockerdFlags, Own, Sources};
use crate::failure::Failure;
use crate::inherited::Inherited;
use crate::leftover;

#[derive(Debug, Clone, Args)]
pub struct EngineArguments {
    #[command(flatten)]
    pub background: BackgroundArguments,
    /// Docker's daemon.json to read [default: /etc/bulkhead/daemon.json, if it is there]
    #[arg(long, value_name = "FILE")]
    pub config_file: Option<PathBuf>,
    /// What Docker has no word for, in TOML [default: /etc/bulkhead/bulkhead.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    pub bulkhead_file: Option<PathBuf>,
    /// Check the configuration, and do nothing else
    #[arg(long)]
    pub validate: bool,
    /// One more socket of Docker's API: PATH, or with less than all of it PATH:role=read-only or
    /// PATH:label=KEY[=VALUE]; `group=NAME` is who may use it (repeatable)
    #[arg(long, value_name = "PATH[:OPTION,…]")]
    pub socket: Vec<Socket>,
    /// How many empty compartments are kept ready for the next containers (0: none) [default: 2]
    #[arg(long, value_parser = clap::value_parser!(u8).range(..=64))]
    pub compartments: Option<u8>,
    /// Bytes that all containers' logs together may have, such as 10g; then the oldest rotated files of
    /// whoever has most go (default: no limit but each log's own)
    #[arg(long)]
    pub log_budget: Option<String>,
    /// Who reaches published ports: everywhere (the default); host (this host and its containers alone);
    /// or blocks of addresses besides these, such as 192.0.2.0/24,2001:db8::/32. What the host's
    /// firewall drops is dropped all the same
    #[arg(long, value_name = "POLICY")]
    pub publish_policy: Option<bulkhead_network::PublishPolicy>,
    #[command(flatten)]
    pub dockerd: DockerdFlags,
}

impl EngineArguments {
    /// Where configuration comes from; `own` is what flags of other commands say.
    pub fn sources(&self, own: Own) -> Sources {
        Sources {
            flags: self.dockerd.clone(),
            daemon_file: self.config_file.clone(),
            own_file: self.bulkhead_file.clone(),
            own_flags: Own {
                compartments: self.compartments,
                log_budget: self.log_budget.clone(),
                publish_policy: self.publish_policy.as_ref().map(ToString::to_string),
                ..own
            },
            sockets: self.socket.clone(),
            default_file: DAEMON_FILE,
        }
    }
}

/// `bulkhead engine`.
pub fn run(arguments: EngineArguments) -> Result<(), Failure> {
    let sources = arguments.sources(Own::default());
    serve(&arguments.background, arguments.validate, sources)
}

/// The engine of a configuration, until it is asked to end.
pub fn serve(
    background: &BackgroundArguments,
    validate: bool,
    sources: Sources,
) -> Result<(), Failure> {
    let configuration = sources.read()?;
    if validate {
        eprintln!("configuration OK");
        return Ok(());
    }
    let run = run_directory(&configuration.daemon);
    background::run(background, &run, &Log::of(&configuration.daemon)?, async |log| {
        let (stop, stopped) = watch::channel(false);
        let mut running = Running::start(configuration, &stop, &stopped).await?;
        running.announce()?;
        println!("{READY}");
        background::wait_for_end(stopped, || running.reload(&sources, log)).await?;
        stop.send_replace(true);
        running.end().await;
        Ok(())
    })
}

pub fn run_directory(daemon: &Daemon) -> PathBuf {
    daemon.exec_root.clone().unwrap_or_else(|| "/run/bulkhead".into())
}

pub fn data_directory(daemon: &Daemon) -> PathBuf {
    daemon.data_root.clone().unwrap_or_else(|| "/var/lib/bulkhead".into())
}

/// An engine with its sockets.
pub struct Running {
    pub engine: Arc<Engine>,
    /// The engine's own.
    pub socket: PathBuf,
    run: PathBuf,
    /// The others, as they are announced.
    others: Vec<String>,
    paths: Vec<PathBuf>,
    tls: Option<Arc<Tls>>,
    configuration: Configuration,
    servers: JoinSet<std::io::Result<()>>,
}

impl Running {
    pub async fn start(
        configuration: Configuration,
        stop: &watch::Sender<bool>,
        stopped: &watch::Receiver<bool>,
    ) -> Result<Self, Failure> {
        let run = run_directory(&configuration.daemon);
        let socket = run.join("docker.sock");
        // The engine's own is there in any case; who names it again asks for nothing more.
        let is_own = |other: &&Socket| {
            other.path() == Some(&socket) && !other.role.is_limited() && other.group.is_none()
        };
        let sockets: Vec<Socket> =
            configuration.sockets.iter().filter(|other| !is_own(other)).cloned().collect();
        for (place, other) in sockets.iter().enumerate() {
            let before = sockets[..place].iter().map(|before| &before.place);
            let own = Place::Unix(socket.clone());
            if before.chain([&own]).any(|place| *place == other.place) {
                return Err(Failure::new(match other.path() {
                    Some(path) => format!(
                        "there are two sockets at {}: give each a path of its own",
                        path.display()
                    ),
                    None => format!("{} is named twice: name it once", other.place),
                }));
            }
        }
        let has_network = sockets.iter().any(|other| matches!(other.place, Place::Tcp(..)));
        let tls = tls(&configuration.daemon, has_network)?;
        let inherited = sockets.iter().any(|other| matches!(other.place, Place::Inherited(_)));
        let mut inherited = if inherited { Inherited::take()? } else { Inherited::default() };
        let options = options(&configuration)?;
        let engine = Engine::open(options).await;
        let engine = engine.map_err(|cause| Failure::new(cause.to_string()))?;
        for remark in &configuration.remarks {
            tracing::warn!("configuration: {remark}");
        }
        bulkhead_docker_api::sweep(&engine);
        let group = configuration.daemon.group.clone();
        let mut running = Self {
            engine,
            socket: socket.clone(),
            run,
            others: Vec::new(),
            paths: Vec::new(),
            tls,
            configuration,
            servers: JoinSet::new(),
        };
        let paths: Vec<PathBuf> =
            sockets.iter().filter_map(Socket::path).map(Path::to_owned).collect();
        leftover::record(&running.run, &paths)?;
        let own = Socket { place: Place::Unix(socket), role: Role::default(), group };
        running.serve(&own, &mut inherited, (stop, stopped)).await?;
        running.others.clear();
        running.paths.clear();
        for other in &sockets {
            running.serve(other, &mut inherited, (stop, stopped)).await?;
        }
        Ok(running)
    }

    async fn serve(
        &mut self,
        socket: &Socket,
        inherited: &mut Inherited,
        (stop, stopped): (&watch::Sender<bool>, &watch::Receiver<bool>),
    ) -> Result<(), Failure> {
        let failed = |place: &dyn std::fmt::Display, cause: std::io::Error| {
            Failure::new(format!("cannot listen on {place}: {cause}"))
        };
        let listeners = match &socket.place {
            Place::Unix(path) => {
                if let Some(parent) = path.parent() {
                    std::fs::create_dir_all(parent).map_err(|it| failed(&path.display(), it))?;
                }
                let listener = bulkhead_docker_api::listen(path, socket.group.as_deref());
                let listener = listener.map_err(|cause| failed(&path.display(), cause))?;
                self.paths.push(path.clone());
                vec![(socket.place.to_string(), Listener::Unix(listener))]
            }
            Place::Tcp(address, port) => {
                let port = port.unwrap_or(if self.tls.is_some() { 2376 } else { 2375 });
                let listener = tokio::net::TcpListener::bind((*address, port)).await;
                let listener = listener.map_err(|cause| failed(&socket.place, cause))?;
                let place = Place::Tcp(*address, Some(listener.local_addr()?.port()));
                self.warn_of(*address, &place);
                vec![(place.to_string(), Listener::Tcp(listener, self.tls.clone()))]
            }
            Place::Inherited(number) => inherited.listeners(*number, self.tls.as_ref())?,
        };
        for (name, listener) in listeners {
            let engine = Arc::clone(&self.engine);
            let most = match listener {
                _ if socket.role.is_limited() => Some(LIMITED_CONNECTIONS),
                Listener::Tcp(..) => Some(NETWORK_CONNECTIONS),
                Listener::Unix(_) => None,
            };
            let routes = bulkhead_docker_api::router(engine, stop.clone(), socket.role.clone());
            self.servers.spawn(bulkhead_docker_api::serve(listener, routes, stopped.clone(), most));
            self.others.push(name);
        }
        Ok(())
    }

    /// Says who is let in that nobody has let in by name.
    fn warn_of(&self, address: IpAddr, place: &Place) {
        let checked = self.tls.is_some() && self.configuration.daemon.tlsverify == Some(true);
        if !checked {
            let whom = match address.is_loopback() {
                true => "every user and program of this machine",
                false => "everybody who reaches this address",
            };
            tracing::warn!("{place}: without --tlsverify {whom} is as good as root here");
        }
    }

    /// Writes down which process this is, and says where it listens.
    pub fn announce(&self) -> Result<(), Failure> {
        let own = self.run.join("bulkhead.pid");
        for pid in [Some(&own), self.configuration.daemon.pidfile.as_ref()].into_iter().flatten() {
            std::fs::write(pid, format!("{}\n", std::process::id())).map_err(|cause| {
                Failure::new(format!("cannot write {}: {cause}", pid.display()))
            })?;
        }
        println!("Docker API  unix://{}", self.socket.display());
        for other in &self.others {
            println!("Docker API  {other}");
        }
        for remark in &self.configuration.remarks {
            println!("Note        {remark}");
        }
        tracing::info!("ready");
        Ok(())
    }

    /// Reads the configuration again (SIGHUP). What is wrong changes nothing, and is told in the log.
    pub fn reload(&mut self, sources: &Sources, log: &Level) {
        match self.reloaded(sources, log) {
            Ok(()) => tracing::info!("the configuration was read again"),
            Err(failure) => {
                tracing::error!("the configuration stays as it was: {}", failure.message);
            }
        }
    }

    fn reloaded(&mut self, sources: &Sources, log: &Level) -> Result<(), Failure> {
        let read = sources.read()?;
        // What needs a restart stays as it is: of TLS whether there is any, and whom it lets in.
        let new = self.configuration.reloaded(&read).map_err(Failure::new)?;
        let settings = new.daemon.settings().map_err(Failure::new)?;
        let level = Log::of(&new.daemon)?;
        if let (Some(tls), Some(files)) = (&self.tls, tls_files(&new.daemon)?) {
            tls.reload(&files).map_err(|cause| Failure::new(cause.to_string()))?;
        }
        log.set(&level);
        for name in self.configuration.stays(&read) {
            tracing::warn!(
                "configuration: {name} has changed, which takes effect at the next start"
            );
        }
        for remark in new.remarks.iter().filter(|it| !self.configuration.remarks.contains(it)) {
            tracing::warn!("configuration: {remark}");
        }
        let attributes = new.daemon.attributes(&settings);
        self.engine.reload(settings, attributes);
        self.configuration = new;
        Ok(())
    }

    /// What is under way is finished by the next start; waiting for slow clients helps nobody.
    pub async fn end(mut self) {
        self.servers.shutdown().await;
        for path in self.paths.iter().chain(&self.configuration.daemon.pidfile) {
            let _ = std::fs::remove_file(path);
        }
        leftover::forget(&self.run);
    }
}

/// The clients that a socket with less than all rights may have at once; the next one waits in the
/// kernel. They share the process's descriptors with those of the engine's own.
const LIMITED_CONNECTIONS: usize = 128;

/// The same for a listener that strangers can connect to.
const NETWORK_CONNECTIONS: usize = 512;

/// The TLS of `tcp://`, which is only left out where that is said.
fn tls(daemon: &Daemon, has_network: bool) -> Result<Option<Arc<Tls>>, Failure> {
    match tls_files(daemon)? {
        Some(_) if !has_network && daemon.tlscert.is_none() => Ok(None),
        Some(files) => {
            let tls = Tls::new(&files).map_err(|cause| Failure::new(cause.to_string()))?;
            Ok(Some(Arc::new(tls)))
        }
        None if has_network && daemon.tls.is_none() => Err(Failure::new(
            "whoever reaches tcp:// is as good as root on this machine: say --tlsverify with \
             --tlscacert, --tlscert and --tlskey, or --tls=false if everybody may",
        )),
        None => Ok(None),
    }
}

/// The files of TLS, if it is asked for.
fn tls_files(daemon: &Daemon) -> Result<Option<TlsFiles>, Failure> {
    let verify = daemon.tlsverify == Some(true);
    if daemon.tls == Some(false) && verify {
        return Err(Failure::new("tls is false and tlsverify is true: leave one of them out"));
    }
    if !verify && daemon.tls != Some(true) {
        return Ok(None);
    }
    let home = std::env::var_os("DOCKER_CERT_PATH").map(PathBuf::from);
    let home = home.unwrap_or_else(crate::commands::logins::config_directory);
    let file =
        |named: &Option<PathBuf>, name: &str| named.clone().unwrap_or_else(|| home.join(name));
    Ok(Some(TlsFiles {
        certificate: file(&daemon.tlscert, "cert.pem"),
        key: file(&daemon.tlskey, "key.pem"),
        ca: verify.then(|| file(&daemon.tlscacert, "ca.pem")),
    }))
}

fn options(configuration: &Configuration) -> Result<bulkhead_engine::Options, Failure> {
    let Configuration { daemon, own, .. } = configuration;
    let said = |text: &Option<String>, usual: &str| match text.as_deref() {
        None | Some("") => usual.to_owned(),
        Some(text) => text.to_owned(),
    };
    Ok(bulkhead_engine::Options {
        data: data_directory(daemon),
        run: run_directory(daemon),
        bridge: said(&daemon.bridge, "bulkhead0"),
        bridge_address: daemon.bridge_address().map_err(Failure::new)?,
        default_network: daemon.default_network().map_err(Failure::new)?,
        address_pools: daemon.address_pools().map_err(Failure::new)?,
        ip_forward: daemon.ip_forward.unwrap_or(true),
        cgroup_parent: said(&daemon.cgroup_parent, "bulkhead"),
        compartments: own.compartments.unwrap_or(2),
        first_id: FIRST_ID,
        log_budget: own.log_budget().map_err(Failure::new)?,
        publish_policy: own.publish_policy().map_err(Failure::new)?,
        aws: aws_environment(),
        settings: daemon.settings().map_err(Failure::new)?,
        ..bulkhead_engine::Options::new(std::env::current_exe()?)
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
    let options = bulkhead_engine::Options {
        data: data.to_owned(),
        run: run.to_owned(),
        // Those that the engine has recorded, whatever it was started with.
        bridge: String::new(),
        cgroup_parent: String::new(),
        first_id: FIRST_ID,
        ..bulkhead_engine::Options::new(std::env::current_exe()?)
    };
    let engine = Engine::open_to_tear_down(options).await;
    let engine = engine.map_err(|cause| Failure::new(cause.to_string()))?;
    let info = engine.info();
    engine.tear_down().await.map_err(|cause| Failure::new(cause.to_string()))?;
    Ok((info.running + info.paused) as u64)
}
