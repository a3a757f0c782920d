//! Who may see the pages: log-in, cookie, and the checks that keep other sites out.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use askama::Template;
use axum::Form;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use tokio::sync::Notify;

use crate::Console;
use crate::pages::page;

/// A log-in ends after this long without a page.
const IDLE: Duration = Duration::from_secs(12 * 60 * 60);

const COOKIE: &str = "bulkhead-session";

/// Tokens of those who are logged in, with the last time each was seen. A restart forgets them.
#[derive(Debug, Default)]
pub struct Sessions {
    seen: Mutex<HashMap<String, Instant>>,
    /// Told at every log-out.
    log_outs: Notify,
}

impl Sessions {
    fn begin(&self) -> String {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)
            .expect("getrandom(2) with no flags fails only before Linux 3.17");
        let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut sessions = self.lock();
        sessions.retain(|_, seen| seen.elapsed() < IDLE);
        sessions.insert(token.clone(), Instant::now());
        token
    }

    fn knows(&self, token: &str) -> bool {
        match self.lock().get_mut(token) {
            Some(seen) if seen.elapsed() < IDLE => {
                *seen = Instant::now();
                true
            }
            _ => false,
        }
    }

    fn end(&self, token: &str) {
        self.lock().remove(token);
        self.log_outs.notify_waiters();
    }

    /// Returns when a log-in has ended.
    pub async fn ended(&self, token: &str) {
        loop {
            // Listening begins before the look, so that no log-out falls between the two.
            let log_out = self.log_outs.notified();
            if !self.lock().contains_key(token) {
                return;
            }
            log_out.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    wrong: bool,
}

#[derive(Deserialize)]
pub struct Login {
    user: String,
    password: String,
}

pub async fn form() -> Response {
    page(&LoginPage { wrong: false })
}

pub async fn log_in(State(console): State<Console>, Form(login): Form<Login>) -> Response {
    match console.plane.check(login.user, login.password).await {
        Ok(true) => {}
        Ok(false) => {
            return (StatusCode::FORBIDDEN, page(&LoginPage { wrong: true })).into_response();
        }
        Err(problem) => return problem.into_response(),
    }
    let token = console.sessions.begin();
    let cookie = format!("{COOKIE}={token}; HttpOnly; SameSite=Strict; Path=/");
    ([(header::SET_COOKIE, cookie)], Redirect::to("/clusters")).into_response()
}

pub async fn log_out(State(console): State<Console>, headers: HeaderMap) -> Response {
    if let Some(token) = token(&headers) {
        console.sessions.end(token);
    }
    let cookie = format!("{COOKIE}=; HttpOnly; SameSite=Strict; Path=/; Max-Age=0");
    ([(header::SET_COOKIE, cookie)], Redirect::to("/login")).into_response()
}

/// Lets only those through who are logged in.
pub async fn require(State(console): State<Console>, request: Request, next: Next) -> Response {
    if token(request.headers()).is_some_and(|token| console.sessions.knows(token)) {
        return next.run(request).await;
    }
    Redirect::to("/login").into_response()
}

/// The token that the browser sent.
pub fn token(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get(header::COOKIE)?.to_str().ok()?;
    cookies.split(';').find_map(|cookie| cookie.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

/// Refuses what another site sent the browser to do, and tells the browser what pages may load.
///
/// A host name that is not ours means DNS rebinding: a page of an attacker's domain whose name now
/// resolves to this machine. Addresses and `localhost` cannot be rebound.
pub async fn guard(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if !is_local_name(host) {
        let text =
            "this console answers to addresses and to localhost only: open it by its IP address";
        return (StatusCode::MISDIRECTED_REQUEST, text).into_response();
    }
    let origin = headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok());
    let foreign =
        origin.is_some_and(|origin| origin.split_once("://").is_none_or(|(_, name)| name != host));
    if request.method() == Method::POST && foreign {
        return (StatusCode::FORBIDDEN, "a form of another site was sent here, and refused")
            .into_response();
    }
    let mut response = next.run(request).await;
    for (name, value) in HEADERS {
        response
            .headers_mut()
            .insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

// Under `no-referrer` browsers send `Origin: null` with the forms of our own pages, too (Fetch, "append a
// request `Origin` header"), and those would be refused.
const HEADERS: [(&str, &str); 4] = [
    (
        "content-security-policy",
        "default-src 'self'; frame-ancestors 'none'; form-action 'self'; base-uri 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "same-origin"),
    ("x-frame-options", "DENY"),
];

fn is_local_name(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(literal) => literal.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    // Browsers resolve all of .localhost to this machine (RFC 6761, section 6.3).
    name == "localhost" || name.ends_with(".localhost") || name.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_are_ours() {
        for good in [
            "127.0.0.1:7480",
            "localhost",
            "localhost:1",
            "192.0.2.2",
            "[::1]:7480",
            "bulkhead.localhost:7480",
        ] {
            assert!(is_local_name(good), "{good}");
        }
        for bad in
            ["", "example.org", "localhost.example.org", "127.0.0.1.nip.io:80", "[x]", "xlocalhost"]
        {
            assert!(!is_local_name(bad), "{bad}");
        }
    }

    #[test]
    fn sessions_end() {
        let sessions = Sessions::default();
        let token = sessions.begin();
        assert!(sessions.knows(&token) && !sessions.knows("") && !sessions.knows("x"));
        sessions.end(&token);
        assert!(!sessions.knows(&token));
    }
}
