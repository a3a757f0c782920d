//! Whether a container that has ended starts again: a pure function of its policy and history.

use std::time::Duration;

use crate::RestartPolicy;

/// How a container came to its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub exit_code: u8,
    /// Restarts by policy since the user last started it.
    pub restarts: u32,
    /// `docker stop` or `docker kill` ended it.
    pub stopped_by_user: bool,
    pub ran: Duration,
    /// The wait before its last start; zero if a user started it.
    pub last_wait: Duration,
}

/// How long to wait before the next start; `None` leaves it as it is.
pub(crate) fn decide(policy: &RestartPolicy, ended: Ended) -> Option<Duration> {
    let again = match policy.name.as_str() {
        "always" | "unless-stopped" => !ended.stopped_by_user,
        "on-failure" => {
            !ended.stopped_by_user
                && ended.exit_code != 0
                && (policy.maximum_retries == 0 || ended.restarts < policy.maximum_retries)
        }
        _ => false,
    };
    // A container that ran this long was well, so its next failure starts the count anew
    // (moby: restartmanager.go, backoffMultiplier and defaultTimeout).
    let was_well = ended.ran >= Duration::from_secs(10);
    let wait = if ended.last_wait.is_zero() || was_well { FIRST } else { ended.last_wait * 2 };
    again.then_some(wait.min(LONGEST))
}

/// Whether an engine that opens starts the container: it was not running, so only the policies
/// that outlive the engine count.
pub(crate) fn starts_with_engine(policy: &RestartPolicy, stopped_by_user: bool) -> bool {
    match policy.name.as_str() {
        "always" => true,
        "unless-stopped" => !stopped_by_user,
        _ => false,
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
            ran: Duration::from_secs(1),
            last_wait: Duration::ZERO,
        };
        let failed = Ended { exit_code: 1, ..well };
        let stopped = Ended { stopped_by_user: true, exit_code: 137, ..well };
        let third = Ended { restarts: 3, ..failed };
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
        ] {
            let policy = RestartPolicy { name: name.into(), maximum_retries: retries };
            assert_eq!(decide(&policy, ended).is_some(), again, "{name} {retries} {ended:?}");
        }
    }

    #[test]
    fn the_wait_doubles_to_a_minute_and_starts_anew_after_ten_good_seconds() {
        let policy = RestartPolicy { name: "always".into(), maximum_retries: 0 };
        let mut ended = Ended {
            exit_code: 1,
            restarts: 0,
            stopped_by_user: false,
            ran: Duration::ZERO,
            last_wait: Duration::ZERO,
        };
        let mut waits = Vec::new();
        for _ in 0..12 {
            ended.last_wait = decide(&policy, ended).unwrap();
            waits.push(ended.last_wait.as_millis());
        }
        assert_eq!(waits[..4], [100, 200, 400, 800]);
        assert_eq!(waits[11], 60_000);
        ended.ran = Duration::from_secs(10);
        assert_eq!(decide(&policy, ended), Some(FIRST));
    }
}
