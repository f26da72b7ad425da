use super::*;
use proptest::prelude::*;

fn rule(text: &str) -> NetRule {
    parse_rule(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn every_form_is_read() {
    for (text, written) in [
        ("*", "*"),
        ("*:443", "*:443"),
        ("*/udp", "*/udp"),
        ("api.anthropic.com:443", "api.anthropic.com:443"),
        ("API.Anthropic.COM.:443/tcp", "api.anthropic.com:443/tcp"),
        ("*.github.com:443", "*.github.com:443"),
        ("localhost:8000-8100", "localhost:8000-8100"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("3com.example", "3com.example"),
        ("10.0.0.1", "10.0.0.1"),
        ("10.0.0.1/32:53/udp", "10.0.0.1:53/udp"),
        ("10.20.0.0/16:5432", "10.20.0.0/16:5432"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::1", "::1"),
        ("::/0", "::/0"),
        ("fd00::/8", "fd00::/8"),
        ("fd00::/8/tcp", "[fd00::]/8/tcp"),
        ("[::1]", "::1"),
        ("[::1]:80", "[::1]:80"),
        ("[fd00::]/8:443/tcp", "[fd00::]/8:443/tcp"),
        ("[fd00::]/8:1-65535", "[fd00::]/8:1-65535"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("[::ffff:10.0.0.0]/104:80", "10.0.0.0/8:80"),
        ("[::ffff:0.0.0.0]/96", "0.0.0.0/0"),
        (
            "unix:/run/postgresql/.s.PGSQL.5432",
            "unix:/run/postgresql/.s.PGSQL.5432",
        ),
        ("unix:/run/user/*/bus", "unix:/run/user/*/bus"),
        ("unix:@/tmp/.X11-unix/X0", "unix:@/tmp/.X11-unix/X0"),
        (r"unix:@a\x01\*", r"unix:@a\x01\*"),
    ] {
        assert_eq!(rule(text).to_string(), written, "{text}");
    }
}

/// Text, part of the message, part of the help.
const REFUSED: &[(&str, &str, &str)] = &[
    ("", "empty", "host[:port"),
    (":443", "host is missing", "`*`"),
    ("a b:443", "no spaces", "host[:port"),
    (
        "https://api.example.com/v1",
        "a URL",
        "`api.example.com:443`",
    ),
    ("/run/x.sock", "a path, not a host", "`unix:/run/x.sock`"),
    (
        "a.example:70000",
        "port `70000` is over 65535",
        "1 to 65535",
    ),
    ("a.example:99999999999999999999", "over 65535", "1 to 65535"),
    ("a.example:0", "port 0", "1 to 65535"),
    ("a.example:", "not a port", "1 to 65535"),
    ("a.example:+1", "not a port", "1 to 65535"),
    ("a.example:http", "not a port", "1 to 65535"),
    ("a.example:*", "`*` is not a port", "leave the port out"),
    ("a.example:90-80", "run backwards", "80-90"),
    ("a.example:80-", "not a port", "1 to 65535"),
    ("a.example:80/tpc", "not a protocol", "did you mean `tcp`?"),
    ("a.example/", "nothing follows the slash", "host[:port"),
    ("10.0.0.300", "not an IPv4 address", "0 to 255"),
    ("10.0.0", "not an IPv4 address", "0 to 255"),
    ("010.0.0.1", "not an IPv4 address", "leading zeros"),
    ("0x7f000001", "not an IPv4 address", "0 to 255"),
    ("1234567", "not an IPv4 address", "0 to 255"),
    ("10.0.0.0/33", "not a prefix length", "0 to 32"),
    ("10.0.0.0/+8", "not a protocol", "tcp"),
    ("10.1.2.3/8", "bits set after its prefix", "`10.0.0.0/8`"),
    ("fd00::1/8", "bits set after its prefix", "`fd00::/8`"),
    (
        "::ffff:10.1.2.3/104",
        "bits set after its prefix",
        "::ffff:10.0.0.0/104",
    ),
    ("fd00::/129", "not a prefix length", "0 to 128"),
    ("fd00::/8:443", "stands in brackets", "`[fd00::]/8:443`"),
    ("[fd00::/8]:443", "outside the brackets", "`[fd00::]/8:443`"),
    ("[fd00::1:443", "not closed", "[fd00::1]:443"),
    ("[fd00::1]443", "cannot follow a bracket", "host[:port"),
    ("[10.0.0.1]:80", "not an IPv6 address", "brackets"),
    ("[fe80::1%eth0]:80", "not an IPv6 address", "zone"),
    ("a:b:c", "not a host", "brackets"),
    ("a.example/24", "not an IPv4 address", "0 to 255"),
    (
        "api.*.example.com",
        "only be the first label",
        "one rule for each",
    ),
    (
        "*example.com",
        "only be the first label",
        "one rule for each",
    ),
    (
        "*.*.example.com",
        "only be the first label",
        "one rule for each",
    ),
    ("bücher.example", "not in ASCII", "xn--"),
    ("a_b.example", "holds `_`", ""),
    ("user@host", "holds `@`", ""),
    ("a..example", "empty", ""),
    ("-a.example", "begins or ends with `-`", ""),
    ("*.", "empty", ""),
    (".", "empty", ""),
    ("unix:run/x", "not an absolute path", "`**/run/x`"),
    ("unix:", "empty", ""),
    ("unix:@", "1 to 107 bytes", ""),
    ("unix:@dbus-*", "exact", r"`\*`"),
];

#[test]
fn what_is_refused_and_how() {
    for &(text, message, help) in REFUSED {
        let error = parse_rule(text).expect_err(text);
        assert!(error.message.contains(message), "{text:?}: {error}");
        let advice = error.help.unwrap_or_default();
        assert!(advice.contains(help), "{text:?}: help: {advice}");
    }
    let long = format!("{}.example", "a".repeat(64));
    assert!(parse_rule(&long).is_err());
    let long = vec!["a".repeat(60); 5].join(".");
    assert!(parse_rule(&long).is_err());
    assert!(parse_rule(&format!("unix:@{}", "n".repeat(108))).is_err());
}

#[test]
fn what_rules_cover() {
    for (text, covered, not_covered) in [
        (
            "*:443",
            &["1.2.3.4:443", "[::1]:443", "a.example:443"][..],
            &["1.2.3.4:80"][..],
        ),
        (
            "10.20.0.0/16",
            &["10.20.255.1:1", "[::ffff:10.20.0.1]:1/udp"],
            &["10.21.0.0:1", "[::1]:1"],
        ),
        (
            "0.0.0.0/0:53/udp",
            &["9.9.9.9:53/udp"],
            &["9.9.9.9:53", "[::1]:53/udp"],
        ),
        (
            "::/0",
            &["[::1]:1", "[fd00::1]:1"],
            &["9.9.9.9:1", "[::ffff:9.9.9.9]:1"],
        ),
        (
            "*.a.example",
            &["b.a.example:1", "c.b.a.example:1"],
            &["a.example:1", "xa.example:1"],
        ),
        (
            "a.example:80-90",
            &["a.example:80", "A.example:90/udp"],
            &["a.example:91", "b.a.example:80"],
        ),
        (
            "unix:/run/*.sock",
            &["unix:/run/a.sock"],
            &["unix:/run/a/b.sock", "unix:@/run/a.sock"],
        ),
        (
            "unix:@a",
            &["unix:@a"],
            &["unix:@ab", "unix:/a", "a.example:1"],
        ),
    ] {
        for object in covered {
            let parsed = NetObject::parse(object).unwrap();
            assert!(
                rule(text).matches(&parsed),
                "{text} does not cover {object}"
            );
        }
        for object in not_covered {
            let parsed = NetObject::parse(object).unwrap();
            assert!(!rule(text).matches(&parsed), "{text} covers {object}");
        }
    }
}

#[test]
fn an_object_is_one_place() {
    for text in [
        "1.1.1.1:53/udp",
        "[::1]:80/tcp",
        "a.example:443/tcp",
        "unix:/run/x",
        "unix:@x",
    ] {
        assert_eq!(NetObject::parse(text).unwrap().to_string(), text);
    }
    assert_eq!(
        NetObject::parse("a.example:1").unwrap().to_string(),
        "a.example:1/tcp"
    );
    for text in [
        "*:1",
        "*.a.example:1",
        "10.0.0.0/8:1",
        "1.1.1.1",
        "1.1.1.1:1-2",
        "unix:x",
        "unix:/a/",
    ] {
        assert!(NetObject::parse(text).is_err(), "{text}");
    }
}

fn host() -> impl Strategy<Value = String> {
    prop::collection::vec("[a-z]([a-z0-9-]{0,5}[a-z0-9])?", 1..4)
        .prop_map(|labels| labels.join("."))
}

fn target() -> impl Strategy<Value = NetTarget> {
    prop_oneof![
        Just(NetTarget::Any),
        (any::<u32>(), 0..=32u8).prop_map(|(bits, prefix)| {
            let address = IpAddr::V4(bits.into());
            NetTarget::Cidr(masked(address, prefix), prefix)
        }),
        (any::<u128>(), 0..=128u8).prop_map(|(bits, prefix)| {
            // Not the IPv4-mapped range, which is held as IPv4.
            let address = IpAddr::V6((bits | 1 << 127).into());
            NetTarget::Cidr(masked(address, prefix.max(1)), prefix.max(1))
        }),
        host().prop_map(NetTarget::Name),
        host().prop_map(NetTarget::NameSuffix),
        prop::collection::vec(1u8.., 1..20)
            .prop_filter(
                "a slash needs no escape but cannot be written as one",
                |name| { !name.contains(&0) }
            )
            .prop_map(NetTarget::UnixAbstract),
    ]
}

fn net_rule() -> impl Strategy<Value = NetRule> {
    let protocol = prop::sample::select(vec![Protocol::Both, Protocol::Tcp, Protocol::Udp]);
    let ports = prop_oneof![
        Just(ALL_PORTS),
        (1..=u16::MAX, 1..=u16::MAX).prop_map(|(a, b)| a.min(b)..=a.max(b)),
    ];
    (target(), ports, protocol).prop_map(|(target, ports, protocol)| match target {
        NetTarget::UnixAbstract(_) => NetRule {
            target,
            ports: ALL_PORTS,
            protocol: Protocol::Both,
        },
        target => NetRule {
            target,
            ports,
            protocol,
        },
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_rule_that_is_written_is_read_back(rule in net_rule()) {
        prop_assert_eq!(parse_rule(&rule.to_string()).unwrap(), rule);
    }

    #[test]
    fn a_network_covers_exactly_the_addresses_with_its_prefix(
        network in any::<u32>(), prefix in 0..=32u8, address in any::<u32>(), near in any::<bool>(),
    ) {
        // Half of the addresses share the prefix, or nearly none would.
        let shift = 32 - u32::from(prefix);
        let high = u32::MAX.checked_shl(shift).unwrap_or(0);
        let address = if near { (network & high) | (address & !high) } else { address };
        let base = masked(IpAddr::V4(network.into()), prefix);
        let rule = rule(&format!("{base}/{prefix}"));
        let object = NetObject::Inet {
            host: NetHost::Address(IpAddr::V4(address.into())),
            port: 1,
            transport: Transport::Tcp,
        };
        let same = (network ^ address).checked_shr(shift).unwrap_or(0) == 0;
        prop_assert_eq!(rule.matches(&object), same);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,40}|[*.:0-9a-f/\\[\\]%@unix-]{0,40}") {
        if let Ok(parsed) = parse_rule(&text) {
            prop_assert_eq!(parse_rule(&parsed.to_string()).unwrap(), parsed);
        }
        // Whatever it is, it is answered.
        let _ = NetObject::parse(&text);
    }
}
