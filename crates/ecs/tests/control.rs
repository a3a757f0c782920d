//! The control plane over the real store, from clusters to stopped tasks.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::Arc;
use std::time::Duration;

use bulkhead_ecs::{
    Attribute, Change, Code, Connectivity, Control, CreateCluster, DescribeClusters,
    DescribeContainerInstances, DesiredStatus, InstanceStatus, ListTaskDefinitions, ListTasks,
    Options, RegisterContainerInstance, RegisterTaskDefinition, Resource, RunTask, StartTask,
    Status, StopCode, TaskStateChange, TaskStatus,
};
use bulkhead_store::Embedded;

struct World {
    control: Arc<Control>,
    directory: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let control = Self::open(&directory);
        Self { control, directory }
    }

    fn open(directory: &tempfile::TempDir) -> Arc<Control> {
        let store = Embedded::open(&directory.path().join("control.redb")).unwrap();
        Arc::new(Control::new(Arc::new(store), Options::default()))
    }

    /// As after a crash: nothing is left but the file.
    fn reopen(self) -> Self {
        let Self { control, directory } = self;
        drop(control);
        Self { control: Self::open(&directory), directory }
    }

    fn with_cluster() -> Self {
        let world = Self::new();
        world.control.create_cluster(CreateCluster::default()).unwrap();
        world
    }

    fn instance(&self, memory: i32) -> String {
        let request = RegisterContainerInstance {
            total_resources: vec![
                Resource::integer("CPU", 2048),
                Resource::integer("MEMORY", memory),
                Resource::set("PORTS", ["22".to_owned()]),
                Resource::set("PORTS_UDP", []),
            ],
            attributes: vec![Attribute::new("bulkhead.public-ip", Some("127.0.0.1"))],
            ..RegisterContainerInstance::default()
        };
        self.control.register_container_instance(&request).unwrap().container_instance_arn.into()
    }

    fn define(&self, json: &str) -> String {
        let request = RegisterTaskDefinition::from_json(json).unwrap();
        self.control.register_task_definition(request).unwrap().0.task_definition_arn.into()
    }

    fn report(&self, task: &str, json: &str) {
        let mut change: TaskStateChange = serde_json::from_str(json).unwrap();
        change.task = Some(task.to_owned());
        self.control.submit_task_state_change(&change).unwrap();
    }

    fn remaining(&self, instance: &str) -> (i32, i32, Vec<String>, i32, i32) {
        let request = DescribeContainerInstances {
            container_instances: vec![instance.to_owned()],
            ..DescribeContainerInstances::default()
        };
        let (instances, _) = self.control.describe_container_instances(&request).unwrap();
        let one = &instances[0];
        let resources = &one.remaining_resources;
        (
            resources[0].integer_value,
            resources[1].integer_value,
            resources[2].string_set_value.clone(),
            one.pending_tasks_count,
            one.running_tasks_count,
        )
    }
}

const SECURITY_APP: &str = r#"{"family": "SecurityApp", "containerDefinitions": [
    {"name": "proxy-container", "image": "127.0.0.1:5000/proxy", "memory": 256, "cpu": 256,
     "portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "tcp"}], "links": ["application-container"]},
    {"name": "application-container", "image": "127.0.0.1:5000/application", "memory": 256, "cpu": 256}]}"#;

fn run(definition: &str) -> RunTask {
    RunTask { task_definition: definition.into(), ..RunTask::default() }
}

#[test]
fn a_task_books_its_instance_until_it_stops() {
    let world = World::with_cluster();
    world.define(SECURITY_APP);
    let error = world.control.run_task(&run("SecurityApp")).unwrap_err();
    assert_eq!(error.message, "No Container Instances were found in your cluster.");
    let instance = world.instance(1024);
    let unreached = world.control.run_task(&run("SecurityApp")).unwrap();
    assert_eq!((unreached.tasks.len(), &*unreached.failures[0].reason), (0, "AGENT"));

    let session = world.control.connect_agent(None, &instance).unwrap();
    let task = world.control.run_task(&run("SecurityApp")).unwrap().tasks.remove(0);
    assert_eq!(task.last_status, TaskStatus::Pending);
    assert_eq!(task.desired_status, DesiredStatus::Running);
    assert_eq!(task.group.as_deref(), Some("family:SecurityApp"));
    let ports = |list: &[&str]| list.iter().map(|port| (*port).to_owned()).collect::<Vec<_>>();
    assert_eq!(world.remaining(&instance), (1536, 512, ports(&["22", "80"]), 1, 0));
    let second = world.control.run_task(&run("SecurityApp")).unwrap();
    assert_eq!((second.tasks.len(), &*second.failures[0].reason), (0, "RESOURCE:PORTS"));
    assert_eq!(second.failures[0].arn.as_ref(), Some(&instance));

    let orders = session.orders().unwrap();
    assert_eq!(
        (orders.len(), &*orders[0].definition.container_definitions[0].name),
        (1, "proxy-container")
    );
    world.report(&task.task_arn, r#"{"status": "RUNNING"}"#);
    assert_eq!(world.remaining(&instance), (1536, 512, ports(&["22", "80"]), 0, 1));
    assert_eq!(
        world.control.delete_cluster("default").unwrap_err().code,
        Code::ClusterContainsContainerInstances
    );

    let stopping = world.control.stop_task(None, task.id(), None).unwrap();
    assert_eq!(stopping.desired_status, DesiredStatus::Stopped);
    assert_eq!(stopping.last_status, TaskStatus::Running);
    assert_eq!(stopping.stopped_reason.as_deref(), Some("Task stopped by user"));
    assert_eq!(session.orders().unwrap()[0].task.desired_status, DesiredStatus::Stopped);
    world.report(&task.task_arn, r#"{"status": "STOPPED"}"#);
    assert_eq!(world.remaining(&instance), (2048, 1024, ports(&["22"]), 0, 0));
    assert!(session.orders().unwrap().is_empty());
    let (tasks, failures) = world
        .control
        .describe_tasks(None, &[task.task_arn.to_string(), "gone".into()], &[])
        .unwrap();
    assert_eq!(tasks[0].stop_code, Some(StopCode::UserInitiated));
    assert_eq!(failures[0].reason, "MISSING");
    let stopped = ListTasks { desired_status: Some("STOPPED".into()), ..ListTasks::default() };
    assert_eq!(world.control.list_tasks(&stopped).unwrap().items, [String::from(task.task_arn)]);
    assert!(world.control.list_tasks(&ListTasks::default()).unwrap().items.is_empty());
}

#[test]
fn what_was_booked_survives_a_crash() {
    let world = World::with_cluster();
    world.define(SECURITY_APP);
    let instance = world.instance(1024);
    let session = world.control.connect_agent(None, &instance).unwrap();
    let task = world.control.run_task(&run("SecurityApp:1")).unwrap().tasks.remove(0);
    let before = world.remaining(&instance);
    drop(session);
    let world = world.reopen();
    assert_eq!(world.remaining(&instance), before);
    let (tasks, _) = world.control.describe_tasks(None, &[task.task_arn.into()], &[]).unwrap();
    assert_eq!(tasks[0].connectivity, Some(Connectivity::Disconnected));
}

#[test]
fn two_schedulers_do_not_book_one_port_twice() {
    let world = World::with_cluster();
    world.define(SECURITY_APP);
    let sessions: Vec<_> =
        (0..4).map(|_| world.control.connect_agent(None, &world.instance(4096)).unwrap()).collect();
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let control = Arc::clone(&world.control);
            std::thread::spawn(move || control.run_task(&run("SecurityApp")).unwrap().tasks)
        })
        .collect();
    let tasks: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    let mut places: Vec<_> = tasks.iter().map(|task| &task.container_instance_arn).collect();
    places.sort();
    places.dedup();
    assert_eq!((tasks.len(), places.len(), sessions.len()), (4, 4, 4));
}

#[test]
fn a_client_token_starts_nothing_twice() {
    let world = World::with_cluster();
    world.define(
        r#"{"family": "f", "containerDefinitions": [{"name": "a", "image": "b", "memory": 64}]}"#,
    );
    let _session = world.control.connect_agent(None, &world.instance(1024)).unwrap();
    let request = RunTask { client_token: Some("t".into()), count: Some(2), ..run("f") };
    let first = world.control.run_task(&request).unwrap();
    assert_eq!(world.control.run_task(&request).unwrap(), first);
    let other = RunTask { count: Some(3), ..request };
    let error = world.control.run_task(&other).unwrap_err();
    assert_eq!((error.code, error.resource_ids.len()), (Code::Conflict, 2));
}

#[test]
fn revisions_are_never_reused() {
    let world = World::new();
    let json =
        r#"{"family": "f", "containerDefinitions": [{"name": "a", "image": "b", "memory": 64}]}"#;
    assert!(world.define(json).ends_with("task-definition/f:1"));
    assert!(world.define(json).ends_with("task-definition/f:2"));
    world.control.deregister_task_definition("f:2").unwrap();
    assert_eq!(world.control.describe_task_definition("f").unwrap().0.revision, 1);
    assert_eq!(world.control.describe_task_definition("f:2").unwrap().0.status, Status::Inactive);
    assert!(world.define(json).ends_with("task-definition/f:3"));
    let listed = world.control.list_task_definitions(&ListTaskDefinitions::default()).unwrap();
    assert_eq!(listed.items.len(), 2);
    let error = world.control.describe_task_definition("f:9").unwrap_err();
    assert_eq!(error.message, "Unable to describe task definition.");
    world.control.create_cluster(CreateCluster::default()).unwrap();
    for (definition, message) in
        [("f:2", "TaskDefinition is inactive"), ("g", "TaskDefinition not found.")]
    {
        assert_eq!(world.control.run_task(&run(definition)).unwrap_err().message, message);
    }
}

#[test]
fn a_registered_definition_has_ecs_defaults_and_no_more() {
    let world = World::new();
    let request = RegisterTaskDefinition::from_json(SECURITY_APP).unwrap();
    let (definition, _) = world.control.register_task_definition(request).unwrap();
    let shown = serde_json::to_value(&definition).unwrap();
    assert_eq!(
        shown["containerDefinitions"][0],
        serde_json::json!({
            "name": "proxy-container", "image": "127.0.0.1:5000/proxy", "memory": 256, "cpu": 256,
            "portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "tcp"}],
            "links": ["application-container"], "essential": true, "environment": [],
            "mountPoints": [], "volumesFrom": [], "systemControls": [],
        })
    );
    assert_eq!(shown["compatibilities"], serde_json::json!(["EXTERNAL", "EC2"]));
    assert!(shown.get("networkMode").is_none());
}

#[test]
fn bad_definitions_get_one_clear_sentence() {
    let world = World::new();
    let one =
        |container: &str| format!(r#"{{"family": "f", "containerDefinitions": [{container}]}}"#);
    for (json, message) in [
        (
            r#"{"family": "f""#.to_owned(),
            "The task definition is not valid JSON: EOF while parsing an object at line 1 column 14.",
        ),
        (
            one(r#"{"name": "a", "image": "b", "memory": "much"}"#),
            "The task definition does not fit: invalid type: string \"much\", expected i64.",
        ),
        (r#"{"containerDefinitions": []}"#.into(), "Family should not be null or empty."),
        (r#"{"family": "f"}"#.into(), "Container list cannot be empty."),
        (one(r#"{"image": "b", "memory": 64}"#), "Container.name should not be null or empty."),
        (one(r#"{"name": "a", "memory": 64}"#), "Container.image should not be null or empty."),
        (
            one(r#"{"name": "a", "image": "b"}"#),
            "Invalid setting for container 'a'. At least one of 'memory' or 'memoryReservation' must be specified.",
        ),
        (
            one(r#"{"name": "a", "image": "b", "memory": 64, "links": ["c"]}"#),
            "Invalid link of container 'a': container 'c' does not exist.",
        ),
        (
            one(r#"{"name": "a", "image": "b", "memory": 64, "links": ["a"]}"#),
            "Container links should not have a cycle",
        ),
        (
            one(r#"{"name": "a", "image": "b", "memory": 64, "essential": false}"#),
            "At least one container must be essential.",
        ),
        (
            one(
                r#"{"name": "a", "image": "b", "memory": 64, "mountPoints": [{"sourceVolume": "v", "containerPath": "/v"}]}"#,
            ),
            "Unknown volume 'v'.",
        ),
        (
            one(r#"{"name": "a", "image": "b", "memory": 64, "healthCheck": {"command": ["x"]}}"#),
            "Invalid health check of container 'a': command must be CMD or CMD-SHELL and what is to run, or NONE.",
        ),
        (
            one(
                r#"{"name": "a", "image": "b", "memory": 64, "healthCheck": {"command": ["CMD", "x"], "interval": 4}}"#,
            ),
            "Invalid health check of container 'a': interval must be between 5 and 300.",
        ),
        (
            one(
                r#"{"name": "a", "image": "b", "memory": 64, "dependsOn": [{"containerName": "c", "condition": "HEALTHY"}]},
                   {"name": "c", "image": "b", "memory": 64}"#,
            ),
            "A dependency container with HEALTHY condition must have a health check: container 'c' has no healthCheck.",
        ),
        (
            one(
                r#"{"name": "a", "image": "b", "memory": 64, "portMappings": [{"containerPort": 99999}]}"#,
            ),
            "Invalid 'containerPort' setting for container 'a': use a number between 1 and 65535.",
        ),
    ] {
        let result = RegisterTaskDefinition::from_json(&json)
            .and_then(|request| world.control.register_task_definition(request));
        assert_eq!(result.unwrap_err().message, message);
    }
}

#[test]
fn an_images_health_check_can_be_turned_off() {
    let world = World::new();
    let json = r#"{"family": "f", "containerDefinitions": [
        {"name": "a", "image": "b", "memory": 64, "healthCheck": {"command": ["NONE"]}}]}"#;
    let request = RegisterTaskDefinition::from_json(json).unwrap();
    world.control.register_task_definition(request).unwrap();
}

#[test]
fn clusters_come_and_go() {
    let world = World::with_cluster();
    let again = world.control.create_cluster(CreateCluster::default()).unwrap();
    assert_eq!((&*again.cluster_name, again.status), ("default", Status::Active));
    let request =
        DescribeClusters { clusters: vec!["default".into(), "x".into()], ..Default::default() };
    let (found, failures) = world.control.describe_clusters(&request).unwrap();
    assert_eq!((found.len(), &*failures[0].reason), (1, "MISSING"));
    assert_eq!(world.control.delete_cluster("default").unwrap().status, Status::Inactive);
    assert!(world.control.list_clusters(None, None).unwrap().items.is_empty());
    assert_eq!(world.control.delete_cluster("x").unwrap_err().message, "Cluster not found.");
    let bad = CreateCluster { cluster_name: Some("a b".into()), ..CreateCluster::default() };
    assert_eq!(world.control.create_cluster(bad).unwrap_err().code, Code::InvalidParameter);
}

#[test]
fn start_task_goes_where_it_is_told() {
    let world = World::with_cluster();
    world.define(SECURITY_APP);
    let instance = world.instance(1024);
    let _session = world.control.connect_agent(None, &instance).unwrap();
    let request = StartTask {
        task_definition: "SecurityApp".into(),
        container_instances: vec![instance.clone(), "nowhere".into(), instance],
        ..StartTask::default()
    };
    let result = world.control.start_task(&request).unwrap();
    let reasons: Vec<_> = result.failures.iter().map(|failure| &*failure.reason).collect();
    assert_eq!((result.tasks.len(), reasons), (1, vec!["MISSING", "RESOURCE:PORTS"]));
}

#[test]
fn a_known_machine_is_the_same_instance() {
    let world = World::with_cluster();
    let request = |cpu| RegisterContainerInstance {
        instance_identity_document: Some(r#"{"instanceId": "i-0123456789abcdef0"}"#.into()),
        total_resources: vec![Resource::integer("CPU", cpu), Resource::integer("MEMORY", 1024)],
        ..RegisterContainerInstance::default()
    };
    let first = world.control.register_container_instance(&request(1024)).unwrap();
    let session = world.control.connect_agent(None, &first.container_instance_arn).unwrap();
    world.define(r#"{"family": "f", "containerDefinitions": [{"name": "a", "image": "b", "memory": 64, "cpu": 24}]}"#);
    world.control.run_task(&run("f")).unwrap();
    let second = world.control.register_container_instance(&request(2048)).unwrap();
    assert_eq!(second.container_instance_arn, first.container_instance_arn);
    assert_eq!(second.remaining_resources[0].integer_value, 2024);
    assert!(second.agent_connected);
    drop(session);
    let arn = second.container_instance_arn;
    let error = world.control.deregister_container_instance(None, &arn, false).unwrap_err();
    assert!(error.message.starts_with("Found running tasks on the instance."));
    assert_eq!(
        world.control.deregister_container_instance(None, &arn, true).unwrap().status,
        InstanceStatus::Inactive
    );
    assert_eq!(world.control.delete_cluster("default").unwrap().status, Status::Inactive);
}

#[test]
fn a_newer_connection_replaces_the_older_one() {
    let world = World::with_cluster();
    let instance = world.instance(64);
    let mut first = world.control.connect_agent(None, &instance).unwrap();
    let second = world.control.connect_agent(None, &instance).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime
        .block_on(async { tokio::time::timeout(Duration::from_secs(5), first.replaced()).await })
        .unwrap();
    drop(first);
    let mut changes = world.control.changes();
    assert!(changes.try_recv().is_err(), "the end of the old connection changes nothing");
    drop(second);
    assert!(
        matches!(changes.try_recv(), Ok(Change::ContainerInstance(one)) if !one.agent_connected)
    );
}

#[test]
fn resources_carry_tags() {
    let world = World::with_cluster();
    let arn = world.control.place().cluster("default");
    let tag = |key: &str, value: &str| bulkhead_ecs::Tag { key: key.into(), value: value.into() };
    world.control.tag_resource(&arn, &[tag("a", "1"), tag("b", "2")]).unwrap();
    world.control.tag_resource(&arn, &[tag("a", "3")]).unwrap();
    world.control.untag_resource(&arn, &["b".to_owned()]).unwrap();
    assert_eq!(world.control.list_tags_for_resource(&arn).unwrap(), [tag("a", "3")]);
    let missing = world.control.place().cluster("x");
    assert_eq!(world.control.tag_resource(&missing, &[]).unwrap_err().code, Code::ResourceNotFound);
}

#[test]
fn words_that_the_api_does_not_have_are_refused() {
    let world = World::new();
    world.control.create_cluster(CreateCluster::default()).unwrap();
    let tasks = |status: &str, launch_type: &str| {
        let desired_status = Some(status.to_owned());
        let launch_type = Some(launch_type.to_owned());
        world.control.list_tasks(&ListTasks { desired_status, launch_type, ..ListTasks::default() })
    };
    assert!(tasks("PENDING", "FARGATE").unwrap().items.is_empty());
    let error = tasks("RUNING", "").unwrap_err();
    assert_eq!(error.code, Code::InvalidParameter);
    assert!(error.message.contains("RUNING"), "{error}");
    tasks("RUNNING", "ec2").unwrap_err();
    let status = Some("GONE".to_owned());
    let request = ListTaskDefinitions { status, ..ListTaskDefinitions::default() };
    world.control.list_task_definitions(&request).unwrap_err();
}
