//! Single acts, for cases that take more than one process.

use std::ffi::CString;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use bulkhead_sys::process::{self, Arguments};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::{calls, files, io_outcome, outcome, say};

pub fn run(verb: &str, words: &[&str]) -> Result<(), String> {
    let number = |at: usize| {
        words.get(at).and_then(|word| word.parse::<u64>().ok()).ok_or("a number is missing")
    };
    match verb {
        "status" => status(),
        "setcap" => set_capability(words.first().ok_or("a path is missing")?),
        "as" => run_as(number(0)? as u32, words.get(1..).unwrap_or_default()),
        "trace" => {
            let (attached, memory) = calls::trace(number(0)?);
            say("attach", attached);
            say("memory", memory);
            Ok(())
        }
        "forks" => forks(number(0)?),
        "inotify" => inotify(number(0)?),
        "descriptors" => descriptors(number(0)?),
        "fill" => fill(words.first().ok_or("a path is missing")?, number(1)?),
        "memory" => {
            let bytes = vec![1u8; number(0)? as usize];
            say("memory", std::hint::black_box(&bytes).len());
            Ok(())
        }
        "spin" => spin(number(0)?, Duration::from_millis(number(1)?)),
        "terminal" => terminal(),
        "escape" => {
            say("chroot escape", calls::chroot_escape());
            Ok(())
        }
        "read" => {
            for path in words {
                say(&format!("read {path}"), files::read(path));
            }
            Ok(())
        }
        "write" => {
            for path in words {
                let opened = std::fs::OpenOptions::new().append(true).open(path);
                say(&format!("write {path}"), io_outcome(opened));
            }
            Ok(())
        }
        "listen" => {
            let fds = files::list("/proc/self/fd").join(" ");
            say("descriptors", fds);
            status()
        }
        _ => Err(format!("there is no word {verb:?}")),
    }
}

fn status() -> Result<(), String> {
    for line in std::fs::read_to_string("/proc/self/status").unwrap_or_default().lines() {
        if let Some((name, value)) = line.split_once(':') {
            say(&format!("status {name}"), value.trim());
        }
    }
    say("cwd", io_outcome(std::env::current_dir()));
    let here = std::env::current_dir().unwrap_or_default();
    say("directory", here.display());
    Ok(())
}

/// Gives a file `CAP_NET_ADMIN`, permitted and effective (capabilities(7), "File capabilities").
fn set_capability(path: &str) -> Result<(), String> {
    const REVISION_2_EFFECTIVE: u32 = 0x0200_0001;
    const NET_BIND_SERVICE: u32 = 1 << 10;
    let mut value = Vec::new();
    for word in [REVISION_2_EFFECTIVE, NET_BIND_SERVICE, 0, 0, 0] {
        value.extend(word.to_le_bytes());
    }
    let flags = rustix::fs::XattrFlags::empty();
    say("setcap", outcome(rustix::fs::setxattr(path, c"security.capability", &value, flags)));
    Ok(())
}

fn run_as(id: u32, words: &[&str]) -> Result<(), String> {
    let words: Vec<CString> = words.iter().filter_map(|word| CString::new(*word).ok()).collect();
    let program = words.first().cloned().ok_or("a program is missing")?;
    process::set_identity(id, id, &[id]).map_err(|errno| errno.to_string())?;
    Err(process::execve(&program, &Arguments::new(words), &Arguments::new(vec![])).to_string())
}

/// Makes processes that wait, until `most` or a refusal, and ends them again.
fn forks(most: u64) -> Result<(), String> {
    let (read, _write) = std::io::pipe().map_err(|error| error.to_string())?;
    let mut pids = Vec::new();
    let mut refused = "none".to_owned();
    for _ in 0..most {
        match process::fork(|| {
            let _ = rustix::io::read(&read, &mut [0]);
            0
        }) {
            Ok(pid) => pids.push(pid),
            Err(errno) => {
                refused = bulkhead_sys::testing::name(errno);
                break;
            }
        }
    }
    println!("{}", serde_json::json!({ "check": "forks", "result": pids.len().to_string() }));
    say("refused", refused);
    let _ = std::io::stdout().flush();
    for pid in pids.iter().filter_map(|pid| Pid::from_raw(*pid as i32)) {
        let _ = kill_process(pid, Signal::KILL);
    }
    for pid in pids.iter().filter_map(|pid| Pid::from_raw(*pid as i32)) {
        let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED);
    }
    Ok(())
}

/// Makes `most` inotify instances or as many as there may be, and keeps them if there were many.
fn inotify(most: u64) -> Result<(), String> {
    let mut held = Vec::new();
    let mut refused = "none".to_owned();
    for _ in 0..most {
        match rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::CLOEXEC) {
            Ok(fd) => held.push(fd),
            Err(errno) => {
                refused = bulkhead_sys::testing::name(errno);
                break;
            }
        }
    }
    say("instances", held.len());
    say("refused", refused);
    if most > 1 {
        println!("held");
        let _ = rustix::event::poll(&mut [], None);
    }
    Ok(())
}

fn descriptors(most: u64) -> Result<(), String> {
    let mut held = Vec::new();
    let mut refused = "none".to_owned();
    for _ in 0..most {
        match std::fs::File::open("/dev/null") {
            Ok(fd) => held.push(fd),
            error => {
                refused = io_outcome(error);
                break;
            }
        }
    }
    say("opened", held.len());
    say("refused", refused);
    Ok(())
}

fn fill(path: &str, bytes: u64) -> Result<(), String> {
    let mut file = std::fs::File::create(path).map_err(|error| error.to_string())?;
    let block = vec![0; 1 << 20];
    let mut written = 0;
    let ended = loop {
        if written >= bytes {
            break "ok".to_owned();
        }
        match file.write_all(&block) {
            Ok(()) => written += block.len() as u64,
            error => break io_outcome(error),
        }
    };
    say("fill", ended);
    drop(file);
    let _ = std::fs::remove_file(path);
    Ok(())
}

/// Keeps `threads` busy for a time, and tells how much of the processors they got.
fn spin(threads: u64, time: Duration) -> Result<(), String> {
    let end = Instant::now() + time;
    let spinners: Vec<_> = (0..threads)
        .map(|_| {
            std::thread::spawn(move || {
                while Instant::now() < end {
                    std::hint::spin_loop();
                }
            })
        })
        .collect();
    for spinner in spinners {
        let _ = spinner.join();
    }
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    say("milliseconds", used.tv_sec * 1000 + used.tv_nsec / 1_000_000);
    Ok(())
}

/// Whether standard input is a terminal of the container's own devpts, led by its own session.
fn terminal() -> Result<(), String> {
    let own = std::fs::metadata("/dev/pts").map(|it| it.dev()).unwrap_or(0);
    match rustix::fs::fstat(rustix::stdio::stdin()) {
        Ok(stat) => say("terminal is the container's", stat.st_dev == own),
        Err(errno) => say("terminal is the container's", bulkhead_sys::testing::name(errno)),
    }
    let leader = rustix::process::getsid(None).map_or(0, |pid| pid.as_raw_nonzero().get());
    say("leads its session", leader as u32 == std::process::id());
    Ok(())
}
