//! What pages send: each form is one operation of the control plane.

use axum::Form;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use bulkhead_ecs::{CreateCluster, RegisterTaskDefinition, RunTask};
use bulkhead_types::{Port, Protocol};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Console;
use crate::pages::{self, Draft, DraftContainer};

#[derive(Deserialize)]
pub struct NewCluster {
    name: String,
}

pub async fn create_cluster(
    State(console): State<Console>,
    Form(form): Form<NewCluster>,
) -> Response {
    let request = CreateCluster { cluster_name: Some(form.name), ..CreateCluster::default() };
    console
        .plane
        .show(|control| match control.create_cluster(request) {
            Ok(cluster) => {
                Ok(Redirect::to(&format!("/clusters/{}", cluster.cluster_name)).into_response())
            }
            Err(error) => pages::show_clusters(control, Some(error.message)),
        })
        .await
}

pub async fn register(
    State(console): State<Console>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Response {
    let (draft, json) = match fields.iter().any(|(name, value)| name == "how" && value == "json") {
        true => {
            let json = fields.into_iter().find(|(name, _)| name == "json");
            (Draft::default(), json.map(|(_, text)| text).unwrap_or_default())
        }
        false => {
            let made = definition(&fields);
            let draft = draft(fields);
            match made {
                Ok(made) => (draft, serde_json::to_string_pretty(&made).unwrap_or_default()),
                Err(wrong) => {
                    return pages::show_new_task_definition(draft, String::new(), Some(wrong));
                }
            }
        }
    };
    console
        .plane
        .show(|control| {
            let registered = RegisterTaskDefinition::from_json(&json)
                .and_then(|request| control.register_task_definition(request));
            match registered {
                Ok((definition, _)) => {
                    let name = definition.task_definition_arn.id().replace(':', "/");
                    Redirect::to(&format!("/task-definitions/{name}")).into_response()
                }
                Err(error) => pages::show_new_task_definition(draft, json, Some(error.message)),
            }
        })
        .await
}

/// The form's fields as they were typed, to be shown again.
fn draft(fields: Vec<(String, String)>) -> Draft {
    let mut draft = Draft::default();
    for (field, value) in fields {
        if field == "family" {
            draft.family = value;
            continue;
        }
        if field == "name" {
            draft.containers.push(DraftContainer { name: value, ..DraftContainer::default() });
            continue;
        }
        let Some(container) = draft.containers.last_mut() else { continue };
        let place = match field.as_str() {
            "image" => &mut container.image,
            "memory" => &mut container.memory,
            "cpu" => &mut container.cpu,
            "ports" => &mut container.ports,
            "links" => &mut container.links,
            "command" => &mut container.command,
            "environment" => &mut container.environment,
            _ => continue,
        };
        *place = value;
    }
    draft
}

/// The form's fields as the JSON of RegisterTaskDefinition. Containers follow each other in the
/// order of the page, each beginning with its name; one without a name is left out.
fn definition(fields: &[(String, String)]) -> Result<Value, String> {
    let mut family = "";
    let mut containers: Vec<Value> = Vec::new();
    for (field, value) in fields {
        let value = value.trim();
        match field.as_str() {
            "family" => family = value,
            "name" => containers.push(json!({"name": value, "essential": true})),
            _ if value.is_empty() => {}
            _ => {
                let Some(container) = containers.last_mut() else { continue };
                match field.as_str() {
                    "image" => container["image"] = json!(value),
                    "memory" | "cpu" => {
                        let number: u32 = value
                            .parse()
                            .map_err(|_| format!("{field} {value:?} is not a whole number."))?;
                        container[field] = json!(number);
                    }
                    "ports" => container["portMappings"] = ports(value)?,
                    "links" => container["links"] = value.split(',').map(str::trim).collect(),
                    "command" => container["command"] = command(value)?,
                    "environment" => container["environment"] = environment(value)?,
                    _ => {}
                }
            }
        }
    }
    containers.retain(|container| container["name"] != "");
    Ok(json!({"family": family, "containerDefinitions": containers}))
}

/// `80:80/tcp, 53:53/udp`; one number is the container's port, on a host port of the instance's choice.
fn ports(text: &str) -> Result<Value, String> {
    let one = |text: &str| {
        let wrong = || format!("Port mapping {text:?} is not HOST PORT:CONTAINER PORT/PROTOCOL.");
        let (host, container) = text.split_once(':').unwrap_or(("0", text));
        let host: u16 = host.parse().map_err(|_| wrong())?;
        let port: Port = container.parse().map_err(|_| wrong())?;
        // ECS has no others (API reference, PortMapping).
        if !matches!(port.protocol(), Protocol::Tcp | Protocol::Udp) {
            return Err(wrong());
        }
        Ok(json!({
            "hostPort": host, "containerPort": port.number(), "protocol": port.protocol().name(),
        }))
    };
    text.split(',').map(|text| one(text.trim())).collect()
}

/// `sh,-c,date` as in the AWS console, or a JSON list, where an argument itself has a comma.
fn command(text: &str) -> Result<Value, String> {
    if text.starts_with('[') {
        let arguments: Vec<String> = serde_json::from_str(text)
            .map_err(|cause| format!("Command {text:?} is not a JSON list of texts: {cause}."))?;
        return Ok(json!(arguments));
    }
    Ok(text.split(',').map(str::trim).collect())
}

fn environment(text: &str) -> Result<Value, String> {
    let one = |line: &str| {
        let (name, value) =
            line.split_once('=').ok_or_else(|| format!("{line:?} is not NAME=value."))?;
        Ok(json!({"name": name, "value": value}))
    };
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(one).collect()
}

pub async fn deregister(
    State(console): State<Console>,
    Path((family, revision)): Path<(String, String)>,
) -> Response {
    console
        .plane
        .show(move |control| {
            control.deregister_task_definition(&format!("{family}:{revision}"))?;
            Ok::<_, pages::Problem>(Redirect::to(&format!("/task-definitions/{family}/{revision}")))
        })
        .await
}

#[derive(Deserialize)]
pub struct NewTask {
    definition: String,
    count: i64,
}

pub async fn run_task(
    State(console): State<Console>,
    Path(cluster): Path<String>,
    Form(form): Form<NewTask>,
) -> Response {
    let request = RunTask {
        cluster: Some(cluster.clone()),
        task_definition: form.definition.clone(),
        count: Some(form.count),
        started_by: Some("console".to_owned()),
        ..RunTask::default()
    };
    console
        .plane
        .show(move |control| {
            let (problem, failures) = match control.run_task(&request) {
                Ok(result) if result.tasks.is_empty() => (None, result.failures),
                Ok(_) => return Ok(Redirect::to(&format!("/clusters/{cluster}")).into_response()),
                Err(error) => (Some(error.message), Vec::new()),
            };
            let failures = failures
                .into_iter()
                .map(|failure| (failure.arn.unwrap_or_default(), failure.reason));
            pages::show_run_task(control, cluster, form.definition, problem, failures.collect())
        })
        .await
}

pub async fn stop_task(
    State(console): State<Console>,
    Path((cluster, task)): Path<(String, String)>,
) -> Response {
    console
        .plane
        .show(move |control| {
            control.stop_task(Some(&cluster), &task, Some("Stopped in the console"))?;
            Ok::<_, pages::Problem>(Redirect::to(&format!("/clusters/{cluster}/tasks/{task}")))
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_makes_what_the_command_line_takes() {
        let fields = [
            ("how", "form"),
            ("family", "SecurityApp"),
            ("name", "proxy"),
            ("image", "p"),
            ("memory", "256"),
            ("cpu", "256"),
            ("ports", "80:80/tcp"),
            ("links", "app"),
            ("command", "nginx, -g"),
            ("name", "app"),
            ("image", "a"),
            ("memory", "256"),
            ("cpu", ""),
            ("command", "[\"sh\", \"-c\", \"echo a,b\"]"),
            ("environment", "A=1\nB=x=y\n"),
            ("name", ""),
            ("image", ""),
            ("memory", "256"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let expected = json!({"family": "SecurityApp", "containerDefinitions": [
            {"name": "proxy", "essential": true, "image": "p", "memory": 256, "cpu": 256,
             "portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "tcp"}], "links": ["app"],
             "command": ["nginx", "-g"]},
            {"name": "app", "essential": true, "image": "a", "memory": 256,
             "command": ["sh", "-c", "echo a,b"],
             "environment": [{"name": "A", "value": "1"}, {"name": "B", "value": "x=y"}]},
        ]});
        assert_eq!(definition(&fields).expect("a definition"), expected);
    }

    #[test]
    fn wrong_fields_are_named() {
        for (name, value) in [
            ("ports", "80:x"),
            ("ports", "70000:80"),
            ("ports", "80:0"),
            ("ports", "80:80/sctp"),
            ("memory", "much"),
            ("command", "[sh]"),
            ("environment", "novalue"),
        ] {
            let fields = [("name".to_owned(), "a".to_owned()), (name.to_owned(), value.to_owned())];
            assert!(definition(&fields).expect_err(value).contains(value), "{value}");
        }
    }
}
