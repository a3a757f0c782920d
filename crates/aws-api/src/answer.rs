//! Answers in the two dialects that AWS's clients read: JSON 1.1, and the XML of the query protocols.

use axum::body::Body;
use axum::http::{Response, StatusCode, header};
use bulkhead_ecs::{Code, Error};
use serde_json::json;

use crate::sigv4::Rejected;

/// A refusal, before it is put into a dialect.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub status: StatusCode,
    pub code: String,
    pub message: String,
    pub resource_ids: Vec<String>,
}

impl Refusal {
    pub(crate) fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            code: code.into(),
            message: message.into(),
            resource_ids: Vec::new(),
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let status = match error.code {
            Code::Server => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        };
        Self {
            status,
            code: error.code.name().into(),
            message: error.message,
            resource_ids: error.resource_ids,
        }
    }
}

impl From<Rejected> for Refusal {
    fn from(rejected: Rejected) -> Self {
        let code = match rejected {
            Rejected::Missing => "MissingAuthenticationTokenException",
            Rejected::Incomplete(_) => "IncompleteSignatureException",
            Rejected::UnknownKey => "UnrecognizedClientException",
            Rejected::Expired { .. } | Rejected::NotYetCurrent { .. } | Rejected::Mismatch => {
                "InvalidSignatureException"
            }
        };
        Self { status: StatusCode::FORBIDDEN, ..Self::new(code, rejected.to_string()) }
    }
}

/// How the caller wants to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Json,
    /// STS and most older services.
    Query,
    Ec2,
}

impl Dialect {
    pub(crate) fn success(self, request_id: &str, body: String) -> Response<Body> {
        self.response(StatusCode::OK, request_id, body)
    }

    pub(crate) fn refuse(self, request_id: &str, refusal: &Refusal) -> Response<Body> {
        let (code, message) = (&refusal.code, &refusal.message);
        let body = match self {
            Self::Json => {
                let mut body = json!({"__type": code, "message": message});
                if !refusal.resource_ids.is_empty() {
                    body["resourceIds"] = json!(refusal.resource_ids);
                }
                body.to_string()
            }
            Self::Query => format!(
                "<ErrorResponse><Error><Type>Sender</Type><Code>{}</Code><Message>{}</Message></Error><RequestId>{request_id}</RequestId></ErrorResponse>",
                xml(code),
                xml(message)
            ),
            Self::Ec2 => format!(
                "<Response><Errors><Error><Code>{}</Code><Message>{}</Message></Error></Errors><RequestID>{request_id}</RequestID></Response>",
                xml(code),
                xml(message)
            ),
        };
        self.response(refusal.status, request_id, body)
    }

    fn response(self, status: StatusCode, request_id: &str, body: String) -> Response<Body> {
        let kind = match self {
            Self::Json => "application/x-amz-json-1.1",
            Self::Query | Self::Ec2 => "text/xml;charset=UTF-8",
        };
        Response::builder()
            .status(status)
            .header(header::CONTENT_TYPE, kind)
            .header("x-amzn-requestid", request_id)
            .body(Body::from(body))
            .expect("a status, constant names and a hexadecimal id always make a response")
    }
}

/// Escapes text for XML.
pub(crate) fn xml(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, character| {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
        escaped
    })
}

/// A random UUID, as AWS numbers its answers.
pub(crate) fn request_id() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the kernel has random bytes after boot");
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = format!("{:032x}", u128::from_be_bytes(bytes));
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
