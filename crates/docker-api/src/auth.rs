//! Credentials as clients send them: the `X-Registry-Auth` header and the body of `/auth`.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bulkhead_engine::Class;
use bulkhead_image::Credentials;
use bulkhead_types::DEFAULT_DOMAIN;
use http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::json;

use crate::Api;
use crate::error::{Answer, ApiError};
use crate::request::Json;

/// Docker's `AuthConfig`.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(crate) struct AuthConfig {
    #[serde(deserialize_with = "null_is_empty")]
    username: String,
    #[serde(deserialize_with = "null_is_empty")]
    password: String,
    #[serde(deserialize_with = "null_is_empty")]
    identitytoken: String,
    #[serde(deserialize_with = "null_is_empty")]
    serveraddress: String,
    /// base64 of `user:password`, which older clients send alone.
    #[serde(deserialize_with = "null_is_empty")]
    auth: String,
}

impl AuthConfig {
    fn credentials(self) -> Option<Credentials> {
        let (username, password) = match (self.username.is_empty(), split_auth(&self.auth)) {
            (true, Some(pair)) => pair,
            _ => (self.username, self.password),
        };
        let empty = username.is_empty() && self.identitytoken.is_empty();
        (!empty).then_some(Credentials { username, password, identitytoken: self.identitytoken })
    }
}

/// As Go's decoder has it: bollard, for one, sends `null` for what it has no value for.
fn null_is_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn split_auth(auth: &str) -> Option<(String, String)> {
    let text = base64::engine::general_purpose::STANDARD.decode(auth).ok()?;
    let (user, password) = std::str::from_utf8(&text).ok()?.split_once(':')?;
    (!user.is_empty()).then(|| (user.to_owned(), password.to_owned()))
}

/// The credentials of `X-Registry-Auth`, if it has any (`{}` is how the CLI says that it has none).
pub(crate) fn registry_auth(headers: &HeaderMap) -> Result<Option<Credentials>, ApiError> {
    Ok(header::<AuthConfig>(headers, "x-registry-auth")?.and_then(AuthConfig::credentials))
}

/// The credentials of `X-Registry-Config` (for builds), by registry.
pub(crate) fn registry_config(
    headers: &HeaderMap,
) -> Result<BTreeMap<String, Credentials>, ApiError> {
    let configs = header::<BTreeMap<String, AuthConfig>>(headers, "x-registry-config")?;
    Ok(configs
        .unwrap_or_default()
        .into_iter()
        .filter_map(|(host, config)| Some((registry_host(&host), config.credentials()?)))
        .collect())
}

/// URL-safe base64 of JSON, with or without padding.
fn header<T: DeserializeOwned>(headers: &HeaderMap, name: &str) -> Result<Option<T>, ApiError> {
    let Some(value) = headers.get(name).filter(|value| !value.is_empty()) else { return Ok(None) };
    let forgiving =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let decoder = GeneralPurpose::new(&URL_SAFE, forgiving);
    let json = decoder
        .decode(value.as_bytes())
        .map_err(|error| ApiError::invalid(format!("invalid {name} header: {error}")))?;
    // Clients that have nothing to say send `null` or an empty document.
    if json.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice::<Option<T>>(&json)
        .map_err(|error| ApiError::invalid(format!("invalid {name} header: {error}")))
}

/// The registry that an address of a login means: `https://index.docker.io/v1/` is `docker.io`.
fn registry_host(address: &str) -> String {
    let host = address.trim_start_matches("https://").trim_start_matches("http://");
    let host = host.split('/').next().unwrap_or_default();
    match host {
        "" | "index.docker.io" | "registry-1.docker.io" => DEFAULT_DOMAIN.to_owned(),
        host => host.to_owned(),
    }
}

/// `POST /auth`
pub(crate) async fn log_in(
    State(api): State<Api>,
    Json(config): Json<AuthConfig>,
) -> Answer<Response> {
    let registry = registry_host(&config.serveraddress);
    // Without any it is the registry's to say whether it wants them, as with Docker: testcontainers
    // logs in so to one that does not.
    let credentials = config.credentials();
    match api.engine.images().log_in(&registry, credentials.as_ref()).await {
        Ok(()) => {
            let body = json!({ "Status": "Login Succeeded", "IdentityToken": "" });
            Ok(axum::Json(body).into_response())
        }
        // The CLI asks anew for 401 only.
        Err(error) if error.class == Class::Denied => {
            Err(ApiError::new(StatusCode::UNAUTHORIZED, error.message))
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(json: &str) -> HeaderMap {
        let text = base64::engine::general_purpose::URL_SAFE.encode(json);
        let mut headers = HeaderMap::new();
        headers.insert("x-registry-auth", HeaderValue::from_str(&text).expect("ASCII"));
        headers
    }

    #[test]
    fn credentials_come_from_the_header() {
        let headers =
            headers(r#"{"username":"ann","password":"?>~","auth":null,"serveraddress":"x:5000"}"#);
        let found = registry_auth(&headers).expect("valid").expect("there");
        assert_eq!((found.username.as_str(), found.password.as_str()), ("ann", "?>~"));
    }

    #[test]
    fn nothing_is_no_credentials() {
        for json in ["{}", "null", "", r#"{"username":""}"#] {
            assert!(registry_auth(&headers(json)).expect(json).is_none(), "{json}");
        }
        assert!(registry_auth(&HeaderMap::new()).expect("no header").is_none());
        assert!(registry_auth(&headers("[")).is_err());
    }

    #[test]
    fn addresses_name_registries() {
        for (address, host) in [
            ("https://index.docker.io/v1/", "docker.io"),
            ("127.0.0.1:5000", "127.0.0.1:5000"),
            ("http://registry.test/v2/", "registry.test"),
            ("", "docker.io"),
        ] {
            assert_eq!(registry_host(address), host);
        }
        assert_eq!(split_auth("YW5uOmI6Yw=="), Some(("ann".to_owned(), "b:c".to_owned())));
    }
}
