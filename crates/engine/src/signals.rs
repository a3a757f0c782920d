//! Signals as Docker's users write them.

use rustix::process::Signal;

use crate::EngineError;

/// Reads `KILL`, `SIGKILL`, `sigkill`, `9`, `RTMIN+3`, `RTMAX-2`.
pub(crate) fn parse(text: &str) -> Result<Signal, EngineError> {
    bulkhead_sys::signal::number(text)
        .and_then(Signal::from_named_raw)
        .ok_or_else(|| EngineError::invalid(format!("invalid signal: {text}")))
}
