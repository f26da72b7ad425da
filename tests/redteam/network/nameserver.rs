//! The server of the DNS that the red team's daemon asks: it says of each name what the
//! attempt wants it to say, however wrong, and counts what it was asked.
//!
//! It answers while attempts are made, so it has threads, unlike the rest of the driver.
//! What came is counted before it is answered: who has an answer finds the count.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context as _, Result};

use super::dns::{self, Message};
use super::wire;
use crate::field::{Field, Side};

/// Where it is, over IPv4.
pub const V4: [u8; 4] = [127, 0, 0, 9];
/// Where it is, over IPv6: an address of the red team's interface.
pub const V6: [u16; 8] = [0xfd77, 0, 0, 3, 0, 0, 0, 0x53];
/// Where nobody asks, and answers come from all the same.
const STRANGER: [u8; 4] = [127, 0, 0, 10];
/// The same over IPv6.
pub const STRANGER_V6: [u16; 8] = [0xfd77, 0, 0, 3, 0, 0, 0, 0x54];
const PORT: u16 = 53;

/// What it says to a question about a field's name.
pub type Script = fn(&Asked<'_>, &Given) -> Vec<Out>;

/// A question.
#[derive(Debug)]
pub struct Asked<'m> {
    /// The message as it came.
    pub message: &'m [u8],
    /// Where it came from.
    pub from: SocketAddr,
    /// Whether it came over TCP.
    pub by_tcp: bool,
}

impl Asked<'_> {
    /// Its answer, without records so far.
    pub fn reply(&self) -> Message {
        let end = dns::question_end(self.message);
        let question = self.message.get(dns::HEADER..end).unwrap_or_default();
        let mut sections: [Vec<Vec<u8>>; 4] = Default::default();
        if !question.is_empty() {
            sections[0].push(question.to_vec());
        }
        Message {
            number: dns::number_at(self.message, 0),
            flags: dns::ANSWERS,
            sections,
            trailing: Vec::new(),
        }
    }

    /// The name that is asked for, as it stands in the message.
    pub fn name(&self) -> Vec<u8> {
        let end = dns::question_end(self.message);
        let name = self.message.get(dns::HEADER..end - 4.min(end));
        name.unwrap_or_default().to_vec()
    }
}

/// What a script works with. On the allowed side the attempt goes to what stands where it
/// counts, on the denied side to what stands where it must not.
#[derive(Clone, Debug)]
pub struct Given {
    /// Goes where it counts.
    pub good: Vec<u8>,
    /// Goes where it must not count.
    pub bad: Vec<u8>,
    /// Whether nothing at all is to be wrong.
    pub is_control: bool,
    /// The field's directory.
    pub work: PathBuf,
}

impl Given {
    /// What the attempt goes to.
    pub fn to(&self) -> &[u8] {
        if self.is_control {
            &self.good
        } else {
            &self.bad
        }
    }
}

/// A message of the server.
#[derive(Debug)]
pub enum Out {
    /// As it should come.
    Here(Vec<u8>),
    /// From another port.
    OtherPort(Vec<u8>),
    /// From another address.
    OtherAddress(Vec<u8>),
}

impl From<Message> for Out {
    fn from(message: Message) -> Self {
        Self::Here(message.bytes())
    }
}

/// What of a message counts.
#[derive(Clone, Debug)]
pub enum Needle {
    /// That the field's name is in it.
    Name,
    /// These bytes.
    Bytes(Vec<u8>),
    /// One of these flags.
    Flags(u16),
    /// This number: counted in pairs, for one may be chance.
    Number(u16),
}

impl Needle {
    fn is_in(&self, message: &[u8]) -> bool {
        match self {
            Self::Name => true,
            Self::Bytes(bytes) => message.windows(bytes.len()).any(|part| part == bytes),
            Self::Flags(flags) => dns::number_at(message, 2) & flags != 0,
            Self::Number(number) => dns::number_at(message, 0) == *number,
        }
    }
}

#[derive(Debug)]
struct Entry {
    needle: Needle,
    script: Script,
    given: Given,
    hits: usize,
}

fn entries() -> MutexGuard<'static, HashMap<Vec<u8>, Entry>> {
    static ENTRIES: LazyLock<Mutex<HashMap<Vec<u8>, Entry>>> = LazyLock::new(Mutex::default);
    ENTRIES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A label that is in the names of one field and nowhere else.
pub fn fresh_label() -> Vec<u8> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    format!("q{:05}z", NEXT.fetch_add(1, Ordering::Relaxed)).into_bytes()
}

/// Labels of [`fresh_label`] in a message, in any case.
fn labels_in(message: &[u8]) -> Vec<Vec<u8>> {
    const LENGTH: usize = 7;
    let lower = message.to_ascii_lowercase();
    let is_label = |part: &&[u8]| {
        part.starts_with(b"q") && part.ends_with(b"z") && part[1..6].iter().all(u8::is_ascii_digit)
    };
    let found = lower.windows(LENGTH).filter(is_label);
    let mut labels: Vec<Vec<u8>> = found.map(<[u8]>::to_vec).collect();
    labels.sort();
    labels.dedup();
    labels
}

/// Has it know the names with this label.
pub fn know(label: Vec<u8>, needle: Needle, script: Script, given: Given) {
    let entry = Entry {
        needle,
        script,
        given,
        hits: 0,
    };
    entries().insert(label, entry);
}

/// What it was asked about the field's name.
pub fn look(field: &Field) -> String {
    let entries = entries();
    match entries.get(&field.noted_bytes("label")) {
        Some(Entry {
            needle: Needle::Number(_),
            hits,
            ..
        }) => format!("the server saw it {} times twice\n", hits / 2),
        Some(entry) => format!("the server saw it {} times\n", entry.hits),
        None => String::new(),
    }
}

/// The good twin of what is given is what the attempt goes to, on the allowed side.
pub fn given(field: &Field, to: &[u8], decoy: &[u8]) -> Given {
    let is_control = field.side == Side::Allowed;
    let (good, bad) = if is_control { (to, decoy) } else { (decoy, to) };
    Given {
        good: good.to_vec(),
        bad: bad.to_vec(),
        is_control,
        work: field.work.clone(),
    }
}

/// Says that there is such a name, and nothing of it.
pub fn nothing(asked: &Asked<'_>, _: &Given) -> Vec<Out> {
    vec![asked.reply().into()]
}

/// Its address, as a socket address.
pub fn address(is_v4: bool) -> Vec<u8> {
    if is_v4 {
        wire::v4(V4, PORT)
    } else {
        wire::v6(wire::words_v6(V6), PORT, 0)
    }
}

/// Both its addresses.
pub fn addresses() -> [IpAddr; 2] {
    [IpAddr::from(V4), IpAddr::from(V6)]
}

/// Starts it. It ends with the driver.
pub fn start() -> Result<()> {
    for address in addresses() {
        let at = SocketAddr::new(address, PORT);
        let udp = UdpSocket::bind(at).with_context(|| format!("cannot bind {at}"))?;
        let tcp = TcpListener::bind(at).with_context(|| format!("cannot bind {at}"))?;
        let elsewhere = UdpSocket::bind((address, 0))?;
        let other = match address {
            IpAddr::V4(_) => IpAddr::from(STRANGER),
            IpAddr::V6(_) => IpAddr::from(STRANGER_V6),
        };
        let stranger = UdpSocket::bind((other, PORT))
            .with_context(|| format!("cannot bind port {PORT} of {other}"))?;
        thread::spawn(move || datagrams(&udp, &elsewhere, &stranger));
        thread::spawn(move || {
            for stream in tcp.incoming().flatten() {
                thread::spawn(move || connection(stream));
            }
        });
    }
    Ok(())
}

fn datagrams(socket: &UdpSocket, elsewhere: &UdpSocket, stranger: &UdpSocket) {
    let mut room = vec![0; 64 * 1024];
    while let Ok((length, from)) = socket.recv_from(&mut room) {
        let asked = Asked {
            message: &room[..length],
            from,
            by_tcp: false,
        };
        for out in said(&asked) {
            let (by, bytes) = match &out {
                Out::Here(bytes) => (socket, bytes),
                Out::OtherPort(bytes) => (elsewhere, bytes),
                Out::OtherAddress(bytes) => (stranger, bytes),
            };
            // Who has gone wants no answer.
            let _ = by.send_to(bytes, from);
        }
    }
}

fn connection(mut stream: TcpStream) {
    let Ok(from) = stream.peer_addr() else {
        return;
    };
    let mut length = [0; 2];
    while stream.read_exact(&mut length).is_ok() {
        let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
        if stream.read_exact(&mut message).is_err() {
            return;
        }
        let asked = Asked {
            message: &message,
            from,
            by_tcp: true,
        };
        for out in said(&asked) {
            let (Out::Here(bytes) | Out::OtherPort(bytes) | Out::OtherAddress(bytes)) = out;
            if stream.write_all(&dns::framed(&bytes)).is_err() {
                return;
            }
        }
    }
}

/// Counts a question, and what there is to say to it.
fn said(asked: &Asked<'_>) -> Vec<Out> {
    let mut first = None;
    let mut entries = entries();
    for label in labels_in(asked.message) {
        let Some(entry) = entries.get_mut(&label) else {
            continue;
        };
        entry.hits += usize::from(entry.needle.is_in(asked.message));
        first.get_or_insert((entry.script, entry.given.clone()));
    }
    drop(entries);
    match first {
        Some((script, given)) => script(asked, &given),
        None => vec![asked.reply().into()],
    }
}
