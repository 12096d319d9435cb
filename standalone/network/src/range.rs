//! Which addresses pods have: the choice of a range, and who has which address in it. No IO.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Private networks that ranges are chosen from, first come first served: the first two octets. More than one, as a
/// company's network may be routed as a whole; none of them is the default of Docker, Podman, or a distribution of
/// Kubernetes.
const NETWORKS: [[u8; 2]; 3] = [[10, 209], [172, 30], [192, 168]];

/// The first pod's last octet: 0 is the network itself, 1 the gateway.
const FIRST: u8 = 2;

/// The last pod's: 255 is kept free, as some take it for a broadcast address.
const LAST: u8 = 254;

/// What the host's side of a pod's link is called, before the pod's address in hexadecimal digits.
const LINK: &str = "rw";

/// 256 addresses: more than twice the pods that a node runs at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Range([u8; 3]);

impl Range {
    /// How many bits of an address name the range.
    pub(crate) const BITS: u8 = 24;

    /// All there are to choose from, in the order of preference of whom `seed` tells from others: who starts again gets the
    /// same one again, and two who start at once seldom want the same.
    pub(crate) fn all(seed: u8) -> impl Iterator<Item = Self> {
        let of = move |[a, b]: [u8; 2]| (0..=u8::MAX).map(move |c| Self([a, b, c.wrapping_add(seed)]));
        NETWORKS.into_iter().flat_map(of)
    }

    /// The range an address is in.
    pub(crate) fn of(address: Ipv4Addr) -> Self {
        let [a, b, c, _] = address.octets();
        Self([a, b, c])
    }

    /// What its addresses begin with, which also tells it from all others.
    pub(crate) fn prefix(self) -> [u8; 3] {
        self.0
    }

    /// The address that stands for all of it.
    pub(crate) fn network(self) -> Ipv4Addr {
        self.address(0)
    }

    /// The host's address in it.
    pub(crate) fn gateway(self) -> Ipv4Addr {
        self.address(1)
    }

    fn address(self, last: u8) -> Ipv4Addr {
        let [a, b, c] = self.0;
        Ipv4Addr::new(a, b, c, last)
    }

    /// Whether any address is both in here and in the other network of `bits` bits. What is routed as a whole, by a
    /// default route or one half of it, overlaps with nothing: it means what has no better place.
    pub(crate) fn overlaps(self, network: Ipv4Addr, bits: u8) -> bool {
        let common = u32::from(bits.min(Self::BITS));
        let mask = u32::MAX.checked_shl(32 - common).unwrap_or(0);
        bits > 1 && (u32::from(self.network()) ^ u32::from(network)) & mask == 0
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}", self.network(), Self::BITS)
    }
}

/// What the host's side of the link to the pod with this address is called.
pub(crate) fn link_name(address: Ipv4Addr) -> String {
    format!("{LINK}{:08x}", u32::from(address))
}

/// The pod's address, if this is a name from [`link_name`].
pub(crate) fn linked(name: &str) -> Option<Ipv4Addr> {
    let digits = name.strip_prefix(LINK).filter(|digits| digits.len() == 8)?;
    u32::from_str_radix(digits, 16).ok().map(Ipv4Addr::from)
}

/// The addresses of a range and the pods that have them.
#[derive(Debug)]
pub(crate) struct Addresses {
    range: Range,
    /// The last octet by the pod's UID.
    taken: BTreeMap<String, u8>,
    /// The last octet that was given away last. The next one is looked for behind it, so that an address rests for as
    /// long as possible before another pod has it: what was sent to the one before is not to reach the next.
    last: u8,
}

impl Addresses {
    /// All free.
    pub(crate) fn new(range: Range) -> Self {
        Self { range, taken: BTreeMap::new(), last: LAST }
    }

    /// Notes what a pod has already. An address of another range is not noted.
    pub(crate) fn restore(&mut self, uid: &str, address: Ipv4Addr) {
        if Range::of(address) == self.range {
            let [.., last] = address.octets();
            self.taken.insert(uid.to_owned(), last);
            self.last = last;
        }
    }

    /// The pod's address, a free one if it has none; `None` if none is free.
    pub(crate) fn take(&mut self, uid: &str) -> Option<Ipv4Addr> {
        if let Some(address) = self.of(uid) {
            return Some(address);
        }
        let is_free = |octet: &u8| !self.taken.values().any(|taken| taken == octet);
        let octet = (self.last.saturating_add(1)..=LAST).chain(FIRST..=LAST).find(is_free)?;
        self.taken.insert(uid.to_owned(), octet);
        self.last = octet;
        Some(self.range.address(octet))
    }

    /// The address a pod has.
    pub(crate) fn of(&self, uid: &str) -> Option<Ipv4Addr> {
        self.taken.get(uid).map(|octet| self.range.address(*octet))
    }

    /// Whether a pod has this address.
    pub(crate) fn has(&self, address: Ipv4Addr) -> bool {
        let [.., last] = address.octets();
        Range::of(address) == self.range && self.taken.values().any(|taken| *taken == last)
    }

    /// Who has one.
    pub(crate) fn pods(&self) -> impl Iterator<Item = &str> {
        self.taken.keys().map(String::as_str)
    }

    /// Takes a pod's address back.
    pub(crate) fn free(&mut self, uid: &str) {
        self.taken.remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_overlaps_with_what_shares_an_address() {
        let range = Range([10, 209, 3]);
        for (network, bits, expected) in [
            ("10.209.3.0", 24, true),
            ("10.209.3.77", 32, true),
            ("10.209.0.0", 16, true),
            ("10.0.0.0", 8, true),
            ("8.0.0.0", 5, true),
            ("10.209.2.0", 24, false),
            ("10.209.4.0", 32, false),
            ("10.208.0.0", 16, false),
            ("192.0.2.0", 24, false),
            ("0.0.0.0", 0, false),
            ("0.0.0.0", 1, false),
            ("128.0.0.0", 1, false),
        ] {
            assert_eq!(
                range.overlaps(network.parse().expect("an address"), bits),
                expected,
                "{network}/{bits}"
            );
        }
    }

    #[test]
    fn ranges_are_apart_and_leave_the_usual_defaults_alone() {
        let all: Vec<_> = Range::all(0).collect();
        assert_eq!(all.len(), 3 * 256);
        assert_eq!(all[3].to_string(), "10.209.3.0/24");
        assert_eq!(all[3].gateway(), Ipv4Addr::new(10, 209, 3, 1));
        let others: Vec<_> = Range::all(200).collect();
        assert_eq!(others[60].to_string(), "10.209.4.0/24");
        assert!(all.iter().all(|range| others.contains(range)), "the same ones");
        for (network, bits) in
            [([10, 88, 0, 0], 16), ([172, 17, 0, 0], 16), ([10, 244, 0, 0], 15), ([10, 96, 0, 0], 12)]
        {
            assert!(!all.iter().any(|range| range.overlaps(network.into(), bits)), "{network:?}");
        }
    }

    #[test]
    fn a_link_is_named_after_the_pods_address() {
        let address = Ipv4Addr::new(10, 209, 3, 17);
        assert_eq!(link_name(address), "rw0ad10311");
        assert_eq!(linked("rw0ad10311"), Some(address));
        for other in ["eth0", "rw0ad1031", "rwzzzzzzzz", "ropewalk0"] {
            assert_eq!(linked(other), None, "{other}");
        }
    }

    #[test]
    fn an_address_rests_before_another_pod_has_it() {
        let range = Range([10, 209, 0]);
        let mut addresses = Addresses::new(range);
        assert_eq!(addresses.take("a"), Some(range.address(2)));
        assert_eq!(addresses.take("a"), Some(range.address(2)), "once is enough");
        assert_eq!(addresses.take("b"), Some(range.address(3)));
        addresses.free("a");
        assert_eq!(addresses.of("a"), None);
        assert_eq!(addresses.take("c"), Some(range.address(4)));
        for pod in 5..=LAST {
            assert_eq!(addresses.take(&pod.to_string()), Some(range.address(pod)));
        }
        assert_eq!(addresses.take("d"), Some(range.address(2)), "only then again from the start");
        assert_eq!(addresses.take("e"), None, "gateway, network and broadcast are no pod's");
    }

    #[test]
    fn what_pods_have_is_found_again() {
        let range = Range([10, 209, 0]);
        let mut addresses = Addresses::new(range);
        addresses.restore("a", range.address(9));
        addresses.restore("stranger", Ipv4Addr::new(10, 209, 1, 10));
        assert_eq!((addresses.of("a"), addresses.of("stranger")), (Some(range.address(9)), None));
        assert_eq!(addresses.take("b"), Some(range.address(10)));
    }
}
