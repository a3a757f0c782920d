use crate::attribute::Attribute;
use crate::task_definition::Definition;

/// What an agent must be able to do to run `definition`: the API's `requiresAttributes`.
///
/// Names are those that agents register (aws/amazon-ecs-agent: agent/app/agent_capability.go). The
/// `docker-remote-api` levels are left out: no daemon that Bulkhead meets is old enough to lack one.
pub(crate) fn of(definition: &Definition) -> Vec<Attribute> {
    let mut names: Vec<String> = Vec::new();
    let mut need = |name: String| {
        if !names.contains(&name) {
            names.push(name);
        }
    };
    for container in &definition.container_definitions {
        if let Some(log) = &container.log_configuration {
            match &*log.log_driver {
                "awsfirelens" => need("ecs.capability.logging-driver.awsfirelens".into()),
                driver => need(format!("com.amazonaws.ecs.capability.logging-driver.{driver}")),
            }
        }
        if container.privileged == Some(true) {
            need("com.amazonaws.ecs.capability.privileged-container".into());
        }
        for option in container.docker_security_options.iter().flatten() {
            if option.starts_with("apparmor") {
                need("com.amazonaws.ecs.capability.apparmor".into());
            } else if option.starts_with("label") {
                need("com.amazonaws.ecs.capability.selinux".into());
            }
        }
        if container.depends_on.as_ref().is_some_and(|list| !list.is_empty()) {
            need("ecs.capability.container-ordering".into());
        }
        if container.health_check.is_some() {
            need("ecs.capability.container-health-check".into());
        }
        if let Some(secrets) = container.secrets.as_ref().and_then(|secrets| secrets.as_array()) {
            for secret in secrets {
                let manager = secret["valueFrom"]
                    .as_str()
                    .is_some_and(|from| from.contains(":secretsmanager:"));
                let store = if manager { "asm" } else { "ssm" };
                need(format!("ecs.capability.secrets.{store}.environment-variables"));
            }
        }
        if container.environment_files.is_some() {
            need("ecs.capability.env-files.s3".into());
        }
        if container.firelens_configuration.is_some() {
            need("ecs.capability.firelens.fluentbit".into());
        }
        if container.repository_credentials.is_some() {
            need("ecs.capability.private-registry-authentication.secretsmanager".into());
        }
        if container.restart_policy.is_some() {
            need("ecs.capability.container-restart-policy".into());
        }
    }
    if definition.cpu.is_some() || definition.memory.is_some() {
        need("ecs.capability.task-cpu-mem-limit".into());
    }
    if definition.pid_mode.is_some() || definition.ipc_mode.is_some() {
        need("ecs.capability.pid-ipc-namespace-sharing".into());
    }
    if definition.task_role_arn.is_some() {
        let host = if definition.network() == "host" { "-network-host" } else { "" };
        need(format!("com.amazonaws.ecs.capability.task-iam-role{host}"));
    }
    if definition.network() == "awsvpc" {
        need("ecs.capability.task-eni".into());
    }
    for volume in &definition.volumes {
        let config = volume.docker_volume_configuration.as_ref();
        // The only driver that every Docker has is local.
        match config.and_then(|config| config["driver"].as_str()) {
            None | Some("" | "local") => {}
            Some(driver) => need(format!("ecs.capability.docker-plugin.{driver}")),
        }
        if volume.efs_volume_configuration.is_some() {
            need("ecs.capability.efs".into());
        }
        if volume.configured_at_launch == Some(true) {
            need("ecs.capability.storage.ebs-task-volume-attach".into());
        }
    }
    names.into_iter().map(|name| Attribute::new(name, None)).collect()
}

/// The launch types that could run `definition`: the API's `compatibilities`.
pub(crate) fn compatibilities(definition: &Definition) -> Vec<String> {
    let awsvpc = definition.network() == "awsvpc";
    let mut compatible = Vec::new();
    if !awsvpc {
        compatible.push("EXTERNAL".to_owned());
    }
    compatible.push("EC2".to_owned());
    if awsvpc && definition.cpu.is_some() && definition.memory.is_some() {
        compatible.push("FARGATE".to_owned());
    }
    compatible
}
