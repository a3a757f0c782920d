//! Groups that systemd makes and knows (`--systemd-cgroup`): a transient scope for each container,
//! asked for by D-Bus (org.freedesktop.systemd1(5)).
//!
//! A scope needs a process from its start, so the container's first process waits while
//! [`Manager::create`] registers it, and only then goes on. What systemd has no property for, and
//! what it only roughly has, is then written to the kernel's files as without systemd. Nothing here
//! is touched, and no socket opened, by a runtime that is not asked for it.

use std::time::{Duration, Instant};

use bulkhead_types::oci::Resources;

use super::create::Take;
use super::hierarchy::{Hierarchies, Mode};
use super::{Cgroup, CgroupError, CreateOptions};
use bus::{Bus, Target};
use value::Value;

mod annotation;
mod bus;
mod properties;
mod unit;
mod value;

pub use annotation::properties as annotated_properties;
pub use bus::BusError;
pub use unit::Unit;
pub use value::Value as PropertyValue;

/// A unit's property by its D-Bus name.
pub type Property = (String, PropertyValue);

/// Why systemd did not do it; runc's words where it has some.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    #[error(
        "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {0:?} \
         instead"
    )]
    InvalidPath(String),
    #[error("invalid slice name: {0}")]
    InvalidSlice(String),
    #[error("invalid list of processors or memory nodes {0:?}: write one such as 0-3,7")]
    InvalidList(String),
    #[error("unified resource {key:?} value invalid: {value:?}")]
    InvalidUnified { key: String, value: String },
    #[error("annotation org.systemd.property.{name}={text}: {fault}")]
    Annotation { name: String, text: String, fault: &'static str },
    #[error("cannot use rootless systemd cgroups manager on cgroup v1")]
    UserOnV1,
    #[error(
        "no D-Bus of this user is known: set DBUS_SESSION_BUS_ADDRESS, or install \
         dbus-user-session and log in again"
    )]
    NoUserBus,
    #[error("failed to connect to dbus: {0}")]
    Connect(#[source] BusError),
    #[error("unable to start unit {unit:?}: {cause}")]
    Start { unit: String, cause: BusError },
    #[error("error creating systemd unit `{unit}`: got `{result}`")]
    Job { unit: String, result: String },
    #[error("timeout waiting for systemd to finish with {unit}: {cause}")]
    Timeout { unit: String, cause: BusError },
    #[error("unable to set unit properties: {0}")]
    Update(#[source] BusError),
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
}

/// Which systemd a container belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instance {
    /// The host's.
    System,
    /// A user's own, by the address of that user's bus (see [`Instance::user`]).
    User(String),
}

impl Instance {
    /// A user's instance, from what the environment says: `DBUS_SESSION_BUS_ADDRESS`, else the
    /// socket in `XDG_RUNTIME_DIR`.
    pub fn user(
        session_bus: Option<&str>,
        runtime_directory: Option<&str>,
    ) -> Result<Self, SystemdError> {
        let given = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
        if let Some(address) = given(session_bus) {
            return Ok(Self::User(address));
        }
        let socket = given(runtime_directory).map(|it| format!("{it}/bus"));
        match socket.filter(|socket| std::path::Path::new(socket).exists()) {
            // characters with a meaning in an address
            Some(socket) => {
                let path = socket.replace('%', "%25").replace(',', "%2c").replace(';', "%3b");
                Ok(Self::User(format!("unix:path={path}")))
            }
            None => Err(SystemdError::NoUserBus),
        }
    }
}

/// Whether systemd is the init of this host (sd_booted(3)).
pub fn is_running() -> bool {
    std::fs::symlink_metadata("/run/systemd/system").is_ok_and(|it| it.is_dir())
}

/// A connection to a systemd.
#[derive(Debug)]
pub struct Manager {
    bus: Bus,
    is_user: bool,
    version: u32,
}

impl Manager {
    /// Connects by the bus; root does without one if there is none, as early in a boot.
    pub fn connect(instance: &Instance) -> Result<Self, SystemdError> {
        let bus = match instance {
            Instance::User(address) => Bus::connect(address),
            Instance::System => {
                Bus::connect("unix:path=/run/dbus/system_bus_socket").or_else(|error| {
                    if rustix::process::geteuid().is_root() {
                        Bus::connect_direct("unix:path=/run/systemd/private")
                    } else {
                        Err(error)
                    }
                })
            }
        };
        let bus = bus.map_err(SystemdError::Connect)?;
        Self::over(bus, matches!(instance, Instance::User(_)))
    }

    fn over(mut bus: Bus, is_user: bool) -> Result<Self, SystemdError> {
        bus.add_match(
            "type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'",
        )?;
        bus.call(MANAGER, "Subscribe", &[])?;
        let mut this = Self { bus, is_user, version: 0 };
        // as v245.4-1.fc32, 245 or 257~rc1
        let text = this.property("Version")?;
        let text = text.trim_start_matches(['v', '"']);
        let end = text.find(|it: char| !it.is_ascii_digit()).unwrap_or(text.len());
        this.version = text[..end].parse().unwrap_or(0);
        Ok(this)
    }

    /// Makes the unit with process `pid` in it, then the rest of its groups, and sets resources.
    ///
    /// `pid` is of this process's pid namespace, and alive; on v2 it is in the group when this
    /// returns, on v1 it joins the hierarchies that systemd leaves alone by [`Cgroup::join`].
    /// `more` are properties of [`annotated_properties`], which win over the runtime's own.
    ///
    /// # Errors
    /// On failure the unit is stopped.
    pub fn create(
        &mut self,
        hierarchies: &Hierarchies,
        unit: &Unit,
        pid: u32,
        resources: &Resources,
        more: Vec<Property>,
        options: &CreateOptions,
    ) -> Result<Cgroup, SystemdError> {
        let mode = hierarchies.mode();
        if !resources.unified.is_empty() && mode != Mode::V2 {
            return Err(CgroupError::UnifiedOnV1.into());
        }
        let path = self.path(hierarchies, unit)?;
        let mut properties = self.base_properties(unit, pid, mode);
        properties.extend(properties::of(resources, mode, self.version)?);
        if let Some(group) = resources.unified.get("memory.oom.group")
            && self.version >= 253
            && let Some(policy) = match group.trim() {
                "0" => Some("continue"),
                "1" => Some("kill"),
                _ => None,
            }
        {
            properties.push(("OOMPolicy".into(), Value::text(policy)));
        }
        properties.retain(|(name, _)| !more.iter().any(|(other, _)| other == name));
        properties.extend(more);
        self.start(unit, properties)?;
        let rounded = properties::rounded(resources);
        Cgroup::create_taking(hierarchies, &path, &rounded, options, Take::WithProcesses).map_err(
            |error| {
                // the first error is the one to tell
                let _ = self.stop(unit);
                error.into()
            },
        )
    }

    /// Where a unit's groups are, for [`Cgroup::open`].
    pub fn path(&mut self, hierarchies: &Hierarchies, unit: &Unit) -> Result<String, SystemdError> {
        if !self.is_user {
            return unit.path("");
        }
        if hierarchies.mode() != Mode::V2 {
            return Err(SystemdError::UserOnV1);
        }
        let own = self.property("ControlGroup")?;
        unit.path(&own)
    }

    /// Sets resources, for systemd and in the kernel's files.
    pub fn update(
        &mut self,
        unit: &Unit,
        cgroup: &Cgroup,
        resources: &Resources,
    ) -> Result<(), SystemdError> {
        let mut properties = properties::of(resources, cgroup.mode, self.version)?;
        if resources.devices.is_empty() {
            properties.retain(|(name, _)| !matches!(name.as_str(), "DeviceAllow" | "DevicePolicy"));
        }
        // at run time only: nothing of a transient unit outlives it
        let arguments = [Value::text(&unit.name), Value::Bool(true), pairs(properties)];
        self.bus.call(MANAGER, "SetUnitProperties", &arguments).map_err(SystemdError::Update)?;
        Ok(cgroup.update_oci(&properties::rounded(resources))?)
    }

    /// Stops the unit, which is fine if it is gone, and removes what is left of its groups.
    pub fn remove(&mut self, unit: &Unit, cgroup: &Cgroup) -> Result<(), SystemdError> {
        let stopped = self.stop(unit);
        // groups that systemd does not know of, and of those below its own
        let deleted = cgroup.delete();
        stopped.and(deleted.map_err(SystemdError::from))
    }

    fn base_properties(&self, unit: &Unit, pid: u32, mode: Mode) -> Vec<Property> {
        let property = |name: &str, value| (name.to_owned(), value);
        let yes = |name: &str| property(name, Value::Bool(true));
        let mut properties =
            vec![property("Description", Value::Text(format!("bulkhead container {}", unit.id)))];
        if unit.is_slice() {
            let slices = Value::Array("s".into(), vec![Value::text(&unit.slice)]);
            properties.push(property("Wants", slices));
        } else {
            properties.push(property("Slice", Value::text(&unit.slice)));
            properties.push(yes("Delegate"));
            properties.push(property("PIDs", Value::Array("u".into(), vec![Value::U32(pid)])));
            if self.version >= 236 {
                // a failed scope of a container is nobody's to reset
                properties.push(property("CollectMode", Value::text("inactive-or-failed")));
            }
        }
        let io = if mode == Mode::V2 { "IOAccounting" } else { "BlockIOAccounting" };
        let accounting = ["MemoryAccounting", "CPUAccounting", io, "TasksAccounting"];
        properties.extend(accounting.map(yes));
        properties.push(property("DefaultDependencies", Value::Bool(false)));
        properties
    }

    /// Starts a transient unit. One of the name that has failed is in the way, and reset once.
    fn start(&mut self, unit: &Unit, properties: Vec<Property>) -> Result<(), SystemdError> {
        let none = Value::Array("(sa(sv))".into(), Vec::new());
        let arguments = [Value::text(&unit.name), Value::text("replace"), pairs(properties), none];
        let mut job = self.bus.call(MANAGER, "StartTransientUnit", &arguments);
        if matches!(&job, Err(BusError::Call { name, .. }) if name.ends_with(".UnitExists")) {
            // if it has not failed the second try says so
            let _ = self.reset(unit);
            job = self.bus.call(MANAGER, "StartTransientUnit", &arguments);
        }
        let job = job.map_err(|cause| SystemdError::Start { unit: unit.name.clone(), cause })?;
        match self.wait_job(unit, &job)?.as_str() {
            "done" => Ok(()),
            result => {
                let _ = self.reset(unit);
                let (unit, result) = (unit.name.clone(), result.to_owned());
                Err(SystemdError::Job { unit, result })
            }
        }
    }

    fn stop(&mut self, unit: &Unit) -> Result<(), SystemdError> {
        let arguments = [Value::text(&unit.name), Value::text("replace")];
        match self.bus.call(MANAGER, "StopUnit", &arguments) {
            // whatever the job's result, the groups are removed after it
            Ok(job) => drop(self.wait_job(unit, &job)?),
            // it went with its last process
            Err(BusError::Call { name, .. }) if name.ends_with(".NoSuchUnit") => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        // one that has failed stays until it is reset; another is unknown by now
        let _ = self.reset(unit);
        Ok(())
    }

    fn reset(&mut self, unit: &Unit) -> Result<(), BusError> {
        self.bus.call(MANAGER, "ResetFailedUnit", &[Value::text(&unit.name)]).map(|_| ())
    }

    /// Waits for the end of a job and returns its result, such as `done`.
    fn wait_job(&mut self, unit: &Unit, job: &[Value]) -> Result<String, SystemdError> {
        let job = job.first().and_then(Value::as_text).unwrap_or_default();
        let deadline = Instant::now() + TIMEOUT;
        let result = self.bus.wait_signal(deadline, |signal| match &signal.body[..] {
            // (id, job, unit, result)
            [_, ended, _, result]
                if signal.member == "JobRemoved" && ended.as_text() == Some(job) =>
            {
                result.as_text().map(str::to_owned)
            }
            _ => None,
        });
        result.map_err(|cause| SystemdError::Timeout { unit: unit.name.clone(), cause })
    }

    fn property(&mut self, name: &str) -> Result<String, BusError> {
        let target = Target { interface: "org.freedesktop.DBus.Properties", ..MANAGER };
        let arguments = [Value::text(MANAGER.interface), Value::text(name)];
        let answer = self.bus.call(target, "Get", &arguments)?;
        Ok(answer.first().and_then(Value::as_text).unwrap_or_default().to_owned())
    }
}

fn pairs(properties: Vec<Property>) -> Value {
    let pair =
        |(name, value)| Value::Struct(vec![Value::Text(name), Value::Variant(Box::new(value))]);
    Value::Array("(sv)".into(), properties.into_iter().map(pair).collect())
}

const MANAGER: Target<'_> = Target {
    service: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
};

/// How long a job may take, as runc waits.
const TIMEOUT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
