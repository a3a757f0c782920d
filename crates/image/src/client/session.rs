use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;

use super::Credentials;
use super::challenge::Challenge;
use super::connection::{Body, Connections};
use super::origin::{Origin, Url};
use crate::ImageError;

/// A server that sends nothing for this long is taken for dead.
const SILENCE: Duration = Duration::from_secs(60);
const REDIRECTS: usize = 5;

/// What a session is for: the scope of its token, and the words of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    LogIn,
    Pull,
    Push,
}

/// The requests of one transfer with one repository, and what they authenticate by.
#[derive(Debug)]
pub(super) struct Session {
    connections: Arc<Connections>,
    origin: Origin,
    /// As the user names it.
    registry: String,
    repository: String,
    credentials: Option<Credentials>,
    access: Access,
    authorization: Mutex<Option<HeaderValue>>,
}

/// Something to send, as often as it takes.
pub(super) type Payload<'a> = &'a (dyn Fn() -> io::Result<(Body, u64)> + Send + Sync);

impl Session {
    pub(super) fn new(
        connections: Arc<Connections>,
        origin: Origin,
        registry: &str,
        repository: String,
        credentials: Option<Credentials>,
        access: Access,
    ) -> Self {
        Self {
            connections,
            origin,
            registry: registry.to_owned(),
            repository,
            credentials,
            access,
            authorization: Mutex::new(None),
        }
    }

    pub(super) fn registry(&self) -> &str {
        &self.registry
    }

    /// `/v2/REPOSITORY/REST`
    pub(super) fn url(&self, rest: &str) -> Url {
        let path = format!("/v2/{}/{rest}", self.repository);
        Url { origin: self.origin.clone(), path }
    }

    pub(super) async fn get(
        &self,
        url: Url,
        headers: &HeaderMap,
    ) -> Result<Response<Incoming>, ImageError> {
        self.call(Method::GET, url, headers, None).await
    }

    pub(super) async fn head(&self, url: Url) -> Result<Response<Incoming>, ImageError> {
        self.call(Method::HEAD, url, &HeaderMap::new(), None).await
    }

    /// Sends a request, authenticates if that is asked for, and follows redirects of reads.
    pub(super) async fn call(
        &self,
        method: Method,
        mut url: Url,
        headers: &HeaderMap,
        payload: Option<Payload<'_>>,
    ) -> Result<Response<Incoming>, ImageError> {
        let mut authenticated = false;
        let mut redirects = 0;
        loop {
            let response = self.once(&method, &url, headers, payload).await?;
            let status = response.status();
            let is_ours = url.origin == self.origin;
            if status == StatusCode::UNAUTHORIZED && is_ours && !authenticated {
                self.authenticate(&response).await?;
                authenticated = true;
                continue;
            }
            let is_read = method == Method::GET || method == Method::HEAD;
            if status.is_redirection() && is_read && status != StatusCode::NOT_MODIFIED {
                redirects += 1;
                let target = self.location(&url, &response)?;
                if redirects > REDIRECTS {
                    return Err(self.error("it redirects in circles"));
                }
                url = target;
                continue;
            }
            return Ok(response);
        }
    }

    /// Where a response sends us; never from TLS to plain text.
    pub(super) fn location(
        &self,
        from: &Url,
        response: &Response<Incoming>,
    ) -> Result<Url, ImageError> {
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let target = location
            .and_then(|location| from.join(location))
            .ok_or_else(|| self.error("it redirects to no usable address"))?;
        // A registry behind a proxy may call itself http; it is still reached the way it was.
        if from.origin.tls && !target.origin.tls {
            if target.origin.host == from.origin.host && self.connections.is_insecure(&from.origin)
            {
                return Ok(target);
            }
            return Err(self.error("it redirects from https to http, which is refused"));
        }
        Ok(target)
    }

    async fn once(
        &self,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        payload: Option<Payload<'_>>,
    ) -> Result<Response<Incoming>, ImageError> {
        let (body, length) = match payload {
            Some(payload) => payload().map_err(|cause| ImageError::Io {
                what: "read what is to be pushed".to_owned(),
                cause,
            })?,
            None => (Empty::new().map_err(|never| match never {}).boxed(), 0),
        };
        let mut request = Request::builder()
            .method(method)
            .uri(&url.path)
            .body(body)
            .map_err(|_| self.error("it sent an address that is none"))?;
        request.headers_mut().extend(headers.clone());
        if payload.is_some() || method == Method::POST {
            request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        // Another origin never sees what this registry is entitled to. The registry's own name
        // with and without TLS is one registry, if it is an insecure one.
        let same = url.origin == self.origin
            || (url.origin.host == self.origin.host
                && self.connections.is_insecure(&self.origin)
                && url.origin.port == self.origin.port);
        if same {
            let authorization =
                self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(value) = authorization {
                request.headers_mut().insert(AUTHORIZATION, value);
            }
        }
        self.connections.send(&url.origin, request).await.map_err(|error| self.unreachable(error))
    }

    async fn authenticate(&self, response: &Response<Incoming>) -> Result<(), ImageError> {
        let challenges: Vec<_> = response
            .headers()
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(Challenge::parse)
            .collect();
        let find = |scheme: &str| challenges.iter().find(|one| one.scheme == scheme);
        let value = if let Some(bearer) = find("bearer") {
            format!("Bearer {}", self.token(bearer).await?)
        } else if find("basic").is_some() {
            let Some(credentials) = &self.credentials else {
                return Err(ImageError::Denied("unauthorized: authentication required".to_owned()));
            };
            basic(credentials)
        } else {
            return Err(self.error("it asks for a way to log in that is not supported"));
        };
        let mut value = HeaderValue::from_str(&value)
            .map_err(|_| self.error("the token holds characters that a header may not"))?;
        value.set_sensitive(true);
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        Ok(())
    }

    /// Gets a token (distribution: docs/content/spec/auth/token.md).
    async fn token(&self, challenge: &Challenge) -> Result<String, ImageError> {
        let realm = challenge.parameters.get("realm").map(String::as_str).unwrap_or_default();
        let base = Url { origin: self.origin.clone(), path: "/".to_owned() };
        let mut url = base
            .join(realm)
            .ok_or_else(|| self.error(&format!("its token server {realm:?} is no address")))?;
        self.check_realm(&url.origin).await?;
        // Credentials go to the registry's own people only.
        let credentials = self.credentials.as_ref().filter(|_| url.origin.is_kin_of(&self.origin));
        if self.credentials.is_some() && credentials.is_none() {
            return Err(self.error(&format!(
                "it wants the password sent to {}, another site; this is refused",
                url.origin.host
            )));
        }
        let mut query: Vec<(&str, &str)> = Vec::new();
        if let Some(service) = challenge.parameters.get("service") {
            query.push(("service", service));
        }
        let actions = match self.access {
            Access::LogIn => None,
            Access::Pull => Some("pull"),
            Access::Push => Some("pull,push"),
        };
        let scope = actions.map(|actions| format!("repository:{}:{actions}", self.repository));
        query.extend(scope.iter().map(|scope| ("scope", &**scope)));
        let mut headers = HeaderMap::new();
        let mut form = None;
        match credentials {
            Some(credentials) if !credentials.identitytoken.is_empty() => {
                query.push(("grant_type", "refresh_token"));
                query.push(("client_id", "bulkhead"));
                query.push(("refresh_token", &credentials.identitytoken));
                headers.insert(
                    CONTENT_TYPE,
                    HeaderValue::from_static("application/x-www-form-urlencoded"),
                );
                form = Some(encoded(&query));
            }
            other => {
                if let Some(credentials) = other {
                    query.push(("account", &credentials.username));
                    let mut value = HeaderValue::from_str(&basic(credentials))
                        .expect("base64 is a valid header");
                    value.set_sensitive(true);
                    headers.insert(AUTHORIZATION, value);
                }
                let separator = if url.path.contains('?') { '&' } else { '?' };
                url.path = format!("{}{separator}{}", url.path, encoded(&query));
            }
        }
        let response = match &form {
            Some(form) => {
                let payload = || {
                    let body = Full::new(Bytes::from(form.clone()));
                    Ok((body.map_err(|never| match never {}).boxed(), form.len() as u64))
                };
                self.once(&Method::POST, &url, &headers, Some(&payload)).await?
            }
            None => self.once(&Method::GET, &url, &headers, None).await?,
        };
        let status = response.status();
        let bytes = self.bytes(response, 1 << 20).await?;
        if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
            return Err(self.denied(status));
        }
        #[derive(serde::Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
        }
        let answer: Option<Answer> =
            status.is_success().then(|| serde_json::from_slice(&bytes).ok()).flatten();
        answer
            .and_then(|answer| answer.token.or(answer.access_token))
            .filter(|token| !token.is_empty())
            .ok_or_else(|| self.error(&format!("its token server answered {status}")))
    }

    /// A token server elsewhere must be public and use TLS, unless the registry is inside too.
    async fn check_realm(&self, realm: &Origin) -> Result<(), ImageError> {
        if realm.host == self.origin.host {
            return if realm.tls || self.connections.is_insecure(&self.origin) {
                Ok(())
            } else {
                Err(self.error("its token server uses plain http, which is refused"))
            };
        }
        if !realm.tls {
            return Err(self.error("its token server uses plain http, which is refused"));
        }
        let inside = async |origin| {
            let found = self.connections.is_internal(origin).await;
            found.map_err(|error| self.unreachable(error))
        };
        if inside(realm).await? && !inside(&self.origin).await? {
            return Err(self.error(&format!(
                "its token server {} is in an internal network; this is refused",
                realm.host
            )));
        }
        Ok(())
    }

    pub(super) async fn log_in(&self) -> Result<(), ImageError> {
        let url = Url { origin: self.origin.clone(), path: "/v2/".to_owned() };
        let response = self.get(url, &HeaderMap::new()).await?;
        match response.status() {
            status if status.is_success() => Ok(()),
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => Err(self.denied(status)),
            status => Err(self.error(&format!("it answered {status} to the login"))),
        }
    }

    /// The next piece of a body, or `None` at its end.
    pub(super) async fn piece(&self, body: &mut Incoming) -> Result<Option<Bytes>, ImageError> {
        loop {
            let frame = tokio::time::timeout(SILENCE, body.frame())
                .await
                .map_err(|_| self.error("it fell silent for 60 seconds"))?;
            match frame {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(error)) => return Err(self.error(&format!("it broke off: {error}"))),
            }
        }
    }

    /// Reads a whole body that may not be longer than `limit` bytes.
    pub(super) async fn bytes(
        &self,
        response: Response<Incoming>,
        limit: u64,
    ) -> Result<Bytes, ImageError> {
        let mut body = response.into_body();
        let mut bytes = BytesMut::new();
        while let Some(piece) = self.piece(&mut body).await? {
            if (bytes.len() + piece.len()) as u64 > limit {
                return Err(self.error(&format!("an answer is longer than {limit} bytes")));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes.freeze())
    }

    /// Turns an answer that is no success into an error, in the registry's words if it has some.
    pub(super) async fn refused(&self, what: &str, response: Response<Incoming>) -> ImageError {
        let status = response.status();
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return self.denied(status);
        }
        let text = match self.bytes(response, 64 << 10).await {
            Ok(bytes) => spoken(&bytes).unwrap_or_else(|| status.to_string()),
            Err(_) => status.to_string(),
        };
        self.error(&format!("{what}: {text}"))
    }

    pub(super) fn error(&self, message: &str) -> ImageError {
        ImageError::Registry { registry: self.registry.clone(), message: message.to_owned() }
    }

    fn denied(&self, status: StatusCode) -> ImageError {
        ImageError::Denied(match self.access {
            Access::LogIn => "unauthorized: incorrect username or password".to_owned(),
            _ if status == StatusCode::UNAUTHORIZED && self.credentials.is_some() => {
                "unauthorized: authentication required".to_owned()
            }
            Access::Push => "denied: requested access to the resource is denied".to_owned(),
            Access::Pull => self.pull_denied(),
        })
    }

    /// What Docker says to those who may not know whether the repository exists.
    pub(super) fn pull_denied(&self) -> String {
        let name = match self.repository.strip_prefix("library/") {
            Some(name) if self.registry == bulkhead_types::DEFAULT_DOMAIN => name.to_owned(),
            _ if self.registry == bulkhead_types::DEFAULT_DOMAIN => self.repository.clone(),
            _ => format!("{}/{}", self.registry, self.repository),
        };
        format!(
            "pull access denied for {name}, repository does not exist or may require 'docker \
             login': denied: requested access to the resource is denied"
        )
    }

    fn unreachable(&self, error: io::Error) -> ImageError {
        self.error(&format!(
            "it cannot be reached ({error}); check its name, that it runs, and this machine's network"
        ))
    }
}

/// The messages in the body of a registry's error.
fn spoken(bytes: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<OneError>,
    }
    #[derive(serde::Deserialize)]
    struct OneError {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let errors: Errors = serde_json::from_slice(bytes).ok()?;
    let words = errors.errors.iter().take(3).map(|error| {
        let code = error.code.to_lowercase().replace('_', " ");
        let message: String = error.message.chars().take(300).collect();
        format!("{code}: {message}")
    });
    Some(words.collect::<Vec<_>>().join("; ")).filter(|text| !text.is_empty())
}

fn basic(credentials: &Credentials) -> String {
    let plain = format!("{}:{}", credentials.username, credentials.password);
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(plain))
}

/// As `application/x-www-form-urlencoded`.
fn encoded(pairs: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}
