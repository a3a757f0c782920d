//! The ECS API with the real AWS CLI and signed requests, down to containers that answer on a port.

use std::io::Read;

use anyhow::{Context, Result, ensure};
use bulkhead_sys::testing::skip;
use bulkhead_tests::console::Session;
use bulkhead_tests::gate::Gate;
use bulkhead_tests::tasks::{PAGE, linked, page, ready, sleeper};
use bulkhead_tests::{Daemon, Said, http};
use serde_json::{Value, json};

fn aws_is_missing() -> bool {
    !std::process::Command::new("aws")
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success())
}

/// What the CLI printed, as JSON.
fn aws(daemon: &Daemon, arguments: &[&str]) -> Result<Value> {
    let text = daemon.aws(arguments)?.ok().with_context(|| format!("aws {arguments:?}"))?;
    if text.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_str(&text)?) }
}

/// What the CLI said of a request that was refused.
fn refusal(said: Said) -> Result<String> {
    ensure!(said.code != 0, "it was not refused: {}", said.stdout);
    ensure!(said.stdout.is_empty(), "a refusal printed {}", said.stdout);
    Ok(said.stderr)
}

/// Returns when the machine's agent is connected.
fn join(daemon: &Daemon) -> Result<()> {
    let mut live = Session::begin(daemon)?.live()?;
    let connected = |instance: &Value| instance["agentConnected"] == true;
    let listed = aws(daemon, &["ecs", "list-container-instances"])?;
    if let Some(arn) = listed["containerInstanceArns"][0].as_str() {
        let arguments = ["ecs", "describe-container-instances", "--container-instances", arn];
        if connected(&aws(daemon, &arguments)?["containerInstances"][0]) {
            return Ok(());
        }
    }
    live.until("instance", connected)?;
    Ok(())
}

fn task(daemon: &Daemon, arn: &str) -> Result<Value> {
    Ok(aws(daemon, &["ecs", "describe-tasks", "--tasks", arn])?["tasks"][0].take())
}

/// The task as soon as it has one of these statuses.
fn reached(daemon: &Daemon, arn: &str, statuses: &[&str]) -> Result<Value> {
    let mut live = Session::begin(daemon)?.live()?;
    let wanted = |task: &Value| {
        task["taskArn"] == arn && statuses.iter().any(|status| task["lastStatus"] == *status)
    };
    if !wanted(&task(daemon, arn)?) {
        live.until("task", wanted)?;
    }
    // by the client, so that the answer is what users see
    task(daemon, arn)
}

/// Registers a task definition from a file, as people do.
fn register(daemon: &Daemon, definition: &Value) -> Result<Value> {
    let family = definition["family"].as_str().context("a family")?;
    let path = daemon.directory().join(format!("{family}.json"));
    std::fs::write(&path, definition.to_string())?;
    let input = format!("file://{}", path.display());
    aws(daemon, &["ecs", "register-task-definition", "--cli-input-json", &input])
}

fn start(daemon: &Daemon, definition: &str) -> Result<String> {
    let ran = aws(daemon, &["ecs", "run-task", "--task-definition", definition])?;
    ensure!(ran["failures"] == json!([]), "{}", ran["failures"]);
    Ok(ran["tasks"][0]["taskArn"].as_str().context("a task")?.to_owned())
}

#[test]
fn a_linked_task_runs_serves_and_stops() -> Result<()> {
    if aws_is_missing() {
        skip("the AWS CLI is not installed");
        return Ok(());
    }
    let daemon = Daemon::start()?;
    daemon.busybox("busybox")?;

    let cluster = aws(&daemon, &["ecs", "create-cluster", "--cluster-name", "default"])?;
    ensure!(cluster["cluster"]["status"] == "ACTIVE", "{cluster}");
    join(&daemon)?;
    let listed = aws(&daemon, &["ecs", "list-container-instances", "--cluster", "default"])?;
    let arns = listed["containerInstanceArns"].as_array().context("a list")?;
    ensure!(arns.len() == 1, "{listed}");
    let arn = arns[0].as_str().context("an ARN")?;
    let described =
        aws(&daemon, &["ecs", "describe-container-instances", "--container-instances", arn])?;
    let instance = &described["containerInstances"][0];
    ensure!(instance["agentConnected"] == true && instance["status"] == "ACTIVE", "{instance}");
    let id = instance["ec2InstanceId"].as_str().context("an EC2 instance")?;
    let machines = aws(&daemon, &["ec2", "describe-instances", "--instance-ids", id])?;
    let machine = &machines["Reservations"][0]["Instances"][0];
    ensure!(machine["InstanceId"] == id, "{machines}");
    ensure!(machine["PublicIpAddress"] == "10.99.0.1", "{machine}");
    let private = machine["PrivateIpAddress"].as_str().context("a private address")?;
    private.parse::<std::net::Ipv4Addr>()?;

    let registered = register(&daemon, &linked("SecurityApp", "busybox", 8081))?;
    ensure!(registered["taskDefinition"]["revision"] == 1, "{registered}");
    let arn = start(&daemon, "SecurityApp")?;
    aws(&daemon, &["ecs", "wait", "tasks-running", "--tasks", &arn])?;
    let running = task(&daemon, &arn)?;
    ensure!(running["lastStatus"] == "RUNNING", "{running}");
    let containers = running["containers"].as_array().context("containers")?;
    ensure!(containers.len() == 2, "{running}");
    let proxy = containers.iter().find(|container| container["name"] == "proxy");
    let binding = &proxy.context("the proxy")?["networkBindings"][0];
    ensure!(binding["hostPort"] == 8081 && binding["containerPort"] == 80, "{binding}");
    ensure!(binding["protocol"] == "tcp", "{binding}");
    ready(&daemon, "SecurityApp")?;
    let text = page(&daemon, 8081)?;
    ensure!(text == PAGE, "{text:?}");

    // the port is taken, on the only instance there is
    let second = aws(&daemon, &["ecs", "run-task", "--task-definition", "SecurityApp:1"])?;
    ensure!(second["tasks"] == json!([]), "{second}");
    ensure!(second["failures"][0]["reason"] == "RESOURCE:PORTS", "{second}");

    let stopping = aws(&daemon, &["ecs", "stop-task", "--task", &arn, "--reason", "enough of it"])?;
    ensure!(stopping["task"]["desiredStatus"] == "STOPPED", "{stopping}");
    aws(&daemon, &["ecs", "wait", "tasks-stopped", "--tasks", &arn])?;
    let stopped = task(&daemon, &arn)?;
    ensure!(stopped["stoppedReason"] == "enough of it", "{stopped}");
    ensure!(stopped["stopCode"] == "UserInitiated", "{stopped}");
    ensure!(daemon.connect(8081).is_err(), "the port is still served");
    let left = daemon.docker(&["ps", "-q"])?.ok()?;
    ensure!(left.is_empty(), "still running: {left}");
    // and both resources are free again
    let again = start(&daemon, "SecurityApp")?;
    reached(&daemon, &again, &["RUNNING"])?;
    Ok(())
}

#[test]
fn tasks_that_cannot_go_on_say_why() -> Result<()> {
    if aws_is_missing() {
        skip("the AWS CLI is not installed");
        return Ok(());
    }
    let daemon = Daemon::start()?;
    daemon.busybox("busybox")?;
    join(&daemon)?;
    let one = |family: &str, image: &str, command: &[&str]| {
        json!({"family": family, "containerDefinitions": [
            {"name": "main", "image": image, "memory": 32, "command": command}]})
    };
    register(&daemon, &one("ends", "busybox", &["sh", "-c", "exit 7"]))?;
    register(&daemon, &one("unpullable", "127.0.0.1:5000/nothing/here:1", &["true"]))?;
    register(&daemon, &one("unstartable", "busybox", &["/no/such/program"]))?;

    let arn = start(&daemon, "ends")?;
    let ended = reached(&daemon, &arn, &["STOPPED"])?;
    ensure!(ended["stoppedReason"] == "Essential container in task exited", "{ended}");
    ensure!(ended["stopCode"] == "EssentialContainerExited", "{ended}");
    ensure!(ended["containers"][0]["exitCode"] == 7, "{ended}");

    let arn = start(&daemon, "unpullable")?;
    let ended = reached(&daemon, &arn, &["STOPPED"])?;
    let reason = ended["stoppedReason"].as_str().unwrap_or_default();
    ensure!(reason.starts_with("CannotPullContainerError"), "{ended}");
    ensure!(reason.contains("127.0.0.1:5000/nothing/here"), "{ended}");
    ensure!(ended["stopCode"] == "TaskFailedToStart", "{ended}");

    let arn = start(&daemon, "unstartable")?;
    let ended = reached(&daemon, &arn, &["STOPPED"])?;
    let reason = ended["containers"][0]["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("/no/such/program"), "{ended}");
    Ok(())
}

#[test]
fn bad_requests_are_refused_with_the_apis_own_errors() -> Result<()> {
    if aws_is_missing() {
        skip("the AWS CLI is not installed");
        return Ok(());
    }
    let daemon = Daemon::start()?;
    join(&daemon)?;

    let mut wrong = daemon.inside(std::path::Path::new("aws"));
    wrong.args(["ecs", "list-clusters"]).env("AWS_SECRET_ACCESS_KEY", "not-the-secret");
    let said = refusal(bulkhead_tests::run(&mut wrong)?)?;
    ensure!(said.contains("InvalidSignatureException"), "{said}");
    let mut unknown = daemon.inside(std::path::Path::new("aws"));
    unknown.args(["ecs", "list-clusters"]).env("AWS_ACCESS_KEY_ID", "AKIAUNKNOWN");
    let said = refusal(bulkhead_tests::run(&mut unknown)?)?;
    ensure!(said.contains("UnrecognizedClientException"), "{said}");
    let unsigned = http::request(daemon.connect(7400)?, "POST", "/", &[], "{}")?;
    ensure!(unsigned.status / 100 == 4, "{unsigned:?}");
    ensure!(unsigned.body.contains("__type"), "{unsigned:?}");

    let said = refusal(daemon.aws(&["ecs", "run-task", "--task-definition", "nothing"])?)?;
    ensure!(said.contains("(ClientException)"), "{said}");
    ensure!(said.contains("TaskDefinition not found."), "{said}");
    let arguments = ["ecs", "run-task", "--cluster", "nowhere", "--task-definition", "nothing"];
    let said = refusal(daemon.aws(&arguments)?)?;
    ensure!(said.contains("(ClusterNotFoundException)"), "{said}");

    let mut large = sleeper("large", "busybox");
    large["containerDefinitions"][0]["memory"] = json!(100_000_000);
    register(&daemon, &large)?;
    let ran = aws(&daemon, &["ecs", "run-task", "--task-definition", "large"])?;
    ensure!(ran["tasks"] == json!([]), "{ran}");
    ensure!(ran["failures"][0]["reason"] == "RESOURCE:MEMORY", "{ran}");
    let arn = ran["failures"][0]["arn"].as_str().unwrap_or_default();
    ensure!(arn.contains(":container-instance/"), "{ran}");

    // what the client takes for JSON and the API cannot use
    let nameless = r#"[{"image": "busybox", "memory": 32}]"#;
    let said = refusal(daemon.aws(&[
        "ecs",
        "register-task-definition",
        "--family",
        "bad",
        "--container-definitions",
        nameless,
    ])?)?;
    ensure!(said.contains("(ClientException)"), "{said}");
    let listed = aws(&daemon, &["ecs", "list-task-definition-families"])?;
    ensure!(listed["families"] == json!(["large"]), "{listed}");

    // what is no JSON at all, signed as it should be: no client sends it, so botocore's signer does
    let python = daemon.shell("command -v aws")?.ok()?;
    let python = std::path::Path::new(&python).with_file_name("python3");
    if !python.exists() {
        return Ok(());
    }
    let mut command = daemon.inside(&python);
    let said = bulkhead_tests::run(command.args(["-c", SEND_MALFORMED]))?.ok()?;
    let answers: Vec<&str> = said.lines().collect();
    ensure!(answers.len() == 3, "{said}");
    for answer in answers {
        ensure!(answer.starts_with("400 ") && answer.contains("SerializationException"), "{said}");
    }
    Ok(())
}

/// Sends three bodies that are not the JSON of a request, and prints status and body of each answer.
const SEND_MALFORMED: &str = r#"
import os, urllib.request, urllib.error
from importlib import import_module
def botocore(module):
    try: # the CLI's own copy
        return import_module('awscli.botocore.' + module)
    except ImportError:
        return import_module('botocore.' + module)
Credentials = botocore('credentials').Credentials
AWSRequest = botocore('awsrequest').AWSRequest
SigV4Auth = botocore('auth').SigV4Auth
keys = Credentials(os.environ['AWS_ACCESS_KEY_ID'], os.environ['AWS_SECRET_ACCESS_KEY'])
url = os.environ['AWS_ENDPOINT_URL'] + '/'
for body in ['{"family": ', '[]', '{"cluster": {"a": 1}}']:
    headers = {'Content-Type': 'application/x-amz-json-1.1',
               'X-Amz-Target': 'AmazonEC2ContainerServiceV20141113.ListTasks'}
    request = AWSRequest('POST', url, headers=headers, data=body)
    SigV4Auth(keys, 'ecs', 'us-east-1').add_auth(request)
    sent = urllib.request.Request(url, body.encode(), dict(request.headers))
    try:
        answer = urllib.request.urlopen(sent)
    except urllib.error.HTTPError as error:
        answer = error
    print(answer.status, answer.read().decode().replace('\n', ' '))
"#;

#[test]
fn a_running_task_outlives_the_engine() -> Result<()> {
    if aws_is_missing() {
        skip("the AWS CLI is not installed");
        return Ok(());
    }
    let daemon = Daemon::start()?;
    daemon.busybox("busybox")?;
    join(&daemon)?;
    register(&daemon, &linked("app", "busybox", 8081))?;
    let arn = start(&daemon, "app")?;
    let ids = |task: &Value| -> Vec<String> {
        let containers = task["containers"].as_array().cloned().unwrap_or_default();
        let mut ids: Vec<String> =
            containers.iter().map(|container| container["runtimeId"].to_string()).collect();
        ids.sort();
        ids
    };
    let before = reached(&daemon, &arn, &["RUNNING"])?;
    ready(&daemon, "app")?;
    ensure!(page(&daemon, 8081)? == PAGE, "{before}");

    daemon.crash()?;
    // nobody of the engine's is there, and the page still comes
    ensure!(page(&daemon, 8081)? == PAGE, "without the engine");
    daemon.up()?;

    join(&daemon)?;
    let after = reached(&daemon, &arn, &["RUNNING", "STOPPED"])?;
    ensure!(after["lastStatus"] == "RUNNING", "{after}");
    ensure!(ids(&after) == ids(&before) && ids(&after).len() == 2, "{before}\n{after}");
    let running = daemon.docker(&["ps", "-q"])?.ok()?;
    ensure!(running.lines().count() == 2, "{running}");
    ensure!(page(&daemon, 8081)? == PAGE, "after the restart");
    aws(&daemon, &["ecs", "stop-task", "--task", &arn])?;
    reached(&daemon, &arn, &["STOPPED"])?;
    ensure!(daemon.docker(&["ps", "-q"])?.ok()?.is_empty(), "a container is left");
    ensure!(daemon.connect(8081).is_err(), "the port is still served");
    let listed = aws(&daemon, &["ecs", "list-container-instances"])?;
    ensure!(listed["containerInstanceArns"].as_array().map(Vec::len) == Some(1), "{listed}");
    Ok(())
}

#[test]
fn a_pending_task_gets_there_after_the_engine_was_killed() -> Result<()> {
    if aws_is_missing() {
        skip("the AWS CLI is not installed");
        return Ok(());
    }
    let daemon = Daemon::start()?;
    let gate = Gate::close(&daemon)?;
    join(&daemon)?;
    register(&daemon, &sleeper("slow", &gate.image))?;
    let arn = start(&daemon, "slow")?;
    let mut pull = gate.wait()?;
    let pending = task(&daemon, &arn)?;
    ensure!(pending["lastStatus"] == "PENDING", "{pending}");
    daemon.crash()?;
    // The process took its pull with it; a reset is an end as well.
    let _ = pull.read_to_end(&mut Vec::new());
    drop(gate);
    daemon.up()?;
    let running = reached(&daemon, &arn, &["RUNNING", "STOPPED"])?;
    ensure!(running["lastStatus"] == "RUNNING", "{running}");
    ensure!(daemon.docker(&["ps", "-q"])?.ok()?.lines().count() == 1, "one container");
    Ok(())
}
