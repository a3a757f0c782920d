//! `/networks`

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bulkhead_docker_types::{Ipam, NetworkConnect, NetworkCreate, NetworkDisconnect};
use bulkhead_engine::{
    BridgeOptions, CreateNetwork, Network, NetworkEndpoint, NetworkView, ParentRequest, Pool,
    PoolRequest,
};
use bulkhead_network::GatewayMode;
use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::Api;
use crate::container::{mac, read_endpoint};
use crate::error::{Answer, ApiError};
use crate::filters::Filters;
use crate::request::{Json, Query};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/networks", get(list))
        .route("/networks/create", post(create))
        .route("/networks/prune", post(prune))
        .route("/networks/{name}", get(inspect).delete(remove))
        .route("/networks/{name}/connect", post(connect))
        .route("/networks/{name}/disconnect", post(disconnect))
}

async fn list(State(api): State<Api>, query: Query) -> Answer<axum::Json<Value>> {
    let known = ["dangling", "driver", "id", "label", "name", "scope", "type"];
    let filters = Filters::from_query(&query, &known)?;
    let dangling = filters.boolean("dangling")?;
    filters.one_of("type", &["builtin", "custom"])?;
    let (names, ids) = (filters.patterns("name")?, filters.patterns("id")?);
    let shown = api.engine.networks().into_iter().filter(|network| {
        filters.any("driver", |driver| driver == network.driver)
            && ids.any(&network.id.to_string())
            && names.any(&network.name)
            && filters.any("scope", |scope| scope == "local")
            && filters.any("type", |kind| (kind == "builtin") == network.is_predefined())
            && has_labels(network, &filters)
            && dangling.is_none_or(|dangling| {
                dangling == (!network.is_predefined() && network.containers.is_empty())
            })
    });
    // The list leaves the containers out.
    let shown =
        shown.map(|network| view(&NetworkView { containers: Default::default(), ..network }));
    Ok(axum::Json(shown.collect()))
}

async fn inspect(
    State(api): State<Api>,
    Path(name): Path<String>,
    query: Query,
) -> Answer<axum::Json<Value>> {
    if !matches!(query.text("scope"), "" | "local") {
        return Err(ApiError::not_found(format!("network {name} not found")));
    }
    Ok(axum::Json(view(&api.engine.network(&name)?)))
}

async fn create(State(api): State<Api>, Json(body): Json<NetworkCreate>) -> Answer<Response> {
    let mut body = body;
    let driver = match body.driver.as_str() {
        "" | "default" => "bridge",
        driver => driver,
    };
    for (name, value) in api.engine.settings().network_options.get(driver).into_iter().flatten() {
        body.options.entry(name.clone()).or_insert_with(|| value.clone());
    }
    let network = api.engine.create_network(request(body)?).await?;
    let body = json!({ "Id": network.id, "Warning": "" });
    Ok((StatusCode::CREATED, axum::Json(body)).into_response())
}

async fn remove(State(api): State<Api>, Path(name): Path<String>) -> Answer<StatusCode> {
    let network = api.engine.network(&name)?;
    api.engine.remove_network(&network).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn connect(
    State(api): State<Api>,
    Path(name): Path<String>,
    Json(body): Json<NetworkConnect>,
) -> Answer<StatusCode> {
    let network = api.engine.network(&name)?;
    let container = api.engine.container_id(&body.container)?;
    let endpoint = read_endpoint(&network.name, body.endpoint_config.unwrap_or_default())?;
    api.engine.connect(container, &network, endpoint).await?;
    Ok(StatusCode::OK)
}

async fn disconnect(
    State(api): State<Api>,
    Path(name): Path<String>,
    Json(body): Json<NetworkDisconnect>,
) -> Answer<StatusCode> {
    let network = api.engine.network(&name)?;
    // Docker's `Force` is for endpoints whose container it does not know: there are none here.
    let container = api.engine.container_id(&body.container)?;
    api.engine.disconnect(container, &network).await?;
    Ok(StatusCode::OK)
}

/// Removes the user's networks that no running container is on.
async fn prune(State(api): State<Api>, query: Query) -> Answer<axum::Json<Value>> {
    let filters = Filters::from_query(&query, &["label", "label!", "until"])?;
    let until = filters.until()?;
    let mut deleted = Vec::new();
    for network in api.engine.networks() {
        let goes = !network.is_predefined()
            && network.containers.is_empty()
            && has_labels(&network, &filters)
            && until.is_none_or(|until| network.created < until);
        if !goes {
            continue;
        }
        match api.engine.remove_network(&network).await {
            Ok(()) => deleted.push(network.name),
            Err(error) => tracing::info!(network = network.name, "not pruned: {error}"),
        }
    }
    let deleted = if deleted.is_empty() { Value::Null } else { json!(deleted) };
    Ok(axum::Json(json!({ "NetworksDeleted": deleted })))
}

fn has_labels(network: &NetworkView, filters: &Filters) -> bool {
    match &network.network {
        Some(network) => filters.labels(&network.labels),
        None => filters.labels(&Default::default()),
    }
}

/// Reads a body into the engine's type.
fn request(body: NetworkCreate) -> Result<CreateNetwork, ApiError> {
    let given = body.options;
    let (parent, options) = match body.driver.as_str() {
        "" | "default" | "bridge" => (None, BridgeOptions::parse(given)?),
        "macvlan" => ParentRequest::macvlan(given).map(|(it, options)| (Some(it), options))?,
        "ipvlan" => ParentRequest::ipvlan(given).map(|(it, options)| (Some(it), options))?,
        driver @ ("host" | "null" | "none") => {
            return Err(ApiError::new(
                StatusCode::FORBIDDEN,
                format!("only one instance of \"{driver}\" network is allowed"),
            ));
        }
        driver => {
            return Err(ApiError::not_found(format!(
                "could not find plugin {driver} in v1 plugin registry: plugin not found; drivers of \
                 networks are bridge, macvlan and ipvlan"
            )));
        }
    };
    let Ipam { driver, options: ipam_options, config } = body.ipam.unwrap_or_default();
    if !matches!(driver.as_str(), "" | "default") {
        return Err(ApiError::invalid(format!(
            "ipam driver {driver:?} is not there; leave it out, or name default"
        )));
    }
    let pools = config.into_iter().map(|pool| PoolRequest {
        subnet: pool.subnet,
        range: pool.ip_range,
        gateway: pool.gateway,
        auxiliary: pool.auxiliary_addresses,
    });
    Ok(CreateNetwork {
        name: body.name,
        internal: body.internal,
        attachable: body.attachable,
        ipv4: body.enable_ipv4,
        ipv6: body.enable_ipv6,
        pools: pools.collect(),
        options,
        parent,
        labels: body.labels,
        ipam_options,
    })
}

fn view(shown: &NetworkView) -> Value {
    let network = shown.network.as_ref();
    let containers = shown.containers.iter().map(|(id, endpoint)| (id.to_string(), of(endpoint)));
    json!({
        "Name": shown.name,
        "Id": shown.id,
        "Created": shown.created.to_string(),
        "Scope": "local",
        "Driver": shown.driver,
        "EnableIPv4": network.is_none_or(|network| network.ipv4.is_some()),
        "EnableIPv6": network.is_some_and(|network| network.ipv6.is_some()),
        "IPAM": {
            "Driver": "default",
            "Options": network.and_then(|it| (!it.ipam_options.is_empty()).then_some(&it.ipam_options)),
            "Config": network.map(pools),
        },
        "Internal": network.is_some_and(|network| network.internal),
        "Attachable": network.is_some_and(|network| network.attachable),
        "Ingress": false,
        "ConfigFrom": { "Network": "" },
        "ConfigOnly": false,
        "Containers": Value::Object(containers.collect()),
        "Options": network.map_or_else(|| json!({}), |network| json!(network.bridge.given)),
        "Labels": network.map_or_else(|| json!({}), |network| json!(network.labels)),
    })
}

fn pools(network: &Network) -> Vec<Value> {
    let access = &network.bridge.access;
    let ipv4 = network.ipv4.iter().map(|it| pool(it, access.ipv4.mode));
    ipv4.chain(network.ipv6.iter().map(|it| pool(it, access.ipv6.mode))).collect()
}

fn pool<A>(pool: &Pool<A>, mode: GatewayMode) -> Value
where
    A: bulkhead_engine::Address,
{
    let mut view = Map::new();
    view.insert("Subnet".to_owned(), json!(pool.subnet.to_string()));
    if let Some(range) = &pool.range {
        view.insert("IPRange".to_owned(), json!(range.to_string()));
    }
    // Nobody has it (moby: daemon/libnetwork/drivers/bridge, GetSkipGwAlloc).
    if mode != GatewayMode::Isolated {
        view.insert("Gateway".to_owned(), json!(pool.gateway.to_string()));
    }
    if !pool.auxiliary.is_empty() {
        let auxiliary = pool.auxiliary.iter();
        let auxiliary = auxiliary.map(|(name, address)| (name.clone(), json!(address.to_string())));
        view.insert("AuxiliaryAddresses".to_owned(), Value::Object(auxiliary.collect()));
    }
    Value::Object(view)
}

fn of(endpoint: &NetworkEndpoint) -> Value {
    let ipv4 = endpoint.ipv4.map(|ipv4| format!("{}/{}", ipv4.address, ipv4.prefix));
    let ipv6 = endpoint.ipv6.map(|ipv6| format!("{}/{}", ipv6.address, ipv6.prefix));
    json!({
        "Name": endpoint.name,
        "EndpointID": endpoint.endpoint,
        "MacAddress": endpoint.mac.map(mac).unwrap_or_default(),
        "IPv4Address": ipv4.unwrap_or_default(),
        "IPv6Address": ipv6.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::decode;

    fn read(body: Value) -> Result<CreateNetwork, ApiError> {
        request(decode(body)?)
    }

    /// What `docker network create --subnet … -o … web` sends, shortened.
    #[test]
    fn the_cli_is_understood() {
        let read = read(json!({
            "Name": "web", "CheckDuplicate": true, "Driver": "bridge", "Scope": "",
            "EnableIPv4": null, "EnableIPv6": null, "Internal": true, "Attachable": false,
            "Ingress": false, "ConfigOnly": false, "ConfigFrom": null,
            "IPAM": {"Driver": "default", "Options": {}, "Config": [{
                "Subnet": "10.5.0.0/16", "Gateway": "10.5.0.1",
                "AuxiliaryAddresses": {"router": "10.5.0.9"},
            }]},
            "Options": {"com.docker.network.driver.mtu": "1400"}, "Labels": {"a": "b"},
        }))
        .expect("a valid request");
        assert_eq!((read.name.as_str(), read.internal, read.ipv6), ("web", true, None));
        assert_eq!(read.pools[0].auxiliary["router"], "10.5.0.9");
        assert_eq!(read.options.mtu, Some(1400));
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        for (body, part) in [
            (json!({"Name": "x", "Driver": "overlay"}), "overlay"),
            (json!({"Name": "x", "Driver": "host"}), "only one instance of \"host\""),
            (json!({"Name": "x", "IPAM": {"Driver": "dhcp"}}), "dhcp"),
            (json!({"Name": "x", "Options": {"com.docker.network.bridge.enable_icc": "x"}}), "icc"),
        ] {
            let error = read(body).expect_err(part);
            assert!(error.message.contains(part), "{error}");
        }
    }
}
