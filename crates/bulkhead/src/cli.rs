//! The command line. Names, short flags and meanings are Docker's wherever Docker has them.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, FromArgMatches, Parser, Subcommand};

use crate::client::Host;
use crate::commands::audit::AuditArguments;
use crate::commands::containers::PsArguments;
use crate::commands::doctor::DoctorArguments;
use crate::commands::netns::NetnsCommand;
use crate::commands::network::NetworkCommand;
use crate::commands::ns::NsArguments;
use crate::commands::run::RunArguments;
use crate::engine::EngineArguments;
use crate::failure::Failure;
use crate::up::UpArguments;

#[derive(Debug, Parser)]
#[command(
    name = "bulkhead",
    version,
    about,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "`bulkhead oci` is an OCI runtime for containerd, dockerd and podman: see `bulkhead oci --help`."
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Reads the program's command line.
    ///
    /// The commands that are run in loops are read without the descriptions of all others, which take
    /// more time to make than the engine takes to answer.
    pub fn read(arguments: &[OsString]) -> Result<Self, clap::Error> {
        match Self::read_alone(arguments) {
            Some(read) => Ok(read),
            // also what is wrong, or asks for help: only the whole can tell
            None => Self::try_parse_from(arguments),
        }
    }

    fn read_alone(arguments: &[OsString]) -> Option<Self> {
        match arguments.get(1)?.to_str()? {
            "exec" => alone(arguments, Command::Exec),
            "ps" => alone(arguments, Command::Ps),
            "run" => alone(arguments, |run| Command::Run(Box::new(run))),
            "create" => alone(arguments, |create| Command::Create(Box::new(create))),
            _ => None,
        }
    }
}

/// Reads a line as that of a program that has this one command.
fn alone<T: Args>(arguments: &[OsString], command: impl FnOnce(T) -> Command) -> Option<Cli> {
    let program = Global::augment_args(T::augment_args(clap::Command::new("bulkhead")));
    let read = program.try_get_matches_from(arguments.get(1..)?).ok()?;
    let global = Global::from_arg_matches(&read).ok()?;
    Some(Cli { global, command: command(T::from_arg_matches(&read).ok()?) })
}

/// Isolates processes, runs containers, and schedules tasks.
#[derive(Debug, Args)]
pub struct Global {
    /// Where the engine listens: a path, unix://PATH or tcp://HOST:PORT [env: BULKHEAD_HOST, else
    /// DOCKER_HOST] [default: unix:///run/bulkhead/docker.sock]
    #[arg(short = 'H', long, global = true)]
    pub host: Option<String>,
}

impl Global {
    /// The engine that commands talk to.
    pub fn host(&self) -> Result<Host, Failure> {
        self.first_of(&["BULKHEAD_HOST", "DOCKER_HOST"])
    }

    /// The same for commands about Bulkhead itself: `DOCKER_HOST` may name a Docker.
    pub fn own_host(&self) -> Result<Host, Failure> {
        self.first_of(&["BULKHEAD_HOST"])
    }

    fn first_of(&self, variables: &[&str]) -> Result<Host, Failure> {
        // an empty variable is as good as none, as for Docker's CLI
        let set = |name: &&str| std::env::var(name).ok().filter(|value| !value.is_empty());
        match self.host.clone().or_else(|| variables.iter().find_map(set)) {
            Some(text) => text.parse(),
            None => Ok(Host::default()),
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start engine, control plane, agent, registry and console on this machine
    Up(UpArguments),
    /// Start the engine alone: Docker's API, without control plane, agent, registry and console
    Engine(EngineArguments),
    /// Say what of containers and engine is less safe than it could be, and how to mend it
    Audit(AuditArguments),
    /// Say what this machine has of what Bulkhead uses, what it lacks, and what it would gain
    Doctor(DoctorArguments),
    /// Stop every container and remove what Bulkhead has set up on this machine
    ///
    /// Containers with a restart policy run again after the next `up`.
    Down {
        /// Remove images, volumes, the registry and the cluster's records too; asks first
        #[arg(long)]
        purge: bool,
        /// Do not ask
        #[arg(short, long, requires = "purge")]
        yes: bool,
        #[arg(long, default_value = "/var/lib/bulkhead")]
        data: PathBuf,
        #[arg(long, default_value = "/run/bulkhead")]
        run: PathBuf,
    },
    /// Show the access key and the password that `up` made
    Credentials {
        #[arg(long, default_value = "/var/lib/bulkhead")]
        data: PathBuf,
        /// `table`, `json`, or `env` (to be evaluated by a shell for the AWS CLI)
        #[arg(long, default_value = "table")]
        format: String,
    },
    /// Create and run a new container from an image
    Run(Box<RunArguments>),
    /// Create a new container
    Create(Box<RunArguments>),
    /// Start one or more stopped containers
    Start {
        /// Attach output and wait
        #[arg(short, long)]
        attach: bool,
        #[arg(required = true)]
        containers: Vec<String>,
    },
    /// Stop one or more running containers
    Stop {
        /// Seconds to wait before killing
        #[arg(short, long, alias = "timeout", allow_hyphen_values = true)]
        time: Option<i64>,
        #[arg(short, long)]
        signal: Option<String>,
        #[arg(required = true)]
        containers: Vec<String>,
    },
    /// Restart one or more containers
    Restart {
        #[arg(short, long, alias = "timeout", allow_hyphen_values = true)]
        time: Option<i64>,
        #[arg(required = true)]
        containers: Vec<String>,
    },
    /// Kill one or more running containers
    Kill {
        #[arg(short, long, default_value = "KILL")]
        signal: String,
        #[arg(required = true)]
        containers: Vec<String>,
    },
    /// Freeze all processes of one or more containers
    Pause {
        #[arg(required = true)]
        containers: Vec<String>,
    },
    /// Thaw all processes of one or more containers
    Unpause {
        #[arg(required = true)]
        containers: Vec<String>,
    },
    /// Block until containers stop, then print their exit codes
    Wait {
        #[arg(required = true)]
        containers: Vec<String>,
    },
    /// Remove one or more containers
    Rm {
        #[arg(short, long)]
        force: bool,
        #[arg(short, long)]
        volumes: bool,
        #[arg(required = true)]
        containers: Vec<String>,
    },
    /// Rename a container
    Rename {
        container: String,
        name: String,
    },
    /// List containers
    Ps(PsArguments),
    /// Show low-level information on containers or images
    Inspect {
        /// A Go template, or `json`
        #[arg(short, long)]
        format: Option<String>,
        #[arg(long = "type")]
        kind: Option<String>,
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Fetch the logs of a container
    Logs {
        #[arg(short, long)]
        follow: bool,
        #[arg(short = 'n', long, default_value = "all")]
        tail: String,
        #[arg(short, long)]
        timestamps: bool,
        #[arg(long)]
        since: Option<String>,
        container: String,
    },
    /// Run a command in a running container
    Exec(crate::commands::run::ExecArguments),
    /// Attach to a running container
    Attach {
        container: String,
    },
    /// Display the running processes of a container
    Top {
        container: String,
    },
    /// Show resource usage of running containers, once
    Stats {
        containers: Vec<String>,
    },
    /// List images
    #[command(alias = "image-ls")]
    Images {
        #[arg(short, long)]
        all: bool,
        #[arg(short, long)]
        quiet: bool,
        #[arg(long)]
        no_trunc: bool,
        #[arg(long)]
        format: Option<String>,
    },
    /// Build an image from a Dockerfile
    Build(crate::commands::build::BuildArguments),
    /// Make an image from a tar file (`-` is stdin)
    Import {
        /// Apply a Dockerfile instruction, such as `CMD ["sh"]`
        #[arg(short, long)]
        change: Vec<String>,
        #[arg(short, long, default_value = "")]
        message: String,
        file: String,
        reference: Option<String>,
    },
    /// Download an image from a registry
    Pull {
        #[arg(short, long)]
        quiet: bool,
        image: String,
    },
    /// Upload an image to a registry
    Push {
        #[arg(short, long)]
        quiet: bool,
        image: String,
    },
    /// Give an image one more name
    Tag {
        image: String,
        name: String,
    },
    /// Remove one or more images
    Rmi {
        #[arg(short, long)]
        force: bool,
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Show the history of an image
    History {
        image: String,
    },
    /// Log in to a registry
    Login {
        #[arg(short, long)]
        username: Option<String>,
        #[arg(short, long)]
        password: Option<String>,
        #[arg(long)]
        password_stdin: bool,
        #[arg(default_value = "127.0.0.1:5000")]
        server: String,
    },
    /// Log out from a registry
    Logout {
        #[arg(default_value = "127.0.0.1:5000")]
        server: String,
    },
    /// Manage networks
    #[command(subcommand)]
    Network(NetworkCommand),
    /// List networks
    Networks {
        #[arg(long)]
        format: Option<String>,
    },
    /// List volumes
    Volumes {
        #[arg(long)]
        format: Option<String>,
    },
    /// Manage named network namespaces, shared with `ip netns`
    #[command(subcommand)]
    Netns(NetnsCommand),
    Ns(NsArguments),
    /// Show what happens, as it happens
    Events {
        #[arg(long)]
        since: Option<String>,
        #[arg(long)]
        until: Option<String>,
        #[arg(short, long)]
        filter: Vec<String>,
        #[arg(long)]
        format: Option<String>,
    },
    /// Show what the engine knows of itself and this machine
    Info {
        #[arg(short, long)]
        format: Option<String>,
    },
    /// Show the versions of client and engine
    Version {
        #[arg(short, long)]
        format: Option<String>,
    },
    /// Print a completion script for a shell
    Completion {
        shell: clap_complete::Shell,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_read_alone_as_among_all_others() {
        for (line, understood) in [
            ("exec web true", true),
            ("exec -H /run/x.sock -it -e A=1 --user 7 -w /tmp web sh -c -H", true),
            ("exec --host tcp://h:1 web -x", true),
            ("exec web", false),
            ("exec -h", false),
            ("exec --help", false),
            ("exec -V", false),
            ("exec --nope web true", false),
            ("ps", true),
            ("ps -aq --no-trunc -f name=a --filter=label=b -n -1 -l", true),
            ("ps --format {{.ID}} -H unix:///x", true),
            ("ps -h", false),
            ("ps more", false),
            ("run -d --rm --name x -p 1:2 -h box many /bin/sleep 1 --rm -H", true),
            ("run --memory-swap -1 -v /a:/b --pull never many", true),
            ("run many", true),
            ("run", false),
            ("run --help", false),
            ("create --cpus 0.5 many true", true),
            ("create --cpus many", false),
        ] {
            let line: Vec<OsString> =
                ["bulkhead"].into_iter().chain(line.split(' ')).map(Into::into).collect();
            let alone = Cli::read_alone(&line);
            assert_eq!(alone.is_some(), understood, "{line:?}");
            let whole = Cli::try_parse_from(&line);
            match alone {
                Some(alone) => assert_eq!(format!("{alone:?}"), format!("{:?}", whole.unwrap())),
                None => assert!(whole.is_err(), "{line:?}"),
            }
        }
    }
}
