//! What this machine is and can do, as the control plane is told.

use std::collections::BTreeSet;

use bulkhead_docker_types::SystemInfo;
use serde_json::{Value, json};

use crate::options::Options;

/// The request of `RegisterContainerInstance`.
pub(crate) fn registration(
    options: &Options,
    instance_id: &str,
    known_as: Option<&str>,
    info: &SystemInfo,
) -> Value {
    let memory = info.mem_total.unwrap_or(0) / (1 << 20) - i64::from(options.reserved_memory);
    let ports: BTreeSet<u16> = options.reserved_ports.iter().copied().chain([SSH]).collect();
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    let mut request = json!({
        "cluster": options.cluster,
        "instanceIdentityDocument": json!({
            "instanceId": instance_id, "region": options.region, "privateIp": options.private_ip,
            "architecture": std::env::consts::ARCH,
        }).to_string(),
        "totalResources": [
            {"name": "CPU", "type": "INTEGER", "integerValue": info.ncpu.unwrap_or(1) * 1024},
            {"name": "MEMORY", "type": "INTEGER", "integerValue": memory.max(0)},
            {"name": "PORTS", "type": "STRINGSET", "stringSetValue": ports},
            {"name": "PORTS_UDP", "type": "STRINGSET", "stringSetValue": []},
        ],
        "versionInfo": {
            "agentVersion": env!("CARGO_PKG_VERSION"), "agentHash": "bulkhead",
            "dockerVersion": format!("DockerVersion: {}", info.server_version.as_deref().unwrap_or("unknown")),
        },
        "attributes": attributes(options, info),
    });
    if let Some(arn) = known_as {
        request["containerInstanceArn"] = json!(arn);
    }
    request
}

/// Only what is true: a task that asks for more is then refused with `ATTRIBUTE` and not started wrongly.
fn attributes(options: &Options, info: &SystemInfo) -> Vec<Value> {
    let mut attributes = vec![
        json!({"name": "ecs.os-type", "value": "linux"}),
        json!({"name": "ecs.os-family", "value": "LINUX"}),
        json!({"name": "ecs.cpu-architecture", "value": std::env::consts::ARCH}),
        json!({"name": "ecs.availability-zone", "value": format!("{}a", options.region)}),
        json!({"name": "com.amazonaws.ecs.capability.privileged-container"}),
        json!({"name": "ecs.capability.container-ordering"}),
        json!({"name": "ecs.capability.container-health-check"}),
    ];
    for driver in &info.plugins.log {
        attributes
            .push(json!({"name": format!("com.amazonaws.ecs.capability.logging-driver.{driver}")}));
    }
    let security = info.security_options.iter();
    for (option, name) in security.filter_map(|option| {
        let known = ["apparmor", "selinux"].into_iter();
        known
            .clone()
            .find(|name| option.contains(&format!("name={name}")))
            .map(|name| (option, name))
    }) {
        tracing::debug!(option, "the engine offers a security option");
        attributes.push(json!({"name": format!("com.amazonaws.ecs.capability.{name}")}));
    }
    let addresses =
        [("bulkhead.private-ip", options.private_ip), ("bulkhead.public-ip", options.public_ip)];
    for (name, address) in addresses {
        if let Some(address) = address {
            attributes.push(json!({"name": name, "value": address.to_string()}));
        }
    }
    if (1..=128).contains(&info.name.len()) {
        attributes.push(json!({"name": "bulkhead.private-dns", "value": info.name}));
    }
    attributes
}

/// No task may take the way in to the machine.
const SSH: u16 = 22;

#[cfg(test)]
mod tests {
    use bulkhead_aws_api::sigv4::Credentials;

    use super::*;

    #[test]
    fn a_machine_says_what_it_has_and_what_is_taken() {
        let credentials = Credentials { access_key_id: "a".into(), secret_access_key: "b".into() };
        let mut options = Options::new("http://h:1/", credentials, "/s".into(), "/d".into());
        options.reserved_ports = vec![8080, 5000, 22];
        options.reserved_memory = 24;
        options.public_ip = Some([203, 0, 113, 9].into());
        let info = SystemInfo { ncpu: Some(2), mem_total: Some(1 << 30), ..SystemInfo::default() };
        let request = registration(&options, "i-0123456789abcdef0", None, &info);
        assert_eq!(request["totalResources"][0]["integerValue"], 2048);
        assert_eq!(request["totalResources"][1]["integerValue"], 1000);
        assert_eq!(request["totalResources"][2]["stringSetValue"], json!(["22", "5000", "8080"]));
        let attributes = request["attributes"].as_array().unwrap();
        assert!(
            attributes.contains(&json!({"name": "bulkhead.public-ip", "value": "203.0.113.9"}))
        );
        assert!(
            request["instanceIdentityDocument"].as_str().unwrap().contains("i-0123456789abcdef0")
        );
        assert!(request.get("containerInstanceArn").is_none());
    }
}
