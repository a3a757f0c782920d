//! The driver `awslogs`: Amazon CloudWatch Logs (its API reference, `PutLogEvents`; moby:
//! daemon/logger/awslogs).

use std::io;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::http::Origin as Server;
use crate::options::{OptionError, Own};
use crate::origin::Origin;
use crate::record::Record;
use crate::signature::{Signer, amz_date};

#[derive(Debug, Clone)]
pub struct Options {
    region: Option<String>,
    endpoint: Option<Server>,
    group: String,
    stream: Option<String>,
    create_group: bool,
    create_stream: bool,
    /// What the messages are, for CloudWatch.
    format: Option<&'static str>,
}

/// Who this machine is to AWS; read once, from the engine's environment.
#[derive(Clone, Default)]
pub struct AwsEnvironment {
    /// `AWS_REGION`
    pub region: Option<String>,
    /// `AWS_ACCESS_KEY_ID`
    pub access_key_id: Option<String>,
    /// `AWS_SECRET_ACCESS_KEY`
    pub secret_access_key: Option<String>,
    /// `AWS_SESSION_TOKEN`
    pub session_token: Option<String>,
}

impl std::fmt::Debug for AwsEnvironment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // the rest is secret
        f.debug_struct("AwsEnvironment").field("region", &self.region).finish_non_exhaustive()
    }
}

/// Bytes of one `PutLogEvents`, and what each event counts beside its message.
const BATCH: usize = 1_048_576;
const EVENT: usize = 26;
/// Events of one `PutLogEvents`.
const EVENTS: usize = 10_000;
/// Milliseconds that the events of one `PutLogEvents` may be apart.
const SPAN: i64 = 24 * 60 * 60 * 1000;

impl Options {
    pub(crate) fn parse(own: &mut Own<'_>) -> Result<Self, OptionError> {
        let text = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
        let invalid = |text: String| Err(OptionError::Invalid(text));
        let Some(group) = text(own.take("awslogs-group")) else {
            return invalid("must specify a value for log opt 'awslogs-group'".to_owned());
        };
        let name = |name: &str| {
            // CreateLogStream: no colons, no asterisks
            !name.is_empty() && name.len() <= 512 && !name.contains([':', '*'])
        };
        if group.len() > 512
            || !group.chars().all(|it| it.is_ascii_alphanumeric() || "_-/.#".contains(it))
        {
            return invalid(format!("invalid value {group:?} of log opt 'awslogs-group'"));
        }
        let stream = text(own.take("awslogs-stream"));
        if let Some(stream) = stream.as_deref().filter(|stream| !name(stream)) {
            return invalid(format!("invalid value {stream:?} of log opt 'awslogs-stream'"));
        }
        let number = "it is a number above 0";
        // What is not sent at once is on disk, and so bounded: by the log's size.
        for option in ["awslogs-force-flush-interval-seconds", "awslogs-max-buffered-events"] {
            own.read(option, number, |text| text.parse::<u32>().ok().filter(|value| *value > 0))?;
        }
        let events = "a record of the log is an event";
        own.refuse("awslogs-datetime-format", events)?;
        own.refuse("awslogs-multiline-pattern", events)?;
        own.refuse(
            "awslogs-credentials-endpoint",
            "give the engine credentials in its environment",
        )?;
        let format = own.read("awslogs-format", "it is json/emf", |text| {
            (text == "json/emf").then_some("json/emf")
        })?;
        Ok(Self {
            region: text(own.take("awslogs-region")),
            endpoint: own.take("awslogs-endpoint").map(Server::parse).transpose()?,
            group,
            stream,
            create_group: own.flag("awslogs-create-group")?.unwrap_or(false),
            create_stream: own.flag("awslogs-create-stream")?.unwrap_or(true),
            format,
        })
    }

    /// # Errors
    /// Without a region nobody knows where to send.
    pub(crate) fn check(&self, environment: &AwsEnvironment) -> Result<(), OptionError> {
        match self.region.is_some() || environment.region.is_some() {
            true => Ok(()),
            false => Err(OptionError::Invalid(
                "must specify a value for log opt 'awslogs-region', or AWS_REGION in the engine's \
                 environment"
                    .to_owned(),
            )),
        }
    }

    pub(crate) fn place(&self) -> String {
        format!("CloudWatch Logs, group {}", self.group)
    }

    fn stream(&self, origin: &Origin, has_tag: bool) -> String {
        match &self.stream {
            Some(stream) => stream.clone(),
            None if has_tag => origin.tag.clone(),
            None => origin.id.clone(),
        }
    }
}

/// A log stream that events go to.
#[derive(Debug)]
pub(crate) struct Channel {
    server: Server,
    region: String,
    stream: String,
    /// Whether it was made, or found to be there.
    exists: bool,
}

/// What CloudWatch says when it does not do a thing.
#[derive(Debug)]
struct Refusal {
    code: String,
    message: String,
}

impl Channel {
    pub(crate) fn open(
        options: &Options,
        environment: &AwsEnvironment,
        origin: &Origin,
        has_tag: bool,
    ) -> io::Result<Self> {
        let region = options.region.clone().or_else(|| environment.region.clone());
        let region = region.ok_or_else(|| io::Error::other("no AWS region is known"))?;
        let server = match &options.endpoint {
            Some(server) => server.clone(),
            None => {
                let suffix = if region.starts_with("cn-") { ".cn" } else { "" };
                let address = format!("https://logs.{region}.amazonaws.com{suffix}");
                Server::parse(&address).map_err(|error| io::Error::other(error.to_string()))?
            }
        };
        Ok(Self { server, region, stream: options.stream(origin, has_tag), exists: false })
    }

    /// `sent` counts the records that CloudWatch has taken or will never take, also where the rest
    /// fails.
    pub(crate) async fn send(
        &mut self,
        options: &Options,
        environment: &AwsEnvironment,
        records: &[Record],
        sent: &mut usize,
    ) -> io::Result<()> {
        if !self.exists {
            self.provide(options, environment).await?;
            self.exists = true;
        }
        while *sent < records.len() {
            let count = batch(&records[*sent..]);
            let mut events: Vec<&Record> =
                records[*sent..*sent + count].iter().filter(|it| !it.text.is_empty()).collect();
            events.sort_by_key(|record| record.at.as_millisecond());
            if !events.is_empty() {
                self.put(options, environment, &events).await?;
            }
            *sent += count;
        }
        Ok(())
    }

    async fn put(
        &mut self,
        options: &Options,
        environment: &AwsEnvironment,
        events: &[&Record],
    ) -> io::Result<()> {
        let events: Vec<Value> = events
            .iter()
            .map(|record| json!({"timestamp": record.at.as_millisecond(), "message": record.text}))
            .collect();
        let body = json!({
            "logGroupName": options.group, "logStreamName": self.stream, "logEvents": events,
        });
        match self.ask(options, environment, "PutLogEvents", &body).await? {
            Ok(answer) => {
                if let Some(rejected) =
                    answer.get("rejectedLogEventsInfo").filter(|it| !it.is_null())
                {
                    // They are too old or too new, and stay so.
                    tracing::error!(
                        group = options.group,
                        stream = self.stream,
                        "CloudWatch Logs does not take some events: {rejected}"
                    );
                }
                Ok(())
            }
            Err(refusal) if refusal.code == "DataAlreadyAcceptedException" => Ok(()),
            Err(refusal) => {
                if refusal.code == "ResourceNotFoundException" {
                    self.exists = false;
                }
                Err(refusal.into())
            }
        }
    }

    /// Makes the stream, and its group where that was asked for; those that are there are fine.
    async fn provide(&self, options: &Options, environment: &AwsEnvironment) -> io::Result<()> {
        if !options.create_stream {
            return Ok(());
        }
        let stream = json!({"logGroupName": options.group, "logStreamName": self.stream});
        let exists = |refusal: &Refusal| refusal.code == "ResourceAlreadyExistsException";
        match self.ask(options, environment, "CreateLogStream", &stream).await? {
            Ok(_) => return Ok(()),
            Err(refusal) if exists(&refusal) => return Ok(()),
            Err(refusal) if refusal.code == "ResourceNotFoundException" && options.create_group => {
            }
            Err(refusal) => return Err(refusal.into()),
        }
        let group = json!({"logGroupName": options.group});
        match self.ask(options, environment, "CreateLogGroup", &group).await? {
            Err(refusal) if !exists(&refusal) => return Err(refusal.into()),
            _ => {}
        }
        match self.ask(options, environment, "CreateLogStream", &stream).await? {
            Err(refusal) if !exists(&refusal) => Err(refusal.into()),
            _ => Ok(()),
        }
    }

    async fn ask(
        &self,
        options: &Options,
        environment: &AwsEnvironment,
        operation: &str,
        body: &Value,
    ) -> io::Result<Result<Value, Refusal>> {
        let (Some(access_key_id), Some(secret)) =
            (&environment.access_key_id, &environment.secret_access_key)
        else {
            return Err(io::Error::other(
                "the engine's environment has no AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            ));
        };
        let body = body.to_string();
        let now = Timestamp::now();
        let date = amz_date(now);
        let target = format!("Logs_20140328.{operation}");
        let token = environment.session_token.as_deref();
        let mut headers = vec![
            ("content-type", "application/x-amz-json-1.1"),
            ("host", &self.server.authority),
            ("x-amz-date", &date),
        ];
        headers.extend(token.map(|token| ("x-amz-security-token", token)));
        headers.push(("x-amz-target", &target));
        if operation == "PutLogEvents" {
            headers.extend(options.format.map(|format| ("x-amzn-logs-format", format)));
        }
        let signer = Signer { access_key_id, secret, region: &self.region, service: "logs" };
        let authorization = signer.authorization(&headers, body.as_bytes(), now);
        headers.push(("authorization", &authorization));
        let mut request = Request::builder().method("POST").uri("/");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(io::Error::other)?;
        let (status, answer) = self.server.ask(request).await?;
        let answer: Value = serde_json::from_slice(&answer).unwrap_or(Value::Null);
        if status.is_success() {
            return Ok(Ok(answer));
        }
        // `com.amazonaws.logs#ResourceNotFoundException`
        let code = answer["__type"].as_str().unwrap_or_default();
        let code = code.rsplit('#').next().unwrap_or_default().to_owned();
        let message = answer["message"].as_str().or(answer["Message"].as_str());
        let message = message.map_or_else(|| format!("status {status}"), str::to_owned);
        Ok(Err(Refusal { code, message }))
    }
}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> Self {
        let Refusal { code, message } = refusal;
        Self::other(format!("{}: {}", code.escape_debug(), message.escape_debug()))
    }
}

/// How many of the records one request takes.
fn batch(records: &[Record]) -> usize {
    let (mut size, mut count) = (0, 0);
    let (mut first, mut last) = (i64::MAX, i64::MIN);
    for record in records.iter().take(EVENTS) {
        let at = record.at.as_millisecond();
        (first, last) = (first.min(at), last.max(at));
        size += record.text.len() + EVENT;
        if count > 0 && (size > BATCH || last - first >= SPAN) {
            break;
        }
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use bulkhead_types::Stream;

    use super::*;

    #[test]
    fn a_request_is_as_long_as_may_be() {
        let record = |hours: i64, length: usize| Record {
            at: Timestamp::from_second(hours * 3600).unwrap(),
            stream: Stream::Stdout,
            text: "x".repeat(length),
            goes_on: false,
        };
        assert_eq!(batch(&[record(0, 1), record(1, 1), record(24, 1)]), 2);
        assert_eq!(batch(&[record(24, 1), record(0, 1)]), 1);
        let long: Vec<_> = (0..100).map(|_| record(0, 16 << 10)).collect();
        assert_eq!(batch(&long), BATCH / ((16 << 10) + EVENT));
        let many: Vec<_> = (0..EVENTS + 5).map(|_| record(0, 1)).collect();
        assert_eq!(batch(&many), EVENTS);
    }
}
