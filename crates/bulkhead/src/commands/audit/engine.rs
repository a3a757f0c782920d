//! The checks of the engine itself.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::Value;

use super::Finding;
use super::Level::{High, Medium};
use crate::client::Client;
use crate::commands::show::text;
use crate::failure::Failure;

/// Of what the engine says of itself, and of its files where it is on this machine.
pub(super) async fn findings(client: &Client) -> Result<Vec<Finding>, Failure> {
    let info = client.get("/info").await?;
    let mut found = of_info(&info);
    let Some(socket) = client.socket() else { return Ok(found) };
    found.extend(mode_of(socket).and_then(|mode| of_socket(socket, mode)));
    let own = client.get("/bulkhead/info").await?;
    let data = text(&own["Data"]);
    found.extend(mode_of(Path::new(&data)).and_then(|mode| of_data(&data, mode)));
    Ok(found)
}

fn mode_of(path: &Path) -> Option<u32> {
    std::fs::metadata(path).ok().map(|metadata| metadata.mode() & 0o7777)
}

fn finding(
    check: &'static str,
    level: super::Level,
    what: String,
    means: &'static str,
    mend: String,
) -> Finding {
    Finding { check, level, subject: String::new(), what, means, mend }
}

fn of_info(info: &Value) -> Vec<Finding> {
    let mut found = Vec::new();
    let options = info["SecurityOptions"].as_array().into_iter().flatten();
    let options: Vec<String> = options.map(text).collect();
    if !options.iter().any(|option| option.contains("name=userns")) {
        found.push(finding(
            "2.9",
            High,
            "containers have no user namespace of their own".to_owned(),
            "root in a container is root of the host, held back by capabilities and the filter alone",
            "use Linux 5.19 or later with ext4, xfs or btrfs below the data directory".to_owned(),
        ));
    }
    let registries = info["RegistryConfig"]["IndexConfigs"].as_object().into_iter().flatten();
    let open: Vec<&str> = registries
        .filter(|(name, config)| config["Secure"] == false && !is_loopback(name))
        .map(|(name, _)| name.as_str())
        .collect();
    if !open.is_empty() {
        found.push(finding(
            "2.5",
            Medium,
            format!("images come by plain HTTP from {}", open.join(", ")),
            "whoever is on the way can change them",
            "give the registry TLS, and leave --insecure-registry out".to_owned(),
        ));
    }
    found
}

fn is_loopback(registry: &str) -> bool {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn of_socket(path: &Path, mode: u32) -> Option<Finding> {
    (mode & 0o007 != 0).then(|| {
        finding(
            "3.16",
            High,
            format!("the socket {} is open to everybody (mode {mode:o})", path.display()),
            "every user of this machine is as good as root",
            format!("chmod 660 {}", path.display()),
        )
    })
}

fn of_data(path: &str, mode: u32) -> Option<Finding> {
    (mode & 0o022 != 0).then(|| {
        finding(
            "-",
            High,
            format!("the data directory {path} can be changed by others (mode {mode:o})"),
            "images and records are trusted as they are there",
            format!("chmod 700 {path}"),
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_engine_says_is_judged() {
        let info = |userns: bool, registries: Value| {
            let options = if userns { json!(["name=seccomp", "name=userns"]) } else { json!([]) };
            json!({ "SecurityOptions": options, "RegistryConfig": { "IndexConfigs": registries } })
        };
        let checks = |info: &Value| of_info(info).iter().map(|it| it.check).collect::<Vec<_>>();
        let safe =
            json!({ "docker.io": { "Secure": true }, "127.0.0.1:5000": { "Secure": false } });
        assert_eq!(checks(&info(true, safe.clone())), [""; 0]);
        assert_eq!(checks(&info(false, safe)), ["2.9"]);
        let open =
            json!({ "registry.lan:5000": { "Secure": false }, "[::1]:5000": { "Secure": false } });
        assert_eq!(checks(&info(true, open)), ["2.5"]);
    }

    #[test]
    fn files_of_the_engine_are_nobody_elses() {
        let socket = Path::new("/run/x.sock");
        assert_eq!(of_socket(socket, 0o660), None);
        assert_eq!(
            of_socket(socket, 0o666).map(|it| it.mend),
            Some("chmod 660 /run/x.sock".into())
        );
        assert_eq!(of_data("/d", 0o711), None);
        assert!(of_data("/d", 0o777).is_some());
    }
}
