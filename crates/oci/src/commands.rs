//! One module for each command.

use crate::arguments::{Command, Global};
use crate::error::Result;
use crate::log::Log;

mod delete;
mod events;
pub mod exec;
mod features;
mod kill;
mod list;
mod pause;
mod ps;
mod run;
mod spec;
mod start;
mod state;
mod update;

/// Runs a command; returns the exit status.
pub fn run(global: &Global, command: Command, log: &Log) -> Result<u8> {
    match command.verb.name {
        "create" => run::create(global, &command, log),
        "run" => run::run(global, &command, log),
        "start" => start::run(global, &command, log),
        "state" => state::run(global, &command),
        "list" => list::run(global, &command),
        "kill" => kill::run(global, &command),
        "delete" => delete::run(global, &command, log),
        "exec" => exec::run(global, &command, log),
        "ps" => ps::run(global, &command),
        "pause" => pause::pause(global, &command),
        "resume" => pause::resume(global, &command),
        "update" => update::run(global, &command),
        "events" => events::run(global, &command),
        "features" => features::run(),
        "spec" => spec::run(&command),
        other => unreachable!("{other} is no command of the table"),
    }
}
