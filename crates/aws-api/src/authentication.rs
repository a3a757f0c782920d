use axum::http::request::Parts;

use crate::sigv4::{self, Rejected, Request, Verified};

/// The keys with which requests may be signed.
pub trait AccessKeys: Send + Sync {
    /// The secret that belongs to an access key id, if that key exists.
    fn secret(&self, access_key_id: &str) -> Option<String>;
}

/// Checks the signature of a whole request.
pub(crate) fn authenticate(
    keys: &dyn AccessKeys,
    parts: &Parts,
    body: &[u8],
) -> Result<Verified, Rejected> {
    let headers: Vec<(&str, &str)> = parts
        .headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
        .collect();
    let request = Request {
        method: parts.method.as_str(),
        path: parts.uri.path(),
        query: parts.uri.query().unwrap_or_default(),
        headers: &headers,
        body,
    };
    sigv4::verify(&request, jiff::Timestamp::now(), |id| keys.secret(id))
}
