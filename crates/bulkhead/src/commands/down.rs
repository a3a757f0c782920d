//! `bulkhead down`: says what it ends, and what it removes with `--purge`, which asks first.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;

use crate::background::Server;
use crate::client::Client;
use crate::failure::Failure;

/// Whether what is stored goes too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purge {
    No,
    Ask,
    Yes,
}

/// Ends what runs; then, with `purge`, removes what is stored.
pub async fn down(client: &Client, purge: Purge, data: &Path, run: &Path) -> Result<(), Failure> {
    crate::host::require_root("down")?;
    let client = if run == Path::new("/run/bulkhead") {
        client.clone()
    } else {
        Client::new(&run.join("docker.sock"))
    };
    let server = client.socket().and_then(Server::find);
    let running = match &server {
        Some(_) => Some(running(&client).await?),
        None => None,
    };
    if purge == Purge::Ask {
        confirm(running, data)?;
    }
    match client.post("/bulkhead/down", None).await {
        Ok(_) => {
            server.map_or(Ok(()), |server| server.wait())?;
            println!("Ended: {}.", count(running.unwrap_or(0), "running container"));
        }
        // Nothing answers: whatever an engine that died has left is found and removed from here.
        Err(failure) if failure.status.is_none() && data.join("engine.redb").exists() => {
            let ended = crate::engine::clean_up(data, run).await?;
            match ended {
                0 => println!("No engine and no container was running."),
                ended => println!("No engine was running. Ended: {}.", count(ended, "container")),
            }
        }
        Err(failure) if failure.status.is_none() => println!("Nothing was running."),
        Err(failure) => return Err(failure),
    }
    crate::leftover::remove(run);
    if purge == Purge::No {
        if data.exists() {
            println!("Images, volumes and records stay in {} (--purge).", data.display());
        }
        return Ok(());
    }
    for directory in [data, run] {
        match std::fs::remove_dir_all(directory) {
            Ok(()) => println!("Removed: {}.", directory.display()),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {}
            Err(cause) => {
                return Err(Failure::new(format!(
                    "cannot remove {}: {cause}",
                    directory.display()
                )));
            }
        }
    }
    Ok(())
}

/// How many containers run or are paused.
async fn running(client: &Client) -> Result<u64, Failure> {
    let info = client.get("/info").await?;
    let count = |field: &str| info[field].as_u64().unwrap_or(0);
    Ok(count("ContainersRunning") + count("ContainersPaused"))
}

/// Says what will be gone and waits for a yes.
fn confirm(running: Option<u64>, data: &Path) -> Result<(), Failure> {
    let entries = |name: &str| {
        let entries = std::fs::read_dir(data.join(name));
        entries.map_or(0, |entries| entries.count() as u64)
    };
    let what = format!(
        "This ends {} and removes {} for good: {}, {}, all images, the registry and the records of the \
         cluster.",
        count(running.unwrap_or(0), "running container"),
        data.display(),
        count(entries("volumes"), "volume"),
        count(entries("containers"), "container"),
    );
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(format!("{what} Say --yes to do so")));
    }
    print!("{what}\nContinue? [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::new("nothing was ended or removed")),
    }
}

fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_are_counted_as_people_do() {
        assert_eq!(count(0, "volume"), "0 volumes");
        assert_eq!(count(1, "volume"), "1 volume");
        assert_eq!(count(2, "running container"), "2 running containers");
    }
}
