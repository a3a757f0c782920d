//! `bulkhead netns`: what `ip netns` does, on the same `/var/run/netns`.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;

use bulkhead_network::named;
use clap::Subcommand;

use crate::client::{Client, encode};
use crate::failure::Failure;

#[derive(Debug, Subcommand)]
pub enum NetnsCommand {
    /// Create a network namespace
    Add { name: String },
    /// Remove a network namespace's name; it goes when its last process has
    #[command(visible_alias = "del")]
    Delete { name: String },
    /// List the names
    #[command(visible_aliases = ["list", "show"])]
    Ls {
        /// `json`
        #[arg(long)]
        format: Option<String>,
    },
    /// Run a command in a network namespace
    Exec {
        name: String,
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Give a running container's network namespace a name (the container's own unless NAME is given)
    Attach { container: String, name: Option<String> },
}

pub async fn run(client: &Client, command: NetnsCommand) -> Result<(), Failure> {
    let failed = |cause: bulkhead_network::NetworkError| Failure::new(cause.to_string());
    match command {
        NetnsCommand::Add { name } => {
            crate::host::require_root("netns add")?;
            named::add(&name).map_err(failed)
        }
        NetnsCommand::Delete { name } => {
            crate::host::require_root("netns delete")?;
            named::delete(&name).map_err(failed)
        }
        NetnsCommand::Ls { format } => {
            let names = named::list().map_err(failed)?;
            if format.as_deref() == Some("json") {
                let list: Vec<_> = names
                    .iter()
                    .map(|(name, id)| serde_json::json!({"name": name, "id": id}))
                    .collect();
                println!("{}", serde_json::Value::from(list));
                return Ok(());
            }
            for (name, id) in names {
                match id {
                    Some(id) => println!("{name} (id: {id})"),
                    None => println!("{name}"),
                }
            }
            Ok(())
        }
        NetnsCommand::Exec { name, command } => {
            crate::host::require_root("netns exec")?;
            named::enter(&name).map_err(failed)?;
            let cause = std::process::Command::new(&command[0]).args(&command[1..]).exec();
            let code = if cause.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
            Err(Failure::new(format!("cannot run {}: {cause}", command[0].display()))
                .with_code(code))
        }
        NetnsCommand::Attach { container, name } => {
            let query = match &name {
                Some(name) => format!("&name={}", encode(name)),
                None => String::new(),
            };
            let path = format!("/bulkhead/netns/attach?container={}{query}", encode(&container));
            client.post(&path, None).await.map(drop)
        }
    }
}
