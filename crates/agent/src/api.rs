//! Signed calls of the control plane's API.

use std::time::Duration;

use bulkhead_aws_api::sigv4::{self, Credentials, Request};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

/// A client of one control plane.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    client: Client<HttpConnector, Full<Bytes>>,
    endpoint: String,
    region: String,
    credentials: Credentials,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The control plane understood and refused: asking again changes nothing.
    #[error("{code}: {message}")]
    Refused { code: String, message: String },
    /// It could not be asked, or failed itself: asking again may help.
    #[error("the control plane at {endpoint} does not answer: {reason}")]
    Unreachable { endpoint: String, reason: String },
}

impl Api {
    pub(crate) fn new(endpoint: &str, region: &str, credentials: Credentials) -> Self {
        Self {
            client: Client::builder(TokioExecutor::new()).build_http(),
            endpoint: endpoint.to_owned(),
            region: region.to_owned(),
            credentials,
        }
    }

    /// Performs one ECS operation.
    pub(crate) async fn call(&self, operation: &str, input: &Value) -> Result<Value, ApiError> {
        let unreachable =
            |reason: String| ApiError::Unreachable { endpoint: self.endpoint.clone(), reason };
        let body = Bytes::from(input.to_string());
        let target = format!("AmazonEC2ContainerServiceV20141113.{operation}");
        let headers = [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", &*target)];
        let signed = self.signed("POST", "/", "", &headers, &body);
        let mut request = http::Request::post(format!("{}/", self.endpoint));
        for (name, value) in &signed {
            request = request.header(*name, value);
        }
        let request =
            request.body(Full::new(body)).map_err(|error| unreachable(error.to_string()))?;
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                unreachable(cause.unwrap_or_else(|| error.to_string()))
            })?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LARGEST_ANSWER)
                .collect()
                .await
                .map_err(|error| unreachable(error.to_string()))?
                .to_bytes();
            let value: Value = serde_json::from_slice(&body).unwrap_or_else(|_| json!({}));
            if status.is_success() {
                return Ok(value);
            }
            let code = value["__type"].as_str().unwrap_or_default().to_owned();
            let message = value["message"].as_str().unwrap_or_default().to_owned();
            if status.is_server_error() || code.is_empty() {
                return Err(unreachable(format!("{status} {message}")));
            }
            Err(ApiError::Refused { code, message })
        };
        match tokio::time::timeout(TIMEOUT, exchange).await {
            Ok(result) => result,
            Err(_) => Err(unreachable(format!("no answer in {} s", TIMEOUT.as_secs()))),
        }
    }

    /// All headers of a request, `host` and the signature included.
    pub(crate) fn signed(
        &self,
        method: &str,
        path: &str,
        query: &str,
        headers: &[(&'static str, &str)],
        body: &[u8],
    ) -> Vec<(&'static str, String)> {
        let date = sigv4::amz_date(jiff::Timestamp::now());
        let host = self.host();
        let mut covered: Vec<(&str, &str)> = headers.to_vec();
        covered.extend([("host", host), ("x-amz-date", &*date)]);
        let request = Request { method, path, query, headers: &covered, body };
        let authorization = sigv4::sign(&request, &self.credentials, &self.region, "ecs");
        let mut all: Vec<(&'static str, String)> =
            headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        all.extend([
            ("host", host.to_owned()),
            ("x-amz-date", date),
            ("authorization", authorization),
        ]);
        all
    }

    /// Host and port, as in the `Host` header.
    fn host(&self) -> &str {
        let rest = self.endpoint.split_once("://").map_or(&*self.endpoint, |(_, rest)| rest);
        rest.split('/').next().unwrap_or(rest)
    }

    /// The same client for another address of the same control plane, as `DiscoverPollEndpoint` gives it.
    pub(crate) fn at(&self, endpoint: &str) -> Self {
        Self { endpoint: endpoint.trim_end_matches('/').to_owned(), ..self.clone() }
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

const TIMEOUT: Duration = Duration::from_secs(30);
const LARGEST_ANSWER: usize = 4 << 20;
