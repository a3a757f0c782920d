//! Failpoints: named places before and after each step that changes state, where a test makes the
//! process die, fail or wait.
//!
//! `BULKHEAD_FAILPOINT=NAME:ACTION[:N]`, several with commas: at the `N`th time that `NAME` is
//! reached, `kill` ends the process as `kill -9` does, `error` and `full` make the step fail with
//! EIO and ENOSPC, `sleep` holds it up for a moment. Without `N` it happens each time.
//!
//! A warden inherits the variable from the engine that starts it, and those of its steps are called
//! `warden.…`; so does the one that replaces it, whose steps are to be tested too, and a third does
//! not. One that runs already when an engine starts has what it was started with.
//!
//! They are compiled in always, since what is tested must be what ships, and a feature would make
//! it another program. One that is not armed costs the reading of a byte. The environment of the
//! engine belongs to root, who can kill it without this.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io;
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Signal, getpid, kill_process};

/// The variable that arms failpoints from a process's start.
pub const VARIABLE: &str = "BULKHEAD_FAILPOINT";

/// What happens at a failpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Kill,
    /// The step fails with EIO.
    Error,
    /// The step fails with ENOSPC.
    Full,
    /// It goes on after [`PAUSE`].
    Sleep,
}

/// How long [`Action::Sleep`] lasts: long beside any step, short beside a client's patience.
pub const PAUSE: Duration = Duration::from_millis(200);

/// A place that a process passes; does what was asked for it, which is mostly nothing.
pub fn hit(name: &str) -> io::Result<()> {
    match STATE.load(Ordering::Relaxed) {
        IDLE => Ok(()),
        _ => act(name),
    }
}

/// A place where nothing can fail any more: `kill` and `sleep` do what they say, others nothing.
pub fn pass(name: &str) {
    let _ = hit(name);
}

/// Arms a failpoint of this process; `None` disarms it.
pub fn arm(name: &str, action: Option<Action>) {
    let mut table = table();
    match action {
        Some(action) => drop(table.insert(name.to_owned(), Armed { action, at: None, passed: 0 })),
        None => drop(table.remove(name)),
    }
    STATE.store(if table.is_empty() { IDLE } else { ARMED }, Ordering::Relaxed);
}

/// How often an armed failpoint was reached since it was armed.
pub fn reached(name: &str) -> u64 {
    table().get(name).map_or(0, |armed| armed.passed)
}

#[derive(Debug)]
struct Armed {
    action: Action,
    /// Which time it acts, counted from 1; each time if `None`.
    at: Option<u64>,
    passed: u64,
}

const UNREAD: u8 = 0;
const IDLE: u8 = 1;
const ARMED: u8 = 2;

static STATE: AtomicU8 = AtomicU8::new(UNREAD);

#[allow(
    clippy::disallowed_methods,
    reason = "whoever tests says by it where to fail, whatever is started in between"
)]
fn table() -> MutexGuard<'static, HashMap<String, Armed>> {
    static TABLE: OnceLock<Mutex<HashMap<String, Armed>>> = OnceLock::new();
    let read = || {
        let text = std::env::var(VARIABLE).unwrap_or_default();
        let table = parse(&text).unwrap_or_else(|wrong| {
            // Nothing is pretended: a test whose failpoint is misspelt would pass.
            eprintln!("bulkhead: {VARIABLE}: {wrong}");
            std::process::exit(2);
        });
        Mutex::new(table)
    };
    TABLE.get_or_init(read).lock().unwrap_or_else(PoisonError::into_inner)
}

#[cold]
fn act(name: &str) -> io::Result<()> {
    let action = {
        let mut table = table();
        if table.is_empty() {
            STATE.store(IDLE, Ordering::Relaxed);
            return Ok(());
        }
        let Some(armed) = table.get_mut(name) else { return Ok(()) };
        armed.passed += 1;
        if armed.at.is_some_and(|at| at != armed.passed) {
            return Ok(());
        }
        armed.action
    };
    match action {
        Action::Kill => loop {
            // returns only before the signal is delivered
            let _ = kill_process(getpid(), Signal::KILL);
        },
        Action::Error => Err(Errno::IO.into()),
        Action::Full => Err(Errno::NOSPC.into()),
        Action::Sleep => {
            #[allow(clippy::disallowed_methods, reason = "the delay is what was asked for")]
            std::thread::sleep(PAUSE);
            Ok(())
        }
    }
}

fn parse(text: &str) -> Result<HashMap<String, Armed>, String> {
    let mut table = HashMap::new();
    for entry in text.split(',').filter(|entry| !entry.is_empty()) {
        let wrong = || format!("{entry:?} is not NAME:kill|error|full|sleep[:N]");
        let mut parts = entry.split(':');
        let (name, action) = (parts.next(), parts.next());
        let (Some(name), Some(action)) = (name, action) else { return Err(wrong()) };
        let action = action.parse().map_err(|()| wrong())?;
        let at = match parts.next() {
            Some(number) => Some(number.parse().map_err(|_| wrong())?),
            None => None,
        };
        if parts.next().is_some() {
            return Err(wrong());
        }
        table.insert(name.to_owned(), Armed { action, at, passed: 0 });
    }
    Ok(table)
}

impl FromStr for Action {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "kill" => Ok(Self::Kill),
            "error" => Ok(Self::Error),
            "full" => Ok(Self::Full),
            "sleep" => Ok(Self::Sleep),
            _ => Err(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_is_read_as_it_says_or_refused() {
        let table = parse("store.write:full,engine.record:kill:3").unwrap();
        assert_eq!((table["store.write"].action, table["store.write"].at), (Action::Full, None));
        let record = &table["engine.record"];
        assert_eq!((record.action, record.at), (Action::Kill, Some(3)));
        assert!(parse("").unwrap().is_empty());
        for text in ["x", "x:die", "x:kill:soon", "x:kill:1:2"] {
            let wrong = parse(text).unwrap_err();
            assert!(wrong.contains("NAME:kill|error|full|sleep"), "{text}: {wrong}");
        }
    }

    #[test]
    fn an_armed_one_fails_until_it_is_disarmed() {
        hit("here").unwrap();
        arm("here", Some(Action::Full));
        let error = hit("here").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        hit("elsewhere").unwrap();
        assert_eq!(reached("here"), 1);
        arm("here", None);
        hit("here").unwrap();
    }
}
