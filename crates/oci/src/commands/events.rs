use crate::arguments::{Command, Global};
use crate::directory::Directory;
use crate::error::{Error, Result};

pub fn run(global: &Global, command: &Command) -> Result<u8> {
    let directory = Directory::open(&global.root, command.id()?)?;
    let record = directory.record()?.ok_or(Error::NotRunning)?;
    let cgroup = directory.cgroup(&record)?.ok_or(Error::NotRunning)?;
    let stats = cgroup.stats()?;
    println!("{}", serde_json::json!({ "type": "stats", "id": record.id, "data": stats }));
    Ok(0)
}
