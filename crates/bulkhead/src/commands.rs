//! One module a group of commands; each talks to the engine through the Docker API, as any client.

pub mod audit;
pub mod build;
pub mod containers;
pub mod doctor;
pub mod down;
pub mod images;
pub mod netns;
pub mod network;
pub mod ns;
pub mod run;
pub mod system;

use clap::CommandFactory;

use crate::cli::{Cli, Command, Global};
use crate::client::Client;
use crate::failure::Failure;

pub async fn run(global: &Global, command: Command) -> Result<(), Failure> {
    let host = match &command {
        Command::Down { .. } => global.own_host(),
        _ => global.host(),
    };
    let client = Client::to(host?);
    match command {
        Command::Up(_) | Command::Engine(_) => {
            unreachable!("main starts these itself, with a runtime of their own")
        }
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Audit(arguments) => audit::run(&client, arguments).await,
        Command::Down { purge, yes, data, run } => {
            let purge = match (purge, yes) {
                (false, _) => down::Purge::No,
                (true, false) => down::Purge::Ask,
                (true, true) => down::Purge::Yes,
            };
            down::down(&client, purge, &data, &run).await
        }
        Command::Credentials { data, format } => crate::credentials::show(&data, &format),
        Command::Run(arguments) => run::run(&client, *arguments).await,
        Command::Create(arguments) => run::create(&client, *arguments).await,
        Command::Exec(arguments) => run::exec(&client, arguments).await,
        Command::Attach { container } => run::attach(&client, &container).await,
        Command::Start { attach, containers } => run::start(&client, attach, &containers).await,
        Command::Stop { time, signal, containers } => {
            let mut query = vec![];
            query.extend(time.map(|time| format!("t={time}")));
            query.extend(signal.map(|signal| format!("signal={signal}")));
            containers::each(&client, &containers, "stop", &query.join("&")).await
        }
        Command::Restart { time, containers } => {
            let query = time.map(|time| format!("t={time}")).unwrap_or_default();
            containers::each(&client, &containers, "restart", &query).await
        }
        Command::Kill { signal, containers } => {
            containers::each(
                &client,
                &containers,
                "kill",
                &format!("signal={}", crate::client::encode(&signal)),
            )
            .await
        }
        Command::Pause { containers } => containers::each(&client, &containers, "pause", "").await,
        Command::Unpause { containers } => {
            containers::each(&client, &containers, "unpause", "").await
        }
        Command::Wait { containers } => containers::wait(&client, &containers).await,
        Command::Rm { force, volumes, containers } => {
            containers::remove(&client, force, volumes, &containers).await
        }
        Command::Rename { container, name } => containers::rename(&client, &container, &name).await,
        Command::Ps(arguments) => containers::list(&client, arguments).await,
        Command::Inspect { format, kind, names } => {
            system::inspect(&client, format.as_deref(), kind.as_deref(), &names).await
        }
        Command::Logs { follow, tail, timestamps, since, container } => {
            containers::logs(&client, &container, follow, &tail, timestamps, since.as_deref()).await
        }
        Command::Top { container } => containers::top(&client, &container).await,
        Command::Stats { containers } => containers::stats(&client, &containers).await,
        Command::Images { all, quiet, no_trunc, format } => {
            images::list(&client, all, quiet, no_trunc, format.as_deref()).await
        }
        Command::Build(arguments) => build::build(&client, arguments).await,
        Command::Import { change, message, file, reference } => {
            images::import(&client, &change, &message, &file, reference.as_deref()).await
        }
        Command::Pull { quiet, image } => images::pull(&client, &image, quiet).await,
        Command::Push { quiet, image } => images::push(&client, &image, quiet).await,
        Command::Tag { image, name } => images::tag(&client, &image, &name).await,
        Command::Rmi { force, images } => images::remove(&client, force, &images).await,
        Command::History { image } => images::history(&client, &image).await,
        Command::Login { username, password, password_stdin, server } => {
            images::login(&client, username, password, password_stdin, &server).await
        }
        Command::Logout { server } => images::logout(&server),
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
        Command::Volumes { format } => system::volumes(&client, format.as_deref()).await,
        Command::Ns(arguments) => ns::run(&client, arguments).await,
        Command::Netns(command) => netns::run(&client, command).await,
        Command::Events { since, until, filter, format } => {
            system::events(&client, since.as_deref(), until.as_deref(), &filter, format.as_deref())
                .await
        }
        Command::Info { format } => system::info(&client, format.as_deref()).await,
        Command::Version { format } => system::version(&client, format.as_deref()).await,
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "bulkhead", &mut std::io::stdout());
            Ok(())
        }
    }
}
