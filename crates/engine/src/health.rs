//! Health checks: what is asked for, what was found, and what follows from the result of a probe.
//! All of it is functions of values; `engine/health.rs` runs the probes.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use bulkhead_types::image::Healthcheck;
use bulkhead_types::{Id, Timestamp, go_duration_text};
use serde::{Deserialize, Serialize};

use crate::EngineError;

/// The label by which a container says what follows when it is found unhealthy: every client of
/// Docker's API can set one (`docker run -l`, Compose, ECS's `dockerLabels`).
pub const ON_FAILURE_LABEL: &str = "bulkhead.health-on-failure";

/// Docker's values where a check says none (moby: daemon/health.go).
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: u32 = 3;

/// The shortest duration that a check may say, in nanoseconds; 0 is the default.
const SHORTEST: i64 = 1_000_000;

/// How many results are kept.
const KEPT: usize = 5;

/// Bytes of a probe's output that are kept.
const LONGEST_OUTPUT: usize = 4096;

/// What is known of a container's health while it has a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    pub status: HealthStatus,
    /// Failures in a row; those of the start period do not count.
    pub failing_streak: u32,
    /// The last five, oldest first.
    #[serde(default)]
    pub log: Vec<HealthResult>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    Starting,
    Healthy,
    Unhealthy,
}

impl HealthStatus {
    /// Docker's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// What came of one probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthResult {
    pub start: Timestamp,
    pub end: Timestamp,
    /// -1 for a probe that was not started, or took too long.
    pub exit_code: i16,
    pub output: String,
}

/// What follows when a container is found unhealthy; Docker has none of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    #[default]
    None,
    /// It is stopped, and starts again whatever its restart policy is.
    Restart,
    /// As by `docker stop`: its restart policy leaves it alone.
    Stop,
    /// It is killed, and its restart policy decides.
    Kill,
}

impl FromStr for OnFailure {
    type Err = EngineError;

    fn from_str(text: &str) -> Result<Self, EngineError> {
        match text {
            "none" => Ok(Self::None),
            "restart" => Ok(Self::Restart),
            "stop" => Ok(Self::Stop),
            "kill" => Ok(Self::Kill),
            other => Err(EngineError::invalid(format!(
                "{other:?} is nothing to do on a failure of health: write none, restart, stop or kill"
            ))),
        }
    }
}

impl OnFailure {
    /// What the labels of a container say of it.
    pub(crate) fn of(labels: &BTreeMap<String, String>) -> Result<Self, EngineError> {
        match labels.get(ON_FAILURE_LABEL) {
            Some(text) => text.parse().map_err(|error: EngineError| {
                error.during(format_args!("the label {ON_FAILURE_LABEL}"))
            }),
            None => Ok(Self::None),
        }
    }
}

/// Refuses what no check can be; in moby's words (daemon/container.go, `validateHealthCheck`), but
/// for the forms of a test that moby takes and never runs.
pub(crate) fn validate(check: &Healthcheck) -> Result<(), EngineError> {
    for (name, value) in [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ] {
        if value != 0 && value < SHORTEST {
            return Err(EngineError::invalid(format!(
                "{name} in Healthcheck cannot be less than 1ms"
            )));
        }
    }
    if check.retries < 0 {
        return Err(EngineError::invalid("Retries in Healthcheck cannot be negative"));
    }
    match check.test.as_slice() {
        [] => Ok(()),
        [kind] if kind == "NONE" => Ok(()),
        [kind, ..] if kind == "NONE" => {
            Err(EngineError::invalid("Test in Healthcheck: NONE takes no command"))
        }
        [kind] if kind == "CMD" || kind == "CMD-SHELL" => {
            Err(EngineError::invalid(format!("Test in Healthcheck: {kind} takes a command")))
        }
        [kind, ..] if kind == "CMD" || kind == "CMD-SHELL" => Ok(()),
        [kind, ..] => Err(EngineError::invalid(format!(
            "Test in Healthcheck: {kind:?} is no kind of test: write NONE, CMD or CMD-SHELL"
        ))),
    }
}

/// What a container does not say of its check is the image's, member by member (moby:
/// daemon/commit.go, `merge`).
pub(crate) fn merge(own: &mut Option<Healthcheck>, image: Option<&Healthcheck>) {
    let Some(image) = image else { return };
    let Some(own) = own else {
        *own = Some(image.clone());
        return;
    };
    if own.test.is_empty() {
        own.test.clone_from(&image.test);
    }
    for (own, image) in [
        (&mut own.interval, image.interval),
        (&mut own.timeout, image.timeout),
        (&mut own.start_period, image.start_period),
        (&mut own.start_interval, image.start_interval),
        (&mut own.retries, image.retries),
    ] {
        if *own == 0 {
            *own = image;
        }
    }
}

/// A check with nothing left open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HealthCheck {
    pub command: Vec<String>,
    pub interval: Duration,
    pub timeout: Duration,
    pub start_period: Duration,
    pub start_interval: Duration,
    pub retries: u32,
}

impl HealthCheck {
    /// `None` where there is none, it is `NONE`, or an image has one of a kind that nobody knows.
    pub(crate) fn of(check: Option<&Healthcheck>, shell: Option<&[String]>) -> Option<Self> {
        let check = check?;
        let (kind, words) = check.test.split_first()?;
        let mut command = match kind.as_str() {
            "CMD" => Vec::new(),
            "CMD-SHELL" => match shell.filter(|shell| !shell.is_empty()) {
                Some(shell) => shell.to_vec(),
                None => vec!["/bin/sh".to_owned(), "-c".to_owned()],
            },
            _ => return None,
        };
        if words.is_empty() {
            return None;
        }
        command.extend_from_slice(words);
        let or = |nanoseconds: i64, default: Duration| match u64::try_from(nanoseconds) {
            Ok(0) | Err(_) => default,
            Ok(nanoseconds) => Duration::from_nanos(nanoseconds),
        };
        Some(Self {
            command,
            interval: or(check.interval, INTERVAL),
            timeout: or(check.timeout, TIMEOUT),
            start_period: or(check.start_period, Duration::ZERO),
            start_interval: or(check.start_interval, START_INTERVAL),
            retries: match u32::try_from(check.retries) {
                Ok(0) => RETRIES,
                Ok(retries) => retries,
                Err(_) if check.retries < 0 => RETRIES,
                Err(_) => u32::MAX,
            },
        })
    }

    /// How long to wait before the next probe, `ran` after the container's start.
    pub(crate) fn wait(&self, status: HealthStatus, ran: Duration) -> Duration {
        match status {
            HealthStatus::Starting if ran < self.start_period => self.start_interval,
            _ => self.interval,
        }
    }

    /// How much of a pause of `wait` is left to an engine that finds the container running, `since_last` after the end
    /// of its last probe. Where it is over, the probes of a thousand containers shall not all come at once: each has
    /// its own place in one pause, by the container's id.
    pub(crate) fn rest(wait: Duration, since_last: Duration, id: Id) -> Duration {
        match wait.checked_sub(since_last) {
            Some(rest) if !rest.is_zero() => rest,
            _ => {
                let digits = id.to_string();
                let place = digits.get(..4).and_then(|text| u16::from_str_radix(text, 16).ok());
                wait * u32::from(place.unwrap_or_default()) / (1 << 16)
            }
        }
    }

    /// What is known after a probe that began `ran` after the container's start.
    pub(crate) fn judge(&self, before: &Health, ran: Duration, result: HealthResult) -> Health {
        let (mut status, mut failing_streak) = (before.status, before.failing_streak);
        if result.exit_code == 0 {
            (status, failing_streak) = (HealthStatus::Healthy, 0);
        } else if status != HealthStatus::Starting || ran >= self.start_period {
            failing_streak = failing_streak.saturating_add(1);
            if failing_streak >= self.retries {
                status = HealthStatus::Unhealthy;
            }
        }
        let surplus = (before.log.len() + 1).saturating_sub(KEPT);
        let log = before.log.iter().skip(surplus).cloned().chain([result]).collect();
        Health { status, failing_streak, log }
    }

    /// The result of a probe that was ended because it took too long.
    pub(crate) fn too_late(&self, output: &str) -> String {
        let timeout = go_duration_text(self.timeout);
        match output {
            "" => format!("Health check exceeded timeout ({timeout})"),
            output => format!("Health check exceeded timeout ({timeout}): {output}"),
        }
    }
}

impl Health {
    /// At a container's start; the results of its last life stay, as Docker's do.
    pub(crate) fn starting(last: Option<Self>) -> Self {
        let log = last.map(|last| last.log).unwrap_or_default();
        Self { status: HealthStatus::Starting, failing_streak: 0, log }
    }

    /// At its end: one that nobody probes any more is not healthy (moby: container/health.go,
    /// `CloseMonitorChannel`).
    pub(crate) fn ended(self) -> Self {
        Self { status: HealthStatus::Unhealthy, ..self }
    }

    /// Whether another record of the same container has nothing else to say of what lasts. The
    /// results alone are not worth a write.
    pub(crate) fn is_as(&self, other: &Self) -> bool {
        (self.status, self.failing_streak) == (other.status, other.failing_streak)
    }

    /// What is to be done now: also when it was unhealthy already, since an engine that was to do it
    /// may have been killed.
    pub(crate) fn calls_for(&self, on_failure: OnFailure) -> OnFailure {
        let failed = self.log.last().is_some_and(|result| result.exit_code != 0);
        match self.status {
            HealthStatus::Unhealthy if failed => on_failure,
            _ => OnFailure::None,
        }
    }
}

/// Takes a probe's output out of its frames, and keeps the first 4,096 bytes of it.
#[derive(Debug, Default)]
pub(crate) struct ProbeOutput {
    header: Vec<u8>,
    /// Of the frame that is being read.
    left: usize,
    kept: Vec<u8>,
    is_cut: bool,
}

impl ProbeOutput {
    pub(crate) fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left == 0 {
                let (part, rest) = bytes.split_at(bytes.len().min(8 - self.header.len()));
                self.header.extend_from_slice(part);
                bytes = rest;
                if let [_, _, _, _, a, b, c, d] = self.header[..] {
                    self.left = u32::from_be_bytes([a, b, c, d]) as usize;
                    self.header.clear();
                }
                continue;
            }
            let (text, rest) = bytes.split_at(bytes.len().min(self.left));
            let room = LONGEST_OUTPUT - self.kept.len();
            self.kept.extend_from_slice(&text[..text.len().min(room)]);
            self.is_cut |= text.len() > room;
            self.left -= text.len();
            bytes = rest;
        }
    }

    /// With `...` where something is missing, as Docker has it.
    pub(crate) fn text(&self) -> String {
        let mut text = String::from_utf8_lossy(&self.kept).into_owned();
        if self.is_cut {
            text.push_str("...");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn asked(test: &[&str]) -> Healthcheck {
        let test = test.iter().map(|word| (*word).to_owned()).collect();
        Healthcheck { test, ..Healthcheck::default() }
    }

    fn check() -> HealthCheck {
        HealthCheck::of(Some(&asked(&["CMD", "true"])), None).unwrap()
    }

    fn result(exit_code: i16) -> HealthResult {
        let at = Timestamp::UNIX_EPOCH;
        HealthResult { start: at, end: at, exit_code, output: String::new() }
    }

    fn health(status: HealthStatus, failing_streak: u32) -> Health {
        Health { status, failing_streak, log: Vec::new() }
    }

    #[test]
    fn the_probes_of_many_are_spread_after_a_restart() {
        let (wait, seconds) = (Duration::from_secs(30), Duration::from_secs);
        let id = Id::random();
        assert_eq!(HealthCheck::rest(wait, seconds(0), id), wait);
        assert_eq!(HealthCheck::rest(wait, seconds(29), id), seconds(1));
        let mut places = [0; 10];
        for _ in 0..1000 {
            let rest = HealthCheck::rest(wait, seconds(3600), Id::random());
            assert!(rest < wait);
            places[(rest.as_secs() / 3) as usize] += 1;
        }
        assert!(places.iter().all(|count| (40..180).contains(count)), "{places:?}");
    }

    #[test]
    fn what_a_check_is() {
        let command = |test: &[&str], shell: Option<&[&str]>| {
            let shell =
                shell.map(|it| it.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
            HealthCheck::of(Some(&asked(test)), shell.as_deref()).map(|it| it.command.join(" "))
        };
        for (test, shell, runs) in [
            (&["CMD", "a", "b c"][..], None, Some("a b c")),
            (&["CMD-SHELL", "a || b"], None, Some("/bin/sh -c a || b")),
            (
                &["CMD-SHELL", "a"],
                Some(&["/bin/ash", "-eo", "pipefail", "-c"][..]),
                Some("/bin/ash -eo pipefail -c a"),
            ),
            (&["CMD-SHELL", "a"], Some(&[]), Some("/bin/sh -c a")),
            (&["CMD", "a"], Some(&["/bin/ash", "-c"]), Some("a")),
            (&["NONE"], None, None),
            (&[], None, None),
            (&["CMD"], None, None),
            (&["HTTP", "x"], None, None),
        ] {
            assert_eq!(command(test, shell).as_deref(), runs, "{test:?}");
        }
        assert_eq!(HealthCheck::of(None, None), None);
        let whole = HealthCheck::of(
            Some(&Healthcheck {
                interval: 2 * SECOND,
                timeout: SECOND / 2,
                start_period: 60 * SECOND,
                start_interval: SECOND,
                retries: 7,
                ..asked(&["CMD", "true"])
            }),
            None,
        );
        let seconds = Duration::from_secs_f64;
        assert_eq!(
            whole,
            Some(HealthCheck {
                interval: seconds(2.0),
                timeout: seconds(0.5),
                start_period: seconds(60.0),
                start_interval: seconds(1.0),
                retries: 7,
                ..check()
            })
        );
        assert_eq!(
            check(),
            HealthCheck {
                command: vec!["true".to_owned()],
                interval: seconds(30.0),
                timeout: seconds(30.0),
                start_period: seconds(0.0),
                start_interval: seconds(5.0),
                retries: 3,
            }
        );
    }

    #[test]
    fn what_no_check_can_be() {
        let with = |change: &dyn Fn(&mut Healthcheck)| {
            let mut check = asked(&["CMD", "true"]);
            change(&mut check);
            validate(&check).map_err(|error| error.message)
        };
        for (change, why) in [
            (
                &(|it: &mut Healthcheck| it.interval = 999_999) as &dyn Fn(&mut Healthcheck),
                "Interval in Healthcheck cannot be less than 1ms",
            ),
            (&|it| it.timeout = -1, "Timeout in Healthcheck cannot be less than 1ms"),
            (&|it| it.start_period = 1, "StartPeriod in Healthcheck cannot be less than 1ms"),
            (&|it| it.start_interval = 1, "StartInterval in Healthcheck cannot be less than 1ms"),
            (&|it| it.retries = -1, "Retries in Healthcheck cannot be negative"),
            (
                &|it| it.test = asked(&["HTTP", "x"]).test,
                "Test in Healthcheck: \"HTTP\" is no kind of test: write NONE, CMD or CMD-SHELL",
            ),
            (&|it| it.test = asked(&["CMD"]).test, "Test in Healthcheck: CMD takes a command"),
            (
                &|it| it.test = asked(&["NONE", "x"]).test,
                "Test in Healthcheck: NONE takes no command",
            ),
        ] {
            assert_eq!(with(change), Err(why.to_owned()));
        }
        for test in [&[][..], &["NONE"], &["CMD", "x"], &["CMD-SHELL", "x y"]] {
            assert!(validate(&Healthcheck { interval: SHORTEST, ..asked(test) }).is_ok());
        }
    }

    #[test]
    fn each_member_is_inherited_by_itself() {
        let image = Healthcheck { interval: 1, timeout: 2, retries: 3, ..asked(&["CMD", "image"]) };
        for (own, merged) in [
            (None, image.clone()),
            (
                Some(Healthcheck { timeout: 9, start_period: 8, ..Healthcheck::default() }),
                Healthcheck { timeout: 9, start_period: 8, ..image.clone() },
            ),
            (Some(asked(&["NONE"])), Healthcheck { test: asked(&["NONE"]).test, ..image.clone() }),
            (
                Some(Healthcheck { retries: 4, ..asked(&["CMD", "own"]) }),
                Healthcheck { test: asked(&["CMD", "own"]).test, retries: 4, ..image.clone() },
            ),
        ] {
            let mut check = own;
            merge(&mut check, Some(&image));
            assert_eq!(check, Some(merged));
        }
        let mut own = Some(asked(&["CMD", "own"]));
        merge(&mut own, None);
        assert_eq!(own, Some(asked(&["CMD", "own"])));
    }

    #[test]
    fn the_next_state_follows_from_the_last_and_the_result() {
        use HealthStatus::{Healthy, Starting, Unhealthy};
        let check = HealthCheck { start_period: Duration::from_secs(10), ..check() };
        // before, seconds since the start, exit code → after
        for (before, ran, code, after) in [
            ((Starting, 0), 1, 0, (Healthy, 0)),
            ((Starting, 0), 1, 1, (Starting, 0)),
            ((Starting, 0), 9, -1, (Starting, 0)),
            ((Starting, 0), 10, 1, (Starting, 1)),
            ((Starting, 2), 10, 1, (Unhealthy, 3)),
            // Once it was healthy, its start is over.
            ((Healthy, 0), 1, 1, (Healthy, 1)),
            ((Healthy, 1), 1, 0, (Healthy, 0)),
            ((Healthy, 2), 60, 7, (Unhealthy, 3)),
            ((Healthy, 2), 60, -1, (Unhealthy, 3)),
            ((Unhealthy, 3), 60, 1, (Unhealthy, 4)),
            ((Unhealthy, 9), 60, 0, (Healthy, 0)),
            ((Unhealthy, u32::MAX), 60, 1, (Unhealthy, u32::MAX)),
        ] {
            let judged =
                check.judge(&health(before.0, before.1), Duration::from_secs(ran), result(code));
            assert_eq!((judged.status, judged.failing_streak), after, "{before:?} {ran} {code}");
            assert_eq!(judged.log, [result(code)]);
        }
    }

    #[test]
    fn the_last_five_results_are_kept() {
        let mut known = Health::starting(None);
        for code in 1..=7 {
            known = check().judge(&known, Duration::ZERO, result(code));
        }
        let codes: Vec<i16> = known.log.iter().map(|result| result.exit_code).collect();
        assert_eq!(codes, [3, 4, 5, 6, 7]);
        let again = Health::starting(Some(known.clone().ended()));
        assert_eq!((again.status, again.failing_streak), (HealthStatus::Starting, 0));
        assert_eq!(again.log, known.log);
        assert_eq!(known.ended().status, HealthStatus::Unhealthy);
    }

    #[test]
    fn probes_are_closer_in_the_start_period() {
        let seconds = Duration::from_secs;
        let check = HealthCheck {
            start_period: seconds(10),
            start_interval: seconds(2),
            interval: seconds(7),
            ..check()
        };
        for (status, ran, wait) in [
            (HealthStatus::Starting, 0, 2),
            (HealthStatus::Starting, 9, 2),
            (HealthStatus::Starting, 10, 7),
            (HealthStatus::Healthy, 0, 7),
            (HealthStatus::Unhealthy, 0, 7),
        ] {
            assert_eq!(check.wait(status, seconds(ran)), seconds(wait), "{status:?} {ran}");
        }
        let without = HealthCheck { start_period: Duration::ZERO, ..check };
        assert_eq!(without.wait(HealthStatus::Starting, Duration::ZERO), seconds(7));
    }

    #[test]
    fn something_is_done_only_about_a_failure() {
        let with = |status, code| Health { log: vec![result(code)], ..health(status, 3) };
        for (known, does) in [
            (with(HealthStatus::Unhealthy, 1), OnFailure::Restart),
            (with(HealthStatus::Unhealthy, -1), OnFailure::Restart),
            (with(HealthStatus::Healthy, 1), OnFailure::None),
            (with(HealthStatus::Starting, 1), OnFailure::None),
            (with(HealthStatus::Healthy, 0), OnFailure::None),
        ] {
            assert_eq!(known.calls_for(OnFailure::Restart), does, "{known:?}");
        }
        let label = |value: &str| {
            OnFailure::of(&BTreeMap::from([(ON_FAILURE_LABEL.to_owned(), value.to_owned())]))
        };
        assert_eq!(label("kill").unwrap(), OnFailure::Kill);
        assert_eq!(OnFailure::of(&BTreeMap::new()).unwrap(), OnFailure::None);
        assert_eq!(
            label("Restart").unwrap_err().message,
            "the label bulkhead.health-on-failure: \"Restart\" is nothing to do on a failure of \
             health: write none, restart, stop or kill"
        );
    }

    #[test]
    fn output_is_taken_out_of_its_frames_and_cut() {
        let frame = |stream: u8, text: &[u8]| {
            let length = u32::try_from(text.len()).unwrap().to_be_bytes();
            [&[stream, 0, 0, 0][..], &length, text].concat()
        };
        let bytes = [frame(1, b"out "), frame(2, b"err"), frame(1, b"")].concat();
        for step in [1, 3, 8, 100] {
            let mut output = ProbeOutput::default();
            bytes.chunks(step).for_each(|some| output.push(some));
            assert_eq!(output.text(), "out err");
        }
        let mut output = ProbeOutput::default();
        output.push(&frame(1, &[b'x'; LONGEST_OUTPUT]));
        assert_eq!(output.text(), "x".repeat(4096));
        output.push(&frame(2, b"y"));
        assert_eq!(output.text(), "x".repeat(4096) + "...");
        let late = HealthCheck { timeout: Duration::from_millis(1500), ..check() };
        assert_eq!(late.too_late(""), "Health check exceeded timeout (1.5s)");
        assert_eq!(late.too_late("a"), "Health check exceeded timeout (1.5s): a");
    }
}
