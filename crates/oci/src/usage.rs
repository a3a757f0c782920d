//! The commands and their options as a table, from which both the parser and the help are made.

/// One option: names, whether it takes a value (then what that is called), and what it does.
#[derive(Debug, Clone, Copy)]
pub struct Opt {
    pub long: &'static str,
    pub short: Option<char>,
    pub value: Option<&'static str>,
    pub help: &'static str,
}

/// One command.
#[derive(Debug, Clone, Copy)]
pub struct Verb {
    pub name: &'static str,
    /// The positional arguments, for the usage line.
    pub operands: &'static str,
    pub help: &'static str,
    pub options: &'static [Opt],
    /// What follows the first operand is not looked at for options.
    pub trailing: bool,
}

const fn flag(long: &'static str, help: &'static str) -> Opt {
    Opt { long, short: None, value: None, help }
}

const fn value(long: &'static str, name: &'static str, help: &'static str) -> Opt {
    Opt { long, short: None, value: Some(name), help }
}

const fn short(letter: char, opt: Opt) -> Opt {
    Opt { short: Some(letter), ..opt }
}

pub const GLOBAL: &[Opt] = &[
    value(
        "root",
        "DIR",
        "where containers are recorded (default /run/bulkhead/oci, for users $XDG_RUNTIME_DIR/bulkhead/oci)",
    ),
    value("log", "FILE", "append messages to a file"),
    value("log-format", "FORMAT", "text (default) or json"),
    flag("debug", "say more"),
    flag("systemd-cgroup", "make cgroups through systemd"),
    value("rootless", "BOOL", "true, false or auto (default)"),
    value("cgroup-manager", "NAME", "cgroupfs (default), systemd or disabled, as in crun"),
    short('v', flag("version", "print the version")),
    short('h', flag("help", "print this help")),
];

const BUNDLE: Opt =
    short('b', value("bundle", "DIR", "the bundle (default: the current directory)"));
const CONSOLE: Opt = value("console-socket", "PATH", "Unix socket that gets the terminal");
const PIDFD: Opt = value("pidfd-socket", "PATH", "Unix socket that gets a pidfd of the process");
const PID_FILE: Opt = value("pid-file", "PATH", "write the pid there");
const NO_PIVOT: Opt = flag("no-pivot", "do not use pivot_root(2), for an initial ram disk");
const NO_KEYRING: Opt = flag("no-new-keyring", "keep the caller's session keyring");
const PRESERVE: Opt = value("preserve-fds", "N", "pass N descriptors from 3 on to the program");
const CONFIG: Opt = short('f', value("config", "FILE", "instead of the bundle's config.json"));
const FORMAT: Opt = short('f', value("format", "FORMAT", "table (default) or json"));

pub const VERBS: &[Verb] = &[
    Verb {
        name: "create",
        operands: "ID",
        help: "make a container, ready to be started",
        options: &[BUNDLE, CONSOLE, PIDFD, PID_FILE, NO_PIVOT, NO_KEYRING, PRESERVE, CONFIG],
        trailing: false,
    },
    Verb {
        name: "run",
        operands: "ID",
        help: "make a container and start it",
        options: &[
            BUNDLE,
            CONSOLE,
            PIDFD,
            PID_FILE,
            NO_PIVOT,
            NO_KEYRING,
            PRESERVE,
            CONFIG,
            short('d', flag("detach", "do not wait for its end")),
            flag("keep", "do not delete it at its end"),
            flag("no-subreaper", "do not adopt its orphans"),
        ],
        trailing: false,
    },
    Verb {
        name: "start",
        operands: "ID",
        help: "start the program of a created container",
        options: &[],
        trailing: false,
    },
    Verb {
        name: "state",
        operands: "ID",
        help: "print the state of a container as JSON",
        options: &[],
        trailing: false,
    },
    Verb {
        name: "list",
        operands: "",
        help: "list containers",
        options: &[FORMAT, short('q', flag("quiet", "print ids alone"))],
        trailing: false,
    },
    Verb {
        name: "kill",
        operands: "ID [SIGNAL]",
        help: "send a signal (default TERM) to the container's first process",
        options: &[short('a', flag("all", "to every process of the container"))],
        trailing: false,
    },
    Verb {
        name: "delete",
        operands: "ID",
        help: "remove what is left of a stopped container",
        options: &[
            short('f', flag("force", "kill it first; a missing one is no error")),
            flag("regex", "ID is a regular expression: remove all whose ids it is found in"),
        ],
        trailing: false,
    },
    Verb {
        name: "exec",
        operands: "ID [COMMAND [ARG ...]]",
        help: "run one more program in a running container",
        options: &[
            short('p', value("process", "FILE", "a process as in config.json")),
            CONSOLE,
            PIDFD,
            PID_FILE,
            PRESERVE,
            NO_KEYRING,
            short('d', flag("detach", "do not wait for its end")),
            short('t', flag("tty", "give it a terminal")),
            short('u', value("user", "UID[:GID]", "run it as this user")),
            short('g', value("additional-gids", "GID", "one more group")),
            short('e', value("env", "NAME=VALUE", "one more variable")),
            value("cwd", "DIR", "its working directory"),
            short('c', value("cap", "NAME", "one more capability")),
            value("apparmor", "PROFILE", "an AppArmor profile"),
            value("process-label", "LABEL", "an SELinux label"),
            flag("no-new-privs", "let it gain no privileges by exec"),
            flag("ignore-paused", "do not mind that the container is paused"),
            value("cgroup", "PATH", "a cgroup below the container's"),
        ],
        trailing: true,
    },
    Verb {
        name: "ps",
        operands: "ID [PS-OPTION ...]",
        help: "list the processes of a container",
        options: &[FORMAT],
        trailing: true,
    },
    Verb {
        name: "pause",
        operands: "ID",
        help: "stop every process of a container until resume",
        options: &[],
        trailing: false,
    },
    Verb {
        name: "resume",
        operands: "ID",
        help: "let a paused container go on",
        options: &[],
        trailing: false,
    },
    Verb {
        name: "update",
        operands: "ID",
        help: "change the limits of a container",
        options: &[
            short('r', value("resources", "FILE", "linux.resources as JSON; - is standard input")),
            value("blkio-weight", "N", "weight of block I/O, 10 to 1000"),
            value("cpu-period", "US", "period of the processor quota, microseconds"),
            value("cpu-quota", "US", "processor time in a period, microseconds"),
            value("cpu-burst", "US", "what may be saved up, microseconds"),
            value("cpu-share", "N", "weight of processor time"),
            value("cpu-shares", "N", "the same, as crun has it"),
            value("cpu-rt-period", "US", "period of the real-time quota"),
            value("cpu-rt-runtime", "US", "real-time processor time in a period"),
            value("cpu-idle", "N", "1 is SCHED_IDLE for all"),
            value("cpuset-cpus", "LIST", "processors"),
            value("cpuset-mems", "LIST", "memory nodes"),
            value("memory", "BYTES", "limit of memory; -1 is none"),
            value("memory-reservation", "BYTES", "what is left when the host runs short"),
            value("memory-swap", "BYTES", "memory and swap together; -1 is unlimited"),
            value("kernel-memory", "BYTES", "has no effect any more"),
            value("kernel-memory-tcp", "BYTES", "has no effect any more"),
            value("pids-limit", "N", "number of processes; -1 is unlimited"),
            value("l3-cache-schema", "TEXT", "of resctrl"),
            value("mem-bw-schema", "TEXT", "of resctrl"),
        ],
        trailing: false,
    },
    Verb {
        name: "events",
        operands: "ID",
        help: "print what a container uses, and when it runs out of memory, as JSON lines",
        options: &[
            value("interval", "TIME", "between two statistics (default 5s)"),
            flag("stats", "print the statistics once and end"),
        ],
        trailing: false,
    },
    Verb {
        name: "features",
        operands: "",
        help: "print what this runtime can do as JSON",
        options: &[],
        trailing: false,
    },
    Verb {
        name: "spec",
        operands: "",
        help: "write a config.json to start from",
        options: &[
            short('b', value("bundle", "DIR", "where (default: the current directory)")),
            flag("rootless", "for a user without privileges"),
        ],
        trailing: false,
    },
];

/// The help of the whole program.
pub fn overview() -> String {
    let mut text = "usage: bulkhead oci [OPTION ...] COMMAND [OPTION ...] [ID]\n\n\
                    An OCI runtime: containers from bundles (runtime-spec 1.3).\n\ncommands:\n"
        .to_owned();
    for verb in VERBS {
        text.push_str(&format!("  {:<10}{}\n", verb.name, verb.help));
    }
    text.push_str("\noptions:\n");
    options(GLOBAL, &mut text);
    text.push_str("\n`bulkhead oci COMMAND --help` lists the options of a command.\n");
    text
}

/// The help of one command.
pub fn of(verb: &Verb) -> String {
    let operands = if verb.operands.is_empty() { "" } else { " " };
    let operands = format!("{operands}{}", verb.operands);
    let brackets = if verb.options.is_empty() { "" } else { " [OPTION ...]" };
    let mut text =
        format!("usage: bulkhead oci {}{brackets}{operands}\n\n{}\n", verb.name, verb.help);
    if !verb.options.is_empty() {
        text.push_str("\noptions:\n");
        options(verb.options, &mut text);
    }
    text
}

fn options(list: &[Opt], text: &mut String) {
    for opt in list {
        let letter = opt.short.map_or("    ".to_owned(), |letter| format!("-{letter}, "));
        let value = opt.value.map_or(String::new(), |value| format!(" {value}"));
        let names = format!("{letter}--{}{value}", opt.long);
        text.push_str(&format!("  {names:<31}{}\n", opt.help));
    }
}
