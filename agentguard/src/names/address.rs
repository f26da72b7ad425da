//! Which addresses a name may stand for, and for how long.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::limits::{ADMIT_GRACE, ADMIT_LEAST, ADMIT_MOST};

/// TTLs above it count as 0 (RFC 2181, section 8).
const TTL_MOST: u32 = (1 << 31) - 1;

/// `64:ff9b::/96`, by which NAT64 gateways reach IPv4 addresses (RFC 6052).
const NAT64: [u16; 6] = [0x64, 0xff9b, 0, 0, 0, 0];

/// `64:ff9b:1::/48`, the same within a network (RFC 8215). It may hold IPv4 addresses in
/// several ways, which cannot be told apart: the usual one is read, the last 32 bits.
const NAT64_LOCAL: [u16; 3] = [0x64, 0xff9b, 1];

/// `::ffff:0:0:0/96`, IPv4-translated addresses (RFC 2765).
const TRANSLATED: [u16; 6] = [0, 0, 0, 0, 0xffff, 0];

/// `2002::/16`, by which 6to4 reaches the IPv4 address behind it (RFC 3056).
const SIX_TO_FOUR: u16 = 0x2002;

/// The address as it is admitted, or `None` if no name may stand for it: the
/// host itself, its link, and groups. Whoever owns a name's zone could otherwise
/// have the name lead to what only address rules should open (DNS rebinding).
///
/// Private ranges may be named: internal services have names. An IPv4-mapped
/// address is admitted as the IPv4 address that it reaches.
#[must_use]
pub fn admissible(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4_admissible(v4).then_some(address),
        IpAddr::V6(v6) => {
            if let Some(v4) = v6.to_ipv4_mapped() {
                return v4_admissible(v4).then_some(IpAddr::V4(v4));
            }
            v6_admissible(v6).then_some(address)
        }
    }
}

fn v4_admissible(address: Ipv4Addr) -> bool {
    let this_network = address.octets()[0] == 0;
    !(this_network
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast())
}

fn v6_admissible(address: Ipv6Addr) -> bool {
    if let Some(v4) = embedded(address) {
        return v4_admissible(v4);
    }
    !(address.is_unicast_link_local() || address.is_multicast())
}

/// The IPv4 address that a gateway or tunnel makes of an IPv6 address.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let [_, _, a, b, c, d, .., w, x, y, z] = address.octets();
    let last = Ipv4Addr::new(w, x, y, z);
    // `::` and `::1` are compatible forms of 0.0.0.0 and 0.0.0.1, so refused.
    let prefixes = [[0; 6], NAT64, TRANSLATED];
    if prefixes.iter().any(|prefix| segments[..6] == *prefix) {
        return Some(last);
    }
    // Without the last bits it holds its IPv4 address elsewhere.
    if segments[..3] == NAT64_LOCAL && !last.is_unspecified() {
        return Some(last);
    }
    (segments[0] == SIX_TO_FOUR).then(|| Ipv4Addr::new(a, b, c, d))
}

/// The TTL of a record as RFC 2181 reads it.
#[must_use]
pub fn effective_ttl(ttl: u32) -> u32 {
    if ttl > TTL_MOST { 0 } else { ttl }
}

/// The TTL that the program is told.
#[must_use]
pub fn told_ttl(ttl: u32) -> u32 {
    let most = u32::try_from(ADMIT_MOST.as_secs()).unwrap_or(TTL_MOST);
    effective_ttl(ttl).min(most)
}

/// How long an address with this TTL is admitted. Never shorter than
/// [`told_ttl`].
#[must_use]
pub fn lifetime(ttl: u32) -> Duration {
    let ttl = Duration::from_secs(effective_ttl(ttl).into());
    ttl.clamp(ADMIT_LEAST, ADMIT_MOST) + ADMIT_GRACE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(address: &str) -> Option<String> {
        admissible(address.parse().expect("an address")).map(|a| a.to_string())
    }

    #[test]
    fn no_name_stands_for_the_host_its_link_or_a_group() {
        let refused = "0.0.0.0 0.1.2.3 127.0.0.1 127.255.255.254 169.254.169.254 224.0.0.251 \
             239.255.255.255 255.255.255.255 :: ::1 fe80::1 febf::1 ff02::fb ff0e::1 \
             ::ffff:127.0.0.1 ::ffff:0.0.0.0 ::ffff:169.254.169.254 ::ffff:224.0.0.1 \
             ::ffff:255.255.255.255 ::127.0.0.1 ::169.254.0.1 64:ff9b::127.0.0.1 \
             64:ff9b::169.254.169.254 64:ff9b:1::127.0.0.1 64:ff9b:1:2:3:4:169.254.169.254 \
             ::ffff:0:127.0.0.1 ::ffff:0:169.254.169.254 2002:7f00:1::1 2002:a9fe:a9fe::1 \
             2002::1 2002:e000:fb::1";
        for address in refused.split_ascii_whitespace() {
            assert_eq!(admitted(address), None, "{address}");
        }
    }

    #[test]
    fn public_and_private_addresses_have_names() {
        let admitted_ones = "1.1.1.1 10.0.0.1 172.16.0.1 192.168.0.1 100.64.0.1 240.0.0.1 fd00::1 \
             fc00::1 2606:4700::1111 64:ff9b::101:101 64:ff9b:1::101:101 64:ff9b:1:a00:0:100:: \
             ::ffff:0:101:101 2002:101:101::1 2002:a00:1::1";
        for address in admitted_ones.split_ascii_whitespace() {
            assert_eq!(admitted(address).as_deref(), Some(address));
        }
        assert_eq!(admitted("::ffff:1.1.1.1").as_deref(), Some("1.1.1.1"));
    }

    #[test]
    fn lifetimes_are_bounded_and_outlast_what_the_program_is_told() {
        assert_eq!(lifetime(0), Duration::from_secs(90));
        assert_eq!(lifetime(60), Duration::from_secs(90));
        assert_eq!(lifetime(300), Duration::from_secs(330));
        assert_eq!(lifetime(TTL_MOST), Duration::from_secs(3630));
        assert_eq!(lifetime(1 << 31), Duration::from_secs(90));
        assert_eq!(lifetime(u32::MAX), Duration::from_secs(90));
        for ttl in [0, 1, 59, 60, 3599, 3600, 3601, TTL_MOST, 1 << 31, u32::MAX] {
            assert!(lifetime(ttl) > Duration::from_secs(told_ttl(ttl).into()));
        }
    }
}
