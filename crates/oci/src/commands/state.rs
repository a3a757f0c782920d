use std::io::Write;

use bulkhead_types::oci::Status;
use serde_json::json;

use crate::arguments::{Command, Global};
use crate::directory::Directory;
use crate::error::{Error, Result};

pub fn run(global: &Global, command: &Command) -> Result<u8> {
    let directory = Directory::open(&global.root, command.id()?)?;
    // To runc and crun it is not there before its process is. Who asks until there is an answer is to
    // get one that means the container can be started. Without a record it has just been begun, or
    // was given up by a `create` that was killed then: there is nothing to tell of it.
    let (record, status) = directory.look()?;
    let record = record.filter(|_| status != Status::Creating).ok_or(Error::NoContainer)?;
    let state = record.state(status, &directory.config()?);
    let mut value = json!({
        "ociVersion": state.oci_version,
        "id": state.id,
        "pid": state.pid,
        "status": status.name(),
        "bundle": state.bundle,
        "rootfs": record.rootfs,
        "created": record.created,
    });
    if !state.annotations.is_empty() {
        value["annotations"] = json!(state.annotations);
    }
    value["owner"] = json!(owner(&record.owner));
    print(&value)?;
    Ok(0)
}

/// The name that the host has for a uid; empty for one without.
pub fn owner(uid: &str) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let found = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    found.unwrap_or_default()
}

/// Prints JSON as runc does, indented by two.
pub fn print(value: &impl serde::Serialize) -> Result<()> {
    let text =
        serde_json::to_string_pretty(value).map_err(|error| Error::Refused(error.to_string()))?;
    writeln!(std::io::stdout(), "{text}").map_err(Error::system("write to standard output"))
}

/// The status of a container that has to be there and alive.
pub fn alive(status: Status) -> bool {
    matches!(status, Status::Created | Status::Running | Status::Paused)
}
