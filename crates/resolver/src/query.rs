//! What clients ask, and answers as this program makes them: the one place that knows hickory.

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use crate::raw;

/// A question that a client may ask, and what its answer depends on.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    pub id: u16,
    pub flags: Flags,
    /// The question's bytes, in the client's spelling.
    pub question: Box<[u8]>,
    pub name: Name,
    /// The name as zones have it: without its last dot, in lower case. `None` for the root, and where
    /// it is no text or has dots inside of its labels.
    pub text: Option<String>,
    pub kind: Kind,
    /// How long an answer by UDP may be.
    pub room: usize,
}

/// What a client says of itself and a server is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flags {
    pub recursion_desired: bool,
    authentic_data: bool,
    checking_disabled: bool,
    /// It understands EDNS (RFC 6891).
    edns: bool,
    dnssec: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    A,
    Aaaa,
    Ptr,
    /// Whole zones (AXFR, IXFR), or another class than that of the Internet.
    Refused,
    Any,
    Other,
}

/// What is no query that could be answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// To answer it would be wrong: it may be an answer itself, or nothing at all.
    Ignore,
    Reply(Vec<u8>),
}

/// What is answered: without records, there are none of that kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub code: ResponseCode,
    pub data: Vec<RData>,
}

impl Answer {
    pub fn code(code: ResponseCode) -> Self {
        Self { code, data: Vec::new() }
    }

    /// There are no records of that kind.
    pub fn empty() -> Self {
        Self::code(ResponseCode::NoError)
    }

    pub fn addresses(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let data = |address| match address {
            IpAddr::V4(address) => RData::A(A(address)),
            IpAddr::V6(address) => RData::AAAA(AAAA(address)),
        };
        let data = addresses.into_iter().map(data).collect();
        Self { code: ResponseCode::NoError, data }
    }

    /// Of a reverse lookup; nothing, where `host` can be no name.
    pub fn host(host: &str) -> Option<Self> {
        let mut name = Name::from_labels(host.split('.').map(str::as_bytes)).ok()?;
        name.set_fqdn(true);
        Some(Self { code: ResponseCode::NoError, data: vec![RData::PTR(PTR(name))] })
    }
}

impl Query {
    pub fn read(message: &[u8]) -> Result<Self, Malformed> {
        let (Some(id), false) = (raw::id(message), raw::is_response(message)) else {
            return Err(Malformed::Ignore);
        };
        let Some([questions, answers, authorities, additional]) = raw::counts(message) else {
            return Err(Malformed::Ignore);
        };
        let refused = |code| Malformed::Reply(bare_reply(message, id, code));
        if message[2] & 0x78 != 0 {
            return Err(refused(raw::NOT_IMPLEMENTED));
        }
        let malformed = || refused(raw::FORMAT_ERROR);
        let is_short = message.len() <= LONGEST && additional <= MOST_ADDITIONAL;
        if questions != 1 || answers != 0 || authorities != 0 || !is_short {
            return Err(malformed());
        }
        let question = raw::question(message).ok_or_else(malformed)?;
        let read = Message::from_vec(message).map_err(|_| malformed())?;
        let asked = read.queries.first().ok_or_else(malformed)?;
        let edns = read.edns.as_ref();
        let flags = Flags {
            recursion_desired: read.metadata.recursion_desired,
            authentic_data: read.metadata.authentic_data,
            checking_disabled: read.metadata.checking_disabled,
            edns: edns.is_some(),
            dnssec: edns.is_some_and(|edns| edns.flags().dnssec_ok),
        };
        let query = Self {
            id,
            flags,
            question: message[question].into(),
            name: asked.name().clone(),
            text: text(asked.name()),
            kind: kind(asked.query_class(), asked.query_type()),
            room: edns.map_or(0, |edns| usize::from(edns.max_payload())).max(SMALLEST_ROOM),
        };
        if edns.is_some_and(|edns| edns.version() != 0) {
            let answer = Answer::code(ResponseCode::BADVERS);
            return Err(Malformed::Reply(query.reply(&answer, usize::MAX)));
        }
        Ok(query)
    }

    /// The address that a reverse lookup is about.
    pub fn reversed(&self) -> Option<IpAddr> {
        let network = self.name.parse_arpa_name().ok()?;
        (network.prefix_len() == network.max_prefix_len()).then(|| network.addr())
    }

    /// An answer of ours. What does not fit into `room` is left out, and said to be (TC).
    pub fn reply(&self, answer: &Answer, room: usize) -> Vec<u8> {
        let mut message = Message::new(self.id, MessageType::Response, OpCode::Query);
        message.metadata.recursion_desired = self.flags.recursion_desired;
        message.metadata.recursion_available = true;
        message.metadata.checking_disabled = self.flags.checking_disabled;
        message.metadata.response_code = answer.code;
        if self.flags.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(OUR_ROOM).set_dnssec_ok(self.flags.dnssec);
            message.set_edns(edns);
        }
        let record = |data: &RData| Record::from_rdata(self.name.clone(), TTL, data.clone());
        message.add_answers(answer.data.iter().map(record));
        loop {
            match self.assemble(&message) {
                Some(bytes) if bytes.len() <= room => return bytes,
                // nothing of a reply without records can be too long or malformed
                None if message.answers.is_empty() => return Vec::new(),
                Some(bytes) if message.answers.is_empty() => return bytes,
                _ => {}
            }
            message.metadata.truncation = true;
            let keep = message.answers.len() / 2;
            message.answers.truncate(keep);
        }
    }

    /// With the question in the client's own bytes: hickory has no name for each class and kind.
    fn assemble(&self, message: &Message) -> Option<Vec<u8>> {
        let mut with_question = message.clone();
        with_question.add_query(hickory_proto::op::Query::query(self.name.clone(), RecordType::A));
        let mut bytes = with_question.to_vec().ok()?;
        let question = raw::question(&bytes).filter(|it| it.len() == self.question.len())?;
        bytes[question].copy_from_slice(&self.question);
        Some(bytes)
    }

    /// What is sent to a server: the client's question and flags, and nothing else that it said.
    pub fn to_server(&self, id: u16) -> Vec<u8> {
        let flags = &self.flags;
        let mut message = Vec::with_capacity(raw::HEADER + self.question.len() + 11);
        message.extend(id.to_be_bytes());
        message.push(u8::from(flags.recursion_desired));
        message.push(u8::from(flags.authentic_data) << 5 | u8::from(flags.checking_disabled) << 4);
        message.extend([0, 1, 0, 0, 0, 0, 0, u8::from(flags.edns)]);
        message.extend(&self.question);
        if flags.edns {
            // OPT: the root's name, our room instead of a class, flags instead of a time, no options
            message.extend([0, 0, 41]);
            message.extend(OUR_ROOM.to_be_bytes());
            message.extend([0, 0, u8::from(flags.dnssec) << 7, 0, 0, 0]);
        }
        message
    }

    /// The same question of a client that knows no EDNS, for servers that do not know it.
    pub fn without_edns(&self) -> Self {
        Self { flags: Flags { edns: false, dnssec: false, ..self.flags }, ..self.clone() }
    }

    pub fn has_edns(&self) -> bool {
        self.flags.edns
    }

    /// A server's answer as this client's. What does not fit into `room` is left out as a whole.
    pub fn pass_on(&self, answer: &[u8], room: usize) -> Vec<u8> {
        let mut message = answer.to_vec();
        let fits = message.len() <= room;
        let Some(question) = raw::question(&message)
            .filter(|question| fits && question.len() == self.question.len())
        else {
            let mut reply = self.reply(&Answer::empty(), usize::MAX);
            reply[2] |= 0x02;
            return reply;
        };
        message[..2].copy_from_slice(&self.id.to_be_bytes());
        message[question].copy_from_slice(&self.question);
        message[2] = message[2] & 0xfe | u8::from(self.flags.recursion_desired);
        message[3] |= 0x80;
        message
    }

    /// By which answers are kept, and equal questions are asked once.
    pub fn key(&self, scope: &[u8]) -> Box<[u8]> {
        let flags = [
            self.flags.recursion_desired,
            self.flags.authentic_data,
            self.flags.checking_disabled,
            self.flags.edns,
            self.flags.dnssec,
        ];
        let flags = flags.iter().fold(0, |bits, flag| bits << 1 | u8::from(*flag));
        let (name, kind) = self.question.split_at(self.question.len() - 4);
        let mut key = vec![flags];
        key.extend(kind);
        key.extend(name.iter().map(u8::to_ascii_lowercase));
        key.extend(scope);
        key.into()
    }
}

fn text(name: &Name) -> Option<String> {
    let mut text = String::new();
    for label in name.iter() {
        let label = std::str::from_utf8(label).ok().filter(|label| !label.contains('.'))?;
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(label);
    }
    text.make_ascii_lowercase();
    (!text.is_empty()).then_some(text)
}

fn kind(class: DNSClass, kind: RecordType) -> Kind {
    match (class, kind) {
        (_, RecordType::AXFR | RecordType::IXFR) => Kind::Refused,
        (DNSClass::IN | DNSClass::ANY, kind) => match kind {
            RecordType::A => Kind::A,
            RecordType::AAAA => Kind::Aaaa,
            RecordType::PTR => Kind::Ptr,
            RecordType::ANY => Kind::Any,
            _ => Kind::Other,
        },
        _ => Kind::Refused,
    }
}

/// Of a message that may have no question that can be repeated.
fn bare_reply(message: &[u8], id: u16, code: u8) -> Vec<u8> {
    let mut reply = vec![0; raw::HEADER];
    reply[..2].copy_from_slice(&id.to_be_bytes());
    // the operation and "recursion desired" as they were
    reply[2] = 0x80 | message.get(2).map_or(0, |flags| flags & 0x79);
    reply[3] = 0x80 | code;
    reply
}

/// Seconds; as Docker's (moby: libnetwork/resolver.go, `respTTL`).
const TTL: u32 = 600;

/// Bytes of a query: one name of 255 and some options. What is longer is no question.
pub(crate) const LONGEST: usize = 4096;
const MOST_ADDITIONAL: u16 = 4;

/// What each client takes by UDP (RFC 1035, 4.2.1).
const SMALLEST_ROOM: usize = 512;

/// What we say that we take by UDP: it passes any link in one piece (dnsflagday.net/2020).
pub(crate) const OUR_ROOM: u16 = 1232;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A query as clients send it.
    pub(crate) fn ask(name: &str, kind: u16) -> Vec<u8> {
        let mut message = vec![0xab, 0xcd, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.').filter(|label| !label.is_empty()) {
            message.push(label.len() as u8);
            message.extend(label.as_bytes());
        }
        message.push(0);
        message.extend(kind.to_be_bytes());
        message.extend([0, 1]);
        message
    }

    fn with_edns(mut message: Vec<u8>, room: u16) -> Vec<u8> {
        message[11] = 1;
        message.extend([0, 0, 41]);
        message.extend(room.to_be_bytes());
        message.extend([0, 0, 0x80, 0, 0, 0]);
        message
    }

    #[test]
    fn a_question_is_read_and_repeated_in_its_spelling() {
        let query = Query::read(&ask("Web.Example", 28)).unwrap();
        assert_eq!((query.text.as_deref(), query.kind), (Some("web.example"), Kind::Aaaa));
        assert_eq!(query.room, 512);
        let reply = query.reply(&Answer::addresses(["fd00::2".parse().unwrap()]), 512);
        let read = Message::from_vec(&reply).unwrap();
        assert_eq!((read.metadata.id, read.answers.len()), (0xabcd, 1));
        assert!(read.metadata.recursion_available && !read.metadata.truncation);
        assert!(reply.windows(4).any(|bytes| bytes == b"\x03Web"));
        assert_eq!(read.answers[0].ttl, 600);
        // a class and a kind that hickory has no names for come back as they were
        let odd = Query::read(&ask("x", 0xff42)).unwrap();
        let reply = odd.reply(&Answer::code(ResponseCode::NoError), 512);
        assert_eq!(
            raw::question(&reply).map(|range| reply[range].to_vec()),
            Some(odd.question.to_vec())
        );
    }

    #[test]
    fn what_is_no_query_is_ignored_or_refused() {
        let query = ask("web", 1);
        let changed = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut message = query.clone();
            change(&mut message);
            match Query::read(&message) {
                Err(Malformed::Reply(reply)) => {
                    assert!(raw::is_response(&reply) && raw::id(&reply) == Some(0xabcd));
                    Some(raw::code(&reply))
                }
                Err(Malformed::Ignore) => None,
                Ok(query) => panic!("{query:?}"),
            }
        };
        assert_eq!(changed(&|message| message[2] |= 0x80), None);
        assert_eq!(changed(&|message| message.truncate(11)), None);
        assert_eq!(changed(&|message| message[2] |= 0x10), Some(raw::NOT_IMPLEMENTED));
        assert_eq!(changed(&|message| message[5] = 0), Some(raw::FORMAT_ERROR));
        assert_eq!(changed(&|message| message[5] = 2), Some(raw::FORMAT_ERROR));
        assert_eq!(changed(&|message| message[7] = 1), Some(raw::FORMAT_ERROR));
        assert_eq!(changed(&|message| message[11] = 1), Some(raw::FORMAT_ERROR));
        assert_eq!(changed(&|message| message.truncate(14)), Some(raw::FORMAT_ERROR));
        assert_eq!(changed(&|message| message[12] = 0xc0), Some(raw::FORMAT_ERROR));
        assert_eq!(changed(&|message| message.extend([0; 5000])), Some(raw::FORMAT_ERROR));
    }

    #[test]
    fn a_newer_edns_is_told_so() {
        let mut message = with_edns(ask("web", 1), 4096);
        let version = message.len() - 5;
        message[version] = 1;
        let Err(Malformed::Reply(reply)) = Query::read(&message) else { panic!() };
        let read = Message::from_vec(&reply).unwrap();
        // the same number means something else in a signature (RFC 6895, 2.3)
        assert_eq!(u16::from(read.metadata.response_code), u16::from(ResponseCode::BADVERS));
    }

    #[test]
    fn an_answer_that_is_too_long_is_cut_and_says_so() {
        let query = Query::read(&ask("web", 1)).unwrap();
        let many = (0..100).map(|last| IpAddr::from([10, 0, 0, last]));
        let answer = Answer::addresses(many);
        let reply = query.reply(&answer, 512);
        let read = Message::from_vec(&reply).unwrap();
        assert!(reply.len() <= 512 && read.metadata.truncation && !read.answers.is_empty());
        let whole = Message::from_vec(&query.reply(&answer, 65_535)).unwrap();
        assert_eq!((whole.answers.len(), whole.metadata.truncation), (100, false));
        // with EDNS, which stays in the answer however short that gets
        let query = Query::read(&with_edns(ask("web", 1), 1400)).unwrap();
        let reply = query.reply(&answer, query.room);
        let read = Message::from_vec(&reply).unwrap();
        assert!(reply.len() <= 1400 && read.answers.len() == 50 && read.edns.is_some());
    }

    #[test]
    fn a_servers_answer_becomes_the_clients() {
        let query = Query::read(&ask("WWW.example.com", 1)).unwrap();
        let passed = query.pass_on(&raw::tests::sample(), 512);
        assert_eq!(raw::id(&passed), Some(0xabcd));
        assert!(passed.windows(4).any(|bytes| bytes == b"\x03WWW"));
        assert!(raw::records(&passed).is_some());
        let cut = query.pass_on(&raw::tests::sample(), 40);
        assert!(raw::is_truncated(&cut) && raw::counts(&cut) == Some([1, 0, 0, 0]));
    }

    #[test]
    fn a_server_hears_the_question_and_nothing_else() {
        let query = Query::read(&with_edns(ask("www.example.com", 1), 4096)).unwrap();
        let read = Message::from_vec(&query.to_server(7)).unwrap();
        assert_eq!((read.metadata.id, read.metadata.recursion_desired), (7, true));
        let edns = read.edns.unwrap();
        assert_eq!((edns.max_payload(), edns.flags().dnssec_ok), (OUR_ROOM, true));
        let plain = query.without_edns();
        assert!(Message::from_vec(&plain.to_server(7)).unwrap().edns.is_none());
        assert_ne!(plain.key(b""), query.key(b""));
        let other_case = Query::read(&with_edns(ask("WWW.example.com", 1), 512)).unwrap();
        assert_eq!(query.key(b"a"), other_case.key(b"a"));
        assert_ne!(query.key(b"a"), other_case.key(b"b"));
    }

    #[test]
    fn names_that_are_no_text_are_in_no_zone() {
        let mut dotted = ask("aXb", 1);
        dotted[14] = b'.';
        assert_eq!(Query::read(&dotted).unwrap().text, None);
        assert_eq!(Query::read(&ask("", 1)).unwrap().text, None);
        let reverse = |name| Query::read(&ask(name, 12)).unwrap().reversed();
        assert_eq!(reverse("2.0.18.172.in-addr.arpa"), Some([172, 18, 0, 2].into()));
        assert_eq!(reverse("0.18.172.in-addr.arpa"), None);
        assert_eq!(reverse("web"), None);
    }
}
