//! Terminals, attached clients, logs.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use bulkhead_runtime::defaults;
use bulkhead_types::Id;
use bulkhead_warden::{State, UnfinishedLog};
use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};
use rustix::process::{Signal, pidfd_send_signal};

use super::exec::exec;
use crate::fixture::*;

crate::cases::cases![
    a_client_that_goes_lets_the_program_go_on,
    a_client_that_stands_still_stops_its_own_program_alone,
    what_is_typed_ahead_is_kept,
    a_full_disk_tears_no_record_and_what_is_missing_is_told,
    what_a_full_disk_has_kept_back_survives_the_warden,
    a_torn_record_is_ended,
    a_slow_client_gets_every_byte,
    a_terminal,
    an_end_does_not_wait_for_clients,
    clients_that_never_read_cost_their_buffers,
    an_end_does_not_wait_for_what_runs_on,
    past_and_live_output_meet,
    attached_clients_get_frames,
    standard_input_reaches_the_process,
    much_output_is_complete,
];

fn a_terminal() {
    let ship = Ship::launch();
    let script = "tty; stty size; test -c /dev/console && echo console; read line; stty size; echo got $line >&2";
    let mut wish = ship.wish(&["sh", "-c", script]);
    wish.spec.process.terminal = true;
    wish.spec.process.terminal_size = (24, 80);
    wish.stdin_open = true;
    let (id, (wish, mut socket)) = (wish.id, wish.attach());
    ship.create(wish).unwrap();
    ship.client.start(id).unwrap();
    let want = "/dev/pts/0\r\n24 80\r\nconsole\r\n";
    let mut bytes = vec![0; want.len()];
    socket.read_exact(&mut bytes).unwrap();
    assert_eq!(String::from_utf8(bytes).unwrap(), want);
    ship.client.resize(id, 50, 132).unwrap();
    socket.write_all(b"typed\n").unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    assert_eq!(text, "typed\r\n50 132\r\ngot typed\r\n");
    assert_eq!(ship.exit(id).code, 0);
    assert!(ship.log(id).ends_with("got typed\r\n"));
}

fn attached_clients_get_frames() {
    let ship = Ship::launch();
    let (wish, socket) = ship.wish(&["sh", "-c", "echo out; echo err >&2"]).attach();
    let (wish, other) = wish.attach();
    let id = wish.id;
    ship.create(wish).unwrap();
    ship.client.start(id).unwrap();
    for socket in [socket, other] {
        let mut frames = frames(socket);
        frames.sort();
        assert_eq!(frames, [(1, "out\n".into()), (2, "err\n".into())]);
    }
    assert_eq!(ship.exit(id).code, 0);
    let (ours, theirs) = UnixStream::pair().unwrap();
    ship.client.attach(id, theirs.into(), false, true, true).unwrap();
    assert_eq!(frames(ours), [], "nothing comes after the end");
}

fn standard_input_reaches_the_process() {
    let ship = Ship::launch();
    let mut wish = ship.wish(&["wc", "-c"]);
    (wish.stdin_open, wish.stdin_once) = (true, true);
    let (id, (wish, mut socket)) = (wish.id, wish.attach());
    ship.create(wish).unwrap();
    ship.client.start(id).unwrap();
    // more than the pipe, the socket and the warden hold together
    let megabytes = vec![b'x'; 3 << 20];
    socket.write_all(&megabytes).unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    assert_eq!(frames(socket), [(1, format!("{}\n", megabytes.len()))]);
    assert_eq!(ship.exit(id).code, 0);
    let closed = ship.wish(&["cat"]);
    assert_eq!(ship.run(closed), (0, String::new()), "without -i it is /dev/null");
}

fn much_output_is_complete() {
    let ship = Ship::launch();
    let (code, text) =
        ship.sh("dd if=/dev/zero bs=1024 count=2000 2>/dev/null | busybox tr '\\0' x; echo end");
    assert_eq!((code, text.len()), (0, 2000 * 1024 + 4));
    let mut wish = ship.wish(&[
        "sh",
        "-c",
        "dd if=/dev/zero bs=1024 count=500 2>/dev/null | busybox tr '\\0' x; echo end",
    ]);
    wish.spec.process.terminal = true;
    let (code, text) = ship.run(wish);
    assert_eq!((code, text.len()), (0, 500 * 1024 + 5), "through a terminal");
}

/// Prints 12,000 KiB and a line.
const MUCH: &str = "dd if=/dev/zero bs=1024 count=12000 2>/dev/null | busybox tr '\\0' x; echo end";
const MUCH_LENGTH: usize = 12_000 * 1024 + 4;

fn is_running(ship: &Ship, wanted: Id) -> bool {
    let known = ship.client.list().unwrap();
    known.iter().any(|(known, _)| known.id == wanted && known.state == State::Running)
}

/// What is logged, without the time, in files that were rotated away too.
fn all_logged(ship: &Ship, id: Id) -> String {
    let path = ship.directory.path().join("logs");
    let name = Ship::log_name(id);
    let rotated = (1..5).rev().map(|number| format!("{name}.{number}"));
    let files = rotated.chain([name.clone()]).map(|name| path.join(name));
    let texts = files.filter_map(|file| fs::read_to_string(file).ok());
    texts.map(|text| logged(&text)).collect()
}

fn a_slow_client_gets_every_byte() {
    let ship = Ship::launch();
    let (container, _created) = sleeper(&ship);
    let much = process(&["dd", "if=/dev/zero", "bs=1M", "count=100"]);
    let (id, mut socket) = exec(&ship, container, much).unwrap();
    // it has had time to write all that anybody took
    assert_eq!(ship.sh("echo well"), (0, "well\n".into()));
    let (mut head, mut bytes, mut total) = ([0; 8], vec![0; 64 << 10], [0; 3]);
    while socket.read_exact(&mut head).is_ok() {
        let mut left = u32::from_be_bytes(head[4..].try_into().unwrap()) as usize;
        total[usize::from(head[0])] += left;
        while left > 0 {
            let most = left.min(4096);
            socket.read_exact(&mut bytes[..most]).unwrap();
            assert!(head[0] == 2 || bytes[..most].iter().all(|byte| *byte == 0));
            left -= most;
        }
    }
    assert_eq!(total[1], 100 << 20);
    assert_ne!(total[2], 0, "what dd says of itself");
    assert_eq!(ship.exit(id).code, 0);
}

fn a_client_that_stands_still_stops_its_own_program_alone() {
    let ship = Ship::launch();
    for terminal in [false, true] {
        let (mut wish, socket) = ship.wish(&["sh", "-c", MUCH]).attach();
        wish.spec.process.terminal = terminal;
        let id = wish.id;
        let (wish, reads) = wish.attach();
        ship.create(wish).unwrap();
        ship.client.start(id).unwrap();
        // one that reads is held back by it, and loses nothing
        let reader = std::thread::spawn(move || payload(reads, terminal));
        for _ in 0..3 {
            assert_eq!(ship.sh("echo well"), (0, "well\n".into()));
        }
        assert!(is_running(&ship, id), "it did not wait for its client");
        assert!(all_logged(&ship, id).len() < MUCH_LENGTH);
        let late = payload(socket, terminal);
        assert_eq!(ship.exit(id).code, 0);
        let end = if terminal { "end\r\n" } else { "end\n" };
        assert_eq!(late.len(), MUCH_LENGTH + usize::from(terminal));
        assert!(late.ends_with(end) && late == reader.join().unwrap());
        assert_eq!(late, all_logged(&ship, id));
        ship.client.forget(id).unwrap();
    }
}

fn a_client_that_goes_lets_the_program_go_on() {
    let ship = Ship::launch();
    let (wish, socket) = ship.wish(&["sh", "-c", MUCH]).attach();
    let id = wish.id;
    ship.create(wish).unwrap();
    ship.client.start(id).unwrap();
    assert_eq!(ship.sh("echo well"), (0, "well\n".into()));
    assert!(is_running(&ship, id));
    drop(socket);
    assert_eq!(ship.exit(id).code, 0);
    assert_eq!(all_logged(&ship, id).len(), MUCH_LENGTH);
}

fn an_end_does_not_wait_for_clients() {
    let ship = Ship::launch();
    for terminal in [false, true] {
        let (mut wish, socket) = ship.wish(&["yes"]).attach();
        wish.spec.process.terminal = terminal;
        let id = wish.id;
        let created = ship.create(wish).unwrap();
        ship.client.start(id).unwrap();
        assert_eq!(ship.sh("echo well"), (0, "well\n".into()));
        pidfd_send_signal(&created.pidfd, Signal::KILL).unwrap();
        assert_eq!(ship.exit(id).code, 137);
        let log = all_logged(&ship, id);
        ship.client.forget(id).unwrap();
        assert!(ship.client.list().unwrap().is_empty());
        // the rest is kept for the client, even of a container that is forgotten
        let text = payload(socket, terminal);
        assert!(!text.is_empty());
        assert!(text == log, "{} bytes instead of {}", text.len(), log.len());
    }
}

fn clients_that_never_read_cost_their_buffers() {
    let ship = Ship::launch();
    let (mut wish, _first) = ship.wish(&["yes"]).attach();
    let mut others = Vec::new();
    for _ in 0..99 {
        let (more, socket) = wish.attach();
        wish = more;
        others.push(socket);
    }
    let id = wish.id;
    let created = ship.create(wish).unwrap();
    let warden = parent(created.pid);
    let memory = || {
        let status = fs::read_to_string(format!("/proc/{warden}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let before = memory();
    ship.client.start(id).unwrap();
    for _ in 0..100 {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ship.client.attach(id, theirs.into(), false, true, true).unwrap();
        others.push(ours);
    }
    for _ in 0..3 {
        assert_eq!(ship.sh("echo well"), (0, "well\n".into()));
    }
    let grown = memory().saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB for 200 clients");
    pidfd_send_signal(&created.pidfd, Signal::KILL).unwrap();
    assert_eq!(ship.exit(id).code, 137);
    let grown = memory().saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB for 200 clients of one that has ended");
}

fn an_end_does_not_wait_for_what_runs_on() {
    let ship = Ship::launch();
    let (container, created) = sleeper(&ship);
    for terminal in [false, true] {
        let mut writer = process(&["sh", "-c", "trap '' HUP; yes & exec echo x"]);
        writer.terminal = terminal;
        let (id, socket) = exec(&ship, container, writer).unwrap();
        let reader = std::thread::spawn(move || payload(socket, terminal));
        assert_eq!(ship.exit(id).code, 0);
        assert!(reader.join().unwrap().contains('x'));
        ship.client.forget(id).unwrap();
        assert_eq!(ship.sh("echo well"), (0, "well\n".into()), "others are served");
    }
    pidfd_send_signal(&created.pidfd, Signal::KILL).unwrap();
    assert_eq!(ship.exit(container).code, 137);
}

fn past_and_live_output_meet() {
    let ship = Ship::launch();
    // in pieces of lines, on both streams
    let script = "i=0; while [ $i -lt 3000 ]; do i=$((i+1))
        printf \"a$i \"; printf \"b$i\\n\"; printf \"c$i\" >&2; done";
    for terminal in [false, true] {
        let mut wish = ship.wish(&["sh", "-c", script]);
        wish.spec.process.terminal = terminal;
        let id = wish.id;
        ship.create(wish).unwrap();
        ship.client.start(id).unwrap();
        let readers: Vec<_> = (0..6)
            .map(|_| {
                let (ours, theirs) = UnixStream::pair().unwrap();
                ours.set_read_timeout(Some(TIMEOUT)).unwrap();
                let past =
                    ship.client.attach_after_log(id, theirs.into(), [false, true, true]).unwrap();
                let mut before = Vec::new();
                for (number, file) in past.files.iter().enumerate() {
                    let mut text = String::new();
                    fs::File::from(file.try_clone().unwrap()).read_to_string(&mut text).unwrap();
                    if number == past.files.len() - 1 {
                        text.truncate(past.size as usize);
                    }
                    before.extend(records(&text));
                }
                // ended already: then all of it is past
                if past.files.is_empty() {
                    let path = ship.directory.path().join("logs").join(Ship::log_name(id));
                    before.extend(records(&fs::read_to_string(path).unwrap()));
                }
                ship.client.release(&past).unwrap();
                std::thread::spawn(move || {
                    if terminal {
                        before.push((1, payload(ours, true)));
                    } else {
                        before.extend(frames(ours));
                    }
                    before
                })
            })
            .collect();
        assert_eq!(ship.exit(id).code, 0);
        let path = ship.directory.path().join("logs").join(Ship::log_name(id));
        let all = records(&fs::read_to_string(path).unwrap());
        for reader in readers {
            let seen = reader.join().unwrap();
            for stream in [1, 2] {
                assert!(of(stream, &seen) == of(stream, &all), "stream {stream}");
            }
        }
        assert!(of(1, &all).contains("a3000 b3000"));
        ship.client.forget(id).unwrap();
    }
}

fn what_is_typed_ahead_is_kept() {
    let ship = Ship::launch();
    let script = "read one; read two; echo got $one $two";
    let (mut wish, mut socket) = ship.wish(&["sh", "-c", script]).attach();
    (wish.spec.process.terminal, wish.stdin_open) = (true, true);
    let id = wish.id;
    // before there is a process, and before its program runs
    socket.write_all(b"first\n").unwrap();
    ship.create(wish).unwrap();
    socket.write_all(b"second\n").unwrap();
    ship.client.start(id).unwrap();
    assert!(payload(socket, true).ends_with("got first second\r\n"));
    assert_eq!(ship.exit(id).code, 0);
    ship.client.forget(id).unwrap();
}

/// A file system in memory that is in no namespace: the log's directory, small enough to be full.
struct SmallDisk(OwnedFd);

impl SmallDisk {
    fn new() -> Self {
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        fsconfig_set_string(&context, "size", "256k").unwrap();
        fsconfig_create(&context).unwrap();
        let flags = FsMountFlags::FSMOUNT_CLOEXEC;
        let mount = fsmount(&context, flags, MountAttrFlags::empty()).unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Self(rustix::fs::openat(mount, ".", flags, Mode::empty()).unwrap())
    }

    fn is_log_of(&self, wish: &mut Wish) {
        wish.fds[1 + defaults::DEVICES.len()] = self.0.try_clone().unwrap();
    }

    fn open(&self, name: &str) -> fs::File {
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
        rustix::fs::openat(&self.0, name, flags, Mode::RUSR | Mode::WUSR).unwrap().into()
    }

    /// Takes all but so many bytes.
    fn fill(&self, left: u64) {
        let file = self.open("ballast");
        let free = rustix::fs::fstatvfs(&self.0).unwrap();
        let size = free.f_bfree * free.f_frsize - left;
        rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size).unwrap();
    }

    fn free(&self) {
        rustix::fs::unlinkat(&self.0, "ballast", AtFlags::empty()).unwrap();
    }

    fn log(&self, id: Id) -> String {
        let mut text = String::new();
        self.open(&Ship::log_name(id)).read_to_string(&mut text).unwrap();
        text
    }
}

fn a_full_disk_tears_no_record_and_what_is_missing_is_told() {
    let ship = Ship::launch();
    let disk = SmallDisk::new();
    // 100 records of 80 bytes and more after each line that comes
    let script = "n=0; while read line; do i=0
        while [ $i -lt 100 ]; do n=$((n+1)); i=$((i+1)); echo line $n; done; done
        dd if=/dev/zero bs=1024 count=200 2>/dev/null | busybox tr '\\0' x; echo; echo end >&2";
    let mut wish = ship.wish(&["sh", "-c", script]);
    disk.is_log_of(&mut wish);
    wish.stdin_open = true;
    wish.stdin_once = true;
    let (id, (wish, mut socket)) = (wish.id, wish.attach());
    ship.create(wish).unwrap();
    ship.client.start(id).unwrap();
    let lines = |count: usize| (1..=count).map(|it| format!("line {it}\n")).collect::<String>();
    let mut seen = String::new();
    let mut go_on = |socket: &mut UnixStream, count: usize| {
        socket.write_all(b"\n").unwrap();
        while seen != lines(count) {
            let mut head = [0; 8];
            socket.read_exact(&mut head).unwrap();
            let mut bytes = vec![0; u32::from_be_bytes(head[4..].try_into().unwrap()) as usize];
            socket.read_exact(&mut bytes).unwrap();
            seen.push_str(std::str::from_utf8(&bytes).unwrap());
        }
    };
    // One page is left. The program does not wait for the disk.
    disk.fill(4096);
    go_on(&mut socket, 100);
    let text = disk.log(id);
    assert!(text.ends_with("}\n"), "a torn record: {text:?}");
    let kept = logged(&text);
    assert!(kept.len() > 100 && lines(100).starts_with(&kept) && kept != lines(100), "{kept}");
    // Whoever comes now gets all the same.
    let (ours, theirs) = UnixStream::pair().unwrap();
    let past = ship.client.attach_after_log(id, theirs.into(), [false, true, true]).unwrap();
    ship.client.release(&past).unwrap();
    let late = std::thread::spawn(|| payload(ours, false));
    // There is room again before all of it would be too much.
    disk.free();
    go_on(&mut socket, 200);
    assert_eq!(logged(&disk.log(id)), lines(200));
    // More than is kept.
    disk.fill(4096);
    socket.shutdown(Shutdown::Write).unwrap();
    let rest = std::thread::spawn(|| payload(socket, false));
    assert_eq!(ship.exit(id).code, 0);
    assert!(rest.join().unwrap().ends_with("x\nend\n"));
    let late = late.join().unwrap();
    assert_eq!(late.len(), lines(200).len() - kept.len() + (200 << 10) + "\nend\n".len());
    let text = disk.log(id);
    assert!(text.ends_with("}\n"), "a torn record: {text:?}");
    // The container has ended, and its log is finished all the same, in the order of its output.
    disk.free();
    let end = Instant::now() + TIMEOUT;
    while !disk.log(id).contains("\"end") {
        assert!(Instant::now() < end, "{}", disk.log(id).len());
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let text = logged(&disk.log(id));
    let text = text.strip_prefix(&lines(200)).unwrap();
    let (before, gap) = text.split_once('[').unwrap();
    let (missing, after) = gap.split_once(" bytes of output are missing here").unwrap();
    let after = after.strip_prefix(": the log could not be written]\n").unwrap();
    let after = after.strip_suffix("end\n").unwrap();
    assert!((before.to_owned() + after).trim_end().bytes().all(|byte| byte == b'x'));
    assert!(before.len() >= 48 << 10);
    assert_eq!(before.len() + missing.parse::<usize>().unwrap() + after.len(), (200 << 10) + 1);
    ship.client.forget(id).unwrap();
}

fn what_a_full_disk_has_kept_back_survives_the_warden() {
    let ship = Ship::launch();
    let disk = SmallDisk::new();
    let logged_to = |wish: &mut Wish| disk.is_log_of(wish);
    let lines = (1..=20).map(|it| format!("line {it}\n")).collect::<String>();
    let script = "i=0; while [ $i -lt 20 ]; do i=$((i+1)); echo line $i; done";
    // One that has ended, one that runs, and one that is forgotten and removed.
    let run = |more: &str| {
        let mut wish = ship.wish(&["sh", "-c", &format!("{script}; {more}")]);
        logged_to(&mut wish);
        let id = wish.id;
        let (wish, mut socket) = wish.attach();
        let created = ship.create(wish).unwrap();
        let handover = ship.client.start(id).unwrap().unwrap();
        let (mut seen, mut frame) = (0, [0; 8]);
        while seen < lines.len() {
            socket.read_exact(&mut frame).unwrap();
            let mut text = vec![0; u32::from_be_bytes(frame[4..].try_into().unwrap()) as usize];
            socket.read_exact(&mut text).unwrap();
            seen += text.len();
        }
        (id, created, handover)
    };
    disk.fill(0);
    let (ended, ..) = run("exit 3");
    assert_eq!(ship.exit(ended).code, 3);
    let (removed, ..) = run("exit 4");
    assert_eq!(ship.exit(removed).code, 4);
    ship.client.forget(ended).unwrap();
    ship.client.forget(removed).unwrap();
    let (runs, created, handover) = run("sleep 1000");
    assert_eq!(disk.log(ended) + &disk.log(removed) + &disk.log(runs), "");
    super::lifecycle::kill_warden(&ship, created.pid);
    // Still full: nothing is dropped by an attempt.
    ship.client.adopt(&handover).unwrap();
    let mut unfinished = ship.client.unfinished_logs().unwrap();
    unfinished.sort();
    let mut both = [ended, removed];
    both.sort();
    assert_eq!(unfinished, both);
    let log = |id| UnfinishedLog {
        directory: disk.0.try_clone().unwrap(),
        name: Ship::log_name(id),
        max_size: 10 << 20,
        max_files: 5,
    };
    ship.client.discard_log(removed).unwrap();
    ship.client.finish_log(ended, log(ended)).unwrap();
    assert_eq!(ship.client.unfinished_logs().unwrap(), []);
    disk.free();
    for id in [ended, runs] {
        let end = Instant::now() + TIMEOUT;
        while logged(&disk.log(id)) != lines {
            assert!(Instant::now() < end, "{}", disk.log(id));
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
    assert_eq!(disk.log(removed), "");
    pidfd_send_signal(&created.pidfd, Signal::KILL).unwrap();
    assert_eq!(ship.exit(runs).code, 137);
    ship.client.forget(runs).unwrap();
    let kept = fs::read_dir(ship.directory.path().join("warden.logs")).unwrap();
    assert_eq!(kept.count(), 0);
}

fn a_torn_record_is_ended() {
    let ship = Ship::launch();
    let wish = ship.wish(&["echo", "after"]);
    let id = wish.id;
    let path = ship.directory.path().join("logs").join(Ship::log_name(id));
    fs::write(&path, "{\"log\":\"befo").unwrap();
    ship.create(wish).unwrap();
    ship.client.start(id).unwrap();
    assert_eq!(ship.exit(id).code, 0);
    let text = fs::read_to_string(path).unwrap();
    let (torn, rest) = text.split_once('\n').unwrap();
    assert_eq!(torn, "{\"log\":\"befo");
    let records = records(rest);
    assert!(records[0].1.starts_with("[output is missing here: "), "{records:?}");
    assert_eq!(records[1..], [(1, "after\n".to_owned())]);
    ship.client.forget(id).unwrap();
}

fn of(stream: u8, records: &[(u8, String)]) -> String {
    records.iter().filter(|(of, _)| *of == stream).map(|(_, text)| text.as_str()).collect()
}

/// The records of a log file: (stream, text).
fn records(text: &str) -> Vec<(u8, String)> {
    let record = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        let stream = if value["stream"] == "stderr" { 2 } else { 1 };
        (stream, value["log"].as_str().unwrap().to_owned())
    };
    text.lines().map(record).collect()
}
