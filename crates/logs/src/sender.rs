//! Sends records to where a log goes.

use std::io;
use std::path::Path;

use crate::awslogs::AwsEnvironment;
use crate::destination::Destination;
use crate::options::OptionError;
use crate::origin::Origin;
use crate::record::Record;
use crate::{awslogs, fluentd, gelf, journald, syslog};

/// One log on its way; what it has open is opened when there is something to send, and again after a
/// failure.
#[derive(Debug)]
pub struct Sender {
    destination: Destination,
    origin: Origin,
    /// Whether `tag` was given, which some drivers ask.
    has_tag: bool,
    environment: AwsEnvironment,
    open: Option<Channel>,
}

#[derive(Debug)]
enum Channel {
    Awslogs(awslogs::Channel),
    Fluentd(fluentd::Channel),
    Gelf(gelf::Channel),
    Journald(journald::Channel),
    Syslog(syslog::Channel),
}

impl Destination {
    /// What only this machine can tell: whether there is enough to send at all.
    ///
    /// # Errors
    /// A sentence, in Docker's words where it has some.
    pub fn check(&self, environment: &AwsEnvironment) -> Result<(), OptionError> {
        match self {
            Self::Awslogs(options) => options.check(environment),
            Self::Journald if !Path::new(journald::SOCKET).exists() => Err(OptionError::Invalid(
                "journald is not enabled on this host: there is no socket \
                 /run/systemd/journal/socket"
                    .to_owned(),
            )),
            _ => Ok(()),
        }
    }

    /// Where to, for people.
    pub fn place(&self) -> String {
        match self {
            Self::Awslogs(options) => options.place(),
            Self::Fluentd(options) => options.place(),
            Self::Gelf(options) => options.place(),
            Self::Journald => "the journal".to_owned(),
            Self::Syslog(options) => options.place(),
        }
    }
}

impl Sender {
    pub fn new(
        destination: Destination,
        origin: Origin,
        has_tag: bool,
        environment: AwsEnvironment,
    ) -> Self {
        Self { destination, origin, has_tag, environment, open: None }
    }

    /// Where to, for people.
    pub fn place(&self) -> String {
        self.destination.place()
    }

    /// Sends records in their order. `sent` counts those that are taken, also where the rest fails:
    /// these are to be sent again, and some of them may have arrived.
    ///
    /// # Errors
    /// The receiver cannot be reached, does not take them, or does not say so in time.
    pub async fn send(&mut self, records: &[Record], sent: &mut usize) -> io::Result<()> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.connect().await?,
        };
        let origin = &self.origin;
        let all = match (&mut open, &self.destination) {
            (Channel::Awslogs(open), Destination::Awslogs(options)) => {
                open.send(options, &self.environment, records, sent).await
            }
            (Channel::Fluentd(open), Destination::Fluentd(options)) => {
                open.send(options, origin, records, sent).await
            }
            (Channel::Gelf(open), _) => open.send(origin, records).await,
            (Channel::Journald(open), _) => open.send(origin, records).await,
            (Channel::Syslog(open), Destination::Syslog(options)) => {
                open.send(options, origin, records).await
            }
            _ => unreachable!("what is open was opened for this destination"),
        };
        all?;
        *sent = records.len();
        self.open = Some(open);
        Ok(())
    }

    async fn connect(&self) -> io::Result<Channel> {
        Ok(match &self.destination {
            Destination::Awslogs(options) => Channel::Awslogs(awslogs::Channel::open(
                options,
                &self.environment,
                &self.origin,
                self.has_tag,
            )?),
            Destination::Fluentd(options) => {
                Channel::Fluentd(fluentd::Channel::open(options).await?)
            }
            Destination::Gelf(options) => Channel::Gelf(gelf::Channel::open(options).await?),
            Destination::Journald => {
                Channel::Journald(journald::Channel::open(Path::new(journald::SOCKET))?)
            }
            Destination::Syslog(options) => Channel::Syslog(syslog::Channel::open(options).await?),
        })
    }
}
