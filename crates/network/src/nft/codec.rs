//! nfnetlink messages: batches, tables, chains, sets and their elements.
//!
//! Names and numbers are those of the kernel's include/uapi/linux/netfilter/nf_tables.h. All
//! integers are big-endian.

use super::attributes::{Attributes, each};
use super::expression::Rule;

/// The family of a table: `inet` sees IPv4 and IPv6, `ip` IPv4 alone, `bridge` frames between ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Family {
    Inet = 1,
    Ip = 2,
    Bridge = 7,
}

/// A place in the kernel where a chain is called, and when among others there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hook {
    /// `filter` or `nat`.
    pub(crate) kind: &'static str,
    pub(crate) number: u32,
    pub(crate) priority: i32,
}

/// A set's or map's shape. Types are nft's own numbers, which tell `nft list` how to print.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Set {
    pub(crate) name: &'static str,
    pub(crate) key: &'static [Type],
    pub(crate) value: &'static [Type],
    pub(crate) interval: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    Address = 7,
    Address6 = 8,
    Mac = 9,
    Protocol = 12,
    Port = 13,
    Interface = 41,
}

impl Type {
    /// Bytes in a register or key, in which each part starts at a multiple of 4.
    const fn length(self) -> u32 {
        match self {
            Self::Address | Self::Protocol | Self::Port => 4,
            Self::Mac => 8,
            Self::Address6 | Self::Interface => 16,
        }
    }
}

/// An element of a set (no value) or a map; `end` is the last key of an interval.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) key: Vec<u8>,
    pub(crate) end: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
}

impl Element {
    fn encode(&self, into: &mut Attributes) {
        let data = |value: &Vec<u8>| {
            let value = value.clone();
            move |data: &mut Attributes| {
                data.bytes(1, &value); // NFTA_DATA_VALUE
            }
        };
        into.nested(1, |element| {
            element.nested(1, data(&self.key));
            if let Some(value) = &self.value {
                element.nested(2, data(value));
            }
            if let Some(end) = &self.end {
                element.nested(10, data(end));
            }
        });
    }

    /// Reads the element out of the attributes of one NFTA_LIST_ELEM.
    fn decode(attributes: &[u8]) -> Self {
        let mut element = Self::default();
        for (kind, value) in each(attributes) {
            let data = || each(value).find(|(kind, _)| *kind == 1).map(|(_, data)| data.to_vec());
            match kind {
                1 => element.key = data().unwrap_or_default(),
                2 => element.value = data(),
                10 => element.end = data(),
                _ => {}
            }
        }
        element
    }
}

/// Messages that the kernel carries out together or not at all.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    messages: Vec<(u8, Family, u16, Vec<u8>)>,
}

impl Batch {
    pub(crate) fn table(&mut self, family: Family, table: &str) -> &mut Self {
        self.push(NEW_TABLE, family, CREATE, |message| {
            message.text(1, table).number(2, 0);
        })
    }

    pub(crate) fn delete_table(&mut self, family: Family, table: &str) -> &mut Self {
        self.push(DELETE_TABLE, family, 0, |message| {
            message.text(1, table);
        })
    }

    pub(crate) fn set(&mut self, family: Family, table: &str, set: &Set, id: u32) -> &mut Self {
        let types = |parts: &[Type]| parts.iter().fold(0, |code, part| code << 6 | *part as u32);
        let length = |parts: &[Type]| parts.iter().map(|part| part.length()).sum();
        self.push(NEW_SET, family, CREATE, |message| {
            let mut flags = 0;
            if set.interval {
                flags |= SET_INTERVAL | SET_CONCAT;
            }
            if !set.value.is_empty() {
                flags |= SET_MAP;
            }
            message.text(1, table).text(2, set.name).number(3, flags);
            message.number(4, types(set.key)).number(5, length(set.key)).number(10, id);
            if !set.value.is_empty() {
                message.number(6, types(set.value)).number(7, length(set.value));
            }
            if set.interval {
                // NFTA_SET_DESC → NFTA_SET_DESC_CONCAT → per part NFTA_LIST_ELEM → its length
                message.nested(9, |description| {
                    description.nested(2, |parts| {
                        for part in set.key {
                            parts.nested(1, |field| {
                                field.number(1, part.length());
                            });
                        }
                    });
                });
            }
        })
    }

    pub(crate) fn chain(
        &mut self,
        family: Family,
        table: &str,
        chain: &str,
        hook: Option<Hook>,
    ) -> &mut Self {
        self.push(NEW_CHAIN, family, CREATE, |message| {
            message.text(1, table).text(3, chain);
            if let Some(hook) = hook {
                message.text(7, hook.kind).number(5, ACCEPT);
                message.nested(4, |attributes| {
                    attributes.number(1, hook.number).number(2, hook.priority.cast_unsigned());
                });
            }
        })
    }

    /// Removes all rules of a chain.
    pub(crate) fn flush_chain(&mut self, family: Family, table: &str, chain: &str) -> &mut Self {
        self.push(DELETE_RULE, family, 0, |message| {
            message.text(1, table).text(2, chain);
        })
    }

    pub(crate) fn rule(
        &mut self,
        family: Family,
        table: &str,
        chain: &str,
        rule: Rule,
    ) -> &mut Self {
        self.push(NEW_RULE, family, CREATE | APPEND, |message| {
            message.text(1, table).text(2, chain).nested(4, |list| *list = rule.into_attributes());
        })
    }

    pub(crate) fn insert(
        &mut self,
        family: Family,
        table: &str,
        set: &str,
        elements: &[Element],
    ) -> &mut Self {
        self.elements(NEW_ELEMENT, CREATE, (family, table, set), elements)
    }

    pub(crate) fn remove(
        &mut self,
        family: Family,
        table: &str,
        set: &str,
        elements: &[Element],
    ) -> &mut Self {
        self.elements(DELETE_ELEMENT, 0, (family, table, set), elements)
    }

    fn elements(
        &mut self,
        kind: u8,
        flags: u16,
        (family, table, set): (Family, &str, &str),
        elements: &[Element],
    ) -> &mut Self {
        // an attribute's length is 16 bits, and an element takes at most 120 bytes
        for some in elements.chunks(500) {
            self.push(kind, family, flags, |message| {
                message.text(1, table).text(2, set).nested(3, |list| {
                    some.iter().for_each(|element| element.encode(list));
                });
            });
        }
        self
    }

    fn push(
        &mut self,
        kind: u8,
        family: Family,
        flags: u16,
        fill: impl FnOnce(&mut Attributes),
    ) -> &mut Self {
        let mut attributes = Attributes::default();
        fill(&mut attributes);
        self.messages.push((kind, family, flags, attributes.into_bytes()));
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// The datagram: begin, the messages, end, numbered from `first`; and the last message's
    /// number, the only one that asks for an answer.
    pub(super) fn encode(&self, first: u32) -> (Vec<u8>, u32) {
        let mut datagram = Vec::new();
        let mut sequence = first;
        let bracket = SUBSYSTEM.to_be_bytes(); // res_id says which subsystem the batch is for
        header(&mut datagram, BATCH_BEGIN, REQUEST, sequence, 0, bracket, &[]);
        for (index, (kind, family, flags, attributes)) in self.messages.iter().enumerate() {
            sequence = sequence.wrapping_add(1);
            let acknowledge = if index + 1 == self.messages.len() { ACKNOWLEDGE } else { 0 };
            let kind = SUBSYSTEM << 8 | u16::from(*kind);
            let flags = REQUEST | flags | acknowledge;
            header(&mut datagram, kind, flags, sequence, *family as u8, [0, 0], attributes);
        }
        header(&mut datagram, BATCH_END, REQUEST, sequence.wrapping_add(1), 0, bracket, &[]);
        (datagram, sequence)
    }
}

/// What to ask for the elements of a set with.
pub(super) fn dump_elements(table: &str, set: &str) -> Attributes {
    let mut attributes = Attributes::default();
    attributes.text(1, table).text(2, set);
    attributes
}

/// What to ask for the rules of a table with.
pub(super) fn dump_rules(table: &str) -> Attributes {
    let mut attributes = Attributes::default();
    attributes.text(1, table);
    attributes
}

/// The chain of a rule, in the body of an NFT_MSG_NEWRULE.
pub(super) fn decode_chain_of_rule(body: &[u8]) -> Option<String> {
    let (_, name) = each(body.get(4..)?).find(|(kind, _)| *kind == 2)?;
    String::from_utf8(name.strip_suffix(&[0]).unwrap_or(name).to_vec()).ok()
}

/// A request that stands alone: a dump, or one that is answered with an acknowledgement last.
pub(super) fn request(
    kind: u16,
    dump: bool,
    family: u8,
    sequence: u32,
    attributes: &Attributes,
) -> Vec<u8> {
    let mut datagram = Vec::new();
    let flags = REQUEST | if dump { DUMP } else { ACKNOWLEDGE };
    header(&mut datagram, kind, flags, sequence, family, [0, 0], attributes.as_bytes());
    datagram
}

/// The elements in the body of one message of a dump.
pub(super) fn decode_elements(body: &[u8]) -> Vec<Element> {
    each(body.get(4..).unwrap_or_default())
        .filter(|(kind, _)| *kind == 3)
        .flat_map(|(_, list)| each(list))
        .map(|(_, element)| Element::decode(element))
        .collect()
}

/// The generation in the body of an NFT_MSG_NEWGEN.
pub(super) fn decode_generation(body: &[u8]) -> Option<u32> {
    let (_, id) = each(body.get(4..)?).find(|(kind, _)| *kind == 1)?;
    Some(u32::from_be_bytes(id.try_into().ok()?))
}

/// A base chain of anybody's that drops forwarded IPv4 packets which no rule of it takes, in the
/// body of an NFT_MSG_NEWCHAIN: `ip filter FORWARD`.
pub(super) fn decode_dropping_forward_chain(body: &[u8]) -> Option<String> {
    let family = match *body.first()? {
        1 => "inet",
        2 => "ip",
        _ => return None,
    };
    let attribute = |wanted: u16| each(body.get(4..)?).find(|(kind, _)| *kind == wanted);
    let number = |value: &[u8]| Some(u32::from_be_bytes(value.try_into().ok()?));
    let text = |value: &[u8]| String::from_utf8_lossy(value).trim_end_matches('\0').to_owned();
    let (_, hook) = attribute(4)?;
    let (_, hook_number) = each(hook).find(|(kind, _)| *kind == 1)?;
    let policy = number(attribute(5)?.1)?;
    if number(hook_number)? != FORWARD || policy != DROP {
        return None;
    }
    Some(format!("{family} {} {}", text(attribute(1)?.1), text(attribute(3)?.1)))
}

/// Appends a netlink header, an nfgenmsg and attributes.
fn header(
    datagram: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    sequence: u32,
    family: u8,
    resource: [u8; 2],
    attributes: &[u8],
) {
    let length = u32::try_from(20 + attributes.len()).expect("a message of ours is below 4 GiB");
    datagram.extend_from_slice(&length.to_ne_bytes());
    datagram.extend_from_slice(&kind.to_ne_bytes());
    datagram.extend_from_slice(&flags.to_ne_bytes());
    datagram.extend_from_slice(&sequence.to_ne_bytes());
    datagram.extend_from_slice(&[0; 4]); // port: the kernel's
    datagram.extend_from_slice(&[family, 0, resource[0], resource[1]]);
    datagram.extend_from_slice(attributes);
}

// netlink flags
const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

// nfnetlink
const SUBSYSTEM: u16 = 10; // NFNL_SUBSYS_NFTABLES
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;

// enum nf_tables_msg_types
const NEW_TABLE: u8 = 0;
const DELETE_TABLE: u8 = 2;
const NEW_CHAIN: u8 = 3;
const NEW_RULE: u8 = 6;
const DELETE_RULE: u8 = 8;
const NEW_SET: u8 = 9;
const NEW_ELEMENT: u8 = 12;
/// With the subsystem, as a request that stands alone has it.
pub(super) const GET_ELEMENT: u16 = SUBSYSTEM << 8 | 13;
const DELETE_ELEMENT: u8 = 14;
pub(super) const GET_RULE: u16 = SUBSYSTEM << 8 | 7;
pub(super) const GET_CHAIN: u16 = SUBSYSTEM << 8 | 4;
pub(super) const GET_GENERATION: u16 = SUBSYSTEM << 8 | 16;

const SET_INTERVAL: u32 = 0x4;
const SET_MAP: u32 = 0x8;
const SET_CONCAT: u32 = 0x80;
/// Policies of a base chain, NF_DROP and NF_ACCEPT.
const DROP: u32 = 0;
const ACCEPT: u32 = 1;
/// NF_INET_FORWARD
const FORWARD: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that nft 1.0.6 sends for `add element inet t ports { tcp . 80 : 10.0.0.2 . 8080 }`
    /// but for NFTA_SET_ELEM_LIST_SET_ID.
    #[test]
    fn an_element_is_encoded_as_nft_does() {
        let mut batch = Batch::default();
        let element = Element {
            key: vec![6, 0, 0, 0, 0, 80, 0, 0],
            end: None,
            value: Some(vec![10, 0, 0, 2, 0x1f, 0x90, 0, 0]),
        };
        batch.insert(Family::Inet, "t", "ports", &[element]);
        let (datagram, last) = batch.encode(7);
        assert_eq!(last, 8);
        let message = &datagram[20..datagram.len() - 20];
        let attributes = b"\x06\0\x01\0t\0\0\0\x0a\0\x02\0ports\0\0\0\
            \x28\0\x03\x80\x24\0\x01\x80\x10\0\x01\x80\x0c\0\x01\0\x06\0\0\0\0\x50\0\0\
            \x10\0\x02\x80\x0c\0\x01\0\x0a\0\0\x02\x1f\x90\0\0";
        assert_eq!(&message[20..], attributes);
    }
}
