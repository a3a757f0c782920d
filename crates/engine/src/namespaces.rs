//! Where a container's namespaces come from.

use bulkhead_types::{Id, IdMap};

use crate::containers::Known;
use crate::{
    CgroupnsMode, Class, EngineError, HostConfig, IpcMode, NetworkMode, NetworkStack, PidMode,
    UsernsMode, UtsMode,
};

/// Where one of a container's namespaces comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NamespaceMode {
    Private,
    Host,
    Container(Id),
    /// The one of this name in `/run/netns`. It is nobody's that a container knows: whoever is in it
    /// keeps a user namespace of its own, in which no power over it is held.
    Named(String),
}

/// The namespaces that a container does not have for itself.
#[derive(Debug)]
pub(crate) struct NamespaceModes {
    pub network: NamespaceMode,
    pub pid: NamespaceMode,
    pub ipc: NamespaceMode,
    pub uts: NamespaceMode,
    pub cgroup: NamespaceMode,
}

/// Which user namespace a container gets.
pub(crate) enum UserNamespace {
    Own,
    Host,
    /// That of the containers whose namespaces it joins: only there does their owner's power count.
    Of(IdMap),
}

impl NamespaceModes {
    pub(crate) fn resolve(state: &Known, host: &HostConfig) -> Result<Self, EngineError> {
        let of = |name: &str| find_other(state, name).map(NamespaceMode::Container);
        let network = match &host.network_mode {
            NetworkMode::Bridge | NetworkMode::None | NetworkMode::Named(_) => {
                NamespaceMode::Private
            }
            NetworkMode::Host => NamespaceMode::Host,
            NetworkMode::Container(name) => of(name)?,
            NetworkMode::Netns(name) => NamespaceMode::Named(name.clone()),
        };
        let pid = match &host.pid_mode {
            PidMode::Private => NamespaceMode::Private,
            PidMode::Host => NamespaceMode::Host,
            PidMode::Container(name) => of(name)?,
        };
        let ipc = match &host.ipc_mode {
            IpcMode::None | IpcMode::Private | IpcMode::Shareable => NamespaceMode::Private,
            IpcMode::Host => NamespaceMode::Host,
            IpcMode::Container(name) => of(name)?,
        };
        let uts = match &host.uts_mode {
            UtsMode::Private => NamespaceMode::Private,
            UtsMode::Host => NamespaceMode::Host,
            UtsMode::Container(name) => of(name)?,
        };
        let cgroup = match &host.cgroupns_mode {
            CgroupnsMode::Private => NamespaceMode::Private,
            CgroupnsMode::Host => NamespaceMode::Host,
            CgroupnsMode::Container(name) => of(name)?,
        };
        Ok(Self { network, pid, ipc, uts, cgroup })
    }

    /// Writes the ids of the containers that are joined where the request had names: a name may
    /// mean another container tomorrow.
    pub(crate) fn record(&self, host: &mut HostConfig) {
        let id = |mode: &NamespaceMode| match mode {
            NamespaceMode::Container(id) => Some(id.to_string()),
            NamespaceMode::Private | NamespaceMode::Host | NamespaceMode::Named(_) => None,
        };
        if let Some(id) = id(&self.network) {
            host.network_mode = NetworkMode::Container(id);
        }
        if let Some(id) = id(&self.pid) {
            host.pid_mode = PidMode::Container(id);
        }
        if let Some(id) = id(&self.ipc) {
            host.ipc_mode = IpcMode::Container(id);
        }
        if let Some(id) = id(&self.uts) {
            host.uts_mode = UtsMode::Container(id);
        }
        if let Some(id) = id(&self.cgroup) {
            host.cgroupns_mode = CgroupnsMode::Container(id);
        }
    }

    pub(crate) fn user(
        &self,
        state: &Known,
        host: &HostConfig,
    ) -> Result<UserNamespace, EngineError> {
        let shared = [&self.network, &self.pid, &self.ipc, &self.uts, &self.cgroup];
        let of_host = [&self.network, &self.pid, &self.ipc].contains(&&NamespaceMode::Host);
        if host.userns_mode == UsernsMode::Host || host.privileged || of_host {
            return Ok(UserNamespace::Host);
        }
        let mut users: Option<Option<IdMap>> = None;
        for mode in shared {
            let NamespaceMode::Container(other) = mode else { continue };
            let range = state.entry(*other)?.record.container.id_range;
            if users.is_some_and(|known| known != range) {
                return Err(EngineError::new(
                    Class::Unsupported,
                    "the containers whose namespaces are joined have different user namespaces; \
                     join one container, or start them with --userns=host",
                ));
            }
            users = Some(range);
        }
        Ok(match users {
            None => UserNamespace::Own,
            Some(None) => UserNamespace::Host,
            Some(Some(range)) => UserNamespace::Of(range),
        })
    }

    /// Which network stack a container sees with these, on the network of `host`'s mode.
    pub(crate) fn network_stack(&self, host: &HostConfig) -> NetworkStack {
        match &self.network {
            NamespaceMode::Private if host.network_mode == NetworkMode::None => NetworkStack::None,
            NamespaceMode::Private => NetworkStack::Bridge,
            NamespaceMode::Host => NetworkStack::Host,
            NamespaceMode::Container(other) => NetworkStack::Container(*other),
            NamespaceMode::Named(_) => NetworkStack::Netns,
        }
    }

    /// The containers that must run for this one to start.
    pub(crate) fn containers(&self) -> impl Iterator<Item = Id> {
        [&self.network, &self.pid, &self.ipc, &self.uts, &self.cgroup].into_iter().filter_map(
            |mode| match mode {
                NamespaceMode::Container(id) => Some(*id),
                _ => None,
            },
        )
    }
}

/// Looks up a container that a request names beside its own. Not "not found": clients take that for
/// a missing image, and start to pull it (moby answers so too: daemon/volumes.go).
pub(crate) fn find_other(state: &Known, name: &str) -> Result<Id, EngineError> {
    state.find(name).map_err(|error| match error.class {
        Class::NotFound => EngineError::invalid(error.message),
        _ => error,
    })
}
