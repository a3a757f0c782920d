use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::SERVER;
use http::uri::{PathAndQuery, Uri};
use http::{HeaderName, HeaderValue};

use crate::error::ApiError;

/// The newest version of the API that is served, and the one that is announced.
pub(crate) const MAXIMUM: ApiVersion = ApiVersion(51);

/// The oldest version that is served.
pub(crate) const MINIMUM: ApiVersion = ApiVersion(24);

/// The minor number of a `1.NN` version of the API; handlers find it among a request's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ApiVersion(pub(crate) u16);

impl std::fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "1.{}", self.0)
    }
}

/// Takes the `/v1.NN` off the path and puts the headers on that every answer has.
pub(crate) async fn layer(mut request: Request, next: Next) -> Response {
    let mut response = match split(request.uri()) {
        Ok((version, uri)) => {
            *request.uri_mut() = uri;
            request.extensions_mut().insert(version);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    };
    for (name, value) in [
        ("api-version", "1.51"),
        ("docker-experimental", "false"),
        ("ostype", "linux"),
        // 1 is the classic builder, which /build serves; 2 would send Compose to /grpc.
        ("builder-version", "1"),
    ] {
        response
            .headers_mut()
            .insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let server = concat!("Bulkhead/", env!("CARGO_PKG_VERSION"), " (linux)");
    response.headers_mut().insert(SERVER, HeaderValue::from_static(server));
    response
}

/// The version that a path asks for and the path without it; a path without one asks for the
/// newest.
fn split(uri: &Uri) -> Result<(ApiVersion, Uri), ApiError> {
    let Some((asked, rest)) = prefix(uri.path()) else { return Ok((MAXIMUM, uri.clone())) };
    let version = match asked.split_once('.') {
        Some(("1", minor)) => minor.parse().map(ApiVersion).ok(),
        Some((major, _)) => major.parse::<u16>().ok().map(|major| ApiVersion(major.min(2) * 1000)),
        None => None,
    }
    .ok_or_else(ApiError::page_not_found)?;
    if version > MAXIMUM {
        return Err(ApiError::invalid(format!(
            "client version {asked} is too new. Maximum supported API version is {MAXIMUM}"
        )));
    }
    if version < MINIMUM {
        return Err(ApiError::invalid(format!(
            "client version {asked} is too old. Minimum supported API version is {MINIMUM}, \
             please upgrade your client to a newer version"
        )));
    }
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let path: PathAndQuery =
        format!("{rest}{query}").parse().map_err(|_| ApiError::page_not_found())?;
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path);
    Ok((version, Uri::from_parts(parts).map_err(|_| ApiError::page_not_found())?))
}

/// `/v1.24/containers/json` is `1.24` and `/containers/json`; other paths have no prefix.
fn prefix(path: &str) -> Option<(&str, &str)> {
    let versioned = path.strip_prefix("/v")?;
    let slash = versioned.find('/')?;
    let (version, rest) = versioned.split_at(slash);
    let numeric =
        !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    (numeric && version.contains('.')).then_some((version, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_is_split_off() {
        for (path, version, rest) in [
            ("/v1.24/_ping", 24, "/_ping"),
            ("/v1.51/containers/json?all=1&a=/v1.2/", 51, "/containers/json?all=1&a=/v1.2/"),
            ("/_ping", 51, "/_ping"),
            ("/volumes/x", 51, "/volumes/x"),
            ("/v1/x", 51, "/v1/x"),
        ] {
            let (found, uri) = split(&path.parse().expect(path)).expect(path);
            assert_eq!((found, uri.to_string()), (ApiVersion(version), rest.to_owned()));
        }
    }

    #[test]
    fn versions_out_of_range_are_refused() {
        for (path, message) in [
            (
                "/v1.60/version",
                "client version 1.60 is too new. Maximum supported API version is 1.51",
            ),
            ("/v2.0/x", "client version 2.0 is too new. Maximum supported API version is 1.51"),
            (
                "/v1.20/x",
                "client version 1.20 is too old. Minimum supported API version is 1.24, please \
                 upgrade your client to a newer version",
            ),
            ("/v1.x.2/x", "page not found"),
        ] {
            match split(&path.parse().expect(path)) {
                Err(error) => assert_eq!(error.message, message),
                Ok((_, uri)) => assert_eq!(uri.path(), path),
            }
        }
    }
}
