//! Attaching to a container's streams, and exec.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use bulkhead_runtime::{ProcessSpec, User};
use bulkhead_types::Id;
use bulkhead_warden::{Attachment, Exec, Exit, Lifetime, PastOutput};
use tokio::io::AsyncWriteExt;

use crate::blocking::blocking;
use crate::confinement::{Privilege, confinement};
use crate::descriptors::Descriptors;
use crate::engine::specification::{cgroup_descriptors, rlimits};
use crate::error::io_error;
use crate::execs::{EndedExec, ExecEntry, Purpose};
use crate::log_reader::{BATCH, PastRecords};
use crate::{
    Container, CreateExec, Engine, EngineError, ExecView, LogLine, LogQuery, Status, Stream,
    Streams, image_defaults,
};

impl Engine {
    /// A stream socket on which the container's output arrives (framed unless it has a terminal)
    /// and its stdin is sent; works before the start too.
    pub async fn attach(
        self: &Arc<Self>,
        id: Id,
        streams: Streams,
    ) -> Result<UnixStream, EngineError> {
        let guard = self.containers.exclusive(id).await?;
        let container = self.containers.record(id)?.container;
        let (ours, theirs) = UnixStream::pair().map_err(io_error("socketpair"))?;
        self.events.container(&container, "attach", &[]);
        match container.state.status {
            Status::Running => {
                let engine = Arc::clone(self);
                let stdin = streams.stdin && container.config.open_stdin;
                let (stdout, stderr) = (streams.stdout, streams.stderr);
                if streams.logs {
                    let copy = theirs.try_clone().map_err(io_error("copy a socket"))?;
                    let past = blocking(move |_| {
                        let wanted = [stdin, stdout, stderr];
                        Ok(engine.warden.attach_after_log(id, theirs.into(), wanted)?)
                    })
                    .await?;
                    let engine = Arc::clone(self);
                    // The client gets its end of the socket before the log is sent, which may be
                    // larger than what a socket holds. Nor does one that takes its time hold up
                    // whoever stops the container.
                    drop(guard);
                    self.runtime.spawn(async move {
                        if let Err(error) = engine.send_past(&container, copy, past, streams).await
                        {
                            tracing::warn!(container = %container.name, %error, "send the log");
                        }
                    });
                } else {
                    blocking(move |_| {
                        Ok(engine.warden.attach(id, theirs.into(), stdin, stdout, stderr)?)
                    })
                    .await?;
                }
            }
            Status::Paused => {
                return Err(EngineError::conflict(format!(
                    "container {id} is paused, unpause the container before attach"
                )));
            }
            Status::Restarting => {
                return Err(EngineError::conflict(format!(
                    "container {id} is restarting, wait until the container is running"
                )));
            }
            _ => {
                let stdin = streams.stdin && container.config.open_stdin;
                let streams = Streams { stdin, ..streams };
                self.containers.lock().entry_mut(id)?.runtime.waiting.push((theirs, streams));
            }
        }
        Ok(ours)
    }

    pub async fn resize(
        self: &Arc<Self>,
        id: Id,
        rows: u16,
        columns: u16,
    ) -> Result<(), EngineError> {
        if rows == 0 || columns == 0 {
            return Ok(());
        }
        let running = {
            let mut state = self.containers.lock();
            let entry = state.entry_mut(id)?;
            entry.runtime.terminal_size = (rows, columns);
            entry.record.is_running()
        };
        if !running {
            return Err(EngineError::conflict(format!("container {id} is not running")));
        }
        let engine = Arc::clone(self);
        blocking(move |_| Ok(engine.warden.resize(id, rows, columns)?)).await
    }

    pub async fn exec_create(&self, container: Id, exec: CreateExec) -> Result<Id, EngineError> {
        if exec.cmd.is_empty() {
            return Err(EngineError::invalid("No exec command specified"));
        }
        let target = self.containers.record(container)?.container;
        check_exec(&target)?;
        let exec_id = Id::random();
        let command = exec.cmd.join(" ");
        self.execs.insert(exec_id, ExecEntry::new(target.id, exec));
        let action = format!("exec_create: {command}");
        self.events.container(&target, &action, &[("execID", exec_id.to_string())]);
        Ok(exec_id)
    }

    /// Starts it; the socket is as for [`Engine::attach`]. `None` when detached: what it writes then
    /// is read, so that it never stands still, and kept nowhere. Docker has no log of it either
    /// (moby: daemon/exec.go; the streams are copied to no writer).
    pub async fn exec_start(
        self: &Arc<Self>,
        exec_id: Id,
        detach: bool,
        terminal_size: (u16, u16),
    ) -> Result<Option<UnixStream>, EngineError> {
        let missing = || no_exec(&exec_id.to_string());
        let id = self.execs.with(exec_id, |entry| entry.container).ok_or_else(missing)?;
        let container = self.containers.record(id)?.container;
        check_exec(&container)?;
        let begin = |entry: &mut ExecEntry| {
            if entry.started {
                return Err(EngineError::conflict(if entry.is_running() {
                    format!("exec command {exec_id} is already running")
                } else {
                    format!("exec command {exec_id} has already run")
                }));
            }
            entry.started = true;
            if terminal_size != (0, 0) {
                entry.terminal_size = terminal_size;
            }
            Ok(entry.create.clone())
        };
        let create = self.execs.with(exec_id, begin).ok_or_else(missing)??;
        let action = format!("exec_start: {}", create.cmd.join(" "));
        self.events.container(&container, &action, &[("execID", exec_id.to_string())]);
        let engine = Arc::clone(self);
        let started = blocking(move |_| {
            engine.exec_now(id, exec_id, &container, create, detach, Lifetime::Free)
        })
        .await;
        if let Err(error) = &started {
            let code = error.exit_code();
            self.execs.with(exec_id, |entry| entry.end(code));
        }
        started
    }

    pub(super) fn exec_now(
        &self,
        container_id: Id,
        exec_id: Id,
        container: &Container,
        create: CreateExec,
        detach: bool,
        lifetime: Lifetime,
    ) -> Result<Option<UnixStream>, EngineError> {
        let mut descriptors = Descriptors::default();
        let cgroup = self.cgroups.of(container_id)?;
        let (cgroup_v1_procs, cgroup_v2) = cgroup_descriptors(&cgroup, &mut descriptors)?;
        let mut attachments = Vec::new();
        let ours = if detach {
            None
        } else {
            let (ours, theirs) = UnixStream::pair().map_err(io_error("socketpair"))?;
            attachments.push(Attachment {
                socket: descriptors.add(OwnedFd::from(theirs)),
                stdin: create.attach_stdin,
                stdout: create.attach_stdout,
                stderr: create.attach_stderr,
            });
            Some(ours)
        };
        let container = &self.with_defaults(container);
        let (config, host) = (&container.config, &container.host);
        let security = &host.security_opt;
        let mut environment = image_defaults::environment(config, Vec::new());
        if create.tty {
            image_defaults::replace(&mut environment, &["TERM=xterm".to_owned()]);
        }
        image_defaults::replace(&mut environment, &create.env);
        let privilege = if create.privileged { Privilege::Full } else { Privilege::Usual };
        let (capabilities, seccomp) = confinement(container, privilege)?;
        let terminal_size =
            self.execs.with(exec_id, |entry| entry.terminal_size).unwrap_or_default();
        let or =
            |own: &str, other: &str| if own.is_empty() { other.to_owned() } else { own.to_owned() };
        let request = Exec {
            container: container_id,
            id: exec_id,
            process: ProcessSpec {
                arguments: create.cmd.clone(),
                environment,
                working_directory: or(&or(&create.working_dir, &config.working_dir), "/"),
                user: User {
                    name: or(&create.user, &config.user),
                    additional_groups: host.group_add.clone(),
                },
                terminal: create.tty,
                terminal_size,
                capabilities,
                no_new_privileges: security.no_new_privileges,
                seccomp,
                rlimits: rlimits(host),
                oom_score_adj: None,
                init: false,
                // a privileged exec is for looking into what the container cannot
                landlock: security.landlock.clone().filter(|_| !create.privileged),
            },
            cgroup_v1_procs,
            cgroup_v2,
            stdin_open: create.attach_stdin,
            attachments,
            lifetime,
        };
        // Marked first: a short one may have ended before the warden's answer is read.
        self.execs.with(exec_id, |entry| entry.running.send_replace(true));
        let (pid, pidfd) = self.warden.exec(request, descriptors.into_inner())?;
        self.execs.with(exec_id, |entry| {
            entry.pid = pid;
            entry.pidfd = entry.is_running().then_some(pidfd);
        });
        Ok(ours)
    }

    pub async fn exec_resize(
        self: &Arc<Self>,
        id: Id,
        rows: u16,
        columns: u16,
    ) -> Result<(), EngineError> {
        let resize = |entry: &mut ExecEntry| {
            entry.terminal_size = (rows, columns);
            entry.is_running()
        };
        let running = self.execs.with(id, resize).ok_or_else(|| no_exec(&id.to_string()))?;
        if rows == 0 || columns == 0 {
            return Ok(());
        }
        if !running {
            return Err(EngineError::conflict(format!("exec {id} is not running")));
        }
        let engine = Arc::clone(self);
        blocking(move |_| Ok(engine.warden.resize(id, rows, columns)?)).await
    }

    /// Finds an exec by its id, and says what is known of it.
    ///
    /// A client that saw the output end asks for the exit code at once: if the process has ended and
    /// the warden's event is still on its way, this waits for it. The output ends too when the warden
    /// dies, and then every exec is ended: to say that it runs would be taken for a success.
    pub async fn exec(self: &Arc<Self>, exec: &str) -> Result<ExecView, EngineError> {
        let id = self.find_exec(exec)?;
        let engine = Arc::clone(self);
        if !(self.execs.seems_to_run(id) && blocking(move |_| Ok(engine.warden.answers())).await?) {
            self.execs.await_end(id).await;
        }
        let view = |entry: &mut ExecEntry| ExecView {
            id,
            container: entry.container,
            running: entry.is_running(),
            exit_code: entry.exit_code,
            pid: if entry.is_running() { entry.pid } else { 0 },
            create: entry.create.clone(),
        };
        self.execs.with(id, view).ok_or_else(|| no_exec(exec))
    }

    /// The execs of a container that have not ended.
    pub fn execs_of(&self, container: Id) -> Vec<Id> {
        self.execs.of(container)
    }

    /// Called for the warden's event.
    pub(crate) fn exec_ended(self: Arc<Self>, id: Id, exit: Exit) {
        let Some(EndedExec { container, purpose }) = self.execs.ended(id, exit.code) else {
            // Of a container that is gone, or started by the engine before this one.
            let runtime = self.runtime.clone();
            runtime.spawn_blocking(move || self.warden.forget(id));
            return;
        };
        let container = self.containers.record(container).ok().map(|record| record.container);
        if let Some(container) = container {
            let more = [("execID", id.to_string()), ("exitCode", exit.code.to_string())];
            self.events.container(&container, "exec_die", &more);
        }
        if purpose == Purpose::Probe {
            // The warden keeps nothing of it.
            return;
        }
        let runtime = self.runtime.clone();
        runtime.spawn_blocking(move || {
            let _ = self.warden.forget(id);
        });
    }

    /// Sends what was logged before a client attached, and lets it have what has come since. Nothing
    /// is lost or doubled where the two meet: the warden says where that is.
    async fn send_past(
        self: Arc<Self>,
        container: &Container,
        socket: UnixStream,
        past: PastOutput,
        streams: Streams,
    ) -> Result<(), EngineError> {
        let query =
            LogQuery { stdout: streams.stdout, stderr: streams.stderr, ..LogQuery::default() };
        let terminal = container.config.tty;
        let path = container.log_path.clone();
        let (past, mut log) = blocking(move |_| {
            let files = past.files.iter().map(OwnedFd::try_clone);
            let log = match files.map(|file| Ok(file?.into())).collect::<std::io::Result<Vec<_>>>()
            {
                // Nothing writes to it any more, or there is none.
                Ok(files) if files.is_empty() => PastRecords::open(path.as_str().as_ref(), query),
                Ok(files) => PastRecords::of_files(files, past.size, query),
                Err(error) => Err(error),
            };
            Ok((past, log.map_err(io_error("read the log"))?))
        })
        .await?;
        socket.set_nonblocking(true).map_err(io_error("send the log"))?;
        let mut socket =
            tokio::net::UnixStream::from_std(socket).map_err(io_error("send the log"))?;
        loop {
            let (reader, bytes) = blocking(move |_| {
                let mut bytes = Vec::new();
                for line in log.more(BATCH).map_err(io_error("read the log"))? {
                    form(&line, terminal, &mut bytes);
                }
                Ok((log, bytes))
            })
            .await?;
            log = reader;
            if bytes.is_empty() {
                break;
            }
            if socket.write_all(&bytes).await.is_err() {
                // The client has gone, which the warden sees too.
                return Ok(());
            }
        }
        drop(socket);
        blocking(move |_| Ok(self.warden.release(&past)?)).await
    }

    fn find_exec(&self, text: &str) -> Result<Id, EngineError> {
        let id: Id = text.parse().map_err(|_| no_exec(text))?;
        self.execs.with(id, |_| id).ok_or_else(|| no_exec(text))
    }
}

fn no_exec(text: &str) -> EngineError {
    EngineError::not_found(format!("No such exec instance: {text}"))
}

pub(super) fn check_exec(container: &Container) -> Result<(), EngineError> {
    match container.state.status {
        Status::Running => Ok(()),
        Status::Paused => Err(EngineError::conflict(format!(
            "Container {} is paused, unpause the container before exec",
            container.id
        ))),
        Status::Restarting => Err(EngineError::conflict(format!(
            "Container {} is restarting, wait until the container is running",
            container.id
        ))),
        _ => Err(EngineError::not_running(container.id)),
    }
}

/// Puts a line of the log into the form in which the warden sends what comes.
fn form(line: &LogLine, terminal: bool, into: &mut Vec<u8>) {
    if !terminal {
        let length = u32::try_from(line.text.len()).unwrap_or(u32::MAX).to_be_bytes();
        let stream = if line.stream == Stream::Stderr { 2 } else { 1 };
        into.extend_from_slice(&[stream, 0, 0, 0]);
        into.extend_from_slice(&length);
    }
    into.extend_from_slice(&line.text);
}
