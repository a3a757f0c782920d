//! AWS Signature Version 4 in headers: made by the agent, checked by the server, with one canonical
//! request for both, so that they cannot disagree.
//!
//! Follows "Create a signed AWS API request" of the IAM user guide. The payload's hash is always computed
//! from the body: a header that names it is signed data, not evidence.

use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use sha2::{Digest, Sha256};

/// A key pair.
#[derive(Clone)]
pub struct Credentials {
    pub access_key_id: String,
    pub secret_access_key: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // the secret must not reach a log
        f.debug_struct("Credentials")
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

/// The parts of a request that a signature covers.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub method: &'a str,
    /// As on the wire, percent-encoded.
    pub path: &'a str,
    /// As on the wire, without `?`.
    pub query: &'a str,
    /// Lower-case names, values as on the wire. A name may come more than once.
    pub headers: &'a [(&'a str, &'a str)],
    pub body: &'a [u8],
}

impl Request<'_> {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| *own == name).map(|(_, value)| *value)
    }
}

/// What a signature said and proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    pub access_key_id: String,
    pub region: String,
    pub service: String,
}

/// Why a signature is not accepted. Display is for the caller, and names no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    #[error("Missing Authentication Token")]
    Missing,
    #[error("{0}")]
    Incomplete(&'static str),
    #[error("The security token included in the request is invalid.")]
    UnknownKey,
    #[error("Signature expired: {signed} is now earlier than {limit}")]
    Expired { signed: String, limit: String },
    #[error("Signature not yet current: {signed} is still later than {limit}")]
    NotYetCurrent { signed: String, limit: String },
    #[error(
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details."
    )]
    Mismatch,
}

/// The `Authorization` value for `request`, whose headers must hold `host` and `x-amz-date`.
///
/// Every header of the request is signed.
pub fn sign(
    request: &Request<'_>,
    credentials: &Credentials,
    region: &str,
    service: &str,
) -> String {
    let time = request.header("x-amz-date").unwrap_or_default();
    let date = time.get(..8).unwrap_or_default();
    let mut signed: Vec<&str> = request.headers.iter().map(|(name, _)| *name).collect();
    signed.sort_unstable();
    signed.dedup();
    let scope = Scope { date, region, service };
    let mac = signature(request, &signed, time, &scope, &credentials.secret_access_key);
    format!(
        "{ALGORITHM} Credential={}/{}, SignedHeaders={}, Signature={}",
        credentials.access_key_id,
        scope.text(),
        signed.join(";"),
        hex(&mac.finalize().into_bytes())
    )
}

/// The value of `X-Amz-Date` for a moment.
pub fn amz_date(time: jiff::Timestamp) -> String {
    time.strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// Checks the `Authorization` header of `request`, whose key's secret `secret` knows.
///
/// # Errors
/// Anything that is missing, unknown, too old or does not fit; see [`Rejected`].
pub fn verify(
    request: &Request<'_>,
    now: jiff::Timestamp,
    secret: impl FnOnce(&str) -> Option<String>,
) -> Result<Verified, Rejected> {
    let header = request.header("authorization").ok_or(Rejected::Missing)?;
    let authorization = Authorization::parse(header)?;
    let time = request.header("x-amz-date").or_else(|| request.header("date")).ok_or(
        Rejected::Incomplete(
            "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.",
        ),
    )?;
    let signed_at = read_time(time)?;
    let day = signed_at.strftime("%Y%m%d").to_string();
    if day != authorization.scope.date {
        return Err(Rejected::Incomplete(
            "Date in Credential scope does not match the date of the request.",
        ));
    }
    let signed = &authorization.signed_headers;
    let dated = signed.contains(&"x-amz-date")
        || (signed.contains(&"date") && request.header("x-amz-date").is_none());
    // the target names the operation: unsigned, it could be exchanged on the way
    let targeted = request.header("x-amz-target").is_none() || signed.contains(&"x-amz-target");
    if !signed.contains(&"host") || !dated || !targeted {
        return Err(Rejected::Incomplete(
            "'Host', 'X-Amz-Date' and 'X-Amz-Target' must be signed headers.",
        ));
    }
    let secret = secret(authorization.access_key_id).ok_or(Rejected::UnknownKey)?;
    let mac = signature(request, signed, time, &authorization.scope, &secret);
    // compares in constant time
    mac.verify_slice(&authorization.signature).map_err(|_| Rejected::Mismatch)?;
    check_skew(signed_at, now)?;
    Ok(Verified {
        access_key_id: authorization.access_key_id.to_owned(),
        region: authorization.scope.region.to_owned(),
        service: authorization.scope.service.to_owned(),
    })
}

fn check_skew(signed_at: jiff::Timestamp, now: jiff::Timestamp) -> Result<(), Rejected> {
    let distance = now.as_second() - signed_at.as_second();
    let limit = |seconds: i64| {
        let limit = jiff::Timestamp::from_second(now.as_second() + seconds).unwrap_or(now);
        format!(
            "{} ({} {} 15 min.)",
            amz_date(limit),
            amz_date(now),
            if seconds < 0 { "-" } else { "+" }
        )
    };
    if distance > SKEW {
        return Err(Rejected::Expired { signed: amz_date(signed_at), limit: limit(-SKEW) });
    }
    if distance < -SKEW {
        return Err(Rejected::NotYetCurrent { signed: amz_date(signed_at), limit: limit(SKEW) });
    }
    Ok(())
}

/// Reads `20150830T123600Z` or, as in the `Date` header, an HTTP date.
fn read_time(text: &str) -> Result<jiff::Timestamp, Rejected> {
    let basic = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", text);
    let civil =
        basic.or_else(|_| jiff::civil::DateTime::strptime("%a, %d %b %Y %H:%M:%S GMT", text));
    let zoned = civil.and_then(|civil| civil.to_zoned(jiff::tz::TimeZone::UTC));
    zoned.map(|zoned| zoned.timestamp()).map_err(|_| {
        Rejected::Incomplete("Date must be in ISO-8601 'basic format': 20150830T123600Z.")
    })
}

/// `Credential=ID/SCOPE, SignedHeaders=a;b, Signature=hex`.
struct Authorization<'a> {
    access_key_id: &'a str,
    scope: Scope<'a>,
    signed_headers: Vec<&'a str>,
    signature: Vec<u8>,
}

impl<'a> Authorization<'a> {
    fn parse(header: &'a str) -> Result<Self, Rejected> {
        let parameters = header
            .strip_prefix(ALGORITHM)
            .ok_or(Rejected::Incomplete("Unsupported AWS 'algorithm': use AWS4-HMAC-SHA256."))?;
        let parameter = |name: &str| {
            parameters.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='))
        };
        let credential = parameter("Credential")
            .ok_or(Rejected::Incomplete("Authorization header requires 'Credential' parameter."))?;
        let headers = parameter("SignedHeaders").ok_or(Rejected::Incomplete(
            "Authorization header requires 'SignedHeaders' parameter.",
        ))?;
        let signature = parameter("Signature")
            .ok_or(Rejected::Incomplete("Authorization header requires 'Signature' parameter."))?;
        // the key id may hold slashes, the scope never does
        let mut parts = credential.rsplitn(5, '/');
        let (Some("aws4_request"), Some(service), Some(region), Some(date), Some(access_key_id)) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Rejected::Incomplete(
                "Credential must be KEY/DATE/REGION/SERVICE/aws4_request.",
            ));
        };
        if region.is_empty() || service.is_empty() || access_key_id.is_empty() {
            return Err(Rejected::Incomplete(
                "Credential must be KEY/DATE/REGION/SERVICE/aws4_request.",
            ));
        }
        let scope = Scope { date, region, service };
        let signature = unhex(signature).ok_or(Rejected::Mismatch)?;
        Ok(Self { access_key_id, scope, signed_headers: headers.split(';').collect(), signature })
    }
}

struct Scope<'a> {
    date: &'a str,
    region: &'a str,
    service: &'a str,
}

impl Scope<'_> {
    fn text(&self) -> String {
        format!("{}/{}/{}/aws4_request", self.date, self.region, self.service)
    }

    fn key(&self, secret: &str) -> [u8; 32] {
        [self.date, self.region, self.service, "aws4_request"]
            .into_iter()
            .fold(None, |key: Option<[u8; 32]>, part| {
                let mac = match key {
                    None => hmac(format!("AWS4{secret}").as_bytes(), part.as_bytes()),
                    Some(key) => hmac(&key, part.as_bytes()),
                };
                Some(mac.finalize().into_bytes().into())
            })
            .expect("the fold starts from four parts")
    }
}

fn signature(
    request: &Request<'_>,
    signed: &[&str],
    time: &str,
    scope: &Scope<'_>,
    secret: &str,
) -> Hmac<Sha256> {
    let canonical = canonical_request(request, signed);
    // the string to sign has the time in basic form even where the request had a Date header
    let time = read_time(time).map(amz_date).unwrap_or_else(|_| time.to_owned());
    let text = format!(
        "{ALGORITHM}\n{time}\n{}\n{}",
        scope.text(),
        hex(&Sha256::digest(canonical.as_bytes()))
    );
    hmac(&scope.key(secret), text.as_bytes())
}

fn canonical_request(request: &Request<'_>, signed: &[&str]) -> String {
    let mut text = format!(
        "{}\n{}\n{}\n",
        request.method,
        canonical_path(request.path),
        canonical_query(request.query)
    );
    for name in signed {
        let values: Vec<String> = request
            .headers
            .iter()
            .filter(|(own, _)| own == name)
            .map(|(_, value)| value.split_ascii_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        text.push_str(&format!("{name}:{}\n", values.join(",")));
    }
    text.push_str(&format!("\n{}\n{}", signed.join(";"), hex(&Sha256::digest(request.body))));
    text
}

/// The path without empty and dot segments, each segment encoded once more (all services but S3).
fn canonical_path(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            other => kept.push(other),
        }
    }
    let encoded: Vec<String> = kept.iter().map(|segment| encode(segment.as_bytes())).collect();
    let end = if path.ends_with('/') && !kept.is_empty() { "/" } else { "" };
    format!("/{}{end}", encoded.join("/"))
}

/// Pairs in the one right encoding, sorted by name and value.
fn canonical_query(query: &str) -> String {
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (encode(&decode(name)), encode(&decode(value)))
        })
        .collect();
    pairs.sort();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// Percent-encodes all but RFC 3986's unreserved characters.
pub fn encode(bytes: &[u8]) -> String {
    const RESERVED: &AsciiSet =
        &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    percent_encode(bytes, RESERVED).to_string()
}

/// Undoes percent-encoding; what is not an escape stays.
fn decode(text: &str) -> Vec<u8> {
    percent_decode_str(text).collect()
}

fn hmac(key: &[u8], text: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text);
    mac
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// Seconds that clocks may differ.
const SKEW: i64 = 15 * 60;

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

    fn credentials() -> Credentials {
        Credentials { access_key_id: "AKIDEXAMPLE".into(), secret_access_key: SECRET.into() }
    }

    fn at(text: &str) -> jiff::Timestamp {
        read_time(text).unwrap()
    }

    /// The signed forms that AWS publishes: the IAM guide's example and cases of its test suite.
    #[test]
    fn published_signatures_come_out() {
        let date = ("x-amz-date", "20150830T123600Z");
        let host = ("host", "example.amazonaws.com");
        let iam = [
            ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
            ("host", "iam.amazonaws.com"),
            date,
        ];
        for (service, method, query, headers, expected) in [
            (
                "iam",
                "GET",
                "Action=ListUsers&Version=2010-05-08",
                &iam[..],
                "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
            ),
            (
                "service",
                "GET",
                "",
                &[host, date][..],
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ),
            (
                "service",
                "GET",
                "Param2=value2&Param1=value1",
                &[host, date][..],
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ),
            (
                "service",
                "POST",
                "",
                &[host, date][..],
                "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            ),
        ] {
            let request = Request { method, path: "/", query, headers, body: b"" };
            let authorization = sign(&request, &credentials(), "us-east-1", service);
            assert!(authorization.ends_with(&format!("Signature={expected}")), "{authorization}");
        }
        let scope = Scope { date: "20150830", region: "us-east-1", service: "iam" };
        assert_eq!(
            hex(&scope.key(SECRET)),
            "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9"
        );
    }

    #[test]
    fn a_changed_request_is_rejected() {
        let target = ("x-amz-target", "AmazonEC2ContainerServiceV20141113.ListClusters");
        let headers = [("host", "h:1"), ("x-amz-date", "20150830T123600Z"), target];
        let request =
            Request { method: "POST", path: "/", query: "", headers: &headers, body: b"{}" };
        let authorization = sign(&request, &credentials(), "r", "ecs");
        let now = at("20150830T123700Z");
        let check = |headers: &[(&str, &str)], body: &[u8], authorization: &str, now| {
            let headers: Vec<_> =
                headers.iter().copied().chain([("authorization", authorization)]).collect();
            let request = Request { headers: &headers, body, ..request };
            verify(&request, now, |id| (id == "AKIDEXAMPLE").then(|| SECRET.to_owned()))
        };
        let good = check(&headers, b"{}", &authorization, now).unwrap();
        assert_eq!((&*good.service, &*good.region), ("ecs", "r"));
        assert_eq!(check(&headers, b"{ }", &authorization, now), Err(Rejected::Mismatch));
        let other = [headers[0], headers[1], ("x-amz-target", "X.DeleteCluster")];
        assert_eq!(check(&other, b"{}", &authorization, now), Err(Rejected::Mismatch));
        let short = authorization.replace(";x-amz-target", "");
        assert!(matches!(check(&headers, b"{}", &short, now), Err(Rejected::Incomplete(_))));
        let stranger = authorization.replace("AKIDEXAMPLE", "AKIDSTRANGER");
        assert_eq!(check(&headers, b"{}", &stranger, now), Err(Rejected::UnknownKey));
        for (when, late) in [("20150830T125101Z", true), ("20150830T122059Z", false)] {
            let error = check(&headers, b"{}", &authorization, at(when)).unwrap_err();
            assert_eq!(matches!(error, Rejected::Expired { .. }), late, "{error}");
        }
        for broken in
            ["", "Basic abc", "AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=00"]
        {
            assert!(check(&headers, b"{}", broken, now).is_err(), "{broken}");
        }
        assert_eq!(verify(&request, now, |_| None), Err(Rejected::Missing),);
    }

    #[test]
    fn paths_and_queries_have_one_spelling() {
        for (path, expected) in [
            ("/", "/"),
            ("/ws", "/ws"),
            ("/a/./b/../c/", "/a/c/"),
            ("//x//", "/x/"),
            ("/%20", "/%2520"),
        ] {
            assert_eq!(canonical_path(path), expected);
        }
        assert_eq!(
            canonical_query("clusterArn=arn%3Aaws%3Aecs&b=&a=%7e%2f&seqNum=1"),
            "a=~%2F&b=&clusterArn=arn%3Aaws%3Aecs&seqNum=1"
        );
        assert_eq!(decode("a%zz%4"), b"a%zz%4");
    }
}
