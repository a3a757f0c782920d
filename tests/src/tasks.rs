//! Task definitions that tests run, and what they serve.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{Daemon, http};

/// One container that does nothing until it is stopped.
pub fn sleeper(family: &str, image: &str) -> Value {
    json!({"family": family, "containerDefinitions": [{
        "name": "main", "image": image, "memory": 32, "stopTimeout": 2, "command": command(""),
    }]})
}

/// A proxy in front of an application: each request fetches the page over the link.
pub fn linked(family: &str, image: &str, port: u16) -> Value {
    let proxy = "mkdir -p /tmp/www/cgi-bin; cd /tmp/www
        printf '#!/bin/sh\\necho Content-Type: text/plain; echo; echo by the proxy
            wget -q -O - http://application:8080/' >cgi-bin/index.cgi
        chmod +x cgi-bin/index.cgi; httpd -p 80 -h /tmp/www;";
    let application = "mkdir -p /tmp/www; echo the application >/tmp/www/index.html
        httpd -p 8080 -h /tmp/www;";
    json!({"family": family, "containerDefinitions": [
        {"name": "proxy", "image": image, "memory": 32, "cpu": 64, "stopTimeout": 2,
         "portMappings": [{"hostPort": port, "containerPort": 80, "protocol": "tcp"}],
         "links": ["application"], "command": command(proxy)},
        {"name": "application", "image": image, "memory": 32, "cpu": 64, "stopTimeout": 2,
         "command": command(application)},
    ]})
}

/// What the proxy of a linked task answers.
pub const PAGE: &str = "by the proxy\nthe application\n";

/// Runs a script, says that it is ready, and goes on until it is told to end.
fn command(script: &str) -> Value {
    json!(["sh", "-c", format!("trap 'exit 0' TERM; {script} echo ready; sleep 10000 & wait")])
}

/// Returns when every container of a family's running tasks has said that it is ready.
pub fn ready(daemon: &Daemon, family: &str) -> Result<()> {
    let filter = format!("label=com.amazonaws.ecs.task-definition-family={family}");
    let containers = daemon.docker(&["ps", "-q", "--filter", &filter])?.ok()?;
    for container in containers.lines() {
        daemon.until_logged(container, "ready")?;
    }
    Ok(())
}

/// What a published port answers, in the daemon's network namespace.
pub fn page(daemon: &Daemon, port: u16) -> Result<String> {
    let answer = http::request(daemon.connect(port)?, "GET", "/", &[], "");
    Ok(answer.with_context(|| format!("the page on port {port}"))?.body)
}
