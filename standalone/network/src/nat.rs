//! The rules of a range in nftables: its pods reach other networks as this machine, and nobody beyond this machine
//! reaches them or the gateway unasked.
//!
//! Written to netlink by hand: the crates that know nftables need C libraries, libclang or the program `nft`, and what is
//! needed here is one table with three rules, in a form that the kernel never changes. The names are those of
//! `linux/netfilter/nf_tables.h`, without their prefixes.

use std::convert::Infallible;
use std::io;

use netlink_packet_core::{
    DefaultNla, Emitable, NLA_F_NESTED, NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, NetlinkDeserializable,
    NetlinkHeader, NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::protocols::NETLINK_NETFILTER;

use crate::netlink::{Connection, bytes};
use crate::present;
use crate::range::Range;

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const DELETE_TABLE: u16 = SUBSYSTEM << 8 | 2;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;

/// `NFPROTO_IPV4`.
const IPV4: u8 = 2;
/// Where in an IPv4 header the addresses are.
const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;
/// The register everything is compared in.
const REGISTER: u32 = 1;
/// States of a connection that packets belong to: established, or related to one that is.
const KNOWN: u32 = 2 | 4;

/// Hooks of IPv4, and when in them.
const INPUT: u32 = 1;
const FORWARD: u32 = 2;
const POSTROUTING: u32 = 4;
const FILTER_PRIORITY: i32 = 0;
const SOURCE_NAT_PRIORITY: i32 = 100;

/// Makes the table of a range; one that is there is replaced in the same step.
pub(crate) fn install(range: Range) -> io::Result<()> {
    let table = table_name(range);
    let chain = |name: &str, kind: &str, hook: u32, priority: i32| {
        let hook = [number(1, hook), attribute(2, &priority.to_be_bytes())].concat();
        let body = [text(1, &table), text(3, name), nested(4, &hook), text(7, kind)].concat();
        Message { kind: NEW_CHAIN, body }
    };
    let rule = |chain: &str, expressions: &[Vec<u8>]| {
        let body = [text(1, &table), text(2, chain), nested(4, &expressions.concat())].concat();
        Message { kind: NEW_RULE, body }
    };
    let (prefix, gateway) = (range.prefix(), range.gateway().octets());
    let name = || text(1, &table);
    commit(vec![
        // Made if it is not there, so that it can be deleted in any case.
        Message { kind: NEW_TABLE, body: name() },
        Message { kind: DELETE_TABLE, body: name() },
        Message { kind: NEW_TABLE, body: name() },
        chain("postrouting", "nat", POSTROUTING, SOURCE_NAT_PRIORITY),
        rule("postrouting", &[is(SOURCE, &prefix), is_not(DESTINATION, &prefix), expression("masq", &[])]),
        // The machine answers for all its addresses on all its networks, so without this rule a neighbour could reach
        // the API server through the gateway's, although it listens on loopback only.
        chain("input", "filter", INPUT, FILTER_PRIORITY),
        rule("input", &[is(DESTINATION, &gateway), is_not(SOURCE, &prefix), drop_it()]),
        // Forwarding was switched on for pods; that is not to open them to neighbours of this machine.
        chain("forward", "filter", FORWARD, FILTER_PRIORITY),
        rule("forward", &[is(DESTINATION, &prefix), is_not(SOURCE, &prefix), is_unknown(), drop_it()]),
    ])
}

/// Removes the table of a range, if it is there.
pub(crate) fn remove(range: Range) -> io::Result<()> {
    let body = text(1, &table_name(range));
    present(commit(vec![Message { kind: DELETE_TABLE, body }]))
}

/// One table per range, as two processes never have the same.
fn table_name(range: Range) -> String {
    format!("ropewalk-{}", range.network())
}

/// All of it or nothing.
fn commit(messages: Vec<Message>) -> io::Result<()> {
    let asking = messages.len();
    let edge = |kind| bytes(Message { kind, body: Vec::new() }, NLM_F_REQUEST);
    let mut batch = edge(BATCH_BEGIN);
    for message in messages {
        batch.extend(bytes(message, NLM_F_ACK | NLM_F_CREATE));
    }
    batch.extend(edge(BATCH_END));
    Connection::open(NETLINK_NETFILTER)?.batch::<Message>(&batch, asking)
}

/// Whether the packet's bytes there are these.
fn is(offset: u32, value: &[u8]) -> Vec<u8> {
    compare(offset, value, 0)
}

/// Whether they are others.
fn is_not(offset: u32, value: &[u8]) -> Vec<u8> {
    compare(offset, value, 1)
}

fn compare(offset: u32, value: &[u8], operation: u32) -> Vec<u8> {
    const NETWORK_HEADER: u32 = 1;
    let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
    let load = [number(1, REGISTER), number(2, NETWORK_HEADER), number(3, offset), number(4, length)];
    [expression("payload", &load.concat()), compare_register(value, operation)].concat()
}

fn compare_register(value: &[u8], operation: u32) -> Vec<u8> {
    let compare = [number(1, REGISTER), number(2, operation), nested(3, &attribute(1, value))];
    expression("cmp", &compare.concat())
}

/// Whether the packet belongs to no connection that pods or this machine began.
fn is_unknown() -> Vec<u8> {
    const STATE: u32 = 0;
    let load = [number(1, REGISTER), number(2, STATE)];
    let value = |value: u32| attribute(1, &value.to_ne_bytes());
    let mask = [
        number(1, REGISTER),
        number(2, REGISTER),
        number(3, 4),
        nested(4, &value(KNOWN)),
        nested(5, &value(0)),
    ];
    let none = compare_register(&0_u32.to_ne_bytes(), 0);
    [expression("ct", &load.concat()), expression("bitwise", &mask.concat()), none].concat()
}

fn drop_it() -> Vec<u8> {
    const VERDICT: u32 = 0;
    const DROP: u32 = 0;
    let verdict = nested(2, &number(1, DROP));
    expression("immediate", &[number(1, VERDICT), nested(2, &verdict)].concat())
}

/// An element of a rule's list of expressions.
fn expression(name: &str, data: &[u8]) -> Vec<u8> {
    nested(1, &[text(1, name), nested(2, data)].concat())
}

fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), b"\0"].concat())
}

/// netfilter has its numbers in network order.
fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

fn nested(kind: u16, value: &[u8]) -> Vec<u8> {
    attribute(kind | NLA_F_NESTED, value)
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let attribute = DefaultNla::new(kind, value.to_vec());
    let mut bytes = vec![0; attribute.buffer_len()];
    attribute.emit(&mut bytes);
    bytes
}

/// A message of netfilter: its header, which says the family, and attributes.
struct Message {
    kind: u16,
    body: Vec<u8>,
}

impl Message {
    /// The family, the version, and for whom a batch is.
    fn header(&self) -> [u8; 4] {
        let [high, low] = SUBSYSTEM.to_be_bytes();
        match self.kind {
            BATCH_BEGIN | BATCH_END => [0, 0, high, low],
            _ => [IPV4, 0, 0, 0],
        }
    }
}

impl From<Message> for NetlinkPayload<Message> {
    fn from(message: Message) -> Self {
        Self::InnerMessage(message)
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.header().len() + self.body.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let (header, body) = buffer.split_at_mut(self.header().len());
        header.copy_from_slice(&self.header());
        body.copy_from_slice(&self.body);
    }
}

impl NetlinkDeserializable for Message {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Self::Error> {
        Ok(Self { kind: header.message_type, body: payload.get(4..).unwrap_or_default().to_vec() })
    }
}
