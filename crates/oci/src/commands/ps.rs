use std::io::Write;
use std::process::Command as Program;

use crate::arguments::{Command, Global};
use crate::directory::Directory;
use crate::error::{Error, Result};

pub fn run(global: &Global, command: &Command) -> Result<u8> {
    let directory = Directory::open(&global.root, command.id()?)?;
    let record = directory.record()?.ok_or(Error::NotRunning)?;
    let pids = match record.cgroup.open()?.filter(|cgroup| cgroup.exists()) {
        Some(cgroup) => cgroup.pids()?,
        None => record
            .process
            .filter(|process| process.open().is_some())
            .iter()
            .map(|process| process.pid)
            .collect(),
    };
    let text = match command.value("format").unwrap_or("table") {
        "json" => format!("{}\n", serde_json::json!(pids)),
        "table" => table(&pids, &command.operands[1..])?,
        other => {
            return Err(Error::Usage(format!(
                "invalid format option {other:?}: use table or json"
            )));
        }
    };
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(Error::system("write to standard output"))?;
    Ok(0)
}

/// The lines of ps(1) that speak of these processes.
fn table(pids: &[u32], options: &[String]) -> Result<String> {
    let default = ["-ef".to_owned()];
    let options = if options.is_empty() { &default } else { options };
    let output = Program::new("ps")
        .args(options)
        .output()
        .map_err(Error::system("run ps (without it use --format json)"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error::Refused(format!("ps: {}", said.trim_end())));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let column = header.split_whitespace().position(|name| name == "PID").ok_or_else(|| {
        Error::Refused("ps shows no column PID: use options that have it".to_owned())
    })?;
    let mut table = format!("{header}\n");
    for line in lines {
        let pid = line.split_whitespace().nth(column).and_then(|pid| pid.parse().ok());
        if pid.is_some_and(|pid: u32| pids.contains(&pid)) {
            table.push_str(line);
            table.push('\n');
        }
    }
    Ok(table)
}
