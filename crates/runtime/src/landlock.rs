//! `landlock=…`: a process's own restrictions by landlock(7), as an opt-in per container.
//!
//! A policy is a list of words with commas between them. Each kind of word restricts one thing, and
//! what no word speaks of stays as it is:
//!
//! | word | effect |
//! |---|---|
//! | `ro:PATH`, `rw:PATH` | only these are read, and only those of `rw` are written |
//! | `exec:PATH` | only programs (and loaders) below these are executed; they may be read as well |
//! | `connect:PORT`, `bind:PORT` | TCP to and from these ports only; `none` is no port at all |
//! | `scope` | no signals and no abstract unix sockets to processes outside the container |
//! | `besteffort` | go without what the kernel does not have; else that is an error |
//!
//! Paths are absolute and the container's own; they have to exist when a process begins.

use std::fmt;

use bulkhead_sys::landlock::{Handled, fs, net, scope};
use serde::{Deserialize, Serialize};

/// A policy whose words make sense.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Landlock {
    best_effort: bool,
    paths: Vec<(Access, String)>,
    /// `None` leaves TCP alone.
    connect: Option<Vec<u16>>,
    bind: Option<Vec<u16>>,
    scope: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    Read,
    Write,
    Execute,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LandlockError {
    #[error("landlock: the policy restricts nothing: write words such as ro:/usr,rw:/data,scope")]
    Empty,
    #[error(
        "landlock: {0:?} is no word of a policy: use ro:PATH, rw:PATH, exec:PATH, connect:PORT, \
         bind:PORT, scope and besteffort, with commas between them"
    )]
    Word(String),
    #[error("landlock: {0:?} needs an absolute path of the container")]
    Path(String),
    #[error("landlock: {0:?} needs a port from 0 to 65535, or none")]
    Port(String),
    #[error("landlock: {0:?} contradicts the ports of other words")]
    NoneAndPorts(String),
}

/// What the kernel lacks of a policy that is not best-effort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lacking {
    words: &'static str,
    needed: u32,
    linux: &'static str,
    abi: u32,
}

impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { words, needed, linux, abi } = self;
        let has = match abi {
            0 => "this kernel has no Landlock, or has it switched off".to_owned(),
            abi => format!("this kernel has ABI {abi} of Landlock"),
        };
        write!(
            f,
            "landlock: {has}, but {words} needs ABI {needed} (Linux {linux}): add the word \
             besteffort to go without"
        )
    }
}

impl Landlock {
    /// Reads a policy.
    pub fn parse(text: &str) -> Result<Self, LandlockError> {
        let mut policy = Self::default();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            policy.take(word)?;
        }
        let restricts = !policy.paths.is_empty()
            || policy.connect.is_some()
            || policy.bind.is_some()
            || policy.scope;
        if restricts { Ok(policy) } else { Err(LandlockError::Empty) }
    }

    fn take(&mut self, word: &str) -> Result<(), LandlockError> {
        match word.split_once(':') {
            None if word == "besteffort" => self.best_effort = true,
            None if word == "scope" => self.scope = true,
            Some(("ro", path)) => self.path(Access::Read, word, path)?,
            Some(("rw", path)) => self.path(Access::Write, word, path)?,
            Some(("exec", path)) => self.path(Access::Execute, word, path)?,
            Some(("connect", port)) => add_port(&mut self.connect, word, port)?,
            Some(("bind", port)) => add_port(&mut self.bind, word, port)?,
            _ => return Err(LandlockError::Word(word.to_owned())),
        }
        Ok(())
    }

    fn path(&mut self, access: Access, word: &str, path: &str) -> Result<(), LandlockError> {
        if !path.starts_with('/') || path.contains('\0') {
            return Err(LandlockError::Path(word.to_owned()));
        }
        self.paths.push((access, path.to_owned()));
        Ok(())
    }

    /// What a kernel of this ABI can be asked to restrict of the policy.
    ///
    /// # Errors
    /// The first thing that it cannot, unless the policy is best-effort.
    pub fn handled(&self, abi: u32) -> Result<Handled, Lacking> {
        let has = |wanted: bool, words, needed, linux| {
            if wanted && abi < needed && !self.best_effort {
                return Err(Lacking { words, needed, linux, abi });
            }
            Ok(wanted && abi >= needed)
        };
        let any = |access| self.paths.iter().any(|(it, _)| *it == access);
        let files = any(Access::Read) || any(Access::Write);
        // device ioctls are what came last; a best-effort policy takes what there is
        has(files, "ro:PATH or rw:PATH", 5, "6.10")?;
        let mut handled = Handled::default();
        if files {
            handled.fs |= fs::known(abi) & !fs::EXECUTE;
        }
        if has(any(Access::Execute), "exec:PATH", 1, "5.13")? {
            // REFER so that it can be allowed: a ruleset that says nothing of it refuses it
            handled.fs |= fs::known(abi) & (fs::EXECUTE | fs::REFER);
        }
        for (ports, words, access) in [
            (&self.connect, "connect:PORT", net::CONNECT_TCP),
            (&self.bind, "bind:PORT", net::BIND_TCP),
        ] {
            if has(ports.is_some(), words, 4, "6.7")? {
                handled.net |= access;
            }
        }
        if has(self.scope, "scope", 6, "6.12")? {
            handled.scoped |= scope::ABSTRACT_UNIX_SOCKET | scope::SIGNAL;
        }
        Ok(handled)
    }

    /// Paths with what is allowed below them (`LANDLOCK_ACCESS_FS_…`).
    pub(crate) fn path_rules(&self, handled: Handled) -> impl Iterator<Item = (&str, u64)> {
        let files = handled.fs & fs::READ_FILE != 0;
        let moving = (!files && handled.fs & fs::REFER != 0).then_some(("/", fs::REFER));
        let reading = fs::READ_FILE | fs::READ_DIR;
        let rules = self.paths.iter().map(move |(access, path)| {
            let allowed = match access {
                Access::Read => reading,
                Access::Write => !fs::EXECUTE,
                Access::Execute => reading | fs::EXECUTE,
            };
            (path.as_str(), allowed & handled.fs)
        });
        rules.chain(moving).filter(|(_, allowed)| *allowed != 0)
    }

    /// TCP ports with what is allowed on them (`LANDLOCK_ACCESS_NET_…`).
    pub(crate) fn port_rules(&self, handled: Handled) -> impl Iterator<Item = (u16, u64)> {
        let of = move |ports: &Option<Vec<u16>>, access: u64| {
            let ports = ports.clone().unwrap_or_default();
            ports.into_iter().map(move |port| (port, access & handled.net))
        };
        of(&self.connect, net::CONNECT_TCP)
            .chain(of(&self.bind, net::BIND_TCP))
            .filter(|(_, allowed)| *allowed != 0)
    }
}

fn add_port(ports: &mut Option<Vec<u16>>, word: &str, port: &str) -> Result<(), LandlockError> {
    if port == "none" {
        return match ports.replace(Vec::new()) {
            Some(others) if !others.is_empty() => Err(LandlockError::NoneAndPorts(word.to_owned())),
            _ => Ok(()),
        };
    }
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let number = port.parse().ok().filter(|_| digits);
    let number = number.ok_or_else(|| LandlockError::Port(word.to_owned()))?;
    match ports {
        Some(known) if known.is_empty() => Err(LandlockError::NoneAndPorts(word.to_owned())),
        Some(known) => {
            known.push(number);
            Ok(())
        }
        None => {
            *ports = Some(vec![number]);
            Ok(())
        }
    }
}

/// In the words that it was read from.
impl fmt::Display for Landlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        words.extend(self.best_effort.then(|| "besteffort".to_owned()));
        for (access, path) in &self.paths {
            let word = match access {
                Access::Read => "ro",
                Access::Write => "rw",
                Access::Execute => "exec",
            };
            words.push(format!("{word}:{path}"));
        }
        for (word, ports) in [("connect", &self.connect), ("bind", &self.bind)] {
            match ports.as_deref() {
                None => {}
                Some([]) => words.push(format!("{word}:none")),
                Some(ports) => words.extend(ports.iter().map(|port| format!("{word}:{port}"))),
            }
        }
        words.extend(self.scope.then(|| "scope".to_owned()));
        f.write_str(&words.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_read_and_written() {
        for text in [
            "ro:/usr,rw:/data,exec:/usr/bin,connect:443,bind:8080,scope",
            "besteffort,ro:/",
            "connect:none,bind:none",
            "connect:1,connect:65535,bind:0",
        ] {
            assert_eq!(Landlock::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Landlock::parse(" scope , ro:/a:b ,").unwrap().to_string(), "ro:/a:b,scope");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        use LandlockError::*;
        let word = str::to_owned;
        for (text, error) in [
            ("", Empty),
            ("besteffort", Empty),
            ("ro", Word(word("ro"))),
            ("RO:/", Word(word("RO:/"))),
            ("scope:all", Word(word("scope:all"))),
            ("ro:usr", Path(word("ro:usr"))),
            ("ro:/,rw:", Path(word("rw:"))),
            ("connect:", Port(word("connect:"))),
            ("connect:+1", Port(word("connect:+1"))),
            ("bind:65536", Port(word("bind:65536"))),
            ("bind:http", Port(word("bind:http"))),
            ("bind:1,bind:none", NoneAndPorts(word("bind:none"))),
            ("bind:none,bind:1", NoneAndPorts(word("bind:1"))),
        ] {
            assert_eq!(Landlock::parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn an_older_kernel_is_an_error_unless_best_effort() {
        let lacking = |text: &str, abi| {
            Landlock::parse(text).unwrap().handled(abi).map_err(|it| (it.words, it.needed))
        };
        for (text, abi, error) in [
            ("ro:/", 4, ("ro:PATH or rw:PATH", 5)),
            ("exec:/", 0, ("exec:PATH", 1)),
            ("connect:1", 3, ("connect:PORT", 4)),
            ("bind:none", 3, ("bind:PORT", 4)),
            ("scope", 5, ("scope", 6)),
        ] {
            assert_eq!(lacking(text, abi), Err(error), "{text}");
            assert!(lacking(text, error.1).is_ok(), "{text}");
            let best_effort = Landlock::parse(&format!("besteffort,{text}")).unwrap();
            let handled = best_effort.handled(abi).unwrap();
            assert_eq!(handled.net | handled.scoped, 0, "{text}");
            assert_eq!(handled.fs & !fs::known(abi), 0, "{text}");
        }
        let error = Landlock::parse("scope").unwrap().handled(5).unwrap_err().to_string();
        assert!(error.contains("ABI 5") && error.contains("6.12") && error.contains("besteffort"));
    }

    #[test]
    fn what_no_word_speaks_of_is_left_alone() {
        let handled = |text: &str| Landlock::parse(text).unwrap().handled(7).unwrap();
        assert_eq!(handled("scope").fs | handled("scope").net, 0);
        assert_eq!(handled("connect:1").net, net::CONNECT_TCP);
        assert_eq!(handled("ro:/").fs & fs::EXECUTE, 0, "programs may be executed");
        let policy = Landlock::parse("exec:/bin").unwrap();
        let handled = policy.handled(7).unwrap();
        assert_eq!(handled.fs, fs::EXECUTE | fs::REFER);
        let rules: Vec<_> = policy.path_rules(handled).collect();
        assert_eq!(rules, [("/bin", fs::EXECUTE), ("/", fs::REFER)]);
        let policy = Landlock::parse("ro:/,rw:/data").unwrap();
        let handled = policy.handled(7).unwrap();
        let rules: Vec<_> = policy.path_rules(handled).collect();
        assert_eq!(rules, [("/", fs::READ_FILE | fs::READ_DIR), ("/data", handled.fs)]);
    }
}
