use std::collections::BTreeSet;

use serde_json::Value;

use crate::cluster::is_name;
use crate::error::{Code, Error};
use crate::status::DependencyCondition;
use crate::task_definition::{ContainerDefinition, Definition, HealthCheck, PortMapping};

/// Checks what a user wrote and fills in what ECS fills in.
///
/// Texts are ECS's own where they are known, because tools show and sometimes match them.
pub(crate) fn complete(mut definition: Definition) -> Result<Definition, Error> {
    if definition.family.is_empty() {
        return Err(Error::client("Family should not be null or empty."));
    }
    if !is_name(&definition.family) {
        return Err(Error::client(format!(
            "Invalid family name '{}': use 1 to 255 letters, numbers, hyphens and underscores.",
            definition.family
        )));
    }
    if definition.container_definitions.is_empty() {
        return Err(Error::client("Container list cannot be empty."));
    }
    if definition.container_definitions.len() > MAXIMUM_CONTAINERS {
        return Err(Error::client("Too many containers."));
    }
    match definition.network() {
        "bridge" | "host" | "none" | "awsvpc" => {}
        other => {
            return Err(Error::client(format!(
                "Invalid network mode '{other}': use bridge, host, none or awsvpc."
            )));
        }
    }
    definition.cpu = definition.cpu.map(|text| units(&text, "cpu", "vcpu")).transpose()?;
    definition.memory = definition.memory.map(|text| units(&text, "memory", "gb")).transpose()?;
    check_volumes(&definition)?;
    let network = definition.network().to_owned();
    for container in &mut definition.container_definitions {
        fill_ports(container, &network)?;
    }
    for container in &definition.container_definitions {
        check_container(container, &definition)?;
    }
    check_together(&definition)?;
    Ok(definition)
}

fn check_container(container: &ContainerDefinition, definition: &Definition) -> Result<(), Error> {
    let name = &container.name;
    if name.is_empty() {
        return Err(Error::client("Container.name should not be null or empty."));
    }
    check_log(container)?;
    if !is_name(name) {
        return Err(Error::client(format!(
            "Invalid container name '{name}': use 1 to 255 letters, numbers, hyphens and underscores."
        )));
    }
    if container.image.is_empty() {
        return Err(Error::client("Container.image should not be null or empty."));
    }
    if container.image.contains(char::is_whitespace) || container.image.len() > 512 {
        return Err(Error::client(format!(
            "Invalid image name '{}' of container '{name}': give repository:tag or repository@digest.",
            container.image
        )));
    }
    if container.cpu < 0 {
        return Err(Error::client(format!(
            "Invalid setting for container '{name}'. 'cpu' must not be negative."
        )));
    }
    for (member, limit) in
        [("memory", container.memory), ("memoryReservation", container.memory_reservation)]
    {
        if limit.is_some_and(|limit| limit < MINIMUM_MEMORY) {
            return Err(Error::client(format!(
                "Invalid setting for container '{name}'. '{member}' must be at least {MINIMUM_MEMORY} MiB."
            )));
        }
    }
    if let (Some(hard), Some(soft)) = (container.memory, container.memory_reservation)
        && soft > hard
    {
        return Err(Error::client(format!(
            "Invalid setting for container '{name}'. The 'memory' value must be greater than 'memoryReservation' value."
        )));
    }
    if container.reserved_memory() == 0 && definition.memory.is_none() {
        return Err(Error::client(format!(
            "Invalid setting for container '{name}'. At least one of 'memory' or 'memoryReservation' must be specified."
        )));
    }
    if definition.network() != "bridge" && container.links.as_ref().is_some_and(|l| !l.is_empty()) {
        return Err(Error::client(format!(
            "Links are not supported when networkMode={}.",
            definition.network()
        )));
    }
    for mount in &container.mount_points {
        let volume = mount.source_volume.as_deref().unwrap_or_default();
        if !definition.volumes.iter().any(|known| known.name == volume) {
            return Err(Error::client(format!("Unknown volume '{volume}'.")));
        }
        if !mount.container_path.as_deref().is_some_and(|path| path.starts_with('/')) {
            return Err(Error::client(format!(
                "Invalid mount point of container '{name}': containerPath must be an absolute path."
            )));
        }
    }
    container.health_check.as_ref().map_or(Ok(()), |check| check_health(name, check))
}

fn check_health(name: &str, check: &HealthCheck) -> Result<(), Error> {
    let invalid = |what: &str| {
        Err(Error::client(format!("Invalid health check of container '{name}': {what}.")))
    };
    if check.command.is_empty() {
        return invalid("command must not be empty");
    }
    for (member, value, low, high) in [
        ("interval", check.interval, 5, 300),
        ("timeout", check.timeout, 2, 120),
        ("retries", check.retries, 1, 10),
        ("startPeriod", check.start_period, 0, 300),
    ] {
        if value.is_some_and(|value| !(low..=high).contains(&value)) {
            return invalid(&format!("{member} must be between {low} and {high}"));
        }
    }
    match check.command.as_slice() {
        [kind] if kind == "NONE" => Ok(()),
        [kind, _, ..] if kind == "CMD" || kind == "CMD-SHELL" => Ok(()),
        _ => invalid("command must be CMD or CMD-SHELL and what is to run, or NONE"),
    }
}

fn fill_ports(container: &mut ContainerDefinition, network: &str) -> Result<(), Error> {
    let name = &container.name;
    for mapping in &mut container.port_mappings {
        check_port(name, mapping)?;
        mapping.protocol.get_or_insert_with(|| "tcp".into());
        let Some(inside) = mapping.container_port else { continue };
        match network {
            "bridge" => {
                mapping.host_port.get_or_insert(0);
            }
            "host" | "awsvpc" => {
                let outside = *mapping.host_port.get_or_insert(inside);
                if outside != 0 && outside != inside {
                    return Err(Error::client(format!(
                        "When networkMode={network}, the host ports and container ports in port mappings must match."
                    )));
                }
                mapping.host_port = Some(inside);
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_port(name: &str, mapping: &PortMapping) -> Result<(), Error> {
    let inside = mapping.container_port;
    if mapping.container_port_range.is_some() {
        return Err(Error::new(
            Code::UnsupportedFeature,
            format!(
                "Container '{name}': containerPortRange is not supported; list the ports one by one."
            ),
        ));
    }
    if !inside.is_some_and(|port| (1..=65_535).contains(&port)) {
        return Err(Error::client(format!(
            "Invalid 'containerPort' setting for container '{name}': use a number between 1 and 65535."
        )));
    }
    if mapping.host_port.is_some_and(|port| !(0..=65_535).contains(&port)) {
        return Err(Error::client(format!(
            "Invalid 'hostPort' setting for container '{name}': use a number between 0 and 65535."
        )));
    }
    match mapping.protocol.as_deref() {
        None | Some("tcp" | "udp") => Ok(()),
        Some(other) => Err(Error::client(format!(
            "Invalid protocol '{other}' for container '{name}': use tcp or udp."
        ))),
    }
}

fn check_volumes(definition: &Definition) -> Result<(), Error> {
    let mut names = BTreeSet::new();
    for volume in &definition.volumes {
        if !is_name(&volume.name) {
            return Err(Error::client(format!(
                "Invalid volume name '{}': use 1 to 255 letters, numbers, hyphens and underscores.",
                volume.name
            )));
        }
        if !names.insert(&volume.name) {
            return Err(Error::client(format!("Duplicate volume name '{}'.", volume.name)));
        }
        let path = volume.host.as_ref().and_then(|host| host.source_path.as_deref());
        if path.is_some_and(|path| !path.starts_with('/')) {
            return Err(Error::client(format!(
                "Invalid volume '{}': host.sourcePath must be an absolute path.",
                volume.name
            )));
        }
        if let Some(config) = &volume.docker_volume_configuration {
            if volume.host.is_some() {
                return Err(Error::client(format!(
                    "Invalid volume '{}': use either host or dockerVolumeConfiguration.",
                    volume.name
                )));
            }
            check_docker_volume(&volume.name, config)?;
        }
    }
    Ok(())
}

/// The log drivers that a task definition can name (the API reference, `LogConfiguration`).
const LOG_DRIVERS: [&str; 8] =
    ["json-file", "syslog", "journald", "gelf", "fluentd", "awslogs", "splunk", "awsfirelens"];

fn check_log(container: &ContainerDefinition) -> Result<(), Error> {
    let Some(log) = &container.log_configuration else { return Ok(()) };
    let name = &container.name;
    if !LOG_DRIVERS.contains(&&*log.log_driver) {
        return Err(Error::client(format!(
            "Invalid log driver '{}' of container '{name}': use {}.",
            log.log_driver,
            LOG_DRIVERS.join(", ")
        )));
    }
    let has_secrets = log.secret_options.as_ref().is_some_and(|secrets| match secrets {
        Value::Null => false,
        Value::Array(list) => !list.is_empty(),
        _ => true,
    });
    if has_secrets {
        return Err(Error::client(format!(
            "secretOptions of container '{name}' is not supported by Bulkhead, which has no secrets \
             manager: use options."
        )));
    }
    let options = log.options.iter().flatten();
    if let Some((option, _)) = options.clone().find(|(_, value)| !value.is_string()) {
        return Err(Error::client(format!(
            "Invalid log option '{option}' of container '{name}': it must be a text."
        )));
    }
    let missing = ["awslogs-group", "awslogs-region"].into_iter().filter(|wanted| {
        log.log_driver == "awslogs" && !options.clone().any(|(option, _)| option == wanted)
    });
    let missing: Vec<&str> = missing.collect();
    if !missing.is_empty() {
        return Err(Error::client(format!(
            "Log driver awslogs requires options: {}",
            missing.join(", ")
        )));
    }
    Ok(())
}

/// Every member of a `dockerVolumeConfiguration` is done or refused by name.
fn check_docker_volume(name: &str, config: &Value) -> Result<(), Error> {
    let invalid = |what: String| {
        Error::client(format!("Invalid dockerVolumeConfiguration of volume '{name}': {what}."))
    };
    let config = config.as_object().ok_or_else(|| invalid("it must be an object".to_owned()))?;
    for (member, value) in config {
        let is_valid = match member.as_str() {
            "scope" => matches!(value.as_str(), Some("task" | "shared")),
            "autoprovision" => value.is_boolean(),
            "driver" => value.is_string(),
            "driverOpts" | "labels" => {
                value.as_object().is_some_and(|map| map.values().all(Value::is_string))
            }
            other => return Err(invalid(format!("there is no member '{other}'"))),
        };
        if !is_valid {
            return Err(invalid(match member.as_str() {
                "scope" => "scope is task or shared".to_owned(),
                "autoprovision" => "autoprovision is true or false".to_owned(),
                "driver" => "driver is a text".to_owned(),
                other => format!("{other} is a map of texts"),
            }));
        }
    }
    let is_shared = config.get("scope").and_then(Value::as_str) == Some("shared");
    // It would live as long as its task, so there is nothing to be there before (ECS refuses it too).
    if !is_shared && config.contains_key("autoprovision") {
        return Err(invalid("autoprovision is for scope shared".to_owned()));
    }
    Ok(())
}

/// What concerns several containers of the task.
fn check_together(definition: &Definition) -> Result<(), Error> {
    let containers = &definition.container_definitions;
    let mut names = BTreeSet::new();
    for container in containers {
        if !names.insert(&*container.name) {
            return Err(Error::client(format!(
                "Container names must be unique: '{}' is used more than once.",
                container.name
            )));
        }
    }
    if !containers.iter().any(|container| container.essential) {
        return Err(Error::client("At least one container must be essential."));
    }
    let mut fixed = BTreeSet::new();
    for mapping in containers.iter().flat_map(|container| &container.port_mappings) {
        let outside = mapping.host_port.unwrap_or(0);
        if outside != 0 && !fixed.insert((outside, mapping.protocol.as_deref())) {
            return Err(Error::client(format!(
                "Host port {outside} is used by more than one port mapping."
            )));
        }
    }
    for container in containers {
        for target in container.link_targets() {
            if !names.contains(target) {
                return Err(Error::client(format!(
                    "Invalid link of container '{}': container '{target}' does not exist.",
                    container.name
                )));
            }
        }
        for dependency in container.depends_on.iter().flatten() {
            let Some(on) = definition.container(&dependency.container_name) else {
                return Err(Error::client(format!(
                    "Cannot depend on container + '{}' because it does not exist",
                    dependency.container_name
                )));
            };
            check_condition(on, &dependency.condition)?;
        }
        for source in &container.volumes_from {
            if !names.contains(&*source.source_container) {
                return Err(Error::client(format!(
                    "Invalid volumesFrom of container '{}': container '{}' does not exist.",
                    container.name, source.source_container
                )));
            }
        }
    }
    check_cycles(definition)?;
    let sum: i64 = containers.iter().map(|container| container.cpu).sum();
    if definition.cpu.as_ref().and_then(|cpu| cpu.parse().ok()).is_some_and(|cpu: i64| sum > cpu) {
        return Err(Error::client(
            "The sum of all container 'cpu' values cannot be greater than the value of the task 'cpu'.",
        ));
    }
    Ok(())
}

fn check_condition(on: &ContainerDefinition, condition: &str) -> Result<(), Error> {
    let condition = condition.parse().map_err(|_| {
        Error::client(format!(
            "Invalid dependency condition '{condition}': use START, COMPLETE, SUCCESS or HEALTHY."
        ))
    })?;
    match condition {
        DependencyCondition::Start => Ok(()),
        DependencyCondition::Complete | DependencyCondition::Success if on.essential => {
            Err(Error::client(
                "A dependency container with SUCCESS or COMPLETE condition cannot be an essential container",
            ))
        }
        DependencyCondition::Complete | DependencyCondition::Success => Ok(()),
        DependencyCondition::Healthy if on.is_checked() => Ok(()),
        DependencyCondition::Healthy => Err(Error::client(format!(
            "A dependency container with HEALTHY condition must have a health check: container '{}' has no \
             healthCheck.",
            on.name
        ))),
    }
}

/// Refuses containers that wait for each other: links, dependsOn and volumesFrom are one graph.
fn check_cycles(definition: &Definition) -> Result<(), Error> {
    let mut waiting: Vec<&ContainerDefinition> = definition.container_definitions.iter().collect();
    let mut done: BTreeSet<&str> = BTreeSet::new();
    while !waiting.is_empty() {
        let before = waiting.len();
        waiting.retain(|container| {
            let ready = predecessors(container).all(|name| done.contains(name));
            if ready {
                done.insert(&container.name);
            }
            !ready
        });
        if waiting.len() == before {
            let links_only = waiting.iter().all(|container| {
                container.depends_on.is_none() && container.volumes_from.is_empty()
            });
            return Err(Error::client(if links_only {
                "Container links should not have a cycle"
            } else {
                "Container dependencies should not have a cycle"
            }));
        }
    }
    Ok(())
}

/// The containers that must be there before `container` can start.
fn predecessors(container: &ContainerDefinition) -> impl Iterator<Item = &str> {
    let depends = container.depends_on.iter().flatten().map(|on| &*on.container_name);
    let volumes = container.volumes_from.iter().map(|from| &*from.source_container);
    container.link_targets().chain(depends).chain(volumes)
}

/// Reads `256`, `1 vCPU` or `0.5 GB` into whole units (1,024 to the vCPU or GB), as text.
fn units(text: &str, member: &str, large: &str) -> Result<String, Error> {
    let invalid = || {
        Error::client(format!("Invalid '{member}' setting for task: '{text}' is not an amount."))
    };
    let lower = text.trim().to_ascii_lowercase();
    let amount = match lower.strip_suffix(large) {
        Some(number) => number.trim().parse::<f64>().map_err(|_| invalid())? * 1024.0,
        None => lower.parse::<u32>().map_err(|_| invalid())?.into(),
    };
    if !(1.0..=1e9).contains(&amount) {
        return Err(invalid());
    }
    Ok(format!("{}", amount.round() as u64))
}

/// The least that Docker accepts as a container's memory, in MiB (6 since Docker 20.10).
const MINIMUM_MEMORY: i64 = 6;
/// Containers in one task definition (AWS's quota).
const MAXIMUM_CONTAINERS: usize = 10;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn register(volume: Value, log: Value) -> Result<Definition, Error> {
        let mut container = json!({"name": "c", "image": "i", "memory": 64});
        if !log.is_null() {
            container["logConfiguration"] = log;
        }
        let volumes = if volume.is_null() { json!([]) } else { json!([volume]) };
        let definition =
            json!({"family": "f", "containerDefinitions": [container], "volumes": volumes});
        complete(serde_json::from_value(definition).unwrap())
    }

    #[test]
    fn what_a_volume_of_docker_says_is_done_or_refused_by_name() {
        let volume = |config: Value| json!({"name": "v", "dockerVolumeConfiguration": config});
        for config in [
            json!({}),
            json!({"scope": "task", "driver": "local", "driverOpts": {"type": "tmpfs"}}),
            json!({"scope": "shared", "autoprovision": true, "labels": {"a": "b"}}),
        ] {
            register(volume(config), Value::Null).unwrap();
        }
        for (config, why) in [
            (json!({"scope": "all"}), "scope is task or shared"),
            (json!({"autoprovision": false}), "autoprovision is for scope shared"),
            (json!({"scope": "shared", "autoprovision": "yes"}), "true or false"),
            (json!({"driverOpts": {"o": 1}}), "driverOpts is a map of texts"),
            (json!({"size": "1g"}), "no member 'size'"),
        ] {
            let error = register(volume(config), Value::Null).unwrap_err();
            assert!(error.message.contains(why), "{error}");
        }
        let mut both = volume(json!({}));
        both["host"] = json!({});
        let error = register(both, Value::Null).unwrap_err();
        assert!(error.message.contains("either host"), "{error}");
    }

    #[test]
    fn what_a_log_says_is_done_or_refused_by_name() {
        let awslogs = json!({"awslogs-group": "g", "awslogs-region": "r"});
        let log = json!({"logDriver": "awslogs", "options": awslogs, "secretOptions": []});
        register(Value::Null, log).unwrap();
        for (log, why) in [
            (json!({"logDriver": "bogus"}), "Invalid log driver 'bogus'"),
            (json!({"logDriver": "awslogs"}), "requires options: awslogs-group, awslogs-region"),
            (json!({"logDriver": "syslog", "options": {"tag": 1}}), "Invalid log option 'tag'"),
            (
                json!({"logDriver": "syslog", "secretOptions": [{"name": "a", "valueFrom": "b"}]}),
                "secretOptions of container 'c'",
            ),
        ] {
            let error = register(Value::Null, log).unwrap_err();
            assert!(error.message.contains(why), "{error}");
        }
    }
}
