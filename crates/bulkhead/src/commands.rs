//! One module a group of commands; each talks to the engine through the Docker API, as any client.

pub mod audit;
pub mod build;
pub mod complete;
pub mod containers;
pub mod contexts;
pub mod disk;
pub mod doctor;
pub mod down;
pub mod filter;
pub mod images;
pub mod inspect;
pub mod logins;
pub mod manual;
pub mod netns;
pub mod network;
pub mod ns;
pub mod ports;
pub mod prune;
pub mod run;
pub mod search;
pub mod several;
pub mod show;
pub mod system;
pub mod transfer;
pub mod volumes;

use clap::CommandFactory;

use crate::cli::{Cli, Command};
use crate::failure::Failure;

pub async fn run(cli: Cli) -> Result<(), Failure> {
    // those that ask no engine, and must not fail for the address of one
    let cli = match cli.command {
        Command::Completion { shell } => return complete::script(shell),
        Command::Man { directory } => return manual::write(Cli::command(), &directory),
        Command::Credentials { data, format } => return crate::credentials::show(&data, &format),
        Command::Logout { server } => return logins::logout(&server),
        Command::Complete { words } => {
            let client = Cli { command: Command::Complete { words: Vec::new() }, ..cli }.client();
            return complete::complete(client.ok().as_ref(), Cli::command(), &words).await;
        }
        Command::Context(command) => {
            let rest = Cli { command: Command::Complete { words: Vec::new() }, ..cli };
            return contexts::run(command, &rest.context()).await;
        }
        command => Cli { command, ..cli },
    };
    let client = match &cli.command {
        Command::Down { .. } => cli.own_client(),
        _ => cli.client(),
    }?;
    match cli.command {
        Command::Up(_) | Command::Engine(_) => {
            unreachable!("main starts these itself, with a runtime of their own")
        }
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Audit(arguments) => audit::run(&client, arguments).await,
        Command::Completion { .. }
        | Command::Man { .. }
        | Command::Credentials { .. }
        | Command::Logout { .. }
        | Command::Complete { .. }
        | Command::Context(_) => unreachable!("they have returned above"),
        Command::Down { purge, yes, data, run } => {
            let purge = match (purge, yes) {
                (false, _) => down::Purge::No,
                (true, false) => down::Purge::Ask,
                (true, true) => down::Purge::Yes,
            };
            down::down(&client, purge, &data, &run).await
        }
        Command::Container(verb) => containers::verb(&client, verb).await,
        Command::Containers(command) => containers::run(&client, command).await,
        Command::Ps(arguments) => containers::list::list(&client, arguments).await,
        Command::Inspect { format, size, kind, names } => {
            inspect::any(&client, kind.as_deref(), format.as_deref(), size, &names).await
        }
        Command::Image(verb) => images::verb(&client, verb).await,
        Command::OfImages(command) => images::run(&client, command).await,
        Command::Images(arguments) => images::list::list(&client, arguments).await,
        Command::Rmi(arguments) => images::remove(&client, arguments).await,
        Command::Search(arguments) => search::search(arguments).await,
        Command::Login(arguments) => logins::login(&client, arguments).await,
        Command::Network(command) => network::run(&client, command).await,
        Command::Networks { format } => {
            let list = network::NetworkCommand::Ls {
                filter: Vec::new(),
                format,
                no_trunc: false,
                quiet: false,
            };
            network::run(&client, list).await
        }
        Command::Volume(command) => volumes::run(&client, command).await,
        Command::Volumes { format } => {
            volumes::list(&client, volumes::ListArguments::of(format)).await
        }
        Command::Builder(command) => build::run(&client, command).await,
        Command::System(verb) => system::verb(&client, verb).await,
        Command::OfSystem(command) => system::run(&client, command).await,
        Command::Version { format } => system::version(&client, format.as_deref()).await,
        Command::Ns(arguments) => ns::run(&client, arguments).await,
        Command::Netns(command) => netns::run(&client, command).await,
    }
}
