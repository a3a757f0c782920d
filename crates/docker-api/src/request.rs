//! Reading what clients send: JSON bodies and query parameters, with Go's rules for both.

use std::collections::HashMap;

use axum::extract::{FromRequest, FromRequestParts, Request};
use bulkhead_types::{TimeZone, Timestamp, parse_moment};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::decode::{decode, no_json};
use crate::error::ApiError;
use crate::fields::Operation;
use crate::version::{ApiVersion, MAXIMUM};

/// The largest JSON body that is read; a create request with thousands of labels stays far below.
const LIMIT: usize = 4 << 20;

/// A JSON body, of which the operation knows every member that says something.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let operation = Operation::of(request.method(), request.uri().path());
        let version = request.extensions().get().copied().unwrap_or(MAXIMUM);
        let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_owned();
        let bytes = axum::body::to_bytes(request.into_body(), LIMIT).await.map_err(|error| {
            match std::error::Error::source(&error) {
                Some(cause) if cause.is::<http_body_util::LengthLimitError>() => ApiError::invalid(
                    format!("the request's body is larger than {} MiB", LIMIT >> 20),
                ),
                _ => ApiError::invalid(format!("the request's body cannot be read: {error}")),
            }
        })?;
        if bytes.is_empty() {
            return decode(Value::Object(Default::default())).map(Self);
        }
        if kind != "application/json" {
            return Err(ApiError::invalid(format!(
                "unsupported Content-Type header ({kind}): must be 'application/json'"
            )));
        }
        let mut value = serde_json::from_slice(&bytes).map_err(|error| no_json(&error))?;
        if let Some(operation) = operation {
            operation.check_body(version, &mut value)?;
        }
        // What clients send that have nothing to say.
        if value.is_null() {
            let nothing = || decode(Value::Object(Default::default()));
            return decode(Value::Null).or_else(|_| nothing()).map(Self);
        }
        decode(value).map(Self)
    }
}

/// The parameters after the `?`, each with all the values it was given.
#[derive(Debug, Default)]
pub(crate) struct Query(HashMap<String, Vec<String>>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let query = Self::parse(parts.uri.query().unwrap_or_default());
        let version = parts.extensions.get().copied().unwrap_or(MAXIMUM);
        query.check(&parts.method, parts.uri.path(), version)?;
        Ok(query)
    }
}

impl Query {
    /// Refuses what the operation does not do.
    pub(crate) fn check(
        &self,
        method: &http::Method,
        path: &str,
        version: ApiVersion,
    ) -> Result<(), ApiError> {
        let Some(operation) = Operation::of(method, path) else { return Ok(()) };
        let all = self.0.iter();
        let pairs = all.flat_map(|(name, values)| {
            values.iter().map(move |value| (name.as_str(), value.as_str()))
        });
        operation.check_query(version, pairs)
    }

    pub(crate) fn parse(text: &str) -> Self {
        let mut values: HashMap<String, Vec<String>> = HashMap::new();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            values.entry(name.into_owned()).or_default().push(value.into_owned());
        }
        Self(values)
    }

    /// The names of all parameters.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The first value, if the parameter was given at all.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(|values| values.first()).map(String::as_str)
    }

    /// The first value, empty when there is none.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.value(name).unwrap_or_default()
    }

    pub(crate) fn all(&self, name: &str) -> &[String] {
        self.0.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// Everything but ``, `0`, `no`, `false` and `none` is true (moby: httputils/form.go).
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.flag_or(name, false)
    }

    pub(crate) fn flag_or(&self, name: &str, default: bool) -> bool {
        match self.value(name) {
            None => default,
            Some(text) => !matches!(
                text.trim().to_ascii_lowercase().as_str(),
                "" | "0" | "no" | "false" | "none"
            ),
        }
    }

    /// A number, `None` when the parameter is missing or empty.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, ApiError> {
        match self.text(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                ApiError::invalid(format!("invalid value for {name}: {text:?} is not a number"))
            }),
        }
    }

    /// A point in time: seconds since the epoch, a duration before now, RFC 3339 or a date.
    pub(crate) fn time(&self, name: &str) -> Result<Option<Timestamp>, ApiError> {
        match self.text(name) {
            "" => Ok(None),
            text => timestamp(text).map(Some).ok_or_else(|| {
                ApiError::invalid(format!("invalid value for {name}: {text:?} is not a time"))
            }),
        }
    }

    /// A JSON document, or `None` when the parameter is missing or empty.
    pub(crate) fn json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, ApiError> {
        match self.text(name) {
            // Go's clients write null for a list that nobody gave.
            "" | "null" => Ok(None),
            text => serde_json::from_str(text).map(Some).map_err(|error| {
                ApiError::invalid(format!(
                    "invalid value for {name}: it is not valid JSON: {error}"
                ))
            }),
        }
    }
}

/// A moment in any of the forms that clients send.
pub(crate) fn timestamp(text: &str) -> Option<Timestamp> {
    parse_moment(text, Timestamp::now(), &TimeZone::system())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_read_like_docker() {
        let query = Query::parse("a=1&b=0&c=False&d=&e=true&f=None&g=yes&t=x&t=y%2Fz");
        let flags: Vec<bool> =
            "abcdefgh".chars().map(|name| query.flag(&name.to_string())).collect();
        assert_eq!(flags, [true, false, false, false, true, false, true, false]);
        assert_eq!(query.all("t"), ["x", "y/z"]);
    }
}
