//! The pages: each reads the control plane and renders one template.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use bulkhead_ecs::{
    Arn, ContainerInstance, Control, DescribeClusters, DescribeContainerInstances, DesiredStatus,
    Error, HealthStatus, InstanceStatus, ListContainerInstances, ListTaskDefinitions, ListTasks,
    Page, Resource, Status, Task, TaskStatus,
};
use serde::Deserialize;

use crate::Console;

/// Renders a template.
pub fn page(template: &impl Template) -> Response {
    match template.render() {
        Ok(text) => Html(text).into_response(),
        Err(cause) => {
            tracing::error!(%cause, "a page could not be rendered");
            (StatusCode::INTERNAL_SERVER_ERROR, "this page could not be rendered").into_response()
        }
    }
}

#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage {
    problem: String,
}

/// Why a page cannot be shown: one sentence, on a page of its own.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    sentence: String,
}

impl Problem {
    pub fn failed() -> Self {
        let sentence = "The control plane failed; its log says why.".to_owned();
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, sentence }
    }

    fn not_found(sentence: String) -> Self {
        Self { status: StatusCode::NOT_FOUND, sentence }
    }
}

/// The control plane's own sentence.
impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self { status: StatusCode::BAD_REQUEST, sentence: error.message }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, page(&ProblemPage { problem: self.sentence })).into_response()
    }
}

type Shown = Result<Response, Problem>;

/// Everything that a list operation has, page by page.
fn all<T>(mut list: impl FnMut(Option<String>) -> Result<Page<T>, Error>) -> Result<Vec<T>, Error> {
    let mut items = Vec::new();
    let mut token = None;
    loop {
        let page = list(token)?;
        items.extend(page.items);
        token = page.next_token;
        if token.is_none() {
            return Ok(items);
        }
    }
}

/// As many as a describe operation takes at once.
const AT_ONCE: usize = 100;

struct ClusterRow {
    name: String,
    status: Status,
    instances: i32,
    running: i32,
    pending: i32,
}

#[derive(Template)]
#[template(path = "clusters.html")]
struct ClustersPage {
    clusters: Vec<ClusterRow>,
    problem: Option<String>,
}

pub async fn clusters(State(console): State<Console>) -> Response {
    console.plane.show(|control| show_clusters(control, None)).await
}

pub fn show_clusters(control: &Control, problem_text: Option<String>) -> Shown {
    let listed = all(|token| control.list_clusters(token.as_deref(), None));
    let mut clusters = Vec::new();
    for arns in listed?.chunks(AT_ONCE) {
        let request = DescribeClusters { clusters: arns.to_vec(), ..DescribeClusters::default() };
        let (found, _) = control.describe_clusters(&request)?;
        clusters.extend(found.into_iter().map(|cluster| ClusterRow {
            name: cluster.cluster_name,
            status: cluster.status,
            instances: cluster.registered_container_instances_count,
            running: cluster.running_tasks_count,
            pending: cluster.pending_tasks_count,
        }));
    }
    Ok(page(&ClustersPage { clusters, problem: problem_text }))
}

struct TaskRow {
    id: String,
    arn: Arn,
    definition: String,
    definition_path: String,
    last_status: TaskStatus,
    desired_status: DesiredStatus,
    instance: String,
}

struct InstanceRow {
    id: String,
    ec2: String,
    status: InstanceStatus,
    connected: bool,
    running: i32,
    cpu: i32,
    memory: i32,
}

#[derive(Template)]
#[template(path = "cluster.html")]
struct ClusterPage {
    name: String,
    arn: Arn,
    tasks: Vec<TaskRow>,
    instances: Vec<InstanceRow>,
}

pub async fn cluster(State(console): State<Console>, Path(name): Path<String>) -> Response {
    console.plane.show(move |control| show_cluster(control, name)).await
}

fn show_cluster(control: &Control, name: String) -> Shown {
    let instances = instances(control, &name)?;
    let mut tasks = tasks(control, &name)?;
    tasks.sort_by_key(|task| std::cmp::Reverse(task.created_at.map(|at| at.milliseconds())));
    Ok(page(&ClusterPage {
        arn: control.place().cluster(&name),
        tasks: tasks
            .into_iter()
            .map(|task| TaskRow {
                id: task.id().to_owned(),
                definition: task.task_definition_arn.id().to_owned(),
                definition_path: task.task_definition_arn.id().replace(':', "/"),
                instance: task.container_instance_arn.id().to_owned(),
                arn: task.task_arn,
                last_status: task.last_status,
                desired_status: task.desired_status,
            })
            .collect(),
        instances: instances
            .into_iter()
            .map(|instance| InstanceRow {
                id: instance.container_instance_arn.id().to_owned(),
                cpu: number(&instance.remaining_resources, "CPU"),
                memory: number(&instance.remaining_resources, "MEMORY"),
                ec2: instance.ec2_instance_id.unwrap_or_default(),
                status: instance.status,
                connected: instance.agent_connected,
                running: instance.running_tasks_count,
            })
            .collect(),
        name,
    }))
}

fn number(resources: &[Resource], name: &str) -> i32 {
    resources
        .iter()
        .find(|resource| resource.name == name)
        .map_or(0, |resource| resource.integer_value)
}

fn instances(control: &Control, cluster: &str) -> Result<Vec<ContainerInstance>, Error> {
    let cluster = Some(cluster.to_owned());
    let arns = all(|next_token| {
        control.list_container_instances(&ListContainerInstances {
            cluster: cluster.clone(),
            next_token,
            ..ListContainerInstances::default()
        })
    })?;
    let mut instances = Vec::new();
    for arns in arns.chunks(AT_ONCE) {
        let request = DescribeContainerInstances {
            cluster: cluster.clone(),
            container_instances: arns.to_vec(),
            ..DescribeContainerInstances::default()
        };
        instances.extend(control.describe_container_instances(&request)?.0);
    }
    Ok(instances)
}

fn tasks(control: &Control, cluster: &str) -> Result<Vec<Task>, Error> {
    let mut tasks = Vec::new();
    for status in [DesiredStatus::Running, DesiredStatus::Stopped] {
        let arns = all(|next_token| {
            control.list_tasks(&ListTasks {
                cluster: Some(cluster.to_owned()),
                desired_status: Some(status.to_string()),
                next_token,
                ..ListTasks::default()
            })
        })?;
        for arns in arns.chunks(AT_ONCE) {
            tasks.extend(control.describe_tasks(Some(cluster), arns, &[])?.0);
        }
    }
    Ok(tasks)
}

struct DefinitionRow {
    family: String,
    revision: String,
    status: Status,
}

#[derive(Template)]
#[template(path = "task_definitions.html")]
struct TaskDefinitionsPage {
    definitions: Vec<DefinitionRow>,
}

pub async fn task_definitions(State(console): State<Console>) -> Response {
    console.plane.show(show_task_definitions).await
}

fn show_task_definitions(control: &Control) -> Shown {
    let mut definitions = Vec::new();
    for status in [Status::Active, Status::Inactive] {
        let names = definition_names(control, status)?;
        definitions.extend(names.into_iter().filter_map(|name| {
            let (family, revision) = name.split_once(':')?;
            Some(DefinitionRow { family: family.to_owned(), revision: revision.to_owned(), status })
        }));
    }
    Ok(page(&TaskDefinitionsPage { definitions }))
}

/// `family:revision`, newest first.
fn definition_names(control: &Control, status: Status) -> Result<Vec<String>, Error> {
    let arns = all(|next_token| {
        control.list_task_definitions(&ListTaskDefinitions {
            status: Some(status.to_string()),
            sort: Some("DESC".to_owned()),
            next_token,
            ..ListTaskDefinitions::default()
        })
    })?;
    Ok(arns.iter().map(|arn| Arn::from(&**arn).id().to_owned()).collect())
}

struct ContainerRow {
    name: String,
    image: String,
    cpu: String,
    memory: String,
    ports: String,
    links: String,
    essential: bool,
}

#[derive(Template)]
#[template(path = "task_definition.html")]
struct TaskDefinitionPage {
    family: String,
    revision: String,
    status: String,
    containers: Vec<ContainerRow>,
    json: String,
}

pub async fn task_definition(
    State(console): State<Console>,
    Path((family, revision)): Path<(String, String)>,
) -> Response {
    console.plane.show(move |control| show_task_definition(control, family, revision)).await
}

fn show_task_definition(control: &Control, family: String, revision: String) -> Shown {
    let name = format!("{family}:{revision}");
    let (definition, _) = control.describe_task_definition(&name)?;
    let json = serde_json::to_value(&definition).unwrap_or_default();
    let text = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Null => String::new(),
        other => other.to_string(),
    };
    let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
    let containers = list(&json["containerDefinitions"])
        .iter()
        .map(|container| ContainerRow {
            name: text(&container["name"]),
            image: text(&container["image"]),
            cpu: text(&container["cpu"]),
            memory: text(&container["memory"]),
            ports: list(&container["portMappings"])
                .iter()
                .map(|port| {
                    format!(
                        "{}:{}/{}",
                        text(&port["hostPort"]),
                        text(&port["containerPort"]),
                        text(&port["protocol"])
                    )
                })
                .collect::<Vec<_>>()
                .join(", "),
            links: list(&container["links"]).iter().map(text).collect::<Vec<_>>().join(", "),
            essential: container["essential"].as_bool().unwrap_or(true),
        })
        .collect();
    Ok(page(&TaskDefinitionPage {
        family,
        revision,
        status: text(&json["status"]),
        containers,
        json: serde_json::to_string_pretty(&json).unwrap_or_default(),
    }))
}

/// What the form for a task definition holds, as it was typed.
#[derive(Debug, Default)]
pub struct Draft {
    pub family: String,
    pub containers: Vec<DraftContainer>,
}

#[derive(Debug, Default)]
pub struct DraftContainer {
    pub name: String,
    pub image: String,
    pub memory: String,
    pub cpu: String,
    pub ports: String,
    pub links: String,
    pub command: String,
    pub environment: String,
}

#[derive(Template)]
#[template(path = "new_task_definition.html")]
struct NewTaskDefinitionPage {
    draft: Draft,
    json: String,
    problem: Option<String>,
}

/// What a person changes into his own.
const EXAMPLE: &str = include_str!("../templates/example.json");

/// As many containers as the form has room for.
const CONTAINERS: usize = 4;

pub async fn new_task_definition() -> Response {
    show_new_task_definition(Draft::default(), EXAMPLE.to_owned(), None)
}

pub fn show_new_task_definition(
    mut draft: Draft,
    json: String,
    problem: Option<String>,
) -> Response {
    let status = if problem.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    let usual = || DraftContainer {
        memory: "256".to_owned(),
        cpu: "256".to_owned(),
        ..DraftContainer::default()
    };
    let length = draft.containers.len().max(CONTAINERS);
    draft.containers.resize_with(length, usual);
    (status, page(&NewTaskDefinitionPage { draft, json, problem })).into_response()
}

#[derive(Template)]
#[template(path = "run_task.html")]
struct RunTaskPage {
    cluster: String,
    definitions: Vec<String>,
    chosen: String,
    problem: Option<String>,
    failures: Vec<(String, String)>,
}

#[derive(Deserialize)]
pub struct Chosen {
    #[serde(default)]
    definition: String,
}

pub async fn run_task(
    State(console): State<Console>,
    Path(cluster): Path<String>,
    Query(chosen): Query<Chosen>,
) -> Response {
    let show = move |control: &Control| {
        show_run_task(control, cluster, chosen.definition, None, Vec::new())
    };
    console.plane.show(show).await
}

pub fn show_run_task(
    control: &Control,
    cluster: String,
    chosen: String,
    problem_text: Option<String>,
    failures: Vec<(String, String)>,
) -> Shown {
    let definitions = definition_names(control, Status::Active)?;
    let well = problem_text.is_none() && failures.is_empty();
    let shown =
        page(&RunTaskPage { cluster, definitions, chosen, problem: problem_text, failures });
    Ok((if well { StatusCode::OK } else { StatusCode::BAD_REQUEST }, shown).into_response())
}

struct TaskContainer {
    name: String,
    image: String,
    last_status: TaskStatus,
    health: HealthStatus,
    links: Vec<String>,
    exit_code: String,
    reason: String,
}

#[derive(Template)]
#[template(path = "task.html")]
struct TaskPage {
    cluster: String,
    id: String,
    arn: Arn,
    definition: String,
    definition_path: String,
    last_status: TaskStatus,
    desired_status: DesiredStatus,
    health: HealthStatus,
    instance: String,
    stopped_reason: String,
    containers: Vec<TaskContainer>,
}

pub async fn task(
    State(console): State<Console>,
    Path((cluster, id)): Path<(String, String)>,
) -> Response {
    console.plane.show(move |control| show_task(control, cluster, id)).await
}

fn show_task(control: &Control, cluster: String, id: String) -> Shown {
    let (found, _) = control.describe_tasks(Some(&cluster), std::slice::from_ref(&id), &[])?;
    let Some(task) = found.into_iter().next() else {
        return Err(Problem::not_found(format!("There is no task {id} in cluster {cluster}.")));
    };
    let instances = instances(control, &cluster)?;
    let instance = instances
        .iter()
        .find(|instance| instance.container_instance_arn == task.container_instance_arn);
    let containers = task
        .containers
        .iter()
        .map(|container| TaskContainer {
            name: container.name.clone(),
            image: container.image.clone(),
            last_status: container.last_status,
            health: container.health_status,
            links: links(instance, container),
            exit_code: container.exit_code.map(|code| code.to_string()).unwrap_or_default(),
            reason: container.reason.clone().unwrap_or_default(),
        })
        .collect();
    Ok(page(&TaskPage {
        cluster,
        id,
        definition: task.task_definition_arn.id().to_owned(),
        definition_path: task.task_definition_arn.id().replace(':', "/"),
        instance: task.container_instance_arn.id().to_owned(),
        arn: task.task_arn,
        last_status: task.last_status,
        desired_status: task.desired_status,
        health: task.health_status,
        stopped_reason: task.stopped_reason.unwrap_or_default(),
        containers,
    }))
}

/// Where a container's ports are found from outside, as links.
fn links(instance: Option<&ContainerInstance>, container: &bulkhead_ecs::Container) -> Vec<String> {
    let Some(address) =
        instance.and_then(|instance| instance.public_ip().or(instance.private_ip()))
    else {
        return Vec::new();
    };
    container
        .network_bindings
        .iter()
        .filter(|binding| binding.protocol.as_deref() != Some("udp"))
        .filter_map(|binding| match binding.host_port? {
            80 => Some(format!("http://{address}/")),
            port => Some(format!("http://{address}:{port}/")),
        })
        .collect()
}

#[derive(Template)]
#[template(path = "instance.html")]
struct InstancePage {
    cluster: String,
    id: String,
    arn: Arn,
    status: InstanceStatus,
    connected: bool,
    ec2: String,
    public_ip: String,
    private_ip: String,
    resources: Vec<(String, String, String)>,
    links: Vec<String>,
}

pub async fn instance(
    State(console): State<Console>,
    Path((cluster, id)): Path<(String, String)>,
) -> Response {
    console.plane.show(move |control| show_instance(control, cluster, id)).await
}

fn show_instance(control: &Control, cluster: String, id: String) -> Shown {
    let found = instances(control, &cluster)?;
    let Some(instance) =
        found.into_iter().find(|instance| instance.container_instance_arn.id() == id)
    else {
        return Err(Problem::not_found(format!(
            "There is no container instance {id} in cluster {cluster}."
        )));
    };
    let tasks = tasks(control, &cluster)?;
    let here = tasks.iter().filter(|task| {
        task.container_instance_arn == instance.container_instance_arn
            && task.last_status == TaskStatus::Running
    });
    let links = here
        .flat_map(|task| &task.containers)
        .flat_map(|container| links(Some(&instance), container))
        .collect();
    let amount = |resource: &Resource| match resource.kind.as_str() {
        "STRINGSET" => resource.string_set_value.join(", "),
        _ => resource.integer_value.to_string(),
    };
    let resources = instance
        .registered_resources
        .iter()
        .map(|registered| {
            let left =
                instance.remaining_resources.iter().find(|left| left.name == registered.name);
            (registered.name.clone(), amount(registered), left.map(amount).unwrap_or_default())
        })
        .collect();
    Ok(page(&InstancePage {
        cluster,
        id,
        status: instance.status,
        connected: instance.agent_connected,
        ec2: instance.ec2_instance_id.clone().unwrap_or_default(),
        public_ip: instance.public_ip().unwrap_or("–").to_owned(),
        private_ip: instance.private_ip().unwrap_or("–").to_owned(),
        resources,
        links,
        arn: instance.container_instance_arn,
    }))
}
