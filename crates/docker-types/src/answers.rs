//! What clients read of the engine's answers: the members that somebody asks for, and no others.

use std::collections::BTreeMap;

use crate::PortBinding;
use crate::null::object;

object! {
    /// `POST /containers/create`, and each of `GET /containers/json`
    pub struct ContainerId {
        pub id: String,
    }
}

object! {
    /// `GET /containers/{id}/json`
    pub struct ContainerInspect {
        pub id: String,
        /// With a slash before it.
        pub name: String,
        pub state: ContainerState,
        pub config: InspectedConfig,
        pub network_settings: NetworkSettings,
    }
}

object! {
    pub struct ContainerState {
        /// `created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`
        pub status: String,
        pub exit_code: Option<i64>,
        /// RFC 3339; the year 1 before the first start.
        pub started_at: String,
        #[serde(rename = "OOMKilled")]
        pub oom_killed: bool,
        pub health: Health,
    }
}

object! {
    pub struct Health {
        /// `none`, `starting`, `healthy` or `unhealthy`; empty where there are no checks.
        pub status: String,
    }
}

object! {
    pub struct InspectedConfig {
        pub labels: BTreeMap<String, String>,
    }
}

object! {
    pub struct NetworkSettings {
        /// By `80/tcp`; `null` for a port that is only exposed.
        pub ports: BTreeMap<String, Option<Vec<PortBinding>>>,
    }
}

object! {
    /// `GET /images/{name}/json`
    pub struct ImageInspect {
        /// `NAME@sha256:…`
        pub repo_digests: Vec<String>,
    }
}

object! {
    /// `GET /info`
    pub struct SystemInfo {
        pub name: String,
        #[serde(rename = "NCPU")]
        pub ncpu: Option<i64>,
        /// Bytes.
        pub mem_total: Option<i64>,
        pub server_version: Option<String>,
        pub plugins: Plugins,
        /// `name=seccomp,profile=builtin`
        pub security_options: Vec<String>,
    }
}

object! {
    pub struct Plugins {
        pub log: Vec<String>,
    }
}

object! {
    /// A line of `GET /events`
    pub struct EventMessage {
        /// `start`, `exec_die`, `health_status: healthy`
        pub action: String,
        pub actor: EventActor,
    }
}

object! {
    pub struct EventActor {
        pub attributes: BTreeMap<String, String>,
    }
}

/// A line of what a pull tells.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Progress {
    /// Why it failed.
    pub error: Option<String>,
}
