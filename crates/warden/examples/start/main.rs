//! What a start costs through the warden, against what the kernel asks for alone.
//!
//! `cargo xtask bench start` runs it; it has to be root. `start measure RUNS` measures with the
//! cgroups of this host, `start measure-v2 RUNS` in a view of it that has cgroup v2 alone. The rows
//! are taken in turns, with a pause before each: what is slow after a quiet moment is to be seen.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_types, reason = "a test calls other programs as users do")]

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

mod floor;
mod place;
mod warden;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["warden", "--socket", socket] => {
            bulkhead_warden::serve(Path::new(socket)).map_err(Into::into)
        }
        ["floor", directory] => floor::serve(Path::new(directory)),
        ["measure", runs] => runs.parse().map_err(Into::into).and_then(measure),
        ["measure-v2", runs] => {
            place::enter_view_of_v2().and_then(|()| measure(runs.parse().map_err(Box::new)?))
        }
        _ => Err("usage: start measure|measure-v2 RUNS".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            eprintln!("{cause}");
            ExitCode::FAILURE
        }
    }
}

/// Measures each row so many times, and prints them.
fn measure(runs: usize) -> Result<()> {
    let place = place::Place::make()?;
    let mut floor = Floor::launch(place.path())?;
    let warden = warden::Bench::launch(place.path())?;
    let mut rows = [
        ("overlay, mounts and exec alone", Vec::new()),
        ("warden, compartments ready", Vec::new()),
        ("warden, cloned at the start", Vec::new()),
        ("  the same, from create to exec", Vec::new()),
        ("  the same, from create to exec", Vec::new()),
    ];
    for round in 0..=runs {
        let alone = floor.run()?;
        let ready = warden.run(2)?;
        let cloned = warden.run(0)?;
        // the first round only warms the caches
        if round > 0 {
            rows[0].1.push(alone);
            rows[1].1.push(ready.whole);
            rows[2].1.push(cloned.whole);
            rows[3].1.push(ready.warden);
            rows[4].1.push(cloned.warden);
        }
    }
    floor.end()?;
    let groups = place::cgroups()?;
    println!("\nfrom nothing mounted to the exec, {runs} runs each, in turns; {groups}");
    println!("{:<34}{:>9}{:>9}{:>9}{:>9}", "", "min ms", "ratio", "median", "ratio");
    let base = median(&mut rows[0].1);
    let least = rows[0].1[0];
    for index in [0, 1, 3, 2, 4] {
        let (name, times) = &mut rows[index];
        let middle = median(times);
        println!(
            "{name:<34}{:>9.2}{:>9.2}{:>9.2}{:>9.2}",
            milliseconds(times[0]),
            times[0].as_secs_f64() / least.as_secs_f64(),
            milliseconds(middle),
            middle.as_secs_f64() / base.as_secs_f64(),
        );
    }
    println!("the mark: 1.50 with compartments ready");
    Ok(())
}

/// The process that measures the floor: it forks, so it must have one thread.
struct Floor {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Floor {
    fn launch(directory: &Path) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("floor")
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let answers = BufReader::new(child.stdout.take().ok_or("no standard output")?);
        Ok(Self { child, answers })
    }

    fn run(&mut self) -> Result<Duration> {
        let mut input = self.child.stdin.as_ref().ok_or("no standard input")?;
        input.write_all(b"\n")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(Duration::from_nanos(line.trim().parse().map_err(|_| "the floor gave way")?))
    }

    fn end(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        self.child.wait()?;
        Ok(())
    }
}

/// A quiet moment.
fn pause() {
    let moment = rustix::time::Timespec { tv_sec: 0, tv_nsec: 40_000_000 };
    let _ = rustix::event::poll(&mut [], Some(&moment));
}

/// Sorts, and takes the middle.
fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
