mod attach;
mod build_cache;
mod build_step;
mod changes;
mod compress_logs;
mod connect;
mod content;
mod create;
mod etc_files;
mod events;
mod exit;
mod files;
mod firewall;
mod health;
mod info;
mod kill;
mod log_budget;
mod logs;
mod networks;
mod oom;
mod pause;
mod recover;
mod remove;
mod rename;
mod resolver;
mod settle;
mod ship;
mod sizes;
mod specification;
mod start;
mod stats;
mod stop;
mod top;
mod unlink;
mod update;
mod user_mounts;
mod volumes;
mod wait;
mod warden_death;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use bulkhead_image::{Content, RegistryClient};
use bulkhead_store::put;
use bulkhead_types::Id;
use bulkhead_warden::Client;
use tokio::sync::mpsc;

use crate::allocation::AllocationLock;
use crate::blocking::{Blocking, blocking};
use crate::build_cache::Steps;
use crate::cgroups::Cgroups;
use crate::containers::{ContainerSnapshot, Containers};
use crate::data_dir::DataDir;
use crate::error::io_error;
use crate::events::Events;
use crate::exclusive::Exclusive;
use crate::execs::Execs;
use crate::images::Images;
use crate::log_budget::LogBudget;
use crate::log_changes::LogWatch;
use crate::name_service::NameService;
use crate::networks::Networks;
use crate::records::Records;
use crate::shipping::Shipping;
use crate::user_ids::UserIds;
use crate::volumes::Volumes;
use crate::{Container, EngineError, Options, Settings};

pub use build_cache::BuildCache;
pub use changes::{Change, ChangeKind};
pub use events::{ContainerAction, ImageAction};
pub use files::ContainerFiles;
pub use sizes::ContainerSize;

/// One engine on one data directory. Cheap to share: put it in an [`Arc`].
///
/// It is made of components, each with its own lock, its part of the records and its recovery:
/// [`Containers`], [`Images`], [`Networks`], [`Volumes`], [`Execs`] and the build cache's [`Steps`].
/// What concerns one of them is asked of it; what concerns several is a method of the engine, in the
/// file of its verb.
///
/// Locks are taken in this order, each only while those above it may be held:
/// 1. a container's `operation` (asynchronous): by whoever changes or starts the container;
/// 2. `cleanup_lock` and the images' lease of content (asynchronous, for reading: never waited for
///    under another lock, only tried);
/// 3. `allocation`, over the flush of the disk;
/// 4. that of `networks` while links are taken down;
/// 5. that inside `records`, over the flush of the disk;
/// 6. that of `containers`, for moments: nothing blocks under it;
/// 7. the locks inside the other components: one at a time, inside one of their methods.
#[derive(Debug)]
pub struct Engine {
    /// Where tasks are started by what runs on other threads.
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) options: Options,
    /// Of the options what may have been replaced since.
    settings: RwLock<Arc<Settings>>,
    /// This machine's name, for containers that share its UTS namespace.
    pub(crate) hostname: String,
    /// Names this engine in `docker info`.
    pub(crate) id: Id,
    pub(crate) records: Arc<Records>,
    pub(crate) content: Arc<Content>,
    pub(crate) warden: Client,
    pub(crate) cgroups: Cgroups,
    pub(crate) user_ids: UserIds,
    pub(crate) events: Arc<Events>,
    pub(crate) log_changes: LogWatch,
    pub(crate) shipping: Shipping,
    pub(crate) log_budget: LogBudget,
    /// What came of the last warden that died under this engine.
    pub(crate) warden_death: Mutex<Option<String>>,
    pub(crate) steps: Steps,
    pub(crate) containers: Containers,
    pub(crate) images: Images,
    pub(crate) networks: Networks,
    pub(crate) name_service: NameService,
    pub(crate) volumes: Volumes,
    pub(crate) execs: Execs,
    /// Probes are started some at a time.
    pub(crate) probe_starts: tokio::sync::Semaphore,
    /// Set by a tear-down: see [`Engine::is_ending`].
    pub(crate) ending: AtomicBool,
    pub(crate) allocation: AllocationLock,
    /// Held for reading while a container that is gone for users is still being cleaned up.
    pub(crate) cleanup_lock: Arc<tokio::sync::RwLock<()>>,
    pub(crate) data_dir: Arc<DataDir>,
    _exclusive: Exclusive,
}

impl Engine {
    /// Takes the data directory's lock, finds or starts the warden, and makes what is found match
    /// what is recorded: adopts running containers, records exits that happened meanwhile, removes
    /// orphans, restarts what its policy says.
    pub async fn open(options: Options) -> Result<Arc<Self>, EngineError> {
        Self::open_for(options, Purpose::Serve).await
    }

    /// Opens an engine that starts nothing, for [`Engine::tear_down`] where no engine runs.
    pub async fn open_to_tear_down(options: Options) -> Result<Arc<Self>, EngineError> {
        Self::open_for(options, Purpose::TearDown).await
    }

    async fn open_for(options: Options, purpose: Purpose) -> Result<Arc<Self>, EngineError> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Handle::current();
        let engine = blocking(move |may_block| {
            Self::assemble(may_block, options, sender, runtime).map(Arc::new)
        })
        .await?;
        engine.ending.store(purpose == Purpose::TearDown, Ordering::Release);
        let recovering = Arc::clone(&engine);
        let restart = blocking(move |may_block| recovering.recover(may_block)).await?;
        // Only now: an exit that the warden told meanwhile is looked at with the records in place.
        let watched = Arc::downgrade(&engine);
        std::thread::Builder::new()
            .name("warden events".to_owned())
            .spawn(move || watch_warden(&watched, receiver))
            .map_err(io_error("start a thread"))?;
        for id in restart.into_iter().filter(|_| purpose == Purpose::Serve) {
            engine.restart_later(id, std::time::Duration::ZERO);
        }
        engine.watch_log_budget();
        if purpose == Purpose::Serve {
            engine.watch_firewall();
            engine.watch_rotations();
        }
        Ok(engine)
    }

    fn assemble(
        _: &Blocking,
        options: Options,
        sender: mpsc::UnboundedSender<News>,
        runtime: tokio::runtime::Handle,
    ) -> Result<Self, EngineError> {
        let exclusive = Exclusive::take(&options.run, &options.data)?;
        let data_dir = Arc::new(DataDir::open(&options.data)?);
        let records = Arc::new(Records::open(Arc::clone(&data_dir))?);
        let store = records.store();
        let content = Arc::new(Content::open(&options.data.join("content"))?);
        let (events, allocation) = (Arc::<Events>::default(), AllocationLock::default());
        let networks = Networks::open(
            Arc::clone(&records),
            &options,
            Arc::clone(&events),
            allocation.clone(),
            runtime.clone(),
        )?;
        let socket = options.run.join("warden.sock");
        let (gone, resolver_gone) = (sender.clone(), sender.clone());
        // Both fail only while the process ends: the next engine asks the warden for exits.
        let on_event = move |event| drop(sender.send(News::Event(event)));
        let on_gone = move || drop(gone.send(News::Gone));
        let warden = Client::connect_or_start(&socket, &options.program, on_event, on_gone)?;
        let name_service = NameService::new(
            options.run.join("resolver.sock"),
            options.program.clone(),
            move || drop(resolver_gone.send(News::ResolverGone)),
        );
        warden.compartments(Some(options.compartments))?;
        let user_ids = UserIds::probe(options.first_id, &warden, &data_dir)?;
        let id = match bulkhead_store::load(store, "engine/id")? {
            Some(id) => id,
            None => {
                let id = Id::random();
                bulkhead_store::Store::commit(store, &[], &[put("engine/id", &id)])?;
                id
            }
        };
        let cgroups = Cgroups::open(store, &options.cgroup_parent, id)?;
        let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let registry = RegistryClient::new(options.settings.registries.clone());
        let images = Images::new(
            Arc::clone(&records),
            Arc::clone(&content),
            registry,
            Arc::clone(&events),
            allocation.clone(),
        );
        let volumes = Volumes::new(
            Arc::clone(&records),
            Arc::clone(&data_dir),
            Arc::clone(&events),
            allocation.clone(),
        );
        let shipping = Shipping::new(runtime.clone(), &options.data, options.aws.clone());
        Ok(Self {
            runtime,
            settings: RwLock::new(Arc::new(options.settings.clone())),
            options,
            hostname,
            id,
            data_dir,
            _exclusive: exclusive,
            containers: Containers::new(Arc::clone(&records)),
            records,
            content,
            warden,
            networks,
            name_service,
            cgroups,
            user_ids,
            events,
            log_changes: LogWatch::default(),
            shipping,
            log_budget: LogBudget::default(),
            warden_death: Mutex::default(),
            steps: Steps::default(),
            images,
            volumes,
            execs: Execs::default(),
            probe_starts: tokio::sync::Semaphore::new(health::STARTED_AT_ONCE),
            ending: AtomicBool::new(false),
            allocation,
            cleanup_lock: Arc::default(),
        })
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Of the options what may be replaced, as it is now.
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Goes on with other settings, and publishes Docker's event `reload` of the daemon. Transfers
    /// that are under way end as they began.
    pub fn reload(&self, settings: Settings, attributes: BTreeMap<String, String>) {
        self.images.use_registries(settings.registries.clone());
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
        self.events.reloaded(self.id, &self.hostname, attributes);
    }

    pub fn content(&self) -> Arc<Content> {
        Arc::clone(&self.content)
    }

    /// Finds a container by name, id or unambiguous start of an id. Everything that is done to it is
    /// done by its id: another may have the name by then.
    pub fn container_id(&self, text: &str) -> Result<Id, EngineError> {
        self.containers.find(text)
    }

    /// [`Self::container_id`], and what is known of the container.
    pub fn container(&self, name: &str) -> Result<Container, EngineError> {
        let state = self.containers.lock();
        Ok(state.entry(state.find(name)?)?.record.container.clone())
    }

    pub fn images(&self) -> &Images {
        &self.images
    }

    pub fn volumes(&self) -> &Volumes {
        &self.volumes
    }

    /// Newest first.
    pub fn containers(&self) -> Vec<ContainerSnapshot> {
        self.containers.snapshots()
    }
}

/// What an engine is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Serve,
    TearDown,
}

/// What is heard of the other processes.
enum News {
    Event(bulkhead_warden::Event),
    /// It has ended without being asked to.
    Gone,
    /// The resolver of names has.
    ResolverGone,
}

/// Hands the warden's events on. A container's end goes to a task of its own, since what it takes
/// must not hold up another's; an exec's is noted at once and not by way of the runtime, because a
/// client asks for its exit code as soon as the output has ended.
fn watch_warden(engine: &Weak<Engine>, mut events: mpsc::UnboundedReceiver<News>) {
    while let Some(news) = events.blocking_recv() {
        let Some(engine) = engine.upgrade() else { return };
        let bulkhead_warden::Event::Exited { container, id, exit } = match news {
            News::Event(event) => event,
            News::Gone => {
                engine.runtime.clone().spawn(engine.replace_warden());
                continue;
            }
            News::ResolverGone => {
                engine.runtime.clone().spawn(engine.replace_resolver());
                continue;
            }
        };
        if container == id {
            let runtime = engine.runtime.clone();
            runtime.spawn(async move { engine.container_ended(id, exit).await });
        } else {
            engine.exec_ended(id, exit);
        }
    }
}
