//! Answers of servers, for as long as they say (RFC 1035, 7.4; RFC 2308 for what does not exist).

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::raw;

/// Bounded by its bytes: what goes first when it is full is what would go next anyway.
#[derive(Debug)]
pub(crate) struct Cache {
    entries: HashMap<Rc<[u8]>, Entry>,
    by_end: BTreeMap<(Instant, u64), Rc<[u8]>>,
    bytes: usize,
    limit: usize,
    last: u64,
}

#[derive(Debug)]
struct Entry {
    message: Box<[u8]>,
    since: Instant,
    /// Its place in `by_end`.
    end: (Instant, u64),
}

impl Default for Cache {
    fn default() -> Self {
        Self::with_limit(LIMIT)
    }
}

impl Cache {
    fn with_limit(limit: usize) -> Self {
        Self { entries: HashMap::new(), by_end: BTreeMap::new(), bytes: 0, limit, last: 0 }
    }

    /// The answer to the question of this key, its times to live as long as they are now.
    pub fn find(&self, key: &[u8], now: Instant) -> Option<Vec<u8>> {
        let entry = self.entries.get(key).filter(|entry| entry.end.0 > now)?;
        let mut message = entry.message.to_vec();
        let age = now.saturating_duration_since(entry.since).as_secs();
        raw::age(&mut message, u32::try_from(age).unwrap_or(u32::MAX));
        Some(message)
    }

    /// Keeps an answer, if it may be kept and is whole.
    pub fn keep(&mut self, key: &[u8], message: &[u8], now: Instant) {
        if raw::is_truncated(message) || message.len() > LARGEST {
            return;
        }
        let most = if raw::code(message) == raw::NO_SUCH_NAME { MOST_WITHOUT } else { MOST };
        let Some(seconds @ 1..) = raw::lifetime(message).map(|seconds| seconds.min(most)) else {
            return;
        };
        self.drop_entry(key);
        self.last += 1;
        let end = (now + Duration::from_secs(seconds.into()), self.last);
        let key: Rc<[u8]> = key.into();
        self.bytes += weight(&key, message);
        self.by_end.insert(end, Rc::clone(&key));
        self.entries.insert(key, Entry { message: message.into(), since: now, end });
        while self.bytes > self.limit {
            let Some((_, first)) = self.by_end.first_key_value() else { break };
            let first = Rc::clone(first);
            self.drop_entry(&first);
        }
    }

    /// Forgets what is past.
    pub fn tidy(&mut self, now: Instant) {
        while let Some((end, key)) = self.by_end.first_key_value() {
            if end.0 > now {
                break;
            }
            let key = Rc::clone(key);
            self.drop_entry(&key);
        }
    }

    fn drop_entry(&mut self, key: &[u8]) {
        if let Some(entry) = self.entries.remove(key) {
            self.by_end.remove(&entry.end);
            self.bytes -= weight(key, &entry.message);
        }
    }
}

/// Bytes, with what two maps take for it.
fn weight(key: &[u8], message: &[u8]) -> usize {
    key.len() + message.len() + 200
}

/// Bytes of everything.
const LIMIT: usize = 2 << 20;

/// Bytes of one answer: longer ones are rare.
const LARGEST: usize = 4096;

/// Seconds that an answer is kept at most, whatever its server says, and one that there is no such
/// name: the servers behind this one keep it longer, and are asked in a millisecond.
const MOST: u32 = 3600;
const MOST_WITHOUT: u32 = 300;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw::tests::sample;

    fn ttl(message: &[u8]) -> u32 {
        raw::ttl(message, &raw::records(message).unwrap()[0])
    }

    #[test]
    fn an_answer_is_kept_for_its_time_and_grows_old() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let after = |seconds| now + Duration::from_secs(seconds);
        cache.keep(b"www", &sample(), now);
        assert_eq!(ttl(&cache.find(b"www", now).unwrap()), 300);
        assert_eq!(ttl(&cache.find(b"www", after(299)).unwrap()), 1);
        assert_eq!(cache.find(b"www", after(300)), None);
        assert_eq!(cache.find(b"other", now), None);
        cache.tidy(after(300));
        assert!(cache.entries.is_empty() && cache.by_end.is_empty() && cache.bytes == 0);
    }

    #[test]
    fn what_is_cut_or_failed_is_not_kept() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let mut cut = sample();
        cut[2] |= 0x02;
        let mut failed = sample();
        failed[3] |= raw::SERVER_FAILURE;
        let mut without = sample();
        without[3] |= raw::NO_SUCH_NAME;
        for message in [cut, failed, b"\0\0\x80\0".to_vec(), Vec::new()] {
            cache.keep(b"www", &message, now);
            assert_eq!(cache.find(b"www", now), None);
        }
        cache.keep(b"www", &without, now);
        assert!(cache.find(b"www", now + Duration::from_secs(59)).is_some());
        assert!(cache.find(b"www", now + Duration::from_secs(60)).is_none());
    }

    #[test]
    fn it_never_grows_past_its_limit() {
        let (mut cache, now) = (Cache::with_limit(5000), Instant::now());
        for number in 0_u32..1000 {
            cache.keep(&number.to_be_bytes(), &sample(), now + Duration::from_secs(number.into()));
            assert!(cache.bytes <= 5000 && cache.entries.len() == cache.by_end.len());
        }
        let newest = 999_u32.to_be_bytes();
        assert!(cache.find(&newest, now + Duration::from_secs(999)).is_some());
        // the same question again takes no more room
        let before = cache.bytes;
        cache.keep(&newest, &sample(), now + Duration::from_secs(999));
        assert_eq!(cache.bytes, before);
    }
}
