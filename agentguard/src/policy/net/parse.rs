//! Reads `host[:port[-port]][/proto]`, `unix:PATH` and `unix:@NAME`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use super::super::path::{PathObject, PathPattern, unescape};
use super::super::text::{TextError, quote, suggestion};
use super::{
    ALL_PORTS, NetHost, NetObject, NetRule, NetTarget, Protocol, Transport, address_bits, masked,
    unmapped,
};

/// `sun_path` has 108 bytes, and the first of an abstract name is NUL.
pub const MAX_ABSTRACT_BYTES: usize = 107;
/// The longest name in the DNS.
const MAX_NAME_BYTES: usize = 253;
/// The longest part of a name in the DNS.
const MAX_LABEL_BYTES: usize = 63;

const FORM: &str = "write host[:port[-port]][/tcp|/udp], unix:PATH or unix:@NAME";

/// Reads a rule of `connect` or `listen`.
///
/// # Errors
/// Says what is wrong with the text and what to write instead.
pub fn parse_rule(text: &str) -> Result<NetRule, TextError> {
    if let Some(socket) = text.strip_prefix("unix:") {
        return Ok(NetRule {
            target: parse_socket(socket)?,
            ports: ALL_PORTS,
            protocol: Protocol::Both,
        });
    }
    refuse_wrong_forms(text)?;
    let (rest, protocol) = split_protocol(text)?;
    let (target, ports) = if let Some(inner) = rest.strip_prefix('[') {
        bracketed(inner)?
    } else if rest.matches(':').count() > 1 {
        (bare_ipv6(rest)?, None)
    } else {
        let (host, ports) = match rest.split_once(':') {
            Some((host, ports)) => (host, Some(ports)),
            None => (rest, None),
        };
        (host_or_network(host)?, ports)
    };
    Ok(NetRule {
        target,
        ports: ports.map_or(Ok(ALL_PORTS), parse_ports)?,
        protocol,
    })
}

fn refuse_wrong_forms(text: &str) -> Result<(), TextError> {
    if text.is_empty() {
        return Err(TextError::new("the network rule is empty").with_help(FORM));
    }
    if text.contains(char::is_whitespace) {
        return Err(TextError::new("a network rule holds no spaces").with_help(FORM));
    }
    if let Some((_, rest)) = text.split_once("://") {
        let host = rest.split('/').next().unwrap_or_default();
        return Err(TextError::new(
            "this is a URL; rules name hosts and ports, not schemes and pages",
        )
        .with_help(format!("write {}", quote(&format!("{host}:443")))));
    }
    if text.starts_with('/') {
        return Err(
            TextError::new(format!("{} is a path, not a host", quote(text))).with_help(format!(
                "for a unix socket write {}",
                quote(&format!("unix:{text}"))
            )),
        );
    }
    Ok(())
}

/// Takes `/tcp` or `/udp` off the end; what begins with a digit is a prefix length.
fn split_protocol(text: &str) -> Result<(&str, Protocol), TextError> {
    let Some((rest, last)) = text.rsplit_once('/') else {
        return Ok((text, Protocol::Both));
    };
    match last {
        "tcp" => Ok((rest, Protocol::Tcp)),
        "udp" => Ok((rest, Protocol::Udp)),
        _ if last.starts_with(|c: char| c.is_ascii_digit()) => Ok((text, Protocol::Both)),
        "" => Err(TextError::new("nothing follows the slash").with_help(FORM)),
        _ => Err(TextError::new(format!("{} is not a protocol", quote(last)))
            .with_help(suggestion(last, &["tcp", "udp"]))),
    }
}

fn parse_ports(text: &str) -> Result<RangeInclusive<u16>, TextError> {
    if text == "*" {
        return Err(TextError::new("`*` is not a port").with_help("leave the port out to mean all"));
    }
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (parse_port(first)?, parse_port(last)?),
        None => {
            let port = parse_port(text)?;
            (port, port)
        }
    };
    if first > last {
        return Err(
            TextError::new(format!("the ports {first}-{last} run backwards"))
                .with_help(format!("write {last}-{first}")),
        );
    }
    Ok(first..=last)
}

fn parse_port(text: &str) -> Result<u16, TextError> {
    let help = "ports are 1 to 65535; leave the port out to mean all";
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(TextError::new(format!("{} is not a port", quote(text))).with_help(help));
    }
    match text.parse::<u16>() {
        Ok(0) => Err(TextError::new("port 0 names no port").with_help(help)),
        Ok(port) => Ok(port),
        Err(_) => {
            Err(TextError::new(format!("port {} is over 65535", quote(text))).with_help(help))
        }
    }
}

/// What follows `[`: `ADDRESS][/PREFIX][:PORTS]`.
fn bracketed(inner: &str) -> Result<(NetTarget, Option<&str>), TextError> {
    let Some((address, after)) = inner.split_once(']') else {
        return Err(TextError::new("the bracket is not closed")
            .with_help("write `[fd00::1]:443` or `[fd00::]/8:443`"));
    };
    if let Some((address, prefix)) = address.split_once('/') {
        return Err(
            TextError::new("the prefix length stands outside the brackets").with_help(format!(
                "write {}",
                quote(&format!("[{address}]/{prefix}{after}"))
            )),
        );
    }
    let parsed: Ipv6Addr = address.parse().map_err(|_| {
        let error = TextError::new(format!("{} is not an IPv6 address", quote(address)));
        if address.contains('%') {
            error.with_help("rules name addresses without a zone: leave out `%` and what follows")
        } else {
            error.with_help("only IPv6 addresses stand in brackets")
        }
    })?;
    let (prefix, ports) = match after.split_once(':') {
        Some((prefix, ports)) => (prefix, Some(ports)),
        None => (after, None),
    };
    let prefix = match prefix.strip_prefix('/') {
        Some(digits) => Some(digits),
        None if prefix.is_empty() => None,
        None => {
            return Err(
                TextError::new(format!("{} cannot follow a bracket", quote(prefix)))
                    .with_help(FORM),
            );
        }
    };
    Ok((network(parsed.into(), prefix)?, ports))
}

/// An IPv6 address or network without brackets, and so without a port.
fn bare_ipv6(text: &str) -> Result<NetTarget, TextError> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let Ok(parsed) = address.parse::<Ipv6Addr>() else {
        let error = TextError::new(format!("{} is not a host", quote(address)));
        return Err(if address.contains('%') {
            error.with_help("rules name addresses without a zone: leave out `%` and what follows")
        } else {
            error.with_help("an IPv6 address with a port stands in brackets: `[fd00::1]:443`")
        });
    };
    if let Some((digits, port)) = prefix.and_then(|prefix| prefix.split_once(':')) {
        return Err(
            TextError::new("an IPv6 network with a port stands in brackets").with_help(format!(
                "write {}",
                quote(&format!("[{address}]/{digits}:{port}"))
            )),
        );
    }
    network(parsed.into(), prefix)
}

/// A host without a colon: `*`, `*.name`, an IPv4 address or network, or a name.
fn host_or_network(host: &str) -> Result<NetTarget, TextError> {
    if host.is_empty() {
        return Err(TextError::new("the host is missing")
            .with_help("write a name, an address, or `*` for any host"));
    }
    if host == "*" {
        return Ok(NetTarget::Any);
    }
    let (address, prefix) = match host.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (host, None),
    };
    if prefix.is_some() || looks_like_ipv4(address) {
        let parsed: Ipv4Addr = address.parse().map_err(|_| {
            TextError::new(format!("{} is not an IPv4 address", quote(address)))
                .with_help("four numbers from 0 to 255, without leading zeros: `10.20.0.1`")
        })?;
        return network(parsed.into(), prefix);
    }
    match host.strip_prefix("*.") {
        Some(suffix) => Ok(NetTarget::NameSuffix(host_name(suffix)?)),
        None => Ok(NetTarget::Name(host_name(host)?)),
    }
}

/// Whether resolvers would read a host as a number rather than as a name: its
/// last label is a number. Such text must be a proper address or it is an error.
fn looks_like_ipv4(host: &str) -> bool {
    let last = host
        .trim_end_matches('.')
        .rsplit('.')
        .next()
        .unwrap_or_default();
    let is_hex = last
        .strip_prefix("0x")
        .or_else(|| last.strip_prefix("0X"))
        .is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    is_hex || (!last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()))
}

fn network(address: IpAddr, prefix: Option<&str>) -> Result<NetTarget, TextError> {
    let bits = address_bits(address);
    let length = match prefix {
        None => bits,
        Some(digits) => {
            let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            let length = digits
                .parse::<u8>()
                .ok()
                .filter(|&n| is_number && n <= bits);
            length.ok_or_else(|| {
                let family = if bits == 32 { "IPv4" } else { "IPv6" };
                TextError::new(format!("{} is not a prefix length", quote(digits)))
                    .with_help(format!("{family} prefix lengths are 0 to {bits}"))
            })?
        }
    };
    let base = masked(address, length);
    if base != address {
        return Err(
            TextError::new(format!("{address}/{length} has bits set after its prefix")).with_help(
                format!("write `{base}/{length}` for the network, or `{address}` for this address"),
            ),
        );
    }
    // ::ffff:0:0/96 is how IPv6 sockets show IPv4; the kernel programs see IPv4.
    match unmapped(address) {
        v4 @ IpAddr::V4(_) if address.is_ipv6() && length >= 96 => {
            Ok(NetTarget::Cidr(v4, length - 96))
        }
        _ => Ok(NetTarget::Cidr(address, length)),
    }
}

fn host_name(text: &str) -> Result<String, TextError> {
    if text.contains('*') {
        return Err(TextError::new(format!(
            "`*` may only be the first label, as in `*.example.com`, not as in {}",
            quote(text)
        ))
        .with_help("write one rule for each name, or a `*.` rule for all names below one"));
    }
    if !text.is_ascii() {
        return Err(TextError::new(format!("{} is not in ASCII", quote(text)))
            .with_help("write an international name in its DNS form: `xn--…`"));
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let bad = |why: String| {
        Err(TextError::new(format!(
            "{} is not a host name: {why}",
            quote(text)
        )))
    };
    if name.len() > MAX_NAME_BYTES {
        return bad(format!("it is longer than {MAX_NAME_BYTES} characters"));
    }
    for label in name.split('.') {
        if label.is_empty() {
            return bad("a part between dots is empty".into());
        }
        if label.len() > MAX_LABEL_BYTES {
            return bad(format!(
                "a part is longer than {MAX_LABEL_BYTES} characters"
            ));
        }
        if let Some(c) = label
            .chars()
            .find(|&c| !c.is_ascii_alphanumeric() && c != '-')
        {
            return bad(format!("it holds {}", quote(&c.to_string())));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return bad("a part begins or ends with `-`".into());
        }
    }
    Ok(name)
}

fn parse_socket(socket: &str) -> Result<NetTarget, TextError> {
    match socket.strip_prefix('@') {
        Some(name) => Ok(NetTarget::UnixAbstract(abstract_name(name)?)),
        None => Ok(NetTarget::UnixPath(PathPattern::parse(socket)?)),
    }
}

fn abstract_name(text: &str) -> Result<Vec<u8>, TextError> {
    let mut name = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => name.extend(unescape(&mut chars)?),
            '*' | '?' => {
                return Err(TextError::new(
                    "abstract socket names are exact; patterns are not supported",
                )
                .with_help(format!("for the character itself write `\\{c}`")));
            }
            c => name.extend(c.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    if name.is_empty() || name.len() > MAX_ABSTRACT_BYTES {
        return Err(TextError::new(format!(
            "an abstract socket name has 1 to {MAX_ABSTRACT_BYTES} bytes"
        )));
    }
    Ok(name)
}

impl NetObject {
    /// Reads one place: `host:port[/proto]` (TCP where no protocol is named),
    /// `unix:PATH` or `unix:@NAME`.
    ///
    /// # Errors
    /// Says what is wrong with the text and what to write instead.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        if let Some(path) = text
            .strip_prefix("unix:")
            .filter(|path| !path.starts_with('@'))
        {
            return Ok(Self::UnixPath(PathObject::from_bytes(path.as_bytes())?));
        }
        let rule = parse_rule(text)?;
        let one_host = |what: &str| {
            TextError::new(format!("{} names {what}", quote(text)))
                .with_help("a question is about one place, such as `1.1.1.1:53/udp`")
        };
        let host = match rule.target {
            NetTarget::UnixAbstract(name) => return Ok(Self::UnixAbstract(name)),
            NetTarget::Cidr(address, prefix) if prefix == address_bits(address) => {
                NetHost::Address(address)
            }
            NetTarget::Name(name) => NetHost::Name(name),
            _ => return Err(one_host("many hosts")),
        };
        if rule.ports == ALL_PORTS {
            return Err(one_host("no port"));
        }
        if rule.ports.start() != rule.ports.end() {
            return Err(one_host("many ports"));
        }
        Ok(Self::Inet {
            host,
            port: *rule.ports.start(),
            transport: match rule.protocol {
                Protocol::Udp => Transport::Udp,
                Protocol::Tcp | Protocol::Both => Transport::Tcp,
            },
        })
    }
}
