//! Links, addresses and routes, over netlink: of this machine, and of a pod's network namespace.
//!
//! A pod and the machine are joined by a pair of virtual devices without a network of their own: the pod sends everything
//! to the gateway, and the machine has a route to the pod's one address. Both know each other's hardware address from the
//! start, so neither has to ask for it. No bridge, no address resolution, nothing to be spoofed.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, State,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::net::if_::if_nametoindex;

use crate::netlink::Connection;
use crate::present;
use crate::range::{Range, link_name};

/// What the pod's side is called, as everywhere.
const INSIDE: &str = "eth0";

const LOOPBACK: &str = "lo";

/// The gateway's address has this label, so that whoever lists addresses sees whose it is.
const LABEL: &str = "lo:ropewalk";

/// Marks our routes. A number that no routing daemon has.
const PROTOCOL: RouteProtocol = RouteProtocol::Other(82);

/// The host's side of every pod's link; each pod sees one of them.
const HOST_HARDWARE: [u8; 6] = [0x02, b'r', b'w', 0, 0, 1];

const ALONE: u8 = 32;

/// How long the kernel may take to switch a device on that has become connected. It does so at once, unless it is busy with
/// the removal of many others.
const SWITCH_ON: Duration = Duration::from_secs(5);

/// Hears when the device of the pod in whose namespace it was made works.
///
/// The side of a link that is set up first is switched on when the other one is there, and not at once; until then what is
/// sent there is lost, and a connection takes a second longer to be made.
pub(crate) struct Watcher(Connection);

impl Watcher {
    /// To be made before this machine's side is set up.
    pub(crate) fn open() -> io::Result<Self> {
        // RTNLGRP_LINK of linux/rtnetlink.h.
        const LINKS: u32 = 1;
        let mut connection = Connection::open(NETLINK_ROUTE)?;
        connection.listen(LINKS)?;
        Ok(Self(connection))
    }

    /// Returns when packets that the pod sends get out.
    pub(crate) fn until_up(&self) -> io::Result<()> {
        self.0.hear(SWITCH_ON, |message| match message {
            RouteNetlinkMessage::NewLink(link) => {
                let has = |wanted: &LinkAttribute| link.attributes.contains(wanted);
                has(&LinkAttribute::IfName(INSIDE.to_owned())) && has(&LinkAttribute::OperState(State::Up))
            }
            _ => false,
        })
    }
}

/// A netlink connection for this machine, or for the namespace it was made in.
pub(crate) struct Links(Connection);

impl Links {
    pub(crate) fn open() -> io::Result<Self> {
        Connection::open(NETLINK_ROUTE).map(Self)
    }

    /// Every network that a route leads to, of whatever table, with its length in bits; of ours none.
    pub(crate) fn routed(&self) -> io::Result<Vec<(Ipv4Addr, u8)>> {
        let mut request = RouteMessage::default();
        request.header.address_family = AddressFamily::Inet;
        let mut found = Vec::new();
        self.0.list(RouteNetlinkMessage::GetRoute(request), |message| {
            let RouteNetlinkMessage::NewRoute(route) = message else { return };
            let destination = route.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
                _ => None,
            });
            if let Some(destination) = destination {
                found.push((destination, route.header.destination_prefix_length));
            }
        })?;
        Ok(found)
    }

    /// The device that the default route leads to.
    pub(crate) fn uplink(&self) -> io::Result<Option<u32>> {
        let mut request = RouteMessage::default();
        request.header.address_family = AddressFamily::Inet;
        let mut found = None;
        self.0.list(RouteNetlinkMessage::GetRoute(request), |message| {
            let RouteNetlinkMessage::NewRoute(route) = message else { return };
            let main = route.header.table == RouteHeader::RT_TABLE_MAIN;
            if main && route.header.destination_prefix_length == 0 && found.is_none() {
                found = route.attributes.iter().find_map(|attribute| match attribute {
                    RouteAttribute::Oif(index) => Some(*index),
                    _ => None,
                });
            }
        })?;
        Ok(found)
    }

    /// Makes a range this process's: a route that says that nobody has what no pod has. Fails with
    /// [`AlreadyExists`](io::ErrorKind::AlreadyExists) if somebody else did before.
    pub(crate) fn claim(&self, range: Range) -> io::Result<()> {
        self.0.request(RouteNetlinkMessage::NewRoute(claim_of(range)), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Gives it back.
    pub(crate) fn unclaim(&self, range: Range) -> io::Result<()> {
        present(self.0.request(RouteNetlinkMessage::DelRoute(claim_of(range)), 0))
    }

    /// Gives the machine the gateway's address, if it has it not.
    pub(crate) fn add_gateway(&self, range: Range) -> io::Result<()> {
        let message = RouteNetlinkMessage::NewAddress(gateway_of(range)?);
        self.0.request(message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Takes it away.
    pub(crate) fn remove_gateway(&self, range: Range) -> io::Result<()> {
        present(self.0.request(RouteNetlinkMessage::DelAddress(gateway_of(range)?), 0))
    }

    /// Makes the link between this machine and a pod's namespace; neither side is set up.
    pub(crate) fn lead_to(
        &self,
        address: Ipv4Addr,
        namespace: BorrowedFd<'_>,
        mtu: Option<u32>,
    ) -> io::Result<()> {
        let range = Range::of(address);
        let name = link_name(address);
        let mut peer = LinkMessage::default();
        peer.attributes = vec![
            LinkAttribute::IfName(INSIDE.to_owned()),
            LinkAttribute::NetNsFd(namespace.as_raw_fd()),
            LinkAttribute::Address(hardware(address).to_vec()),
        ];
        let mut link = LinkMessage::default();
        link.attributes = vec![
            LinkAttribute::IfName(name.clone()),
            LinkAttribute::Address(HOST_HARDWARE.to_vec()),
            LinkAttribute::Group(group(range)),
        ];
        // The link as a whole carries what the way out of the machine does: nobody has to find that out packet by packet.
        for message in [&mut peer, &mut link] {
            message.attributes.extend(mtu.map(LinkAttribute::Mtu));
        }
        link.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        self.0.request(RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL)?;
        // Before it is up. A pod may send whatever it likes: an address that is not its own, or, as a router would,
        // advertisements that this machine would take its IPv6 routes from.
        let ipv4 = Path::new("/proc/sys/net/ipv4/conf").join(&name);
        fs::write(ipv4.join("rp_filter"), "1")?;
        let ipv6 = Path::new("/proc/sys/net/ipv6/conf").join(&name);
        if ipv6.exists() {
            fs::write(ipv6.join("disable_ipv6"), "1")?;
        }
        Ok(())
    }

    /// Sets up the namespace that this connection was made in, the pod's, which a link leads to.
    pub(crate) fn set_up_inside(&self, address: Ipv4Addr) -> io::Result<()> {
        let gateway = Range::of(address).gateway();
        self.up(if_nametoindex(LOOPBACK)?)?;
        let index = if_nametoindex(INSIDE)?;
        let mut own = AddressMessage::default();
        own.header.family = AddressFamily::Inet;
        own.header.prefix_len = ALONE;
        own.header.index = index;
        own.attributes = vec![
            AddressAttribute::Local(IpAddr::V4(address)),
            AddressAttribute::Address(IpAddr::V4(address)),
        ];
        self.0.request(RouteNetlinkMessage::NewAddress(own), NLM_F_CREATE | NLM_F_EXCL)?;
        self.up(index)?;
        self.knows(index, gateway, &HOST_HARDWARE)?;
        let to_gateway = route(gateway, ALONE, index);
        self.0.request(RouteNetlinkMessage::NewRoute(to_gateway), NLM_F_CREATE | NLM_F_EXCL)?;
        let mut default = route(Ipv4Addr::UNSPECIFIED, 0, index);
        default.header.scope = RouteScope::Universe;
        default.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet(gateway)));
        self.0.request(RouteNetlinkMessage::NewRoute(default), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Sets up this machine's side, the other one being set up already: from now on packets pass.
    pub(crate) fn set_up_here(&self, address: Ipv4Addr) -> io::Result<()> {
        let index = if_nametoindex(link_name(address).as_str())?;
        self.up(index)?;
        self.knows(index, address, &hardware(address))?;
        let mut route = route(address, ALONE, index);
        // What this machine says to the pod, it says as the gateway.
        route.attributes.push(RouteAttribute::PrefSource(RouteAddress::Inet(Range::of(address).gateway())));
        self.0.request(RouteNetlinkMessage::NewRoute(route), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Removes the link of a pod, with the routes over it, if it is there.
    pub(crate) fn part(&self, address: Ipv4Addr) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::IfName(link_name(address)));
        present(self.0.request(RouteNetlinkMessage::DelLink(link), 0))
    }

    /// Removes the links of all pods of a range: together, as the kernel takes as long for all as for one.
    pub(crate) fn part_all(&self, range: Range) -> io::Result<()> {
        let mut links = LinkMessage::default();
        links.attributes.push(LinkAttribute::Group(group(range)));
        present(self.0.request(RouteNetlinkMessage::DelLink(links), 0))
    }

    fn up(&self, index: u32) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        self.0.request(RouteNetlinkMessage::NewLink(link), 0)
    }

    /// Notes who has an address behind a device, for good.
    fn knows(&self, index: u32, address: Ipv4Addr, hardware: &[u8]) -> io::Result<()> {
        let mut neighbour = NeighbourMessage::default();
        neighbour.header.family = AddressFamily::Inet;
        neighbour.header.ifindex = index;
        neighbour.header.state = NeighbourState::Permanent;
        neighbour.attributes = vec![
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)),
            NeighbourAttribute::LinkLayerAddress(hardware.to_vec()),
        ];
        self.0.request(RouteNetlinkMessage::NewNeighbour(neighbour), NLM_F_CREATE | NLM_F_REPLACE)
    }
}

/// Marks the host's sides of one range, so that they can be removed together.
fn group(range: Range) -> u32 {
    u32::from(range.network())
}

/// The pod's side has its own, in case a program takes it for an identity.
fn hardware(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    // A first octet of 2 says: of local meaning, no manufacturer's.
    [0x02, b'r', a, b, c, d]
}

fn claim_of(range: Range) -> RouteMessage {
    let mut route = route(range.network(), Range::BITS, 0);
    route.header.kind = RouteType::Unreachable;
    route.header.scope = RouteScope::Universe;
    route.attributes.retain(|attribute| !matches!(attribute, RouteAttribute::Oif(_)));
    route
}

fn gateway_of(range: Range) -> io::Result<AddressMessage> {
    let gateway = IpAddr::V4(range.gateway());
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = ALONE;
    message.header.scope = AddressScope::Host;
    message.header.index = if_nametoindex(LOOPBACK)?;
    message.attributes = vec![
        AddressAttribute::Local(gateway),
        AddressAttribute::Address(gateway),
        AddressAttribute::Label(LABEL.to_owned()),
    ];
    Ok(message)
}

fn route(destination: Ipv4Addr, bits: u8, device: u32) -> RouteMessage {
    let mut route = RouteMessage::default();
    route.header.address_family = AddressFamily::Inet;
    route.header.destination_prefix_length = bits;
    route.header.table = RouteHeader::RT_TABLE_MAIN;
    route.header.protocol = PROTOCOL;
    route.header.scope = RouteScope::Link;
    route.header.kind = RouteType::Unicast;
    if bits > 0 {
        route.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(destination)));
    }
    route.attributes.push(RouteAttribute::Oif(device));
    route
}
