//! The flags of health checks: docker's, and podman's `--health-on-failure`.

use std::collections::BTreeMap;

use bulkhead_docker_types::Healthcheck;
use bulkhead_types::go_duration;
use clap::Args;

use crate::failure::Failure;

/// The engine's: by a label, any of Docker's clients can say it as well.
const ON_FAILURE_LABEL: &str = "bulkhead.health-on-failure";

#[derive(Debug, Default, Args)]
pub struct HealthArguments {
    /// Command that tells whether it is healthy, for a shell in the container
    #[arg(long)]
    health_cmd: Option<String>,
    /// Time between two checks, such as 5s or 1m30s [default: the image's, else 30s]
    #[arg(long, allow_hyphen_values = true)]
    health_interval: Option<String>,
    /// Most that one check may take [default: the image's, else 30s]
    #[arg(long, allow_hyphen_values = true)]
    health_timeout: Option<String>,
    /// Failures in a row that make it unhealthy [default: the image's, else 3]
    #[arg(long, allow_hyphen_values = true)]
    health_retries: Option<i64>,
    /// Time after its start in which failures do not count
    #[arg(long, allow_hyphen_values = true)]
    health_start_period: Option<String>,
    /// Time between two checks in the start period [default: the image's, else 5s]
    #[arg(long, allow_hyphen_values = true)]
    health_start_interval: Option<String>,
    /// Do without the image's check
    #[arg(long)]
    no_healthcheck: bool,
    /// What to do when it is unhealthy: none, restart, stop, kill
    #[arg(long)]
    health_on_failure: Option<String>,
}

impl HealthArguments {
    /// The check that is asked for, by the rules of docker's CLI (docker/cli:
    /// cli/command/container/opts.go).
    pub fn check(&self) -> Result<Option<Healthcheck>, Failure> {
        let time = |name: &str, flag: &Option<String>| match flag.as_deref() {
            None => Ok(0),
            Some(text) => match go_duration(text) {
                Some(nanoseconds @ 0..) => Ok(nanoseconds),
                Some(_) => Err(Failure::new(format!("--health-{name} cannot be negative"))),
                None => Err(Failure::new(format!(
                    "invalid duration {text:?} of --health-{name}: write one such as 5s, 1m30s or 500ms"
                ))),
            },
        };
        let check = Healthcheck {
            test: match self.health_cmd.as_deref() {
                None | Some("") => Vec::new(),
                Some(command) => vec!["CMD-SHELL".to_owned(), command.to_owned()],
            },
            interval: time("interval", &self.health_interval)?,
            timeout: time("timeout", &self.health_timeout)?,
            start_period: time("start-period", &self.health_start_period)?,
            start_interval: time("start-interval", &self.health_start_interval)?,
            retries: match self.health_retries {
                Some(..0) => return Err(Failure::new("--health-retries cannot be negative")),
                retries => retries.unwrap_or(0),
            },
        };
        let says = check != Healthcheck::default();
        if self.no_healthcheck {
            if says {
                return Err(Failure::new("--no-healthcheck conflicts with --health-* options"));
            }
            return Ok(Some(Healthcheck { test: vec!["NONE".to_owned()], ..check }));
        }
        Ok(says.then_some(check))
    }

    /// Adds what is to follow; the engine knows the words.
    pub fn label(&self, labels: &mut BTreeMap<String, String>) {
        if let Some(on_failure) = &self.health_on_failure {
            labels.insert(ON_FAILURE_LABEL.to_owned(), on_failure.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(change: impl FnOnce(&mut HealthArguments)) -> Result<Option<Healthcheck>, String> {
        let mut arguments = HealthArguments::default();
        change(&mut arguments);
        arguments.check().map_err(|failure| failure.message)
    }

    #[test]
    fn flags_read_like_docker() {
        assert_eq!(flags(|_| ()), Ok(None));
        assert_eq!(
            flags(|it| {
                it.health_cmd = Some("test -e /x".into());
                it.health_interval = Some("1m30s".into());
                it.health_start_interval = Some("500ms".into());
                it.health_retries = Some(2);
            }),
            Ok(Some(Healthcheck {
                test: vec!["CMD-SHELL".into(), "test -e /x".into()],
                interval: 90_000_000_000,
                start_interval: 500_000_000,
                retries: 2,
                ..Healthcheck::default()
            }))
        );
        // The test is the image's.
        let own = Healthcheck { timeout: 1_000_000_000, ..Healthcheck::default() };
        assert_eq!(flags(|it| it.health_timeout = Some("1s".into())), Ok(Some(own)));
        let none = Healthcheck { test: vec!["NONE".into()], ..Healthcheck::default() };
        assert_eq!(flags(|it| it.no_healthcheck = true), Ok(Some(none)));
        for (wrong, why) in [
            (
                flags(|it| (it.no_healthcheck, it.health_retries) = (true, Some(1))),
                "--no-healthcheck conflicts with --health-* options",
            ),
            (flags(|it| it.health_retries = Some(-1)), "--health-retries cannot be negative"),
            (
                flags(|it| it.health_timeout = Some("-1s".into())),
                "--health-timeout cannot be negative",
            ),
            (
                flags(|it| it.health_interval = Some("5".into())),
                "invalid duration \"5\" of --health-interval: write one such as 5s, 1m30s or 500ms",
            ),
        ] {
            assert_eq!(wrong, Err(why.to_owned()));
        }
        let mut labels = BTreeMap::new();
        HealthArguments::default().label(&mut labels);
        assert!(labels.is_empty());
        let arguments =
            HealthArguments { health_on_failure: Some("kill".into()), ..Default::default() };
        arguments.label(&mut labels);
        assert_eq!(labels["bulkhead.health-on-failure"], "kill");
    }
}
