//! The command line. Names, short flags and meanings are Docker's wherever Docker has them.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::client::tls::Keys;
use crate::client::{Client, Host};
use crate::commands::audit::AuditArguments;
use crate::commands::build::BuilderCommand;
use crate::commands::complete;
use crate::commands::containers::list::PsArguments;
use crate::commands::containers::{ContainerCommand, ContainerVerb};
use crate::commands::contexts::{self, ContextCommand};
use crate::commands::doctor::DoctorArguments;
use crate::commands::images::{self, ImageCommand, ImageVerb};
use crate::commands::logins::{self, LoginArguments};
use crate::commands::netns::NetnsCommand;
use crate::commands::network::NetworkCommand;
use crate::commands::ns::NsArguments;
use crate::commands::search::SearchArguments;
use crate::commands::system::{SystemCommand, SystemVerb};
use crate::commands::volumes::VolumeCommand;
use crate::engine::EngineArguments;
use crate::failure::Failure;
use crate::up::UpArguments;

pub mod refused;

#[derive(Debug, Parser)]
#[command(
    name = "bulkhead",
    version,
    about,
    propagate_version = true,
    arg_required_else_help = true,
    args_override_self = true,
    after_help = "`bulkhead oci` is an OCI runtime for containerd, dockerd and podman: see `bulkhead oci --help`."
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(flatten)]
    pub first: First,
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Reads the program's command line.
    ///
    /// The commands that are run in loops are read without the descriptions of all others, which take
    /// more time to make than the engine takes to answer.
    pub fn read(arguments: &[OsString]) -> Result<Self, clap::Error> {
        if let Some(read) = Self::read_alone(arguments) {
            return Ok(read);
        }
        // also what is wrong, or asks for help: only the whole can tell
        let wrong = match Self::try_parse_from(arguments) {
            Ok(read) => return Ok(read),
            Err(wrong) if !wrong.use_stderr() => return Err(wrong),
            Err(wrong) => wrong,
        };
        // Docker's flags without a value may have one: --rm=false
        let whole = with_values(Self::command());
        let read = whole.try_get_matches_from(arguments).ok();
        read.and_then(|read| Self::from_arg_matches(&read).ok()).ok_or(wrong)
    }

    fn read_alone(arguments: &[OsString]) -> Option<Self> {
        let run = |run| Command::Container(ContainerVerb::Run(Box::new(run)));
        let create = |create| Command::Container(ContainerVerb::Create(Box::new(create)));
        match arguments.get(1)?.to_str()? {
            "exec" => alone(arguments, |exec| Command::Container(ContainerVerb::Exec(exec))),
            "ps" => alone(arguments, Command::Ps),
            "run" => alone(arguments, run),
            "create" => alone(arguments, create),
            _ => None,
        }
    }
}

/// Reads a line as that of a program that has this one command.
fn alone<T: Args>(arguments: &[OsString], command: impl FnOnce(T) -> Command) -> Option<Cli> {
    let program = clap::Command::new("bulkhead").args_override_self(true);
    let program = Global::augment_args(T::augment_args(program));
    let read = program.try_get_matches_from(arguments.get(1..)?).ok()?;
    let global = Global::from_arg_matches(&read).ok()?;
    let command = command(T::from_arg_matches(&read).ok()?);
    Some(Cli { global, first: First::default(), command })
}

/// The same commands, whose flags may be followed by `=true` and `=false`.
fn with_values(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|argument| match argument.get_action() {
        ArgAction::SetTrue => argument
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_value("false")
            .default_missing_value("true")
            .value_parser(clap::builder::BoolishValueParser::new()),
        _ => argument,
    });
    let names: Vec<String> =
        command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, with_values))
}

/// What is only said before the command.
#[derive(Debug, Default, Args)]
pub struct First {
    /// The directory of logins and contexts [env: DOCKER_CONFIG] [default: ~/.docker]
    #[arg(long, value_name = "DIRECTORY")]
    config: Option<PathBuf>,
    /// The engine by its context's name, before DOCKER_HOST [env: DOCKER_CONTEXT]
    #[arg(short, long, value_name = "CONTEXT")]
    context: Option<String>,
    /// Use TLS; only together with --tlsverify
    #[arg(long)]
    tls: bool,
    /// Who has to have signed the engine's certificate [default: ca.pem in --config]
    #[arg(long, value_name = "FILE")]
    tlscacert: Option<PathBuf>,
    /// The certificate to show to the engine [default: cert.pem in --config]
    #[arg(long, value_name = "FILE")]
    tlscert: Option<PathBuf>,
    /// Its key [default: key.pem in --config]
    #[arg(long, value_name = "FILE")]
    tlskey: Option<PathBuf>,
    /// Use TLS, and check the engine's certificate [env: DOCKER_TLS_VERIFY, with the files in DOCKER_CERT_PATH]
    #[arg(long)]
    tlsverify: bool,
    /// Print version
    #[arg(short = 'v', action = ArgAction::Version)]
    print_version: Option<bool>,
}

/// Isolates processes, runs containers, and schedules tasks.
#[derive(Debug, Args)]
pub struct Global {
    /// Where the engine listens: a path, unix://PATH or tcp://HOST:PORT [env: BULKHEAD_HOST, else
    /// DOCKER_HOST] [default: unix:///run/bulkhead/docker.sock]
    #[arg(short = 'H', long, global = true)]
    pub host: Option<String>,
}

impl Cli {
    /// The engine that commands talk to. An address goes before a context, of both what is said before
    /// what the environment says, and Bulkhead's own variable before Docker's.
    pub fn client(&self) -> Result<Client, Failure> {
        if let Some(directory) = &self.first.config {
            logins::use_directory(directory.clone());
        }
        if self.global.host.is_some() && self.first.context.is_some() {
            return Err(Failure::new(
                "conflicting options: cannot specify both --host and --context",
            ));
        }
        let keys = self.first.keys()?;
        let at = |host: String| addressed(&host, keys.as_ref());
        let named = |name: String| {
            let (host, keys) = contexts::host(&name)?;
            Client::to(host).with_context(name).with_tls(keys.as_ref())
        };
        if let Some(host) = &self.global.host {
            return at(host.clone());
        }
        if let Some(name) = &self.first.context {
            return named(name.clone());
        }
        if let Some(host) = variable("BULKHEAD_HOST").or_else(|| variable("DOCKER_HOST")) {
            return at(host);
        }
        if let Some(name) = variable("DOCKER_CONTEXT").or_else(contexts::chosen) {
            return named(name);
        }
        Ok(Client::to(Host::default()))
    }

    /// The same for commands about Bulkhead itself: `DOCKER_HOST` may name a Docker.
    pub fn own_client(&self) -> Result<Client, Failure> {
        match self.global.host.clone().or_else(|| variable("BULKHEAD_HOST")) {
            Some(host) => addressed(&host, self.first.keys()?.as_ref()),
            None => Ok(Client::to(Host::default())),
        }
    }

    /// The name of the context in use, whether there is one or not.
    pub fn context(&self) -> String {
        if let Some(directory) = &self.first.config {
            logins::use_directory(directory.clone());
        }
        let host = self.global.host.clone();
        let host = host.or_else(|| variable("BULKHEAD_HOST")).or_else(|| variable("DOCKER_HOST"));
        let named = || variable("DOCKER_CONTEXT").or_else(contexts::chosen);
        match (&self.first.context, host) {
            (Some(name), _) => name.clone(),
            (None, Some(_)) => contexts::DEFAULT.to_owned(),
            (None, None) => named().unwrap_or_else(|| contexts::DEFAULT.to_owned()),
        }
    }
}

/// An engine at an address, over a network only as it is asked for.
fn addressed(host: &str, keys: Option<&Keys>) -> Result<Client, Failure> {
    if host.starts_with("https://") && keys.is_none() {
        return Err(Failure::new(format!(
            "the engine's address {host:?} asks for TLS: say --tlsverify, with certificates in --config or by --tlscacert, --tlscert and --tlskey"
        )));
    }
    Client::to(host.parse()?).with_tls(keys)
}

impl First {
    /// The files for TLS, if it is asked for; each may be named by itself.
    fn keys(&self) -> Result<Option<Keys>, Failure> {
        let asked = self.tlsverify || variable("DOCKER_TLS_VERIFY").is_some();
        let named =
            [&self.tlscacert, &self.tlscert, &self.tlskey].iter().any(|file| file.is_some());
        if !asked {
            return match self.tls || named || variable("DOCKER_TLS").is_some() {
                true => Err(Failure::new(
                    "TLS that is not verified trusts whoever answers: say --tlsverify",
                )),
                false => Ok(None),
            };
        }
        let directory = variable("DOCKER_CERT_PATH").map(PathBuf::from);
        let directory = directory.unwrap_or_else(logins::config_directory);
        let file = |named: &Option<PathBuf>, name: &str| {
            named.clone().unwrap_or_else(|| directory.join(name))
        };
        let (certificate, key) = (file(&self.tlscert, "cert.pem"), file(&self.tlskey, "key.pem"));
        // an engine that wants none is satisfied without; files that are named have to be there
        let named = self.tlscert.is_some() || self.tlskey.is_some();
        let own = (named || certificate.exists() || key.exists()).then_some((certificate, key));
        Ok(Some(Keys { ca: file(&self.tlscacert, "ca.pem"), own }))
    }
}

/// An empty variable is as good as none, as for Docker's CLI.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
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
        /// Where `up` keeps what outlives it
        #[arg(long, default_value = "/var/lib/bulkhead")]
        data: PathBuf,
        /// Where `up` keeps sockets
        #[arg(long, default_value = "/run/bulkhead")]
        run: PathBuf,
    },
    /// Show the access key and the password that `up` made
    Credentials {
        /// Where `up` keeps what outlives it
        #[arg(long, default_value = "/var/lib/bulkhead")]
        data: PathBuf,
        /// `table`, `json`, or `env` (to be evaluated by a shell for the AWS CLI)
        #[arg(long, default_value = "table")]
        format: String,
    },
    #[command(flatten)]
    Container(ContainerVerb),
    /// List containers
    Ps(PsArguments),
    /// Show all that is known of containers, images, networks or volumes
    Inspect {
        /// A Go template, or `json`
        #[arg(short, long)]
        format: Option<String>,
        /// Measure how much containers have written, too
        #[arg(short, long)]
        size: bool,
        /// Only a container, image, network or volume
        #[arg(long = "type")]
        kind: Option<String>,
        #[arg(required = true)]
        names: Vec<String>,
    },
    #[command(flatten)]
    Image(ImageVerb),
    /// List images
    Images(images::list::ListArguments),
    /// Remove one or more images
    Rmi(images::RemoveArguments),
    /// Look for images in the built-in registry, or in another without TLS
    Search(SearchArguments),
    /// Log in to a registry
    Login(LoginArguments),
    /// Log out from a registry
    Logout {
        /// The registry's host and port
        #[arg(default_value = "127.0.0.1:5000")]
        server: String,
    },
    /// Manage containers
    #[command(name = "container", subcommand)]
    Containers(ContainerCommand),
    /// Manage images
    #[command(name = "image", subcommand)]
    OfImages(ImageCommand),
    /// Manage networks
    #[command(subcommand)]
    Network(NetworkCommand),
    /// List networks
    #[command(hide = true)]
    Networks {
        /// A Go template, `table` with one, or `json`
        #[arg(long)]
        format: Option<String>,
    },
    /// Manage volumes
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// List volumes
    #[command(hide = true)]
    Volumes {
        /// A Go template, `table` with one, or `json`
        #[arg(long)]
        format: Option<String>,
    },
    /// Manage builds
    #[command(subcommand)]
    Builder(BuilderCommand),
    /// Manage this machine's engine
    #[command(name = "system", subcommand)]
    OfSystem(SystemCommand),
    /// Manage the names of engines
    #[command(subcommand)]
    Context(ContextCommand),
    /// Manage named network namespaces, shared with `ip netns`
    #[command(subcommand)]
    Netns(NetnsCommand),
    Ns(NsArguments),
    #[command(flatten)]
    System(SystemVerb),
    /// Show the versions of client and engine
    Version {
        /// A Go template, or `json`
        #[arg(short, long)]
        format: Option<String>,
    },
    /// Print a completion script for a shell
    Completion {
        shell: complete::Shell,
    },
    /// Write manual pages, one for each command
    Man {
        /// Where they go, such as /usr/local/share/man/man1
        directory: PathBuf,
    },
    /// What may follow, for a shell
    #[command(name = "__complete", hide = true, disable_help_flag = true)]
    Complete {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
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
            ("run --entrypoint sh many -c ls", true),
            ("run --entrypoint sh many -e -v --cpus x", true),
            ("run -- many -c", true),
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
