use std::collections::VecDeque;
use std::convert::Infallible;

use axum::body::Body;
use axum::extract::State;
use bulkhead_engine::Event;
use bulkhead_types::Timestamp;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

use crate::Api;
use crate::error::Answer;
use crate::filters::Filters;
use crate::lines;
use crate::request::Query;

const FILTERS: [&str; 14] = [
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];

/// `GET /events`: what the ring still has since `since`, then what happens until `until`, which may
/// be past.
pub(crate) async fn events(State(api): State<Api>, query: Query) -> Answer {
    let filters = Filters::from_query(&query, &FILTERS)?;
    let since = query.time("since")?;
    let until = query.time("until")?;
    let (past, receiver) = api.engine.events(since);
    let state = (VecDeque::from(past), receiver);
    let events = futures_util::stream::unfold(state, move |(mut past, mut receiver)| {
        let filters = filters.clone();
        async move {
            loop {
                let event = match past.pop_front() {
                    Some(event) => event,
                    None => next(&mut receiver, until).await?,
                };
                if until.is_some_and(|until| event.at > until) {
                    return None;
                }
                if passes(&event, &filters) {
                    let line = lines::encode(&view(&event));
                    return Some((Ok::<_, Infallible>(line), (past, receiver)));
                }
            }
        }
    });
    Ok(lines::body(Body::from_stream(events)))
}

/// The next event, or `None` when `until` is past or the engine ends.
async fn next(
    receiver: &mut tokio::sync::broadcast::Receiver<Event>,
    until: Option<Timestamp>,
) -> Option<Event> {
    loop {
        let left = match until {
            None => std::time::Duration::MAX,
            Some(until) => {
                let nanoseconds = until.as_nanosecond() - Timestamp::now().as_nanosecond();
                std::time::Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0))
            }
        };
        match tokio::time::timeout(left, receiver.recv()).await {
            Ok(Ok(event)) => return Some(event),
            // A reader that fell behind misses events, and goes on with those that are left.
            Ok(Err(RecvError::Lagged(missed))) => {
                tracing::warn!("a reader of events missed {missed} of them");
            }
            Ok(Err(RecvError::Closed)) | Err(_) => return None,
        }
    }
}

fn passes(event: &Event, filters: &Filters) -> bool {
    // A container's filter names it by id, the start of it, or name; others likewise.
    let is_actor = |kind: &str, wanted: &str| {
        event.kind == kind
            && (event.actor.starts_with(wanted)
                || event.attributes.get("name").is_some_and(|name| name == wanted))
    };
    // `health_status: healthy` and `exec_start: ls` are found by their first word too.
    let action = event.action.split(':').next().unwrap_or_default();
    filters.any("type", |kind| kind == event.kind)
        && filters.any("event", |wanted| wanted == event.action || wanted == action)
        && filters.any("scope", |scope| scope == "local")
        && filters.labels(&event.attributes)
        && ["container", "network", "volume"]
            .iter()
            .all(|kind| filters.any(kind, |wanted| is_actor(kind, wanted)))
        && filters.any("image", |wanted| {
            let names = ["name", "image"].map(|name| event.attributes.get(name));
            event.actor == wanted
                || names
                    .into_iter()
                    .flatten()
                    .any(|name| name == wanted || name.split(':').next() == Some(wanted))
        })
}

/// Docker's `events.Message`, with the three members that only containers and images have.
fn view(event: &Event) -> Value {
    let mut view = json!({});
    if matches!(event.kind.as_str(), "container" | "image") {
        view["status"] = json!(event.action);
        view["id"] = json!(event.actor);
        if let (true, Some(image)) = (event.kind == "container", event.attributes.get("image")) {
            view["from"] = json!(image);
        }
    }
    view["Type"] = json!(event.kind);
    view["Action"] = json!(event.action);
    view["Actor"] = json!({ "ID": event.actor, "Attributes": event.attributes });
    view["scope"] = json!("local");
    view["time"] = json!(event.at.as_second());
    let nanoseconds = i64::try_from(event.at.as_nanosecond()).unwrap_or(i64::MAX);
    view["timeNano"] = json!(nanoseconds);
    view
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event {
            kind: "container".to_owned(),
            action: "exec_start: ls".to_owned(),
            actor: "abcd".to_owned(),
            attributes: [("image", "busybox:1"), ("name", "web"), ("a", "b")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            at: "2026-11-23T19:28:20.5Z".parse().expect("a time"),
        }
    }

    #[test]
    fn events_have_dockers_shape() {
        let view = view(&event());
        assert_eq!(view["from"], "busybox:1");
        assert_eq!(view["Actor"]["Attributes"]["name"], "web");
        assert_eq!(view["timeNano"], 1_795_462_100_500_000_000_i64);
    }

    #[test]
    fn filters_on_events() {
        for (filters, shown) in [
            (r#"{"type":["container"]}"#, true),
            (r#"{"type":["image"]}"#, false),
            (r#"{"event":["exec_start"]}"#, true),
            (r#"{"container":["web"]}"#, true),
            (r#"{"container":["abc"]}"#, true),
            (r#"{"container":["db"]}"#, false),
            (r#"{"image":["busybox"]}"#, true),
            (r#"{"label":["a=b"]}"#, true),
            (r#"{"volume":["x"]}"#, false),
        ] {
            let parsed = Filters::parse(filters, &FILTERS).expect(filters);
            assert_eq!(passes(&event(), &parsed), shown, "{filters}");
        }
    }
}
