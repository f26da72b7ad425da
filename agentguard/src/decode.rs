//! Kernel records to typed records. Total: any bytes give a record or an error,
//! never a panic, because a damaged record must not stop the others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use agentguard_common::event::{Fold, FoldKey, Header, Kind, NamedTail, NetTail, flag};
use agentguard_common::identity::Tag;
use agentguard_common::net::Transport;
use agentguard_common::verb::Verb;
use agentguard_common::verdict::{Mode, Reason, Verdict};

use crate::kernel::RawRecord;

/// A kernel record with every number checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// `CLOCK_BOOTTIME`, nanoseconds.
    pub boot_ns: u64,
    /// Number of this record among its run's, from 1.
    pub run_seq: u64,
    /// Identity.
    pub tag: Tag,
    /// Who did it.
    pub task: Task,
    /// How often it happened.
    pub count: u32,
    /// Under what its repeats are counted ([`FoldKey::what`]); 0: each is told.
    pub fold: u64,
    /// What happened.
    pub body: Body,
}

/// The task that a record is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Process id in the initial PID namespace.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Process id of the real parent.
    pub ppid: u32,
    /// User id.
    pub uid: u32,
    /// Cgroup (v2) id.
    pub cgroup: u64,
    /// Command name, as the task set it.
    pub comm: String,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// An operation was decided.
    Decision {
        /// The operation.
        verb: Verb,
        /// What it was to be done to.
        object: Object,
        /// The decision.
        decision: Decision,
    },
    /// A process image was replaced by this file.
    Exec(FileObject),
    /// A process ended with this exit code word.
    Exit(i32),
    /// The last task of a run ended.
    RunEnded,
    /// A file gets another name; this is one of them.
    Linked(FileObject),
}

/// How an operation was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The verdict.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// Index of the blamed rule, for the reasons that blame one.
    pub rule: Option<u16>,
    /// The mode it was decided in.
    pub mode: Mode,
    /// Policy generation that decided.
    pub generation: u32,
    /// Whether the operation failed because of it.
    pub blocked: bool,
}

/// What an operation is done to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A file.
    File(FileObject),
    /// A place in a network.
    Address(AddressObject),
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileObject {
    /// The path from the root of its file system, or the kernel's label of an
    /// anonymous object.
    pub path: Vec<u8>,
    /// Device number of the file system.
    pub device: u32,
    /// Inode number.
    pub inode: u64,
    /// Whether the front of the path is missing.
    pub cut: bool,
    /// Whether it has no name: a pipe, a memfd.
    pub anonymous: bool,
}

/// A place in a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressObject {
    /// The address, for IPv4 and IPv6.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
    /// Address family as the program gave it.
    pub family: u16,
    /// TCP, UDP, or something else.
    pub transport: Transport,
    /// IP protocol number.
    pub protocol: u16,
    /// The server that the connection says it is for, as it says it.
    pub server: Option<Vec<u8>>,
}

/// Why a record could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A number that stands for nothing.
    #[error("{field} {value} is not known")]
    Unknown {
        /// Field of the header.
        field: &'static str,
        /// Its value.
        value: u8,
    },
    /// The tail is shorter than its kind needs.
    #[error("the tail of {length} bytes is too short for an address")]
    Tail {
        /// Its length.
        length: usize,
    },
}

/// Reads one record.
///
/// # Errors
/// A number in the header that stands for nothing, or a tail of the wrong length.
pub fn decode(raw: &RawRecord) -> Result<Record, DecodeError> {
    let header = &raw.header;
    let unknown = |field, value| DecodeError::Unknown { field, value };
    let kind = Kind::from_u8(header.kind).ok_or(unknown("kind", header.kind))?;
    let body = match kind {
        Kind::Path => decision(header, Object::File(file(raw)))?,
        Kind::Net => decision(header, Object::Address(address(&raw.tail)?))?,
        Kind::ServerName => decision(header, Object::Address(server(&raw.tail)?))?,
        Kind::Abstract => decision(header, Object::File(abstract_name(raw)))?,
        Kind::Exec => Body::Exec(file(raw)),
        Kind::Exit => Body::Exit(header.code),
        Kind::RunEnded => Body::RunEnded,
        Kind::Linked => Body::Linked(file(raw)),
    };
    Ok(Record {
        boot_ns: header.boot_ns,
        run_seq: header.run_seq,
        tag: header.tag,
        task: task(header),
        count: header.count.max(1),
        fold: header.fold,
        body,
    })
}

/// What can be said of repeats whose first record is not known: all but the name or address.
#[must_use]
pub fn header_of(key: FoldKey, fold: &Fold) -> Header {
    Header {
        boot_ns: fold.first_ns,
        run_seq: 0,
        cgroup: 0,
        inode: fold.inode,
        fold: key.what,
        tag: Tag {
            agent: fold.agent,
            run: fold.run,
            run_serial: key.run_serial,
        },
        generation: fold.generation,
        pid: fold.pid,
        tid: fold.pid,
        ppid: 0,
        uid: fold.uid,
        device: fold.device,
        code: 0,
        count: 1,
        rule: fold.rule,
        tail_len: 0,
        tail_start: 0,
        kind: fold.kind,
        verb: fold.verb,
        verdict: fold.verdict,
        reason: fold.reason,
        mode: fold.mode,
        flags: fold.flags,
        comm: [0; 16],
    }
}

/// The tail for [`header_of`]: no name, or no address.
#[must_use]
pub fn no_tail(fold: &Fold) -> Vec<u8> {
    if fold.kind == Kind::Net as u8 {
        vec![0; size_of::<NetTail>()]
    } else {
        Vec::new()
    }
}

fn decision(header: &Header, object: Object) -> Result<Body, DecodeError> {
    let unknown = |field, value| DecodeError::Unknown { field, value };
    let verb = Verb::from_u8(header.verb).ok_or(unknown("verb", header.verb))?;
    let verdict = verdict(header.verdict).ok_or(unknown("verdict", header.verdict))?;
    let reason = Reason::from_u8(header.reason).ok_or(unknown("reason", header.reason))?;
    let mode = mode(header.mode).ok_or(unknown("mode", header.mode))?;
    let blames_rule = matches!(reason, Reason::Rule | Reason::Protected);
    let decision = Decision {
        verdict,
        reason,
        rule: blames_rule.then_some(header.rule),
        mode,
        generation: header.generation,
        blocked: verdict != Verdict::Allow && header.flags & flag::NOT_BLOCKED == 0,
    };
    Ok(Body::Decision {
        verb,
        object,
        decision,
    })
}

fn verdict(number: u8) -> Option<Verdict> {
    [Verdict::Allow, Verdict::Ask, Verdict::Deny]
        .into_iter()
        .find(|verdict| *verdict as u8 == number)
}

fn mode(number: u8) -> Option<Mode> {
    [Mode::Observe, Mode::Enforce]
        .into_iter()
        .find(|mode| *mode as u8 == number)
}

fn task(header: &Header) -> Task {
    let end = header
        .comm
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(header.comm.len());
    Task {
        pid: header.pid,
        tid: header.tid,
        ppid: header.ppid,
        uid: header.uid,
        cgroup: header.cgroup,
        comm: String::from_utf8_lossy(&header.comm[..end]).into_owned(),
    }
}

fn file(raw: &RawRecord) -> FileObject {
    FileObject {
        path: raw.tail.clone(),
        device: raw.header.device,
        inode: raw.header.inode,
        cut: raw.header.flags & flag::PATH_CUT != 0,
        anonymous: raw.header.flags & flag::ANONYMOUS != 0,
    }
}

/// A unix socket without a file, as `ss` and `unix(7)` show its name.
fn abstract_name(raw: &RawRecord) -> FileObject {
    FileObject {
        path: [b"@", raw.tail.as_slice()].concat(),
        device: 0,
        inode: 0,
        cut: false,
        anonymous: true,
    }
}

/// Reads a [`NetTail`] field by field, in the byte order of this machine.
fn net_tail(tail: &[u8]) -> Option<NetTail> {
    let half = |at: usize| Some(u16::from_ne_bytes(tail.get(at..at + 2)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_ne_bytes(tail.get(at..at + 4)?.try_into().ok()?));
    Some(NetTail {
        address: [word(0)?, word(4)?, word(8)?, word(12)?],
        port: half(16)?,
        family: half(18)?,
        transport: *tail.get(20)?,
        is_v4: *tail.get(21)?,
        protocol: half(22)?,
    })
}

fn address(tail: &[u8]) -> Result<AddressObject, DecodeError> {
    let tail = net_tail(tail).ok_or(DecodeError::Tail { length: tail.len() })?;
    Ok(place(&tail))
}

/// A place in a network.
#[must_use]
pub fn place(tail: &NetTail) -> AddressObject {
    let words = tail.address;
    let address = if tail.is_v4 == 1 {
        Some(IpAddr::V4(Ipv4Addr::from_bits(words[0])))
    } else if i32::from(tail.family) == nix::libc::AF_INET6 {
        let bits = words
            .iter()
            .fold(0_u128, |bits, word| bits << 32 | u128::from(*word));
        Some(IpAddr::V6(Ipv6Addr::from_bits(bits)))
    } else {
        None
    };
    AddressObject {
        address,
        port: tail.port,
        family: tail.family,
        transport: match tail.transport {
            0 => Transport::Tcp,
            1 => Transport::Udp,
            _ => Transport::Other,
        },
        protocol: tail.protocol,
        server: None,
    }
}

/// Reads a [`NamedTail`].
#[must_use]
pub fn named(tail: &[u8]) -> Option<NamedTail> {
    let half = |at: usize| Some(u16::from_ne_bytes(tail.get(at..at + 2)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_ne_bytes(tail.get(at..at + 4)?.try_into().ok()?));
    let words = |at: usize| Some([word(at)?, word(at + 4)?, word(at + 8)?, word(at + 12)?]);
    Some(NamedTail {
        to: net_tail(tail)?,
        from: words(24)?,
        cookie: u64::from_ne_bytes(tail.get(40..48)?.try_into().ok()?),
        from_port: half(48)?,
        name_len: half(50)?,
        reserved: 0,
        name: tail.get(56..312)?.try_into().ok()?,
    })
}

/// Where a connection goes that names a server.
fn server(tail: &[u8]) -> Result<AddressObject, DecodeError> {
    let mut object = address(tail)?;
    let named = named(tail).ok_or(DecodeError::Tail { length: tail.len() })?;
    let name = named.name.get(..usize::from(named.name_len));
    object.server = name.filter(|name| !name.is_empty()).map(<[u8]>::to_vec);
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{header, net_record, path_record};

    #[test]
    fn reads_a_denied_path() {
        let raw = path_record(Verb::Write, Verdict::Deny, "/srv/x");
        let record = decode(&raw).unwrap();
        let Body::Decision {
            verb,
            object: Object::File(file),
            decision,
        } = record.body
        else {
            panic!("not a decision about a file");
        };
        assert_eq!((verb, file.path.as_slice()), (Verb::Write, &b"/srv/x"[..]));
        assert!(decision.blocked);
        assert_eq!(decision.rule, Some(0));
    }

    #[test]
    fn reads_addresses() {
        let raw = net_record(Verb::Connect, Verdict::Deny, "192.0.2.7", 443);
        let Body::Decision {
            object: Object::Address(seen),
            ..
        } = decode(&raw).unwrap().body
        else {
            panic!("not a decision about an address");
        };
        assert_eq!(seen.address, Some("192.0.2.7".parse().unwrap()));
        assert_eq!(seen.port, 443);
        let raw = net_record(Verb::Connect, Verdict::Allow, "2001:db8::1", 53);
        let Body::Decision {
            object: Object::Address(seen),
            ..
        } = decode(&raw).unwrap().body
        else {
            panic!("not a decision about an address");
        };
        assert_eq!(seen.address, Some("2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn observe_is_not_blocked_and_a_default_blames_no_rule() {
        let mut raw = path_record(Verb::Write, Verdict::Deny, "/x");
        raw.header.flags = flag::NOT_BLOCKED;
        raw.header.reason = Reason::Default as u8;
        let Body::Decision { decision, .. } = decode(&raw).unwrap().body else {
            panic!("not a decision");
        };
        assert!(!decision.blocked);
        assert_eq!(decision.rule, None);
    }

    #[test]
    fn names_what_it_does_not_know() {
        let mut raw = path_record(Verb::Write, Verdict::Deny, "/x");
        raw.header.verb = 200;
        assert_eq!(
            decode(&raw).unwrap_err().to_string(),
            "verb 200 is not known"
        );
        let short = RawRecord {
            header: header(Kind::Net),
            tail: vec![0; 23],
        };
        assert_eq!(decode(&short), Err(DecodeError::Tail { length: 23 }));
    }

    /// Random headers and tails, from a fixed seed: nothing panics, and what
    /// decodes decodes the same way again.
    #[test]
    fn random_bytes_never_panic() {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut decoded = 0;
        for _ in 0..50_000 {
            let mut head = header(Kind::Path);
            let [kind, verb, verdict, reason, mode, flags, tail_len, _] = next().to_ne_bytes();
            (head.kind, head.verb, head.verdict) = (kind % 8, verb % 10, verdict % 5);
            (head.reason, head.mode, head.flags) = (reason % 14, mode % 4, flags);
            head.comm = [next().to_ne_bytes(), next().to_ne_bytes()]
                .concat()
                .try_into()
                .unwrap();
            head.boot_ns = next();
            head.rule = next() as u16;
            let tail = (0..tail_len).map(|_| next() as u8).collect();
            let raw = RawRecord { header: head, tail };
            let record = decode(&raw);
            decoded += u32::from(record.is_ok());
            assert_eq!(record, decode(&raw));
        }
        assert!(
            decoded > 1_000,
            "only {decoded} records decoded: the test tests nothing"
        );
    }
}
