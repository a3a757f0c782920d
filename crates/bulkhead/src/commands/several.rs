//! One thing done to several, past errors.

use futures_util::StreamExt as _;
use serde_json::Value;

use crate::client::{Client, encode};
use crate::failure::Failure;
use crate::terminal::printable;

/// Does one thing to each of several containers, goes on past errors, and prints each that worked.
pub async fn each(
    client: &Client,
    containers: &[String],
    verb: &str,
    query: &str,
) -> Result<(), Failure> {
    let query = if query.is_empty() { String::new() } else { format!("?{query}") };
    let path = |name: &str| format!("/containers/{}/{verb}{query}", encode(name));
    let done = async |name: &str| client.post(&path(name), None).await.map(|_| name.to_owned());
    together(containers, done).await
}

/// Does `work` for all names at once, so that several containers stop in the time of one, and prints what
/// it returns in their order.
pub async fn together(
    names: &[String],
    work: impl AsyncFn(&str) -> Result<String, Failure>,
) -> Result<(), Failure> {
    /// As many as docker's client asks for at a time.
    const AT_ONCE: usize = 50;
    let mut failed = None;
    let work = &work;
    let mut done = futures_util::stream::iter(names)
        .map(|name| async move { work(name).await })
        .buffered(AT_ONCE);
    while let Some(said) = done.next().await {
        tell(said, &mut failed);
    }
    failed.map_or(Ok(()), Err)
}

/// Does `work` for each name, one after the other, and prints what it returns, if it is anything.
pub async fn all(
    names: &[String],
    work: impl AsyncFn(&str) -> Result<String, Failure>,
) -> Result<(), Failure> {
    let mut failed = None;
    for name in names {
        tell(work(name).await, &mut failed);
    }
    failed.map_or(Ok(()), Err)
}

fn tell(said: Result<String, Failure>, failed: &mut Option<Failure>) {
    match said {
        Ok(said) if said.is_empty() => {}
        Ok(said) => println!("{said}"),
        Err(failure) => report(failed, failure),
    }
}

/// Prints an error at once; the last one decides the exit status.
pub fn report(failed: &mut Option<Failure>, failure: Failure) {
    let lines = failure.message.trim_end().lines().map(printable);
    eprintln!("bulkhead: {}", lines.collect::<Vec<_>>().join("\n"));
    *failed = Some(Failure { message: String::new(), ..failure });
}

/// Tells what the engine warns of.
pub fn warn(answer: &Value) {
    for warning in answer["Warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        eprintln!("WARNING: {}", printable(warning));
    }
}
