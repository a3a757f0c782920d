//! What was measured, as one table to be pasted into a note, or as JSON.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::bundle::Variant;
use super::runtime::{BULKHEAD, Operation, Runtime, Took};
use super::{Bench, OPERATIONS};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Table,
    Json,
}

impl Format {
    pub fn parse(name: &str) -> Result<Self> {
        match name {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            other => bail!("there is no format {other:?}: use table or json"),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Json => "json",
        }
    }
}

/// What no runtime can be below.
#[derive(Debug, Default)]
pub struct Kernel {
    pub floor: Vec<Took>,
    pub spawn: Vec<Took>,
    /// kB.
    pub peak: u64,
}

/// The marks of the runtime's issue.
const RUN_OF_CRUN: f64 = 0.65;
const RUN_OF_RUNC: f64 = 0.2;
const EXEC_OF_CRUN: f64 = 0.65;
const PEAK_KB: u64 = 2048;
const MEMORY_CGROUP_KB: u64 = 512;
const USERNS_MORE: f64 = 0.10;

#[derive(Debug)]
pub struct Report {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
    notes: Vec<String>,
    json: Value,
}

impl Report {
    pub fn new(bench: &Bench, load_before: &str) -> Result<Self> {
        let runtimes = &bench.runtimes;
        let view = |runtime: &Runtime| bench.views[runtime.view].name;
        let mut columns = vec!["min / median ms".to_owned()];
        columns.extend(runtimes.iter().map(|it| format!("{}: {}", view(it), it.name)));
        columns.extend(["of crun, of runc (min)".to_owned(), "mark".to_owned()]);
        let mut report = Self { columns, rows: Vec::new(), notes: Vec::new(), json: Value::Null };

        let only_first = |text: String| {
            let mut cells = vec![String::new(); runtimes.len()];
            cells[0] = text;
            cells
        };
        let kernel = &bench.kernel;
        report.row("the kernel alone (1)", only_first(pair(&kernel.floor)), "", "");
        report.row("spawn of the no-op, no container", only_first(pair(&kernel.spawn)), "", "");
        for operation in OPERATIONS.iter().chain([&Operation::Cold]) {
            report.times(*operation, bench);
        }
        report.userns(bench);
        report.processor(bench);
        report.sizes(bench);
        report.notes(bench, load_before)?;
        report.json = as_json(bench, load_before);
        Ok(report)
    }

    pub fn print(&self, format: Format) -> Result<()> {
        if format == Format::Json {
            println!("{}", serde_json::to_string_pretty(&self.json)?);
            return Ok(());
        }
        let rows: Vec<&Vec<String>> = std::iter::once(&self.columns).chain(&self.rows).collect();
        let width = |column: usize| {
            rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        for (index, row) in rows.iter().enumerate() {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            println!("| {} |", cells.collect::<Vec<_>>().join(" | "));
            if index == 0 {
                let rules = widths.iter().map(|width| "-".repeat(*width));
                println!("| {} |", rules.collect::<Vec<_>>().join(" | "));
            }
        }
        println!();
        self.notes.iter().for_each(|note| println!("{note}"));
        Ok(())
    }

    fn row(&mut self, name: &str, cells: Vec<String>, ratio: &str, mark: &str) {
        let mut row = vec![name.to_owned()];
        row.extend(cells);
        row.extend([ratio.to_owned(), mark.to_owned()]);
        self.rows.push(row);
    }

    fn times(&mut self, operation: Operation, bench: &Bench) {
        let mut cells = Vec::new();
        for runtime in &bench.runtimes {
            let view = bench.views[runtime.view].name;
            if let Some((count, text)) = runtime.failed.get(&operation) {
                let (who, what) = (&runtime.name, name(operation));
                self.notes.push(format!("{who} in {view}: {what} FAILED {count} times: {text}"));
            }
            match (runtime.times.get(&operation), runtime.faults.get(&operation)) {
                (Some(times), _) => cells.push(pair(times)),
                (None, Some(fault)) => {
                    cells.push("cannot".to_owned());
                    self.notes.push(format!("{} in {view}: {fault}", runtime.name));
                }
                (None, None) => cells.push("—".to_owned()),
            }
        }
        let ratios = Ratios::of(operation, bench);
        let verdict = match operation {
            Operation::Run(Variant::Plain | Variant::Seccomp) => {
                let wanted = format!("≤ {RUN_OF_CRUN} crun, ≤ {RUN_OF_RUNC} runc");
                verdict(&wanted, ratios.within(Some(RUN_OF_CRUN), Some(RUN_OF_RUNC)))
            }
            Operation::Exec(_) => {
                let wanted = format!("≤ {EXEC_OF_CRUN} crun");
                verdict(&wanted, ratios.within(Some(EXEC_OF_CRUN), None))
            }
            _ => String::new(),
        };
        self.row(name(operation), cells, &ratios.text(), &verdict);
    }

    fn userns(&mut self, bench: &Bench) {
        let more: Vec<Option<f64>> = bench.runtimes.iter().map(userns_more).collect();
        let cells = more.iter().map(|more| match more {
            Some(more) => format!("{:+.0} %", more * 100.0),
            None => "—".to_owned(),
        });
        let ours = bench.runtimes.iter().zip(&more).filter(|(runtime, _)| runtime.is(BULKHEAD));
        let ok = ours.map(|(_, more)| more.map(|more| more <= USERNS_MORE)).reduce(both);
        let mark = verdict(&format!("≤ {:+.0} %", USERNS_MORE * 100.0), ok.flatten());
        self.row("  more than run without (min)", cells.collect(), "", &mark);
    }

    /// What is left of the figures on a busy machine.
    fn processor(&mut self, bench: &Bench) {
        for operation in [
            Operation::Run(Variant::Plain),
            Operation::Run(Variant::Seccomp),
            Operation::Exec(Variant::Plain),
        ] {
            let cells = bench.runtimes.iter().map(|it| match it.times.get(&operation) {
                Some(times) => pair_of(times, |took| took.processor),
                None => "—".to_owned(),
            });
            let ratios = Ratios::by(operation, bench, |took| took.processor).text();
            self.row(
                &format!("processor time of {}", name(operation)),
                cells.collect(),
                &ratios,
                "",
            );
        }
    }

    fn sizes(&mut self, bench: &Bench) {
        let runtimes = &bench.runtimes;
        for (variant, name) in SYSCALLS {
            let cells = runtimes.iter().map(|it| number(it.syscalls.get(&variant).copied()));
            self.row(name, cells.collect(), "", "");
        }
        for (variant, name) in PEAKS {
            let cell = |it: &Runtime| match it.peak.get(&variant) {
                Some(peak) => format!("{:.2}", *peak as f64 / 1024.0),
                None => "—".to_owned(),
            };
            let ours = runtimes.iter().filter(|it| it.is(BULKHEAD));
            let ok = ours.map(|it| it.peak.get(&variant).map(|peak| *peak <= PEAK_KB));
            let mark = verdict("≤ 2 MB", ok.reduce(both).flatten());
            self.row(name, runtimes.iter().map(cell).collect(), "", &mark);
        }
        let ours = runtimes.iter().filter(|it| it.is(BULKHEAD));
        let within = |size: Option<u64>| size.is_some_and(|size| size <= MEMORY_CGROUP_KB);
        let yes = |it: &Runtime| if within(it.smallest) { "yes" } else { "no" }.to_owned();
        let ok = ours.map(|it| Some(within(it.smallest))).reduce(both).flatten();
        let mark = verdict("yes", ok);
        self.row(
            "works in a 512 kB memory cgroup (4)",
            runtimes.iter().map(yes).collect(),
            "",
            &mark,
        );
        let cells = runtimes.iter().map(|it| number(it.smallest)).collect();
        self.row("  the smallest, kB", cells, "", "");
        let cells = runtimes.iter().map(|it| number(it.smallest_limit)).collect();
        self.row("smallest memory.limit of the container, kB (5)", cells, "", "");
    }

    fn notes(&mut self, bench: &Bench, load_before: &str) -> Result<()> {
        let kernel = rustix::system::uname();
        let processors = std::thread::available_parallelism()?;
        let load_after = std::fs::read_to_string("/proc/loadavg")?;
        let load = |text: &str| text.split(' ').next().unwrap_or_default().to_owned();
        let views: Vec<String> = bench
            .views
            .iter()
            .map(|view| format!("{} {}", view.mounts.lines().count(), view.name))
            .collect();
        let fast = if favordynmods(bench) { "ON" } else { "off" };
        let peak = bench.kernel.peak;
        self.notes.splice(
            0..0,
            [
                format!(
                    "{} interleaved rounds at nice -20 of a static no-op (exit(0), no C library), {} processors, Linux {}, load {} to {}; favordynmods {fast}; mounts: {}.",
                    bench.rounds,
                    processors,
                    kernel.release().to_string_lossy(),
                    load(load_before),
                    load(&load_after),
                    views.join(", "),
                ),
                "All runtimes see the same root, --root on tmpfs and bundle; each figure is from before the command's fork to its reaping.".to_owned(),
                "(1) one clone3 with pid, net, ipc, mnt, uts and cgroup namespaces into a cgroup, all mounts, nodes, masks, pivot_root, exec, exit, wait, in plain code: no config.json, state, capabilities or filter.".to_owned(),
                "(2) the median of 5 by `strace -f -c`, of all processes.".to_owned(),
                format!("(3) ru_maxrss by wait4: the largest of the runtime's process and those that it waited for, the container's before its exec included; median of 5. The no-op itself has {:.2} MB this way.", peak as f64 / 1024.0),
                "(4) v1 memory controller, runtime and container together inside, kernel memory counted; 3 runs of 3 end well.".to_owned(),
                "(5) linux.resources.memory.limit of the container alone, where the view has the controller.".to_owned(),
                "cold: an empty --root, in which crun finds no cached filter; 5 rounds.".to_owned(),
            ],
        );
        Ok(())
    }
}

const SYSCALLS: [(Variant, &str); 2] = [
    (Variant::Plain, "system calls of run (2)"),
    (Variant::Seccomp, "system calls of run, seccomp"),
];

const PEAKS: [(Variant, &str); 2] = [
    (Variant::Plain, "peak memory of run, MB (3)"),
    (Variant::Seccomp, "peak memory of run, seccomp, MB"),
];

/// Bulkhead's minimum as a share of the others', the worst view first.
struct Ratios {
    of_crun: Option<f64>,
    of_runc: Vec<f64>,
}

impl Ratios {
    fn of(operation: Operation, bench: &Bench) -> Self {
        Self::by(operation, bench, |took| took.wall)
    }

    fn by(operation: Operation, bench: &Bench, what: fn(&Took) -> Duration) -> Self {
        let fastest = |name: &str, view: usize| {
            let found = bench.runtimes.iter().find(|it| it.is(name) && it.view == view)?;
            found.times.get(&operation)?.iter().map(what).min()
        };
        let ratio = |name: &str, view: usize| {
            Some(fastest(BULKHEAD, view)?.as_secs_f64() / fastest(name, view)?.as_secs_f64())
        };
        let views = 0..bench.views.len();
        Self {
            of_crun: views.clone().find_map(|view| ratio("crun", view)),
            of_runc: views.filter_map(|view| ratio("runc", view)).collect(),
        }
    }

    fn text(&self) -> String {
        let all = self.of_crun.iter().chain(&self.of_runc);
        all.map(|ratio| format!("{ratio:.2}")).collect::<Vec<_>>().join(", ")
    }

    fn within(&self, crun: Option<f64>, runc: Option<f64>) -> Option<bool> {
        let crun = crun.map(|mark| self.of_crun.map(|ratio| ratio <= mark));
        let runc = runc.map(|mark| {
            (!self.of_runc.is_empty()).then(|| self.of_runc.iter().all(|ratio| *ratio <= mark))
        });
        crun.into_iter().chain(runc).reduce(both).flatten()
    }
}

fn both(one: Option<bool>, other: Option<bool>) -> Option<bool> {
    Some(one? && other?)
}

fn verdict(wanted: &str, ok: Option<bool>) -> String {
    match ok {
        Some(true) => format!("{wanted}: ok"),
        Some(false) => format!("{wanted}: falls short"),
        None => format!("{wanted}: not measured"),
    }
}

fn name(operation: Operation) -> &'static str {
    match operation {
        Operation::Run(Variant::Plain) => "run",
        Operation::Run(Variant::Seccomp) => "run, seccomp",
        Operation::Run(Variant::Userns) => "run, private user namespace",
        Operation::Exec(Variant::Plain) => "exec",
        Operation::Exec(_) => "exec, seccomp",
        Operation::Cycle(Variant::Plain) => "create + start + delete",
        Operation::Cycle(_) => "create + start + delete, seccomp",
        Operation::Cold => "run, seccomp, cold",
    }
}

fn userns_more(runtime: &Runtime) -> Option<f64> {
    let minimum = |variant| minimum(runtime.times.get(&Operation::Run(variant))?);
    let (without, with) = (minimum(Variant::Plain)?, minimum(Variant::Userns)?);
    Some(with.as_secs_f64() / without.as_secs_f64() - 1.0)
}

fn minimum(times: &[Took]) -> Option<Duration> {
    times.iter().map(|took| took.wall).min()
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn pair(times: &[Took]) -> String {
    pair_of(times, |took| took.wall)
}

fn pair_of(times: &[Took], of: impl Fn(&Took) -> Duration) -> String {
    let mut times: Vec<Duration> = times.iter().map(of).collect();
    let middle = crate::bench::median(&mut times);
    format!("{:.2} / {:.2}", milliseconds(times[0]), milliseconds(middle))
}

fn number(number: Option<u64>) -> String {
    number.map_or("—".to_owned(), |number| number.to_string())
}

/// Whether a cgroup hierarchy has the option that makes moves into cgroups cheap, for everybody and
/// until the next boot.
fn favordynmods(bench: &Bench) -> bool {
    bench.views.iter().any(|view| view.mounts.contains("favordynmods"))
}

fn as_json(bench: &Bench, load_before: &str) -> Value {
    let list = |times: &[Took]| {
        let summary = |of: fn(&Took) -> Duration| {
            let all: Vec<Duration> = times.iter().map(of).collect();
            let mut sorted = all.clone();
            let middle = crate::bench::median(&mut sorted);
            json!({ "min": milliseconds(sorted[0]), "median": milliseconds(middle),
                "all": all.iter().map(|time| milliseconds(*time)).collect::<Vec<_>>() })
        };
        json!({ "wall": summary(|took| took.wall), "processor": summary(|took| took.processor) })
    };
    let runtimes = bench.runtimes.iter().map(|it| {
        let times: serde_json::Map<String, Value> = it
            .times
            .iter()
            .map(|(operation, times)| (name(*operation).to_owned(), list(times)))
            .collect();
        json!({
            "runtime": it.name,
            "view": bench.views[it.view].name,
            "milliseconds": times,
            "cannot": it.faults.iter().map(|(operation, fault)| (name(*operation), fault))
                .collect::<std::collections::BTreeMap<_, _>>(),
            "failed": it.failed.iter()
                .map(|(operation, (count, text))| (name(*operation), json!([count, text])))
                .collect::<std::collections::BTreeMap<_, _>>(),
            "systemCalls": it.syscalls.get(&Variant::Plain),
            "systemCallsSeccomp": it.syscalls.get(&Variant::Seccomp),
            "peakKB": it.peak.get(&Variant::Plain),
            "peakSeccompKB": it.peak.get(&Variant::Seccomp),
            "smallestMemoryCgroupKB": it.smallest,
            "smallestContainerLimitKB": it.smallest_limit,
        })
    });
    json!({
        "rounds": bench.rounds,
        "kernel": rustix::system::uname().release().to_string_lossy(),
        "loadBefore": load_before.trim(),
        "favordynmods": favordynmods(bench),
        "floor": list(&bench.kernel.floor),
        "spawn": list(&bench.kernel.spawn),
        "peakOfNoopKB": bench.kernel.peak,
        "runtimes": runtimes.collect::<Vec<_>>(),
    })
}
