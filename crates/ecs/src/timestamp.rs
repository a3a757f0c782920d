use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment, to the millisecond; in JSON seconds since 1970 as a number with a fraction, which is what
/// AWS's JSON protocol sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    milliseconds: i64,
}

impl Timestamp {
    pub fn now() -> Self {
        Self { milliseconds: jiff::Timestamp::now().as_millisecond() }
    }

    pub fn from_milliseconds(milliseconds: i64) -> Self {
        Self { milliseconds }
    }

    pub fn milliseconds(self) -> i64 {
        self.milliseconds
    }
}

impl std::fmt::Display for Timestamp {
    /// RFC 3339 in UTC.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match jiff::Timestamp::from_millisecond(self.milliseconds) {
            Ok(time) => write!(f, "{time}"),
            Err(_) => write!(f, "{} ms", self.milliseconds),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.milliseconds as f64 / 1000.0)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        Ok(Self { milliseconds: (seconds * 1000.0).round() as i64 })
    }
}
