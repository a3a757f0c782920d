//! Descriptors of the host that a container's process comes by, and the runtime's own program.

use anyhow::{Context, Result};
use bulkhead_tests::bundle::{Bundle, Runtime};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::json;

use crate::{Attempt, stopped_here};

/// The working directory is a descriptor that the runtime has open.
#[test]
fn cve_2024_21626_working_directory_on_the_host() -> Result<()> {
    stopped_here("CVE-2024-21626", Runtime::weakened("descriptors"), |runtime| {
        for fd in 3..=40 {
            let mut bundle = Bundle::new(&["sh", "-c", "cat ../canary ../../canary ./canary"])?;
            std::fs::write(bundle.beside("canary"), "the host's")?;
            // what a runtime has open is somewhere near the state of its containers
            std::fs::create_dir(bundle.beside("state"))?;
            std::fs::write(bundle.beside("state/canary"), "the host's")?;
            bundle.config["process"]["cwd"] = json!(format!("/proc/self/fd/{fd}"));
            let said = runtime.run(&bundle)?;
            if said.stdout.contains("the host's") {
                return Ok(Attempt::Escaped(format!("/proc/self/fd/{fd} is a way out")));
            }
        }
        Ok(Attempt::Stopped("none of 38 descriptors leads out".to_owned()))
    })
}

/// The same by exec, and what a process has open besides its streams.
#[test]
fn cve_2024_21626_by_exec() -> Result<()> {
    stopped_here("CVE-2024-21626 by exec", Runtime::weakened("descriptors"), |runtime| {
        let bundle = Bundle::new(&["sleep", "1000"])?;
        std::fs::create_dir(bundle.beside("state"))?;
        std::fs::write(bundle.beside("state/canary"), "the host's")?;
        let container = runtime.start(&bundle)?;
        let line = "cat ../canary ./canary ../../canary; ls /proc/self/fd | grep -c .";
        for fd in 3..=30 {
            let cwd = format!("/proc/self/fd/{fd}");
            let words = ["exec", "--cwd", &cwd, &container.id, "sh", "-c", line];
            let said = container.say(&words)?;
            if said.stdout.contains("the host's") {
                return Ok(Attempt::Escaped(format!("{cwd} is a way out")));
            }
        }
        let open = container.exec(&["ls", "/proc/self/fd"])?.ok()?;
        anyhow::ensure!(open == "0\n1\n2\n3", "open: {open:?}");
        Ok(Attempt::Stopped("none of 28 descriptors leads out".to_owned()))
    })
}

/// A container executes the program that starts it, and writes to its file once nobody runs it.
#[test]
fn cve_2019_5736_the_runtimes_own_program() -> Result<()> {
    stopped_here("CVE-2019-5736", Runtime::weakened("seal"), |runtime| {
        let bundle = Bundle::new(&["sleep", "1000"])?;
        // not the program itself: that of a failed test would be lost
        let copy = bundle.beside("runtime");
        let runtime = runtime.copied_to(&copy)?;
        let before = std::fs::read(&copy)?;
        let container = runtime.start(&bundle)?;
        container.exec(&["mkfifo", "/tmp/fifo"])?.ok()?;
        let first = runtime.first_words();
        let wait = ["exec", "--detach", &container.id, "/proc/self/exe"];
        let rest = ["--log", "/tmp/fifo", "list"];
        let words: Vec<&str> =
            wait.into_iter().chain(first.iter().map(String::as_str)).chain(rest).collect();
        container.say_to_nobody(&words)?;
        container.exec(&["mkfifo", "/tmp/end"])?.ok()?;
        // Until nobody executes it, it is busy; a file that is not to be written to says so at once.
        let line = "for p in /proc/[0-9]*; do p=${p#/proc/}; \
                    case $(cat /proc/$p/cmdline 2>/dev/null) in \
                    *--log*) [ $p != $$ ] && q=$p ;; esac; done; \
                    exec 3</proc/$q/exe && kill -9 $q && i=0; while [ $i -lt 30000 ]; do \
                    e=$( (echo overwritten >> /proc/self/fd/3) 2>&1 ) && break; \
                    case $e in *busy*) i=$((i+1)) ;; *) break ;; esac; done; echo \"$q:$e\" >/tmp/end";
        container.say_to_nobody(&["exec", "--detach", &container.id, "sh", "-c", line])?;
        let end = std::fs::read_to_string(bundle.rootfs().join("tmp/end"))?;
        anyhow::ensure!(!end.starts_with(':'), "the program did not run: {end}");
        Ok(if std::fs::read(&copy)? == before {
            Attempt::Stopped(end.trim().to_owned())
        } else {
            Attempt::Escaped("the runtime's program was overwritten".to_owned())
        })
    })
}

/// At `create` the first process holds nothing that leads to the host's directories.
#[test]
fn a_created_container_holds_no_directory_of_the_host() -> Result<()> {
    stopped_here("held at create", Runtime::weakened("descriptors"), |runtime| {
        let bundle = Bundle::new(&["true"])?;
        let container = runtime.create(&bundle)?;
        let pid = container.state()?["pid"].as_u64().unwrap_or_default();
        let near = bundle.path();
        let mut held = Vec::new();
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
            let target = std::fs::read_link(entry?.path())?;
            if target.starts_with(near) && target.is_dir() {
                held.push(target.display().to_string());
            }
        }
        if held.is_empty() {
            return Ok(Attempt::Stopped("nothing is held".to_owned()));
        }
        // It has the lock of its own directory too: nobody else can delete it while it lives.
        let pid = Pid::from_raw(i32::try_from(pid)?).context("a pid")?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        pidfd_send_signal(&pidfd, Signal::KILL)?;
        poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None)?;
        Ok(Attempt::Escaped(format!("holds {}", held.join(" "))))
    })
}
