//! `--restart` and `--ulimit`, which other commands have too.

use bulkhead_docker_types::{RestartPolicy, Ulimit};

use crate::failure::Failure;

/// `no`, `always`, `unless-stopped`, or `on-failure` with how often at most. Which of them there are, the
/// engine knows.
pub fn restart_policy(flag: &str) -> Result<RestartPolicy, Failure> {
    let (name, retries) = flag.split_once(':').unwrap_or((flag, "0"));
    let retries: u32 = retries.parse().map_err(|_| {
        Failure::new(format!("invalid restart policy {flag:?}: the number of retries is no number"))
    })?;
    Ok(RestartPolicy { name: name.to_owned(), maximum_retry_count: retries.into() })
}

/// `name=soft[:hard]`
pub fn ulimit(flag: &str) -> Result<Ulimit, Failure> {
    let wrong =
        || Failure::new(format!("invalid ulimit argument: {flag}: write it as NAME=SOFT[:HARD]"));
    let (name, values) = flag.split_once('=').ok_or_else(wrong)?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let number = |text: &str| {
        if text == "unlimited" { Ok(-1) } else { text.parse::<i64>().map_err(|_| wrong()) }
    };
    Ok(Ulimit { name: name.to_owned(), soft: number(soft)?, hard: number(hard)? })
}
