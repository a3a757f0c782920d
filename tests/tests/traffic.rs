//! The engine is killed under traffic: no connection breaks, and no name goes unanswered.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bulkhead_tests::Daemon;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// How often the engine is killed, unless `BULKHEAD_KILLS` says it.
const KILLS: usize = 4;
/// What a stub resolver waits before it asks again, once (resolv.conf(5), `timeout` and `attempts`): the
/// kernel may lose a datagram.
const PATIENCE: Duration = Duration::from_secs(5);
const ATTEMPTS: usize = 2;
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// How often each of them has done what it does; `None` for one that has ended.
struct Progress {
    counts: Mutex<[Option<usize>; 4]>,
    changed: Condvar,
    stop: AtomicBool,
}

/// One of them.
struct Busy<'a> {
    what: &'static str,
    at: usize,
    progress: &'a Progress,
}

impl Progress {
    fn counts(&self) -> MutexGuard<'_, [Option<usize>; 4]> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when each of them has done three more, or one has ended.
    fn all_go_on(&self) {
        let counts = self.counts();
        let before = *counts;
        let waits = |now: &mut [Option<usize>; 4]| {
            let mut both = now.iter().zip(&before);
            now.iter().all(Option::is_some)
                && both.any(|(now, before)| *now < before.map(|it| it + 3))
        };
        drop(self.changed.wait_while(counts, waits).unwrap_or_else(PoisonError::into_inner));
    }
}

impl Busy<'_> {
    /// Returns how often it was done.
    fn repeat(&self, mut once: impl FnMut(usize) -> Result<()>) -> Result<usize> {
        let mut number = 0;
        while !self.progress.stop.load(Ordering::Relaxed) {
            once(number).with_context(|| format!("{} {number}", self.what))?;
            number += 1;
            self.note(Some(number));
        }
        Ok(number)
    }

    fn note(&self, count: Option<usize>) {
        self.progress.counts()[self.at] = count;
        self.progress.changed.notify_all();
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.note(None);
    }
}

/// There and back on one connection, byte by byte the same.
fn talk(mut peer: TcpStream, busy: Busy<'_>) -> Result<usize> {
    peer.set_read_timeout(Some(Duration::from_secs(60)))?;
    peer.set_nodelay(true)?;
    busy.repeat(|number| {
        let said = format!("{number}\n").repeat(50);
        peer.write_all(said.as_bytes())?;
        let mut heard = vec![0; said.len()];
        peer.read_exact(&mut heard)?;
        ensure!(heard == said.as_bytes(), "another answer");
        Ok(())
    })
}

/// One question after the other.
fn ask(socket: &UdpSocket, busy: Busy<'_>) -> Result<usize> {
    socket.set_read_timeout(Some(PATIENCE))?;
    busy.repeat(|number| {
        let [high, low] = (number as u16).to_be_bytes();
        let mut question = vec![high, low, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 4];
        question.extend(b"echo\0\0\x01\0\x01");
        let mut answer = [0; 512];
        let heard = (0..ATTEMPTS).find_map(|attempt| {
            if attempt > 0 {
                println!("question {number} is asked again");
            }
            socket.send_to(&question, "127.0.0.11:53").ok()?;
            socket.recv(&mut answer).ok()
        });
        let length = heard.context("no answer")?;
        ensure!(answer[..2] == [high, low], "the answer to another question");
        ensure!(answer[..length].ends_with(&ADDRESS.octets()), "{:x?}", &answer[..length]);
        Ok(())
    })
}

/// Runs `work` in the network namespace of a process, on a thread of its own.
fn within<T: Send>(pid: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let netns = File::open(format!("/proc/{pid}/ns/net"))?;
    let enter = || {
        move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
        work()
    };
    std::thread::scope(|scope| scope.spawn(enter).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[test]
fn connections_and_names_outlive_the_engine() -> Result<()> {
    let kills = std::env::var("BULKHEAD_KILLS").ok().map_or(Ok(KILLS), |text| text.parse())?;
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let line = "set -e; $DOCKER network create --subnet 10.77.0.0/24 front >/dev/null
        $DOCKER run -d --name echo --network front -p 8070:7 box nc -ll -p 7 -e cat >/dev/null
        $DOCKER run -d --name calls --network front box sleep 100000 >/dev/null
        $DOCKER exec calls sh -c 'until echo up | nc echo 7; do :; done'
        $DOCKER inspect --format '{{.State.Pid}}' calls";
    let said = daemon.shell(line)?.ok()?;
    let pid = said.lines().last().context("a pid")?;

    let published = daemon.connect(8070)?;
    let outside = Ipv4Addr::new(10, 98, 0, 2);
    let by_address = daemon.within(|| Ok(TcpStream::connect((outside, 8070))?))?;
    let direct = within(pid, || Ok(TcpStream::connect(SocketAddrV4::new(ADDRESS, 7))?))?;
    let asking = within(pid, || Ok(UdpSocket::bind("127.0.0.1:0")?))?;

    let progress = Progress {
        counts: Mutex::new([Some(0); 4]),
        changed: Condvar::new(),
        stop: AtomicBool::new(false),
    };
    let busy = |what, at| Busy { what, at, progress: &progress };
    let counts = std::thread::scope(|scope| {
        let works = [
            scope.spawn(|| talk(published, busy("by a port published on loopback", 0))),
            scope.spawn(|| talk(by_address, busy("by a port published on an address", 1))),
            scope.spawn(|| talk(direct, busy("container to container", 2))),
            scope.spawn(|| ask(&asking, busy("question", 3))),
        ];
        // before the first kill, while there is no engine, and when it is back
        let killed = (0..kills).try_for_each(|_| {
            progress.all_go_on();
            daemon.crash()?;
            progress.all_go_on();
            daemon.up()
        });
        progress.all_go_on();
        progress.stop.store(true, Ordering::Relaxed);
        let ended =
            works.map(|work| work.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        killed.and_then(|()| ended.into_iter().collect::<Result<Vec<usize>>>())
    })?;
    println!("{kills} kills; there and back, and questions: {counts:?}");
    daemon.docker(&["rm", "-f", "echo", "calls"])?.ok()?;
    Ok(())
}
