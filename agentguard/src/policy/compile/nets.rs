//! Network rules to address tries: every leaf holds the union of the rules whose
//! prefix covers it, cut into port intervals.

use std::net::IpAddr;

use agentguard_common::net::{LEAF, NetNode, PortInterval, Transport, port_key};

use super::super::manifest::{NetTarget, Protocol};
use super::rules::NetRuleRef;
use super::tables::{Builder, Full};

/// A rule with its prefix, bits left-aligned.
#[derive(Clone, Copy)]
struct Prefix<'a> {
    bits: u128,
    len: u32,
    rule: &'a NetRuleRef,
}

/// Compiles the rules of one verb; returns the entries for IPv4 and IPv6.
pub fn compile(builder: &mut Builder, rules: &[NetRuleRef]) -> Result<(u32, u32), Full> {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for rule in rules {
        match rule.rule.target {
            NetTarget::Any => {
                v4.push(Prefix {
                    bits: 0,
                    len: 0,
                    rule,
                });
                v6.push(Prefix {
                    bits: 0,
                    len: 0,
                    rule,
                });
            }
            NetTarget::Cidr(IpAddr::V4(address), len) => {
                let bits = u128::from(u32::from(address)) << 96;
                v4.push(Prefix {
                    bits,
                    len: u32::from(len),
                    rule,
                });
            }
            NetTarget::Cidr(IpAddr::V6(address), len) => {
                v6.push(Prefix {
                    bits: u128::from(address),
                    len: u32::from(len),
                    rule,
                });
            }
            // Names have no address of their own: what they admit depends on what the run
            // is answered (`named`). Sockets with paths are not addresses.
            NetTarget::Name(_)
            | NetTarget::NameSuffix(_)
            | NetTarget::UnixPath(_)
            | NetTarget::UnixAbstract(_) => {}
        }
    }
    Ok((entry(builder, &v4, &[], 0)?, entry(builder, &v6, &[], 0)?))
}

/// The entry of one place in the trie, `depth` bits down. `above` are the rules
/// whose prefix ends at or above this place.
fn entry<'a>(
    builder: &mut Builder,
    prefixes: &[Prefix<'a>],
    above: &[&'a NetRuleRef],
    depth: u32,
) -> Result<u32, Full> {
    let mut covering: Vec<&'a NetRuleRef> = above.to_vec();
    covering.extend(
        prefixes
            .iter()
            .filter(|prefix| prefix.len <= depth)
            .map(|prefix| prefix.rule),
    );
    let deeper: Vec<Prefix<'a>> = prefixes
        .iter()
        .filter(|prefix| prefix.len > depth)
        .copied()
        .collect();
    if deeper.is_empty() {
        return Ok(LEAF | builder.add_port_set(&intervals(&covering))?);
    }
    let mut node = NetNode { next: [0; 16] };
    for (nibble, slot) in (0u128..).zip(&mut node.next) {
        let mut covering = covering.clone();
        let mut below = Vec::new();
        for prefix in &deeper {
            // Of a prefix that ends inside this nibble, only the bits it has count.
            let significant = (prefix.len - depth).min(4);
            let theirs = prefix.bits >> (124 - depth) & 0xf;
            if theirs >> (4 - significant) != nibble >> (4 - significant) {
                continue;
            }
            if prefix.len <= depth + 4 {
                covering.push(prefix.rule);
            } else {
                below.push(*prefix);
            }
        }
        *slot = entry(builder, &below, &covering, depth + 4)?;
    }
    builder.add_net_node(node)
}

/// Cuts the ports into intervals, each with its strictest verdict.
fn intervals(rules: &[&NetRuleRef]) -> Vec<PortInterval> {
    let mut edges = Vec::new();
    let mut ranges = Vec::new();
    for rule in rules {
        for transport in [Transport::Tcp, Transport::Udp] {
            let meant = match rule.rule.protocol {
                Protocol::Both => true,
                Protocol::Tcp => transport == Transport::Tcp,
                Protocol::Udp => transport == Transport::Udp,
            };
            if meant {
                let low = port_key(transport, *rule.rule.ports.start());
                let high = port_key(transport, *rule.rule.ports.end());
                edges.extend([low, high + 1]);
                ranges.push((low, high, *rule));
            }
        }
    }
    let last = port_key(Transport::Udp, u16::MAX);
    edges.extend([0, last + 1]);
    edges.sort_unstable();
    edges.dedup();
    let mut intervals: Vec<PortInterval> = Vec::new();
    for pair in edges.windows(2) {
        let (low, upto) = (pair[0], pair[1] - 1);
        let strictest = ranges
            .iter()
            .filter(|(from, to, _)| *from <= low && upto <= *to)
            .map(|(_, _, rule)| *rule)
            .max_by_key(|rule| (rule.verdict, u16::MAX - rule.index));
        let verdict = strictest.map_or(0, |rule: &NetRuleRef| rule.verdict as u16);
        let rule = strictest.map_or(0, |rule| rule.index);
        match intervals.last_mut() {
            Some(before) if before.verdict == verdict && before.rule == rule => before.upto = upto,
            _ => intervals.push(PortInterval {
                upto,
                verdict,
                rule,
            }),
        }
    }
    if intervals.iter().all(|interval| interval.verdict == 0) {
        intervals.clear();
    }
    intervals
}
