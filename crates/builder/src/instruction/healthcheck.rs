use bulkhead_types::go_duration;
use bulkhead_types::image::Healthcheck;

use crate::flags::Flags;
use crate::parse::{Arguments, Fault, Line};

/// `HEALTHCHECK NONE` or `HEALTHCHECK [--interval=…] CMD …`.
pub(super) fn read(line: &Line, flags: &mut Flags) -> Result<Healthcheck, Fault> {
    let Arguments::Typed(kind, arguments) = &line.arguments else {
        return Err("HEALTHCHECK requires at least one argument".to_owned());
    };
    let kind = kind.to_ascii_uppercase();
    if kind == "NONE" {
        return match **arguments {
            Arguments::None => Ok(Healthcheck { test: vec![kind], ..Healthcheck::default() }),
            _ => Err("HEALTHCHECK NONE takes no arguments".to_owned()),
        };
    }
    let interval = duration(flags, "interval")?;
    let timeout = duration(flags, "timeout")?;
    let start_period = duration(flags, "start-period")?;
    let start_interval = duration(flags, "start-interval")?;
    let retries = match flags.value("retries")? {
        None => 0,
        Some(text) => match text.parse::<i32>() {
            Ok(retries) if retries >= 0 => i64::from(retries),
            Ok(retries) => return Err(format!("--retries cannot be negative ({retries})")),
            Err(_) => return Err(format!("invalid number {text:?} for --retries")),
        },
    };
    if kind != "CMD" {
        return Err(format!("Unknown type {kind:?} in HEALTHCHECK (try CMD)"));
    }
    let test = match &**arguments {
        Arguments::Json(words) if !words.is_empty() => {
            [kind].into_iter().chain(words.iter().cloned()).collect()
        }
        Arguments::Text(text) => vec!["CMD-SHELL".to_owned(), text.clone()],
        _ => return Err("Missing command after HEALTHCHECK CMD".to_owned()),
    };
    Ok(Healthcheck { test, interval, timeout, start_period, start_interval, retries })
}

fn duration(flags: &mut Flags, name: &str) -> Result<i64, Fault> {
    let Some(text) = flags.value(name)? else { return Ok(0) };
    let nanoseconds = go_duration(&text).ok_or_else(|| {
        format!("invalid duration {text:?} for --{name}: write it like 30s or 1m30s")
    })?;
    if nanoseconds != 0 && nanoseconds < 1_000_000 {
        return Err(format!("Interval {name:?} cannot be less than 1ms"));
    }
    Ok(nanoseconds)
}
