//! `--log-driver` and `--log-opt`

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use bulkhead_logs::{Destination, OptionError, Remote, Selection};
use bulkhead_types::parse_size;
use serde::{Deserialize, Serialize};

use crate::text::serde_by_text;
use crate::{Class, EngineError};

/// What becomes of a container's output.
///
/// Every driver but `none` has a log on this machine, of the same form: what `docker logs` reads, and what
/// those that send elsewhere send from (Docker's "dual logging").
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogDriver {
    #[default]
    JsonFile,
    /// As `json-file`, with Docker's limits for it, and compressed.
    Local,
    /// It is not kept.
    None,
    Remote(Remote),
}

impl LogDriver {
    /// Docker's names, in their order.
    pub fn names() -> Vec<&'static str> {
        let own = ["json-file", "local", "none"];
        let mut names: Vec<_> = own.into_iter().chain(Remote::ALL.map(Remote::name)).collect();
        names.sort_unstable();
        names
    }
}

impl FromStr for LogDriver {
    type Err = EngineError;

    fn from_str(text: &str) -> Result<Self, EngineError> {
        if let Some(remote) = Remote::ALL.into_iter().find(|remote| remote.name() == text) {
            return Ok(Self::Remote(remote));
        }
        match text {
            "" | "json-file" => Ok(Self::JsonFile),
            "local" => Ok(Self::Local),
            "none" => Ok(Self::None),
            // clients look for this sentence, to its end
            other => Err(EngineError::invalid(format!(
                "logger: no log driver named '{other}' is registered"
            ))),
        }
    }
}

impl fmt::Display for LogDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::JsonFile => "json-file",
            Self::Local => "local",
            Self::None => "none",
            Self::Remote(remote) => remote.name(),
        })
    }
}

serde_by_text!(LogDriver);

/// A driver's options as they were given, each of which is known to be right.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LogOptions {
    given: BTreeMap<String, String>,
}

/// The log on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalLog {
    /// Bytes after which a new file is begun.
    pub max_size: u64,
    pub max_files: u32,
    pub rotated: Rotated,
    pub reading: Reading,
}

/// What becomes of a file once the next is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotated {
    Plain,
    /// It is compressed, by gzip.
    Compressed,
}

/// Whether `docker logs` may read the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    Allowed,
    /// `cache-disabled`: it is there for whoever sends it, and for nobody else.
    Disabled,
}

/// Rotating renames every file, and the warden does nothing else meanwhile.
const MAX_FILES: u32 = 100;

/// The options that say how the log on this machine is kept, of a driver (moby:
/// daemon/logger/loggerutils/cache/validate.go).
struct Names {
    max_size: &'static str,
    max_files: &'static str,
    compress: &'static str,
}

const OWN: Names = Names { max_size: "max-size", max_files: "max-file", compress: "compress" };
const CACHE: Names =
    Names { max_size: "cache-max-size", max_files: "cache-max-file", compress: "cache-compress" };

impl LogOptions {
    /// # Errors
    /// Names every option that the driver does not have or that is not done, and wrong values.
    pub fn parse(driver: LogDriver, given: BTreeMap<String, String>) -> Result<Self, EngineError> {
        let options = Self { given };
        options.local(driver)?;
        let mut rest = options.given.clone();
        // The program never waits for a log that is sent, and nothing of it is dropped but with the
        // log's oldest file: what both modes ask for.
        let mode = rest.remove("mode").unwrap_or_default();
        if !matches!(mode.as_str(), "" | "blocking" | "non-blocking") {
            return Err(EngineError::invalid(format!(
                "logger: logging mode not supported: {mode}"
            )));
        }
        if let Some(size) = rest.remove("max-buffer-size") {
            if mode != "non-blocking" {
                return Err(EngineError::invalid(
                    "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
                ));
            }
            parse_size(&size).map_err(|error| {
                EngineError::invalid(format!("log opt 'max-buffer-size': {error}"))
            })?;
        }
        let unknown = |name: &str| {
            EngineError::invalid(format!("unknown log opt '{name}' for {driver} log driver"))
        };
        match driver {
            LogDriver::Remote(_) => {
                options.remote(driver)?;
            }
            LogDriver::None => {
                if let Some(name) = options.given.keys().next() {
                    return Err(unknown(name));
                }
            }
            LogDriver::JsonFile | LogDriver::Local => {
                for name in [OWN.max_size, OWN.max_files, OWN.compress] {
                    rest.remove(name);
                }
                if driver == LogDriver::JsonFile {
                    Selection::NAMES.iter().for_each(|name| drop(rest.remove(*name)));
                }
                if let Some(name) = rest.keys().next() {
                    return Err(unknown(name));
                }
                options.selection()?;
            }
        }
        Ok(options)
    }

    /// How the log on this machine is kept; `None` where there is none.
    ///
    /// # Errors
    /// Names a wrong value.
    pub fn local(&self, driver: LogDriver) -> Result<Option<LocalLog>, EngineError> {
        // Docker's defaults, but for json-file, which knows no limit there.
        let (names, size) = match driver {
            LogDriver::None => return Ok(None),
            LogDriver::JsonFile => (OWN, 10_000_000),
            LogDriver::Local => (OWN, 20 << 20),
            LogDriver::Remote(_) => (CACHE, 20 << 20),
        };
        let value = |name: &str| self.given.get(name).map(String::as_str);
        let max_size = value(names.max_size).map(|text| file_size(names.max_size, text));
        let max_files = value(names.max_files).map(|text| files(names.max_files, text));
        let max_files = max_files.transpose()?.unwrap_or(5);
        let compress = value(names.compress).map(|text| flag(names.compress, text)).transpose()?;
        // Docker's words for both (moby: daemon/logger/jsonfilelog, daemon/logger/local).
        if compress == Some(true) && (max_files == 1 || matches!(max_size, Some(Ok(u64::MAX)))) {
            return Err(EngineError::invalid(match driver {
                LogDriver::JsonFile => {
                    "compress cannot be true when max-file is less than 2 or max-size is not set"
                }
                _ => "compression cannot be enabled when max file count is 1",
            }));
        }
        let is_compressed = compress.unwrap_or(driver != LogDriver::JsonFile);
        let disabled = match (driver, value("cache-disabled")) {
            (LogDriver::Remote(_), Some(text)) => flag("cache-disabled", text)?,
            _ => false,
        };
        Ok(Some(LocalLog {
            max_size: max_size.transpose()?.unwrap_or(size),
            max_files,
            rotated: if is_compressed { Rotated::Compressed } else { Rotated::Plain },
            reading: if disabled { Reading::Disabled } else { Reading::Allowed },
        }))
    }

    /// How the log on this machine is kept, by a record. An engine of before these types took every
    /// name; those without a meaning had none then either.
    pub(crate) fn recorded(&self, driver: LogDriver) -> Option<LocalLog> {
        self.local(driver).or_else(|_| Self::default().local(driver)).ok().flatten()
    }

    /// Where the log is sent to; `None` for a driver that sends nothing.
    ///
    /// # Errors
    /// Names an option that the driver does not have, and wrong values.
    pub fn remote(
        &self,
        driver: LogDriver,
    ) -> Result<Option<(Destination, Selection)>, EngineError> {
        let LogDriver::Remote(remote) = driver else { return Ok(None) };
        let mut own = self.given.clone();
        let local = [CACHE.max_size, CACHE.max_files, CACHE.compress, "cache-disabled"];
        for name in local.into_iter().chain(["mode", "max-buffer-size"]) {
            own.remove(name);
        }
        Ok(Some(Destination::parse(remote, &own)?))
    }

    /// Which labels and variables of the container its records show (`docker logs --details`).
    ///
    /// # Errors
    /// A template or a regular expression that is none.
    pub fn selection(&self) -> Result<Selection, EngineError> {
        Ok(Selection::parse(&self.given)?)
    }

    pub(crate) fn has_tag(&self) -> bool {
        self.given.get("tag").is_some_and(|tag| !tag.is_empty())
    }

    pub fn given(&self) -> &BTreeMap<String, String> {
        &self.given
    }
}

impl From<OptionError> for EngineError {
    fn from(error: OptionError) -> Self {
        let class = match error {
            OptionError::Invalid(_) => Class::Invalid,
            OptionError::Unsupported(_) => Class::Unsupported,
        };
        Self::new(class, error.to_string())
    }
}

fn file_size(name: &str, text: &str) -> Result<u64, EngineError> {
    match text {
        "-1" => Ok(u64::MAX),
        text => {
            let wrong = |error| EngineError::invalid(format!("log opt '{name}': {error}"));
            parse_size(text).map_err(wrong)
        }
    }
}

fn files(name: &str, text: &str) -> Result<u32, EngineError> {
    match text.parse() {
        Ok(count @ 1..=MAX_FILES) => Ok(count),
        Ok(1..) => Err(EngineError::invalid(format!("{name} cannot be more than {MAX_FILES}"))),
        _ => Err(EngineError::invalid(format!("{name} cannot be less than 1"))),
    }
}

/// In Go's words (strconv.ParseBool).
fn flag(name: &str, text: &str) -> Result<bool, EngineError> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(EngineError::invalid(format!("log opt '{name}' is true or false, not {text:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(driver: LogDriver, options: &[(&str, &str)]) -> Result<LogOptions, EngineError> {
        let given = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        LogOptions::parse(driver, given.collect())
    }

    #[test]
    fn every_option_is_done_or_refused_by_name() {
        use LogDriver::{JsonFile, Local, None};
        let syslog = LogDriver::Remote(Remote::Syslog);
        let local = |driver: LogDriver, options: &[(&str, &str)]| {
            parse(driver, options).unwrap().local(driver).unwrap().unwrap()
        };
        let log = local(JsonFile, &[("max-size", "1m"), ("max-file", "3"), ("compress", "false")]);
        assert_eq!((log.max_size, log.max_files), (1 << 20, 3));
        assert_eq!(local(JsonFile, &[("max-size", "-1")]).max_size, u64::MAX);
        assert_eq!(local(Local, &[]).max_size, 20 << 20);
        let log = local(syslog, &[("cache-disabled", "true"), ("cache-max-size", "1k")]);
        assert_eq!((log.max_size, log.reading), (1 << 10, Reading::Disabled));
        let compressed = |driver, options: &[(&str, &str)]| local(driver, options).rotated;
        assert_eq!(compressed(JsonFile, &[]), Rotated::Plain);
        assert_eq!(compressed(JsonFile, &[("compress", "true")]), Rotated::Compressed);
        assert_eq!(compressed(Local, &[]), Rotated::Compressed);
        assert_eq!(compressed(Local, &[("compress", "0"), ("max-file", "1")]), Rotated::Plain);
        assert_eq!(compressed(syslog, &[]), Rotated::Compressed);
        for (driver, option, why) in [
            (JsonFile, ("max-file", "1"), "max-file is less than 2"),
            (JsonFile, ("max-size", "-1"), "max-size is not set"),
            (Local, ("max-file", "1"), "when max file count is 1"),
        ] {
            let error = parse(driver, &[("compress", "true"), option]).unwrap_err().message;
            assert!(error.contains(why), "{error}");
        }
        assert!(
            parse(JsonFile, &[("labels", "a"), ("env-regex", "^A"), ("tag", "{{.ID}}")]).is_ok()
        );
        assert!(parse(syslog, &[("mode", "non-blocking"), ("max-buffer-size", "4m")]).is_ok());
        for (driver, name, value, why) in [
            (JsonFile, "bogus", "1", "unknown log opt 'bogus' for json-file log driver"),
            (Local, "labels", "a", "unknown log opt 'labels' for local log driver"),
            (None, "max-size", "1m", "unknown log opt 'max-size' for none log driver"),
            (syslog, "max-size", "1m", "unknown log opt 'max-size' for syslog log driver"),
            (JsonFile, "cache-disabled", "1", "unknown log opt 'cache-disabled'"),
            (JsonFile, "mode", "maybe", "logging mode not supported: maybe"),
            (JsonFile, "max-buffer-size", "1m", "only supported with 'mode=non-blocking'"),
            (JsonFile, "compress", "x", "'compress'"),
            (syslog, "cache-compress", "x", "'cache-compress'"),
            (JsonFile, "labels-regex", "(", "labels-regex"),
            (JsonFile, "max-file", "0", "less than 1"),
            (JsonFile, "max-file", "101", "more than 100"),
            (JsonFile, "max-size", "x", "x"),
        ] {
            let error = parse(driver, &[(name, value)]).unwrap_err().message;
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_record_of_before_is_read_whatever_it_holds() {
        let recorded = r#"{"bogus":"1","max-file":"2","max-size":"?"}"#;
        let options: LogOptions = serde_json::from_str(recorded).unwrap();
        assert_eq!(options.recorded(LogDriver::JsonFile).unwrap().max_size, 10_000_000);
        assert_eq!(serde_json::to_string(&options).unwrap(), recorded);
        assert_eq!(serde_json::from_str::<LogDriver>("\"local\"").unwrap(), LogDriver::Local);
    }
}
