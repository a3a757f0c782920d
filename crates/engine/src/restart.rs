//! Whether a container that has ended starts again: a pure function of its policy and history.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::EngineError;

/// `--restart`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Recorded", into = "Recorded")]
pub enum RestartPolicy {
    #[default]
    No,
    /// After a failure, at most so often; 0 is always again.
    OnFailure {
        maximum_retries: u32,
    },
    Always,
    UnlessStopped,
}

impl RestartPolicy {
    /// Reads Docker's pair: a name, empty for `no`, and a count that only `on-failure` has.
    ///
    /// # Errors
    /// Where the name is none, or the count has no meaning.
    pub fn parse(name: &str, maximum_retries: i64) -> Result<Self, EngineError> {
        let invalid = |why: String| EngineError::invalid(format!("invalid restart policy: {why}"));
        let policy = match name {
            "" | "no" => Self::No,
            "always" => Self::Always,
            "unless-stopped" => Self::UnlessStopped,
            "on-failure" => {
                let maximum_retries = u32::try_from(maximum_retries).map_err(|_| {
                    let what = if maximum_retries < 0 { "negative" } else { "so large" };
                    invalid(format!("maximum retry count cannot be {what}"))
                })?;
                return Ok(Self::OnFailure { maximum_retries });
            }
            other => {
                return Err(invalid(format!(
                    "unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or \
                     'unless-stopped'"
                )));
            }
        };
        if maximum_retries != 0 {
            return Err(invalid(
                "maximum retry count can only be used with 'on-failure'".to_owned(),
            ));
        }
        Ok(policy)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::OnFailure { .. } => "on-failure",
            Self::Always => "always",
            Self::UnlessStopped => "unless-stopped",
        }
    }

    pub fn maximum_retries(self) -> u32 {
        match self {
            Self::OnFailure { maximum_retries } => maximum_retries,
            _ => 0,
        }
    }
}

/// A policy as the store has it.
#[derive(Serialize, Deserialize)]
struct Recorded {
    name: String,
    maximum_retries: u32,
}

impl TryFrom<Recorded> for RestartPolicy {
    type Error = EngineError;

    fn try_from(recorded: Recorded) -> Result<Self, EngineError> {
        Self::parse(&recorded.name, recorded.maximum_retries.into())
    }
}

impl From<RestartPolicy> for Recorded {
    fn from(policy: RestartPolicy) -> Self {
        Self { name: policy.name().to_owned(), maximum_retries: policy.maximum_retries() }
    }
}

/// How a container came to its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub exit_code: u8,
    /// Restarts by policy since the user last started it.
    pub restarts: u32,
    /// `docker stop` or `docker kill` ended it.
    pub stopped_by_user: bool,
    /// Its health check ended it, to start it anew.
    pub unhealthy: bool,
    pub ran: Duration,
    /// The wait before its last start; zero if a user started it.
    pub last_wait: Duration,
}

/// How long to wait before the next start; `None` leaves it as it is.
pub(crate) fn decide(policy: RestartPolicy, ended: Ended) -> Option<Duration> {
    let again = match policy {
        RestartPolicy::No => false,
        RestartPolicy::Always | RestartPolicy::UnlessStopped => !ended.stopped_by_user,
        RestartPolicy::OnFailure { maximum_retries } => {
            !ended.stopped_by_user
                && ended.exit_code != 0
                && (maximum_retries == 0 || ended.restarts < maximum_retries)
        }
    };
    let again = again || ended.unhealthy && !ended.stopped_by_user;
    // A container that ran this long was well, so its next failure starts the count anew
    // (moby: restartmanager.go, backoffMultiplier and defaultTimeout).
    let was_well = ended.ran >= Duration::from_secs(10);
    let wait = if ended.last_wait.is_zero() || was_well { FIRST } else { ended.last_wait * 2 };
    again.then_some(wait.min(LONGEST))
}

/// Whether an engine that opens starts the container: it was not running, so only the policies
/// that outlive the engine count.
pub(crate) fn starts_with_engine(policy: RestartPolicy, stopped_by_user: bool) -> bool {
    match policy {
        RestartPolicy::Always => true,
        RestartPolicy::UnlessStopped => !stopped_by_user,
        RestartPolicy::No | RestartPolicy::OnFailure { .. } => false,
    }
}

/// The wait after a start by policy that failed for a reason of the machine's, such as a full disk.
pub(crate) fn wait_after_failure(last_wait: Duration) -> Duration {
    (last_wait * 2).clamp(FIRST, LONGEST)
}

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_table() {
        let well = Ended {
            exit_code: 0,
            restarts: 0,
            stopped_by_user: false,
            unhealthy: false,
            ran: Duration::from_secs(1),
            last_wait: Duration::ZERO,
        };
        let failed = Ended { exit_code: 1, ..well };
        let stopped = Ended { stopped_by_user: true, exit_code: 137, ..well };
        let third = Ended { restarts: 3, ..failed };
        let unhealthy = Ended { unhealthy: true, exit_code: 143, ..well };
        let stopped_then = Ended { unhealthy: true, ..stopped };
        for (name, retries, ended, again) in [
            ("", 0, failed, false),
            ("no", 0, failed, false),
            ("always", 0, well, true),
            ("always", 0, stopped, false),
            ("unless-stopped", 0, failed, true),
            ("unless-stopped", 0, stopped, false),
            ("on-failure", 0, well, false),
            ("on-failure", 0, third, true),
            ("on-failure", 3, third, false),
            ("on-failure", 4, third, true),
            ("on-failure", 0, stopped, false),
            ("no", 0, unhealthy, true),
            ("on-failure", 3, Ended { restarts: 9, ..unhealthy }, true),
            ("no", 0, stopped_then, false),
            ("always", 0, stopped_then, false),
        ] {
            let policy = RestartPolicy::parse(name, retries).unwrap();
            assert_eq!(decide(policy, ended).is_some(), again, "{name} {retries} {ended:?}");
        }
    }

    #[test]
    fn the_wait_doubles_to_a_minute_and_starts_anew_after_ten_good_seconds() {
        let policy = RestartPolicy::Always;
        let mut ended = Ended {
            exit_code: 1,
            restarts: 0,
            stopped_by_user: false,
            unhealthy: false,
            ran: Duration::ZERO,
            last_wait: Duration::ZERO,
        };
        let mut waits = Vec::new();
        for _ in 0..12 {
            ended.last_wait = decide(policy, ended).unwrap();
            waits.push(ended.last_wait.as_millis());
        }
        assert_eq!(waits[..4], [100, 200, 400, 800]);
        assert_eq!(waits[11], 60_000);
        ended.ran = Duration::from_secs(10);
        assert_eq!(decide(policy, ended), Some(FIRST));
    }

    #[test]
    fn a_policy_is_a_name_and_for_failures_a_count() {
        for (name, count, why) in [
            ("sometimes", 0, "unknown policy 'sometimes'"),
            ("always", 1, "only be used with 'on-failure'"),
            ("", -1, "only be used with 'on-failure'"),
            ("on-failure", -1, "cannot be negative"),
            ("on-failure", i64::MAX, "cannot be so large"),
        ] {
            let error = RestartPolicy::parse(name, count).unwrap_err().message;
            assert!(error.contains(why), "{error}");
        }
        let recorded = r#"{"name":"on-failure","maximum_retries":3}"#;
        let policy: RestartPolicy = serde_json::from_str(recorded).unwrap();
        assert_eq!(policy, RestartPolicy::OnFailure { maximum_retries: 3 });
        assert_eq!(serde_json::to_string(&policy).unwrap(), recorded);
        let none: RestartPolicy =
            serde_json::from_str(r#"{"name":"","maximum_retries":0}"#).unwrap();
        assert_eq!(none, RestartPolicy::No);
    }
}
