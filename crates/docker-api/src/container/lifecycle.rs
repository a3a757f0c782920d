//! The verbs that change a container's state.

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bulkhead_engine::{
    ChangeKind, Column, ContainerSnapshot, EngineError, Started, Status, Stopped,
};
use http::StatusCode;
use serde_json::{Value, json};

use crate::Api;
use crate::error::{Answer, ApiError};
use crate::filters::Filters;
use crate::request::Query;

pub(crate) async fn inspect(
    State(api): State<Api>,
    Path(name): Path<String>,
    query: Query,
) -> Answer<axum::Json<Value>> {
    let container = api.engine.container(&name)?;
    let data = api.engine.options().data.display().to_string();
    let mut view = super::view::inspect(&container, &data);
    let execs = api.engine.execs_of(container.id);
    if !execs.is_empty() {
        view["ExecIDs"] = json!(execs);
    }
    if query.flag("size") {
        super::list::add_size(&api, &mut view, container.id).await?;
    }
    Ok(axum::Json(view))
}

pub(crate) async fn start(State(api): State<Api>, Path(name): Path<String>) -> Answer<StatusCode> {
    Ok(match api.engine.start(api.engine.container_id(&name)?).await? {
        Started::Now => StatusCode::NO_CONTENT,
        Started::Already => StatusCode::NOT_MODIFIED,
    })
}

pub(crate) async fn stop(
    State(api): State<Api>,
    Path(name): Path<String>,
    query: Query,
) -> Answer<StatusCode> {
    let timeout = query.number("t")?;
    let signal = query.value("signal").filter(|signal| !signal.is_empty());
    Ok(match api.engine.stop(api.engine.container_id(&name)?, timeout, signal).await? {
        Stopped::Now => StatusCode::NO_CONTENT,
        Stopped::Already => StatusCode::NOT_MODIFIED,
    })
}

pub(crate) async fn restart(
    State(api): State<Api>,
    Path(name): Path<String>,
    query: Query,
) -> Answer<StatusCode> {
    api.engine.restart(api.engine.container_id(&name)?, query.number("t")?).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn kill(
    State(api): State<Api>,
    Path(name): Path<String>,
    query: Query,
) -> Answer<StatusCode> {
    let signal = query.value("signal").filter(|signal| !signal.is_empty()).unwrap_or("KILL");
    // Docker says whose verb failed.
    let failed = |error: EngineError| error.during(format!("cannot kill container: {name}"));
    let id = api.engine.container_id(&name).map_err(failed)?;
    api.engine.kill(id, signal).await.map_err(failed)?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn pause(State(api): State<Api>, Path(name): Path<String>) -> Answer<StatusCode> {
    api.engine.pause(api.engine.container_id(&name)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn unpause(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Answer<StatusCode> {
    api.engine.unpause(api.engine.container_id(&name)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn rename(
    State(api): State<Api>,
    Path(name): Path<String>,
    query: Query,
) -> Answer<StatusCode> {
    let new = query.text("name");
    let new = new.strip_prefix('/').unwrap_or(new);
    if new.is_empty() {
        return Err(ApiError::invalid("Neither old nor new names may be empty"));
    }
    api.engine.rename(api.engine.container_id(&name)?, new).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn remove(
    State(api): State<Api>,
    Path(name): Path<String>,
    query: Query,
) -> Answer<StatusCode> {
    if query.flag("link") {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            format!(
                "Conflict, cannot remove the default link name of the container: a link is named \
             {name}/ALIAS"
            ),
        ));
    }
    api.engine
        .remove(api.engine.container_id(&name)?, query.flag("force"), query.flag("v"))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /containers/{name}/{alias}?link=1`: a link is named by the container that has it.
pub(crate) async fn remove_link(
    State(api): State<Api>,
    Path((name, alias)): Path<(String, String)>,
    query: Query,
) -> Answer<StatusCode> {
    if !query.flag("link") {
        return Err(ApiError::not_found(format!("No such container: {name}/{alias}")));
    }
    api.engine.unlink(api.engine.container_id(&name)?, &alias).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `h` and `w` of 0 change nothing: the CLI sends them before it knows its terminal.
pub(crate) async fn resize(
    State(api): State<Api>,
    Path(name): Path<String>,
    query: Query,
) -> Answer<StatusCode> {
    if let Some((rows, columns)) = size(&query)? {
        api.engine.resize(api.engine.container_id(&name)?, rows, columns).await?;
    }
    Ok(StatusCode::OK)
}

pub(crate) fn size(query: &Query) -> Result<Option<(u16, u16)>, ApiError> {
    let (rows, columns) = (query.number("h")?.unwrap_or(0), query.number("w")?.unwrap_or(0));
    Ok((rows != 0 && columns != 0).then_some((rows, columns)))
}

pub(crate) async fn top(
    State(api): State<Api>,
    Path(name): Path<String>,
    query: Query,
) -> Answer<axum::Json<Value>> {
    let columns = Column::parse(query.text("ps_args"))?;
    let (titles, processes) = api.engine.top(api.engine.container_id(&name)?, columns).await?;
    Ok(axum::Json(json!({ "Processes": processes, "Titles": titles })))
}

pub(crate) async fn changes(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Answer<axum::Json<Value>> {
    let view =
        api.engine.changes(api.engine.container_id(&name)?).await?.into_iter().map(|change| {
            let kind = match change.kind {
                ChangeKind::Modified => 0,
                ChangeKind::Added => 1,
                ChangeKind::Deleted => 2,
            };
            json!({ "Path": change.path.to_string_lossy(), "Kind": kind })
        });
    let view: Vec<Value> = view.collect();
    Ok(axum::Json(if view.is_empty() { Value::Null } else { view.into() }))
}

/// `POST /containers/prune`: removes every container that does not run.
pub(crate) async fn prune(State(api): State<Api>, query: Query) -> Answer<Response> {
    let filters = Filters::from_query(&query, &["until", "label", "label!"])?;
    let until = filters.until()?;
    let unused = |container: &ContainerSnapshot| {
        matches!(container.state.status, Status::Created | Status::Exited | Status::Dead)
            && until.is_none_or(|until| container.created < until)
            && filters.labels(&container.config.labels)
    };
    let (mut deleted, mut reclaimed) = (Vec::new(), 0);
    for container in api.engine.containers().into_iter().filter(unused) {
        let id = container.id.to_string();
        let size = api.engine.container_size(container.id).await.unwrap_or_default();
        // One that was started or removed meanwhile is no reason to stop.
        match api.engine.remove(container.id, false, false).await {
            Ok(()) => {
                deleted.push(id);
                reclaimed += size.written;
            }
            Err(error) => tracing::info!(container = id, "not pruned: {error}"),
        }
    }
    let deleted = if deleted.is_empty() { Value::Null } else { json!(deleted) };
    let body = json!({ "ContainersDeleted": deleted, "SpaceReclaimed": reclaimed });
    Ok(axum::Json(body).into_response())
}
