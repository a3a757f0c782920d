//! `--log-driver` and `--log-opt` of the drivers that send.

use std::collections::BTreeMap;

use crate::options::{OptionError, Own, Remote};
use crate::origin::Selection;
use crate::{awslogs, fluentd, gelf, syslog};

/// Where a log goes, with all that was said of it.
#[derive(Debug, Clone)]
pub enum Destination {
    Awslogs(Box<awslogs::Options>),
    Fluentd(fluentd::Options),
    Gelf(gelf::Options),
    Journald,
    Syslog(syslog::Options),
}

impl Destination {
    /// Reads the options of a driver. What is about the log on this machine (`mode`, `cache-…`) is its
    /// caller's, and not in `given`.
    ///
    /// # Errors
    /// Names an option that the driver does not have, or that is wrong or not done.
    pub fn parse(
        remote: Remote,
        given: &BTreeMap<String, String>,
    ) -> Result<(Self, Selection), OptionError> {
        let selection = Selection::parse(given)?;
        let own = given.iter().filter(|(name, _)| !Selection::NAMES.contains(&name.as_str()));
        let own = own.map(|(name, value)| (name.as_str(), value.as_str()));
        let mut own = Own::new(remote, own.collect());
        let destination = match remote {
            Remote::Awslogs => Self::Awslogs(Box::new(awslogs::Options::parse(&mut own)?)),
            Remote::Fluentd => Self::Fluentd(fluentd::Options::parse(&mut own)?),
            Remote::Gelf => Self::Gelf(gelf::Options::parse(&mut own)?),
            Remote::Journald => Self::Journald,
            Remote::Syslog => Self::Syslog(syslog::Options::parse(&mut own)?),
        };
        match own.left() {
            Some(unknown) => Err(OptionError::Invalid(format!(
                "unknown log opt '{unknown}' for {} log driver",
                remote.name()
            ))),
            None => Ok((destination, selection)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(remote: Remote, options: &[(&str, &str)]) -> Result<Destination, OptionError> {
        let given = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Destination::parse(remote, &given.collect()).map(|(destination, _)| destination)
    }

    #[test]
    fn every_option_is_done_or_refused_by_name() {
        use Remote::{Awslogs, Fluentd, Gelf, Journald, Syslog};
        for (remote, options) in [
            (Syslog, &[][..]),
            (Syslog, &[("syslog-address", "udp://h:1514"), ("syslog-format", "rfc5424micro")]),
            (Syslog, &[("syslog-address", "unixgram:///dev/log"), ("syslog-facility", "local3")]),
            (Syslog, &[("syslog-address", "tcp+tls://h"), ("syslog-tls-skip-verify", "true")]),
            (Journald, &[("tag", "{{.Name}}"), ("labels", "a,b"), ("env-regex", "^A")]),
            (Fluentd, &[("fluentd-address", "h:1"), ("fluentd-async", "true")]),
            (Fluentd, &[("fluentd-address", "unix:///s"), ("fluentd-buffer-limit", "8MB")]),
            (Gelf, &[("gelf-address", "udp://h:12201"), ("gelf-compression-type", "zlib")]),
            (Gelf, &[("gelf-address", "tcp://h:12201"), ("gelf-tcp-max-reconnect", "3")]),
            (Awslogs, &[("awslogs-group", "g"), ("awslogs-region", "r")]),
        ] {
            assert!(parse(remote, options).is_ok(), "{options:?}");
        }
        for (remote, options, why) in [
            (Syslog, &[("bogus", "1")][..], "unknown log opt 'bogus' for syslog log driver"),
            (Syslog, &[("syslog-address", "http://h")], "unsupported scheme"),
            (Syslog, &[("syslog-address", "unix://s")], "absolute"),
            (Syslog, &[("syslog-facility", "99")], "facility"),
            (Syslog, &[("syslog-format", "x")], "Invalid syslog format"),
            (Journald, &[("syslog-address", "udp://h")], "'syslog-address' for journald"),
            (Journald, &[("tag", "{{.Nope")], "tag"),
            (Journald, &[("tag", "{{.Nope}}")], "tag"),
            (Journald, &[("labels-regex", "(")], "labels-regex"),
            (Fluentd, &[("fluentd-address", "http://h")], "unsupported scheme"),
            (Fluentd, &[("fluentd-async", "maybe")], "fluentd-async"),
            (Gelf, &[], "gelf-address is a required parameter"),
            (Gelf, &[("gelf-address", "tcp://h:1"), ("gelf-compression-type", "gzip")], "UDP"),
            (Gelf, &[("gelf-address", "udp://h:1"), ("gelf-tcp-max-reconnect", "1")], "TCP"),
            (Gelf, &[("gelf-address", "udp://h")], "proto://host:port"),
            (Awslogs, &[], "awslogs-group"),
            (Awslogs, &[("awslogs-group", "g"), ("awslogs-datetime-format", "x")], "not supported"),
            (Awslogs, &[("awslogs-group", "g"), ("awslogs-stream", "a:b")], "awslogs-stream"),
        ] {
            let error = parse(remote, options).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
