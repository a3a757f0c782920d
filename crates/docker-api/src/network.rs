//! `/networks`: what the engine has. Networks of the user's own are not there yet.

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use bulkhead_engine::NetworkView;
use serde_json::{Value, json};

use crate::Api;
use crate::container::mac;
use crate::error::{Answer, ApiError};
use crate::filters::Filters;
use crate::request::Query;

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/networks", get(list))
        .route("/networks/create", post(not_yet))
        .route("/networks/prune", post(prune))
        .route("/networks/{name}", get(inspect).delete(remove))
        .route("/networks/{name}/connect", post(not_yet))
        .route("/networks/{name}/disconnect", post(not_yet))
}

async fn list(State(api): State<Api>, query: Query) -> Answer<axum::Json<Value>> {
    let known = ["dangling", "driver", "id", "label", "name", "scope", "type"];
    let filters = Filters::from_query(&query, &known)?;
    let dangling = filters.boolean("dangling")?;
    filters.one_of("type", &["builtin", "custom"])?;
    let (names, ids) = (filters.patterns("name")?, filters.patterns("id")?);
    let no_labels = Default::default();
    let shown = api.engine.networks().into_iter().filter(|network| {
        filters.any("driver", |driver| driver == network.driver)
            && ids.any(&network.id.to_string())
            && names.any(&network.name)
            && filters.any("scope", |scope| scope == "local")
            && filters.any("type", |kind| (kind == "builtin") == is_builtin(&network.name))
            && filters.labels(&no_labels)
            && dangling.is_none_or(|dangling| {
                dangling == (!is_builtin(&network.name) && network.containers.is_empty())
            })
    });
    // The list leaves the containers out.
    let shown = shown.map(|network| {
        let network = NetworkView { containers: Default::default(), ..network };
        view(&network, &api.engine.options().bridge)
    });
    Ok(axum::Json(shown.collect()))
}

async fn inspect(State(api): State<Api>, Path(name): Path<String>) -> Answer<axum::Json<Value>> {
    let network = find(&api, &name)?;
    Ok(axum::Json(view(&network, &api.engine.options().bridge)))
}

async fn remove(State(api): State<Api>, Path(name): Path<String>) -> ApiError {
    match find(&api, &name) {
        Err(error) => error,
        Ok(network) => ApiError::new(
            http::StatusCode::FORBIDDEN,
            format!("{} is a pre-defined network and cannot be removed", network.name),
        ),
    }
}

/// There are no networks of the user's own to prune, whatever the filters say.
async fn prune(query: Query) -> Answer<axum::Json<Value>> {
    Filters::from_query(&query, &["label", "label!", "until"])?.until()?;
    Ok(axum::Json(json!({ "NetworksDeleted": null })))
}

async fn not_yet() -> ApiError {
    ApiError::unsupported(
        "user defined networks are not supported yet; use bridge (with --link), host, none or \
         container:NAME",
    )
}

/// By name, by id, or by a start of the id that no other has.
fn find(api: &Api, name: &str) -> Result<NetworkView, ApiError> {
    let networks = api.engine.networks();
    let exact = |network: &&NetworkView| network.name == name || network.id.to_string() == name;
    if let Some(network) = networks.iter().find(exact) {
        return Ok(network.clone());
    }
    let mut starting = networks.iter().filter(|n| n.id.to_string().starts_with(name));
    match (starting.next(), starting.next()) {
        (Some(network), None) => Ok(network.clone()),
        (Some(_), Some(_)) => {
            Err(ApiError::invalid(format!("network {name} is ambiguous (2 matches found)")))
        }
        (None, _) => Err(ApiError::not_found(format!("network {name} not found"))),
    }
}

fn is_builtin(name: &str) -> bool {
    matches!(name, "bridge" | "host" | "none")
}

fn view(network: &NetworkView, bridge: &str) -> Value {
    let subnets = network.subnet.map(|(subnet, prefix, gateway)| {
        json!([{ "Subnet": format!("{subnet}/{prefix}"), "Gateway": gateway.to_string() }])
    });
    let prefix = network.subnet.map_or(0, |(_, prefix, _)| prefix);
    let containers = network.containers.iter().map(|(id, (name, endpoint, bytes, address))| {
        let view = json!({
            "Name": name,
            "EndpointID": endpoint,
            "MacAddress": mac(*bytes),
            "IPv4Address": format!("{address}/{prefix}"),
            "IPv6Address": "",
        });
        (id.to_string(), view)
    });
    let options = match network.name.as_str() {
        "bridge" => json!({
            "com.docker.network.bridge.default_bridge": "true",
            "com.docker.network.bridge.enable_icc": "true",
            "com.docker.network.bridge.enable_ip_masquerade": "true",
            "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",
            "com.docker.network.bridge.name": bridge,
        }),
        _ => json!({}),
    };
    json!({
        "Name": network.name,
        "Id": network.id,
        "Created": network.created.to_string(),
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv4": true,
        "EnableIPv6": false,
        "IPAM": { "Driver": "default", "Options": null, "Config": subnets },
        "Internal": network.internal,
        "Attachable": false,
        "Ingress": false,
        "ConfigFrom": { "Network": "" },
        "ConfigOnly": false,
        "Containers": Value::Object(containers.collect()),
        "Options": options,
        "Labels": {},
    })
}
