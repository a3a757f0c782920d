//! The names of the user's networks: the resolver's process, and the sockets in the containers.
//!
//! The resolver is started with the first container that needs it. Of every socket that it has a copy
//! is kept here, so that another one goes on with them should it die; after a crash of the engine the
//! resolver gives them back.

use std::collections::HashMap;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bulkhead_network::{ResolverSockets, UpstreamSockets};
use bulkhead_resolver::{Client, Container, Reach, ResolverError, Sockets};
use bulkhead_types::Id;

use crate::EngineError;
use crate::blocking::Blocking;

pub(crate) struct NameService {
    socket: PathBuf,
    program: PathBuf,
    /// Called when the resolver has ended by itself.
    on_gone: Arc<dyn Fn() + Send + Sync>,
    /// Held while the resolver answers, well under a millisecond.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Once a container has needed it.
    client: Option<Client>,
    served: HashMap<Id, Served>,
}

#[derive(Debug)]
struct Served {
    container: Container,
    sockets: Sockets,
}

impl fmt::Debug for NameService {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("NameService").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl NameService {
    pub(crate) fn new(
        socket: PathBuf,
        program: PathBuf,
        on_gone: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self { socket, program, on_gone: Arc::new(on_gone), state: Mutex::default() }
    }

    pub(crate) fn serves(&self, id: Id) -> bool {
        self.state().served.contains_key(&id)
    }

    /// Opens the sockets in a container's network namespace, whose `lo` is up, and has them answered.
    pub(crate) fn attach(
        &self,
        container: Container,
        netns: BorrowedFd<'_>,
    ) -> Result<(), EngineError> {
        let sockets = open(&container, netns)?;
        let mut state = self.state();
        state.served.insert(container.id, Served { container: container.clone(), sockets });
        self.tell(&mut state, |client, served| {
            let sockets = served.get(&container.id).map(|served| &served.sockets);
            client.put(&container, sockets)
        })
    }

    /// Tells what has changed of a container that is served.
    pub(crate) fn update(&self, container: Container) -> Result<(), EngineError> {
        let mut state = self.state();
        let Some(served) = state.served.get_mut(&container.id) else { return Ok(()) };
        if served.container == container {
            return Ok(());
        }
        served.container = container.clone();
        self.tell(&mut state, |client, _| client.put(&container, None))
    }

    /// Forgets a container; one that is not served is no error.
    pub(crate) fn detach(&self, id: Id) -> Result<(), EngineError> {
        let mut state = self.state();
        match state.served.remove(&id) {
            // a resolver that has died knows nothing that would have to be forgotten
            Some(_) if state.client.is_some() => {
                self.tell(&mut state, |client, _| client.remove(id))
            }
            _ => Ok(()),
        }
    }

    /// Makes what the resolver knows match the containers that run, each with its network namespace.
    /// What cannot be done is returned, and keeps nobody else from his names.
    pub(crate) fn recover(
        &self,
        _: &Blocking,
        running: Vec<(Container, Option<Arc<OwnedFd>>)>,
    ) -> Vec<EngineError> {
        let mut faults = Vec::new();
        let mut found = HashMap::new();
        let mut state = self.state();
        match Client::connect(&self.socket, self.gone()) {
            Ok(Some(client)) => match client.list() {
                Ok(all) => {
                    let by_id =
                        all.into_iter().map(|(known, sockets)| (known.id, (known, sockets)));
                    found = by_id.collect();
                    state.client = Some(client);
                }
                Err(error) => faults.push(error.into()),
            },
            Ok(None) => {}
            Err(error) => faults.push(error.into()),
        }
        // all names before the first question: each may be about any of them
        for (container, _) in &running {
            if found.get(&container.id).is_none_or(|(known, _)| known != container) {
                let told = self.tell(&mut state, |client, _| client.put(container, None));
                faults.extend(told.err());
            }
        }
        for (container, netns) in running {
            let id = container.id;
            let adopted = match (found.remove(&id), netns) {
                (Some((_, Some(sockets))), _) => {
                    state.served.insert(id, Served { container, sockets });
                    Ok(())
                }
                (_, Some(netns)) => open(&container, netns.as_fd()).and_then(|sockets| {
                    state.served.insert(id, Served { container: container.clone(), sockets });
                    self.tell(&mut state, |client, served| {
                        client.put(&container, served.get(&id).map(|served| &served.sockets))
                    })
                }),
                (_, None) => Err(EngineError::internal(format!(
                    "names are not answered in container {}: its network namespace is not found",
                    id.short()
                ))),
            };
            faults.extend(adopted.err());
        }
        for id in found.into_keys() {
            faults.extend(self.tell(&mut state, |client, _| client.remove(id)).err());
        }
        if state.served.is_empty()
            && let Some(client) = state.client.take()
        {
            faults.extend(client.shut_down().err().map(Into::into));
        }
        faults
    }

    /// After the resolver's death: another one gets what it had.
    pub(crate) fn revive(&self, _: &Blocking) -> Result<(), EngineError> {
        let mut state = self.state();
        // somebody may have needed it before us
        if state.client.as_ref().is_some_and(|client| client.remove(Id::random()).is_ok()) {
            return Ok(());
        }
        state.client = None;
        match state.served.is_empty() {
            true => Ok(()),
            false => self.start(&mut state).map_err(Into::into),
        }
    }

    /// Ends the resolver.
    pub(crate) fn shut_down(&self) -> Result<(), EngineError> {
        let mut state = self.state();
        state.served.clear();
        let client = match state.client.take() {
            Some(client) => Some(client),
            None => Client::connect(&self.socket, || {})?,
        };
        match client.map(|client| client.shut_down()) {
            // one that is gone already has nothing left to end
            None | Some(Ok(()) | Err(ResolverError::Gone(_))) => Ok(()),
            Some(Err(error)) => Err(error.into()),
        }
    }

    /// Says something to the resolver, which is started if none runs, and told everything else first.
    fn tell(
        &self,
        state: &mut State,
        say: impl Fn(&Client, &HashMap<Id, Served>) -> Result<(), ResolverError>,
    ) -> Result<(), EngineError> {
        if let Some(client) = &state.client {
            match say(client, &state.served) {
                Err(ResolverError::Gone(_)) => state.client = None,
                said => return Ok(said?),
            }
        }
        self.start(state)?;
        match &state.client {
            Some(client) => Ok(say(client, &state.served)?),
            None => Ok(()),
        }
    }

    fn start(&self, state: &mut State) -> Result<(), ResolverError> {
        let client = Client::connect_or_start(&self.socket, &self.program, self.gone())?;
        // all names before the first question: each may be about any of them
        for served in state.served.values() {
            client.put(&served.container, None)?;
        }
        for served in state.served.values() {
            client.put(&served.container, Some(&served.sockets))?;
        }
        state.client = Some(client);
        Ok(())
    }

    fn gone(&self) -> impl FnOnce() + Send + Clone + 'static + use<> {
        let on_gone = Arc::clone(&self.on_gone);
        move || on_gone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // what is half done is done again by whoever comes next
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(container: &Container, netns: BorrowedFd<'_>) -> Result<Sockets, EngineError> {
    let upstream = &container.upstream;
    let wanted = match upstream.reach {
        Reach::Host => UpstreamSockets::default(),
        Reach::Container => UpstreamSockets {
            udp: QUESTIONS,
            tcp: LONG_QUESTIONS,
            ipv6: upstream.servers.iter().any(std::net::SocketAddr::is_ipv6),
        },
    };
    let ResolverSockets { udp, tcp, upstream_udp, upstream_tcp } =
        ResolverSockets::open(netns, wanted)?;
    Ok(Sockets { udp, tcp, upstream_udp, upstream_tcp })
}

/// How many questions of a container are asked of its own servers at the same time; the others wait
/// for the answers to these.
const QUESTIONS: u8 = 8;
/// Of those whose answers do not fit into a datagram.
const LONG_QUESTIONS: u8 = 2;
