//! The address tries: an address in, a set of port rules out.
//!
//! A trie branches 16 ways (four address bits a node), so an IPv4 address takes
//! at most 8 steps and an IPv6 address 32, however many rules there are. Each
//! leaf already holds the union of every rule whose prefix covers it; the set
//! is cut into port intervals, each with the strictest verdict.

/// Set in an entry that is a leaf: the rest is the index of a [`PortSet`].
pub const LEAF: u32 = 1 << 31;

/// The entry that says "no rule".
pub const NOTHING: u32 = LEAF;

/// Four bits of an address a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct NetNode {
    /// Entry by the next four bits, highest first: a node index or a leaf.
    pub next: [u32; 16],
}

/// A run of intervals in the table of [`PortInterval`]s. Set 0 is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct PortSet {
    /// Index of the first interval.
    pub first: u32,
    /// Number of intervals; 0: no rule.
    pub count: u32,
}

/// Transport protocols that rules tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Transport {
    /// TCP, and MPTCP as seen by the program.
    Tcp = 0,
    /// UDP and UDP-Lite.
    Udp = 1,
    /// Everything else; no rule can name it, so only the default applies.
    Other = 2,
}

impl Transport {
    /// The name in events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Other => "other",
        }
    }

    /// The transport of an IP protocol number.
    #[must_use]
    #[inline(always)]
    pub const fn from_ip_protocol(protocol: u16) -> Self {
        match protocol {
            6 | 262 => Self::Tcp,
            17 | 136 => Self::Udp,
            _ => Self::Other,
        }
    }
}

/// The verdict from the end of the previous interval up to and including `upto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct PortInterval {
    /// [`port_key`] of the last port.
    pub upto: u32,
    /// Two bits; 0: no rule.
    pub verdict: u16,
    /// Rule index.
    pub rule: u16,
}

/// Order of ports over transports: all of TCP, then all of UDP.
#[must_use]
#[inline(always)]
pub const fn port_key(transport: Transport, port: u16) -> u32 {
    (transport as u32) << 16 | port as u32
}

/// An address in network order. IPv4-mapped IPv6 is IPv4: [`Address::v6`] folds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// 16 bytes as big-endian words; IPv4 uses the first word only.
    pub words: [u32; 4],
    /// Whether this is IPv4.
    pub is_v4: bool,
}

impl Address {
    /// IPv4, from its value with the first byte highest.
    #[must_use]
    #[inline(always)]
    pub const fn v4(value: u32) -> Self {
        Self {
            words: [value, 0, 0, 0],
            is_v4: true,
        }
    }

    /// Where packets to this address go: Linux takes `0.0.0.0` and `::` for the local host.
    #[must_use]
    #[inline(always)]
    pub const fn reached(self) -> Self {
        let [a, b, c, d] = self.words;
        if a | b | c | d != 0 {
            return self;
        }
        if self.is_v4 {
            Self::v4(0x7f00_0001)
        } else {
            Self::v6([0, 0, 0, 1])
        }
    }

    /// IPv6, from words with the first byte highest; `::ffff:a.b.c.d` becomes IPv4.
    #[must_use]
    #[inline(always)]
    pub const fn v6(words: [u32; 4]) -> Self {
        if words[0] == 0 && words[1] == 0 && words[2] == 0xffff {
            Self::v4(words[3])
        } else {
            Self {
                words,
                is_v4: false,
            }
        }
    }
}

/// Where the tables are: kernel maps behind the verifier, vectors in userspace.
pub trait NetTables {
    /// One branch of a node.
    fn branch(&self, node: u32, nibble: u32) -> Option<u32>;
    /// Set by index.
    fn set(&self, set: u32) -> Option<PortSet>;
    /// Interval by index.
    fn interval(&self, interval: u32) -> Option<PortInterval>;
}

/// What the tables say of one address and port: two verdict bits and the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetMatch {
    /// Two bits; 0: no rule.
    pub verdict: u8,
    /// Rule index.
    pub rule: u16,
}

impl NetMatch {
    /// No rule.
    pub const NONE: Self = Self {
        verdict: 0,
        rule: 0,
    };
}

/// A table entry that must exist does not: the caller denies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// Interval steps of the largest set: log2 of [`NET_PORTS`](crate::limits::NET_PORTS), plus one.
const SEARCH_STEPS: u32 = crate::limits::NET_PORTS.ilog2() + 1;

/// Looks an address and port up under a root entry.
///
/// # Errors
/// [`Broken`] if the tables are inconsistent.
#[inline(always)]
pub fn lookup<T: NetTables>(
    tables: &T,
    root: u32,
    address: &Address,
    transport: Transport,
    port: u16,
) -> Result<NetMatch, Broken> {
    if matches!(transport, Transport::Other) {
        return Ok(NetMatch::NONE);
    }
    let set = tables.set(leaf(tables, root, address)?).ok_or(Broken)?;
    if set.count == 0 {
        return Ok(NetMatch::NONE);
    }
    let key = port_key(transport, port);
    let mut low = set.first;
    let mut high = set.first + set.count - 1;
    for _ in 0..SEARCH_STEPS {
        if low >= high {
            break;
        }
        let middle = low + (high - low) / 2;
        if tables.interval(middle).ok_or(Broken)?.upto < key {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let found = tables.interval(low).ok_or(Broken)?;
    if found.upto < key {
        return Ok(NetMatch::NONE);
    }
    Ok(NetMatch {
        verdict: found.verdict as u8,
        rule: found.rule,
    })
}

/// Walks down to the leaf of an address. A well-formed IPv4 trie ends within 8
/// steps, an IPv6 trie within 32; anything longer is [`Broken`].
#[inline(always)]
fn leaf<T: NetTables>(tables: &T, root: u32, address: &Address) -> Result<u32, Broken> {
    let mut entry = root;
    let [w0, w1, w2, w3] = address.words;
    let mut bits = u64::from(w0) << 32 | u64::from(w1);
    for step in 0..=32u32 {
        if entry & LEAF != 0 {
            return Ok(entry & !LEAF);
        }
        if step == 16 {
            bits = u64::from(w2) << 32 | u64::from(w3);
        }
        entry = tables.branch(entry, (bits >> 60) as u32).ok_or(Broken)?;
        bits <<= 4;
    }
    Err(Broken)
}

const _: () = assert!(size_of::<NetNode>() == 64);
const _: () = assert!(size_of::<PortSet>() == 8);
const _: () = assert!(size_of::<PortInterval>() == 8);
