//! Rules: a list of expressions over 16 registers of 4 bytes.

use super::attributes::Attributes;

/// One rule, built expression by expression; a comparison that does not hold ends it.
#[derive(Debug, Default)]
pub(crate) struct Rule(Attributes);

/// What a packet says about itself besides its bytes, `enum nft_meta_keys`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Meta {
    Protocol = 1,
    InputInterface = 6,
    OutputInterface = 7,
    Family = 15,
    TransportProtocol = 16,
}

/// From where an offset counts, `enum nft_payload_bases`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Base {
    Link = 0,
    Network = 1,
    Transport = 2,
}

/// What connection tracking knows, `enum nft_ct_keys`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Connection {
    State = 0,
    Status = 2,
}

/// A comparison, `enum nft_cmp_ops`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Order {
    AtMost = 3,
    AtLeast = 5,
}

/// What becomes of the packet.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Verdict {
    Drop,
    Accept,
    Return,
    Jump(&'static str),
}

/// The first of 16 registers, `NFT_REG32_00`. A part of a key that is longer than 4 bytes takes
/// as many of them as it needs.
pub(crate) const R0: u32 = 8;

impl Rule {
    pub(super) fn into_attributes(self) -> Attributes {
        self.0
    }

    fn expression(mut self, name: &str, fill: impl FnOnce(&mut Attributes)) -> Self {
        self.0.nested(1, |element| {
            element.text(1, name).nested(2, fill);
        });
        self
    }

    pub(crate) fn meta(self, key: Meta, register: u32) -> Self {
        self.expression("meta", |expression| {
            expression.number(1, register).number(2, key as u32);
        })
    }

    pub(crate) fn connection(self, key: Connection, register: u32) -> Self {
        self.expression("ct", |expression| {
            expression.number(1, register).number(2, key as u32);
        })
    }

    pub(crate) fn payload(self, base: Base, offset: u32, length: u32, register: u32) -> Self {
        self.expression("payload", |expression| {
            expression
                .number(1, register)
                .number(2, base as u32)
                .number(3, offset)
                .number(4, length);
        })
    }

    /// Loads what kind of address (local, unicast, …) the packet's destination is to this host.
    pub(crate) fn destination_kind(self, register: u32) -> Self {
        self.expression("fib", |expression| {
            expression.number(1, register).number(2, 3).number(3, 1 << 1); // ADDRTYPE of DADDR
        })
    }

    /// Goes on if the register holds `value`.
    pub(crate) fn equals(self, register: u32, value: &[u8]) -> Self {
        self.compare(register, 0, value)
    }

    /// Goes on if the register holds anything else than `value`.
    pub(crate) fn differs(self, register: u32, value: &[u8]) -> Self {
        self.compare(register, 1, value)
    }

    /// Goes on if what the register holds is in this order to `value`, both read as big-endian.
    pub(crate) fn is(self, register: u32, order: Order, value: &[u8]) -> Self {
        self.compare(register, order as u32, value)
    }

    fn compare(self, register: u32, operator: u32, value: &[u8]) -> Self {
        self.expression("cmp", |expression| {
            expression.number(1, register).number(2, operator).nested(3, |data| {
                data.bytes(1, value);
            });
        })
    }

    /// Keeps only the bits of the register that `mask` has.
    pub(crate) fn mask(self, register: u32, mask: &[u8]) -> Self {
        let nothing = vec![0; mask.len()];
        let length = u32::try_from(mask.len()).expect("a mask is at most 16 bytes");
        self.expression("bitwise", |expression| {
            expression.number(1, register).number(2, register).number(3, length);
            expression.nested(4, |data| {
                data.bytes(1, mask);
            });
            expression.nested(5, |data| {
                data.bytes(1, &nothing);
            });
        })
    }

    /// Goes on if the registers from `register` on are a key of the set.
    pub(crate) fn within(self, set: &str, register: u32) -> Self {
        self.expression("lookup", |expression| {
            expression.text(1, set).number(2, register);
        })
    }

    /// Goes on if the registers from `register` on are not a key of the set.
    pub(crate) fn not_within(self, set: &str, register: u32) -> Self {
        self.expression("lookup", |expression| {
            expression.text(1, set).number(2, register).number(5, 1); // NFT_LOOKUP_F_INV
        })
    }

    /// Replaces the key in the registers by the map's value; ends the rule where there is none.
    pub(crate) fn look_up(self, map: &str, register: u32) -> Self {
        self.expression("lookup", |expression| {
            expression.text(1, map).number(2, register).number(3, register);
        })
    }

    /// Puts a constant into the register.
    pub(crate) fn load(self, register: u32, value: &[u8]) -> Self {
        self.expression("immediate", |expression| {
            expression.number(1, register).nested(2, |data| {
                data.bytes(1, value);
            });
        })
    }

    /// Sends the connection to the address of this family (`NFPROTO_IPV4`, …) and the port in these
    /// registers.
    pub(crate) fn dnat(self, family: u32, address: u32, port: u32) -> Self {
        self.expression("nat", |expression| {
            // NFT_NAT_DNAT
            expression.number(1, 1).number(2, family).number(3, address).number(5, port);
        })
    }

    /// Gives the connection the address of this family in the register.
    pub(crate) fn snat(self, family: u32, address: u32) -> Self {
        self.expression("nat", |expression| {
            // NFT_NAT_SNAT
            expression.number(1, 0).number(2, family).number(3, address);
        })
    }

    /// Gives the connection the address of the interface it leaves by.
    pub(crate) fn masquerade(self) -> Self {
        self.expression("masq", |_| {})
    }

    /// Lowers the TCP option "maximum segment size" to what the route's MTU allows. The kernel
    /// never raises it by this expression (net/netfilter/nft_exthdr.c).
    pub(crate) fn clamp_segment_size(self, register: u32) -> Self {
        self.expression("rt", |expression| {
            expression.number(1, register).number(2, 3); // NFT_RT_TCPMSS
        })
        .expression("byteorder", |expression| {
            expression
                .number(1, register)
                .number(2, register)
                .number(3, 1)
                .number(4, 2)
                .number(5, 2);
        })
        .expression("exthdr", |expression| {
            // option 2 of TCP: 2 bytes from offset 2, written from the register
            expression.bytes(2, &[2]).number(3, 2).number(4, 2).number(6, 1).number(7, register);
        })
    }

    pub(crate) fn verdict(self, verdict: Verdict) -> Self {
        self.expression("immediate", |expression| {
            expression.number(1, 0).nested(2, |data| {
                data.nested(2, |fields| {
                    let code: i32 = match verdict {
                        Verdict::Drop => 0,
                        Verdict::Accept => 1,
                        Verdict::Jump(_) => -3,
                        Verdict::Return => -5,
                    };
                    fields.number(1, code.cast_unsigned());
                    if let Verdict::Jump(chain) = verdict {
                        fields.text(2, chain);
                    }
                });
            });
        })
    }
}
