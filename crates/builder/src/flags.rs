//! The `--name=value` words between a keyword and its arguments.

use crate::parse::{Fault, Line};

/// The flags of one instruction, taken out one by one; what is left over is unknown.
#[derive(Debug)]
pub(crate) struct Flags {
    left: Vec<(String, Option<String>)>,
}

impl Flags {
    pub(crate) fn of(line: &Line) -> Self {
        let split = |flag: &String| {
            let flag = flag.trim_start_matches("--");
            match flag.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (flag.to_owned(), None),
            }
        };
        Self { left: line.flags.iter().map(split).collect() }
    }

    /// `--name=value`, at most once.
    pub(crate) fn value(&mut self, name: &str) -> Result<Option<String>, Fault> {
        let mut values = self.values(name)?;
        if values.len() > 1 {
            return Err(format!("duplicate flag specified: {name}"));
        }
        Ok(values.pop())
    }

    /// `--name=value`, any number of times.
    pub(crate) fn values(&mut self, name: &str) -> Result<Vec<String>, Fault> {
        let taken = self.left.extract_if(.., |(flag, _)| flag == name);
        taken.map(|(_, value)| value.ok_or(format!("missing a value on flag: {name}"))).collect()
    }

    /// `--name`, `--name=true`, `--name=false`; `None` if it is not there.
    pub(crate) fn switch(&mut self, name: &str) -> Result<Option<bool>, Fault> {
        let mut taken: Vec<_> = self.left.extract_if(.., |(flag, _)| flag == name).collect();
        if taken.len() > 1 {
            return Err(format!("duplicate flag specified: {name}"));
        }
        match taken.pop() {
            None => Ok(None),
            Some((_, None)) => Ok(Some(true)),
            Some((_, Some(value))) => match value.to_ascii_lowercase().as_str() {
                "true" | "" => Ok(Some(true)),
                "false" => Ok(Some(false)),
                _ => Err(format!("expecting boolean value for flag {name}, not: {value}")),
            },
        }
    }

    pub(crate) fn finish(self) -> Result<(), Fault> {
        match self.left.first() {
            Some((name, _)) => Err(format!("unknown flag: --{name}")),
            None => Ok(()),
        }
    }
}
