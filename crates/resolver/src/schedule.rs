//! Which server is asked when: a function of values.
//!
//! The first is preferred, as resolv.conf(5) has it: a server further down may not know a company's own
//! names, and its "no such name" would win a race. But nobody waits for one that is silent: after a
//! moment the next is asked too, and the first good answer counts. Docker asks one after the other, four
//! seconds each (moby: libnetwork/resolver.go, `extIOTimeout`); most clients have given up by then.

use std::time::{Duration, Instant};

/// The servers of one question, in their order.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    /// Those that have kept a client waiting lately come last.
    order: Vec<usize>,
    started: Instant,
    /// How many are asked in this round.
    asked: usize,
    round: usize,
    next_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Ask this server, and look again at once.
    Ask(usize),
    Wait(Instant),
    GiveUp,
}

impl Schedule {
    /// `is_slow` says of each server whether it was silent lately.
    pub fn new(is_slow: &[bool], now: Instant) -> Self {
        let mut order: Vec<usize> = (0..is_slow.len()).collect();
        order.sort_by_key(|server| is_slow[*server]);
        Self { order, started: now, asked: 0, round: 0, next_at: Some(now) }
    }

    /// What to do now.
    pub fn step(&mut self, now: Instant) -> Step {
        let end = self.started + GIVE_UP;
        if now >= end {
            return Step::GiveUp;
        }
        if self.asked == self.order.len() && self.round + 1 < ROUNDS.len() {
            let again = self.started + ROUNDS[self.round + 1];
            if now >= again {
                (self.round, self.asked, self.next_at) = (self.round + 1, 0, Some(again));
            }
        }
        match self.next_at {
            Some(at) if now >= at && self.asked < self.order.len() => {
                let server = self.order[self.asked];
                self.asked += 1;
                // those that were silent once are not given time again
                let patience = if self.round == 0 { PATIENCE } else { Duration::ZERO };
                self.next_at = (self.asked < self.order.len()).then(|| now + patience);
                Step::Ask(server)
            }
            Some(at) if self.asked < self.order.len() => Step::Wait(at.min(end)),
            _ => {
                let again = ROUNDS.get(self.round + 1).map(|after| self.started + *after);
                Step::Wait(again.map_or(end, |again| again.min(end)))
            }
        }
    }

    /// A server has failed: the next is asked at once. `false` if there is none left, and, with nobody
    /// else to answer (`waiting`), nothing more to wait for.
    pub fn failed(&mut self, waiting: bool, now: Instant) -> bool {
        if self.asked < self.order.len() {
            self.next_at = Some(now);
            return true;
        }
        waiting
    }
}

/// How long a server is waited for before the next is asked too.
const PATIENCE: Duration = Duration::from_millis(300);

/// When all are asked again: a packet may have been lost.
const ROUNDS: [Duration; 3] =
    [Duration::ZERO, Duration::from_millis(1500), Duration::from_millis(3000)];

/// Before clients do, who wait for 5 s (resolv.conf(5), `timeout`).
const GIVE_UP: Duration = Duration::from_millis(4500);

#[cfg(test)]
mod tests {
    use super::*;

    /// What is asked when, in milliseconds, if nobody ever answers.
    fn asked(is_slow: &[bool]) -> Vec<(u64, usize)> {
        let start = Instant::now();
        let mut schedule = Schedule::new(is_slow, start);
        let (mut now, mut all) = (start, Vec::new());
        loop {
            match schedule.step(now) {
                Step::Ask(server) => {
                    all.push((now.duration_since(start).as_millis() as u64, server));
                }
                Step::Wait(until) => {
                    assert!(until > now, "it stands still");
                    now = until;
                }
                Step::GiveUp => {
                    all.push((now.duration_since(start).as_millis() as u64, usize::MAX));
                    return all;
                }
            }
        }
    }

    #[test]
    fn silent_servers_are_asked_again_and_given_up() {
        let end = (4500, usize::MAX);
        assert_eq!(asked(&[false]), [(0, 0), (1500, 0), (3000, 0), end]);
        let two = [(0, 0), (300, 1), (1500, 0), (1500, 1), (3000, 0), (3000, 1), end];
        assert_eq!(asked(&[false, false]), two);
        let slow = [(0, 1), (300, 0), (1500, 1), (1500, 0), (3000, 1), (3000, 0), end];
        assert_eq!(asked(&[true, false]), slow);
    }

    #[test]
    fn after_a_failure_the_next_is_asked_at_once() {
        let now = Instant::now();
        let mut schedule = Schedule::new(&[false, false], now);
        assert_eq!(schedule.step(now), Step::Ask(0));
        assert!(schedule.failed(false, now));
        assert_eq!(schedule.step(now), Step::Ask(1));
        // the first is out, the second may still answer
        assert!(schedule.failed(true, now));
        assert!(!schedule.failed(false, now));
    }
}
