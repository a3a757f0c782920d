//! The same container through a warden.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use bulkhead_runtime::cgroup::{Cgroup, Hierarchies, Limits};
use bulkhead_runtime::{
    Capabilities, ContainerSpec, Device, FdIndex, Namespaces, ProcessSpec, Seccomp, User, defaults,
};
use bulkhead_types::Id;
use rustix::fs::{Mode, OFlags};

use bulkhead_warden::{Client, CreateContainer, Event, Log};

use crate::Result;
use crate::place::{RANGE, Upper, overlay};

pub struct Bench {
    client: Client,
    events: Receiver<Event>,
    place: PathBuf,
    hierarchies: Hierarchies,
}

pub struct Times {
    /// From before the overlay is mounted.
    pub whole: Duration,
    /// From the message to the warden.
    pub warden: Duration,
}

impl Bench {
    pub fn launch(place: &Path) -> Result<Self> {
        let (sender, events) = channel();
        let socket = place.join("warden.sock");
        let program = std::env::current_exe()?;
        let client = Client::connect_or_start(
            &socket,
            &program,
            move |event| {
                let _ = sender.send(event);
            },
            || {},
        )?;
        let hierarchies = Hierarchies::detect()?;
        Ok(Self { client, events, place: place.to_owned(), hierarchies })
    }

    /// Starts one container and waits for its end; the time is until its exec.
    pub fn run(&self, compartments: u8) -> Result<Times> {
        let id = Id::random();
        let upper = Upper::make(&self.place, &id.to_string())?;
        let path = format!("/bulkhead-bench-{id}");
        let cgroup = Cgroup::create(&self.hierarchies, &path, &Limits::default())?;
        let join = cgroup.join()?;
        let _ = self.client.compartments(Some(compartments))?;
        crate::pause();
        let before = Instant::now();
        let mut fds = vec![overlay(&self.place, &upper)?];
        let devices = defaults::DEVICES.iter().map(|device| {
            // of which the client makes a mount, as the engine has it do
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            fds.push(rustix::fs::open(device.path, flags, Mode::empty())?);
            Ok(Device { path: device.path.to_owned(), fd: FdIndex(fds.len() as u16 - 1) })
        });
        let devices = devices.collect::<Result<_>>()?;
        let cgroup_v1_procs = join.procs.into_iter().map(|fd| add(fd, &mut fds)).collect();
        let cgroup_v2 = join.v2_dir.map(|fd| add(fd, &mut fds));
        let spec = ContainerSpec { devices, cgroup_v1_procs, cgroup_v2, ..specification()? };
        let (log, attachments) = (Log::None, vec![]);
        let (stdin_open, stdin_once) = (false, false);
        let request = CreateContainer {
            id,
            spec,
            log,
            stdin_open,
            stdin_once,
            attachments,
            answer_early: true,
        };
        let message = Instant::now();
        let created = self.client.create(request, fds)?;
        self.client.start(id)?;
        let after = Instant::now();
        drop(created);
        let Event::Exited { exit, .. } = self.events.recv()?;
        if exit.code != 0 {
            return Err(format!("the container ended with {}", exit.code).into());
        }
        self.client.forget(id)?;
        cgroup.delete()?;
        Ok(Times { whole: after - before, warden: after - message })
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.client.shut_down();
    }
}

fn add(fd: OwnedFd, fds: &mut Vec<OwnedFd>) -> FdIndex {
    fds.push(fd);
    FdIndex(fds.len() as u16 - 1)
}

/// A container with all the defaults.
fn specification() -> Result<ContainerSpec> {
    Ok(ContainerSpec {
        hostname: "bench".into(),
        domainname: String::new(),
        namespaces: Namespaces::PRIVATE,
        id_range: Some(RANGE),
        rootfs: FdIndex(0),
        rootfs_readonly: false,
        mounts: defaults::mounts(false, defaults::SHM_SIZE),
        devices: Vec::new(),
        masked_paths: defaults::masked_paths(false),
        readonly_paths: defaults::readonly_paths(false),
        sysctls: defaults::network_sysctls(RANGE.size),
        cgroup_v1_procs: Vec::new(),
        cgroup_v2: None,
        cgroup_v1_groups: Vec::new(),
        process: ProcessSpec {
            arguments: vec!["/bin/true".into()],
            environment: vec![defaults::PATH.into(), "HOME=/".into()],
            working_directory: "/".into(),
            user: User { name: String::new(), additional_groups: vec![] },
            terminal: false,
            terminal_size: (0, 0),
            capabilities: Capabilities::OWN_NETWORK,
            no_new_privileges: false,
            seccomp: Seccomp::WithoutPackets,
            rlimits: defaults::rlimits(),
            oom_score_adj: None,
            init: false,
            landlock: None,
        },
    })
}
