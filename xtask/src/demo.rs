//! The SecurityApp walk-through: build, push, register, run, open. `cargo xtask test` runs the same
//! steps on ports and directories of its own, and every step checks what it shows.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;

use crate::setup;
use crate::shell::Shell;

/// Where one walk-through takes place.
#[derive(Debug, Clone)]
pub struct Stage {
    /// Flags of `bulkhead up` besides `--detach`; none for the defaults.
    pub flags: String,
    /// What goes between `bulkhead` and the command, for an engine that is not the default one.
    pub host: String,
    pub data: PathBuf,
    pub run: PathBuf,
    pub api: String,
    pub registry: String,
    pub console: String,
    pub port: u16,
    /// `.docker` and `.aws` of this stage.
    pub home: PathBuf,
    /// As the flags say.
    pub bridge: String,
    pub cgroup: String,
}

impl Stage {
    fn default_place() -> Self {
        Self {
            flags: String::new(),
            host: String::new(),
            data: "/var/lib/bulkhead".into(),
            run: "/run/bulkhead".into(),
            api: "http://127.0.0.1:7400".into(),
            registry: "127.0.0.1:5000".into(),
            console: "http://127.0.0.1:7480/".into(),
            port: 80,
            home: setup::target().join("demo-home"),
            bridge: "bulkhead0".to_owned(),
            cgroup: "bulkhead".to_owned(),
        }
    }

    fn bulkhead(&self) -> String {
        if self.host.is_empty() { "bulkhead".to_owned() } else { format!("bulkhead {}", self.host) }
    }
}

/// What the walk-through left running.
#[derive(Debug, Clone)]
pub struct Ended {
    pub shell: Shell,
    pub url: String,
    pub task: String,
    pub page: String,
}

pub fn up() -> Result<()> {
    setup::require_root()?;
    setup::packages(setup::WALKTHROUGH)?;
    let stage = Stage::default_place();
    // What is downloaded waits for others, and the compiler does not: one beside the other.
    let (bin, prepared) = std::thread::scope(|scope| {
        let prepared = scope.spawn(prepare);
        let bin = setup::program(PROFILE);
        (bin, prepared.join().map_err(|_| anyhow!("the preparation panicked")))
    });
    prepared??;
    let bin = bin?;
    let ended = walk_through(&stage, &bin, &|| Ok(()))?;
    println!("\nConsole:     {} (user and password: `bulkhead credentials`)", stage.console);
    println!("Application: {}", ended.url);
    println!("`cargo xtask demo --down` removes every trace.");
    Ok(())
}

/// The demo shows what the program does and not how fast: it is built in half the time with little
/// optimisation. `cargo xtask build` builds the one for use.
const PROFILE: &str = "dev";

/// Gets what the steps need besides the program, so that they find it there.
fn prepare() -> Result<()> {
    setup::aws_cli()?;
    // any answer will do: a registry says 401 to whoever has no token yet
    let registry =
        "curl --silent --output /dev/null --max-time 10 https://registry-1.docker.io/v2/";
    if !Shell::default().ask(registry)?.success {
        setup::debian_base()?;
    }
    Ok(())
}

pub fn down() -> Result<()> {
    setup::require_root()?;
    let stage = Stage::default_place();
    let bin = setup::program(PROFILE)?;
    take_down(&stage, &bin)
}

pub fn take_down(stage: &Stage, bin: &Path) -> Result<()> {
    let shell = Shell::default().with_path(bin);
    shell.run(&format!(
        "{} down --purge --yes --data {} --run {}",
        stage.bulkhead(),
        stage.data.display(),
        stage.run.display()
    ))?;
    match std::fs::remove_dir_all(&stage.home) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
            Err(cause).context("remove the demo's home")
        }
        _ => Ok(()),
    }
}

/// Steps 1 to 6; `between` is called between any two.
pub fn walk_through(stage: &Stage, bin: &Path, between: &dyn Fn() -> Result<()>) -> Result<Ended> {
    let aws = setup::aws_cli()?;
    std::fs::create_dir_all(&stage.home)?;
    let shell = Shell::default()
        .with_path(bin)
        .with_path(&aws)
        .with("HOME", &stage.home.to_string_lossy())
        .with("AWS_PAGER", "")
        .within(&setup::root().join("demo"));
    let bulkhead = stage.bulkhead();

    // 1. Start everything.
    shell.run(format!("bulkhead up --detach {}", stage.flags).trim_end())?;
    let shell = with_keys(shell, stage)?;

    between()?;
    base_image(&shell, &bulkhead)?;
    between()?;
    build_images(&shell, &bulkhead)?;
    between()?;
    push_images(&shell, &bulkhead, stage)?;
    between()?;
    let task = run_task(&shell, stage)?;
    between()?;
    let address = show_address(&shell, stage, &task)?;

    // 6. Open the application.
    let url = if stage.port == 80 {
        format!("http://{address}/")
    } else {
        format!("http://{address}:{}/", stage.port)
    };
    let page = shell.run(&format!(
        "curl --silent --show-error --fail --retry 10 --retry-all-errors --retry-delay 1 {url}"
    ))?;
    ensure!(page.contains("Hello from SecurityApp"), "the page is not the application's");
    ensure!(
        !page.contains("Passed on by proxy container <b>nobody"),
        "the page did not come through the proxy"
    );
    Ok(Ended { shell, url, task, page })
}

/// What a person would do with `eval "$(bulkhead credentials --format env)"`.
fn with_keys(shell: Shell, stage: &Stage) -> Result<Shell> {
    let line = format!("bulkhead credentials --data {} --format json", stage.data.display());
    let keys: Value =
        serde_json::from_str(&shell.ask(&line)?.output).context("read the credentials")?;
    println!("\n\x1b[1m$ eval \"$(bulkhead credentials --format env)\"\x1b[0m");
    let text = |name: &str| {
        keys[name]
            .as_str()
            .map(str::to_owned)
            .with_context(|| format!("no {name} in the credentials"))
    };
    Ok(shell
        .with("AWS_ACCESS_KEY_ID", &text("access_key_id")?)
        .with("AWS_SECRET_ACCESS_KEY", &text("secret_access_key")?)
        .with("AWS_DEFAULT_REGION", "us-east-1")
        .with("REGISTRY_PASSWORD", &text("password")?))
}

/// 2. A base image: from a public registry where there is one, else from Debian's packages.
fn base_image(shell: &Shell, bulkhead: &str) -> Result<()> {
    println!("\n\x1b[1m$ {bulkhead} pull debian:bookworm\x1b[0m");
    let pulled = shell.ask(&format!("{bulkhead} pull --quiet debian:bookworm"))?;
    print!("{}", pulled.output);
    if pulled.success {
        return Ok(());
    }
    println!("No public registry can be reached; the base image is made from Debian's packages.");
    let base = setup::debian_base()?;
    shell.run(&format!(
        "{bulkhead} import --change 'CMD [\"bash\"]' {} debian:bookworm",
        base.display()
    ))?;
    Ok(())
}

/// 3. The two images.
fn build_images(shell: &Shell, bulkhead: &str) -> Result<()> {
    let context = "--build-context ubuntu=docker-image://debian:bookworm";
    shell.run("cat proxy/Dockerfile proxy/nginx.conf")?;
    shell.run(&format!("{bulkhead} build {context} --tag proxy proxy"))?;
    shell.run(&format!("{bulkhead} build {context} --tag application application"))?;
    shell.run(&format!("{bulkhead} images"))?;
    Ok(())
}

/// 4. Log in, tag, push, and remove the local copies, so that the task has to pull.
fn push_images(shell: &Shell, bulkhead: &str, stage: &Stage) -> Result<()> {
    let registry = &stage.registry;
    shell.run(&format!(
        "printenv REGISTRY_PASSWORD | {bulkhead} login --username admin --password-stdin {registry}"
    ))?;
    for image in ["proxy", "application"] {
        shell.run(&format!("{bulkhead} tag {image} {registry}/{image}"))?;
        shell.run(&format!("{bulkhead} push {registry}/{image}"))?;
        shell.run(&format!("{bulkhead} rmi {image} {registry}/{image}"))?;
    }
    let left = shell.ask(&format!("{bulkhead} images"))?.output;
    ensure!(
        !left.contains("proxy") && !left.contains("application"),
        "the images are still here:\n{left}"
    );
    Ok(())
}

/// 5. Cluster, instance, task definition, task.
fn run_task(shell: &Shell, stage: &Stage) -> Result<String> {
    let aws = |line: &str| shell.run(&format!("aws ecs {line} --endpoint-url {}", stage.api));
    aws(
        "create-cluster --cluster-name default --query cluster.[clusterName,status] --output text",
    )?;
    let instances = aws("list-container-instances --query containerInstanceArns[0] --output text")?;
    let instance = instances.trim();
    aws(&format!(
        "describe-container-instances --container-instances {instance} --query 'containerInstances[0].{{id:ec2InstanceId,status:status,connected:agentConnected,cpu:remainingResources[?name==`CPU`]|[0].integerValue,memory:remainingResources[?name==`MEMORY`]|[0].integerValue}}' --output table"
    ))?;
    let definition = stage.home.join("security-app.json");
    let text = std::fs::read_to_string(setup::root().join("demo/security-app.json"))?;
    let text = text
        .replace("127.0.0.1:5000", &stage.registry)
        .replace("\"hostPort\": 80", &format!("\"hostPort\": {}", stage.port));
    std::fs::write(&definition, text)?;
    let register = format!("file://{}", definition.display());
    aws(&format!(
        "register-task-definition --cli-input-json {register} --query taskDefinition.[taskDefinitionArn,status] --output text"
    ))?;
    let started = aws("run-task --task-definition SecurityApp --count 1 --output json")?;
    let started: Value = serde_json::from_str(&started).context("run-task answered no JSON")?;
    ensure!(
        started["failures"].as_array().is_some_and(Vec::is_empty),
        "run-task failed: {}",
        started["failures"]
    );
    let task = started["tasks"][0]["taskArn"].as_str().context("run-task gave no task")?.to_owned();
    ensure!(started["tasks"][0]["lastStatus"] == "PENDING", "a new task is PENDING");
    aws(&format!("describe-tasks --tasks {task} --query tasks[0].lastStatus --output text"))?;
    if let Err(cause) = aws(&format!("wait tasks-running --tasks {task}")) {
        aws(&format!(
            "describe-tasks --tasks {task} --query 'tasks[0].[lastStatus,stoppedReason,containers[].reason]'"
        ))?;
        return Err(cause);
    }
    let status =
        aws(&format!("describe-tasks --tasks {task} --query tasks[0].lastStatus --output text"))?;
    ensure!(status.trim() == "RUNNING", "the task is {}", status.trim());
    aws(&format!(
        "describe-tasks --tasks {task} --query 'tasks[0].containers[].[name,lastStatus,networkBindings[0].hostPort]' --output table"
    ))?;
    Ok(task)
}

/// The instance's addresses, by way of its EC2 id, as AWS's own tools find them.
fn show_address(shell: &Shell, stage: &Stage, task: &str) -> Result<String> {
    let ask = |line: &str| -> Result<String> {
        Ok(shell.run(&format!("aws {line} --endpoint-url {}", stage.api))?.trim().to_owned())
    };
    let instance = ask(&format!(
        "ecs describe-tasks --tasks {task} --query tasks[0].containerInstanceArn --output text"
    ))?;
    let id = ask(&format!(
        "ecs describe-container-instances --container-instances {instance} --query containerInstances[0].ec2InstanceId --output text"
    ))?;
    let addresses = ask(&format!(
        "ec2 describe-instances --instance-ids {id} --query 'Reservations[0].Instances[0].[PublicIpAddress,PrivateIpAddress]' --output text"
    ))?;
    match addresses.split_whitespace().next() {
        Some(public) if public != "None" => Ok(public.to_owned()),
        _ => bail!("the instance has no public address: {addresses}"),
    }
}
