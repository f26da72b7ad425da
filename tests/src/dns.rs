//! A server of the DNS that knows a few names, in place of the host's.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result};

/// Its address: one of the loopback interface that nobody else has.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;

/// What a name leads to.
#[derive(Clone, Debug)]
pub enum Record {
    /// An address, for so many seconds.
    Address(IpAddr, u32),
    /// Another name.
    Alias(String),
}

type Zone = BTreeMap<String, Vec<Record>>;

/// The server.
#[derive(Debug)]
pub struct Dns {
    zone: Arc<Mutex<Zone>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Dns {
    /// Starts it at [`ADDRESS`], port 53, UDP and TCP.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn start() -> Result<Self> {
        let at = SocketAddr::from((ADDRESS, 53));
        let udp = UdpSocket::bind(at).with_context(|| format!("cannot bind {at}"))?;
        let tcp = TcpListener::bind(at).with_context(|| format!("cannot bind {at}"))?;
        let server = Self {
            zone: Arc::default(),
            asked: Arc::default(),
        };
        let (zone, asked) = (Arc::clone(&server.zone), Arc::clone(&server.asked));
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((len, from)) = udp.recv_from(&mut buffer) {
                if let Some(reply) = answer(&buffer[..len], &zone, &asked) {
                    let _ = udp.send_to(&reply, from);
                }
            }
        });
        let (zone, asked) = (Arc::clone(&server.zone), Arc::clone(&server.asked));
        thread::spawn(move || {
            for stream in tcp.incoming().flatten() {
                let (zone, asked) = (Arc::clone(&zone), Arc::clone(&asked));
                thread::spawn(move || serve(stream, &zone, &asked));
            }
        });
        Ok(server)
    }

    /// Has it know a name.
    pub fn set(&self, name: &str, records: &[Record]) {
        let mut zone = self.zone.lock().unwrap_or_else(PoisonError::into_inner);
        zone.insert(name.to_owned(), records.to_vec());
    }

    /// The names that it was asked for, and forgets that.
    #[must_use]
    pub fn take_asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn serve(mut stream: TcpStream, zone: &Mutex<Zone>, asked: &Mutex<Vec<String>>) {
    let mut len = [0; 2];
    while stream.read_exact(&mut len).is_ok() {
        let mut question = vec![0; usize::from(u16::from_be_bytes(len))];
        if stream.read_exact(&mut question).is_err() {
            return;
        }
        let Some(reply) = answer(&question, zone, asked) else {
            return;
        };
        let framed = [&(reply.len() as u16).to_be_bytes()[..], &reply].concat();
        if stream.write_all(&framed).is_err() {
            return;
        }
    }
}

/// The reply to a question: the records of the name and of those that it leads to.
fn answer(question: &[u8], zone: &Mutex<Zone>, asked: &Mutex<Vec<String>>) -> Option<Vec<u8>> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let len = usize::from(*question.get(at)?);
        at += 1;
        if len == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(question.get(at..at + len)?).to_ascii_lowercase());
        at += len;
    }
    let kind = u16::from_be_bytes([*question.get(at)?, *question.get(at + 1)?]);
    let end = at + 4;
    let name = labels.join(".");
    let mut told = asked.lock().unwrap_or_else(PoisonError::into_inner);
    told.push(name.clone());
    drop(told);
    let zone = zone.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut count, mut body, mut owner) = (0_u16, Vec::new(), name.clone());
    while let Some(records) = zone.get(&owner) {
        let mut next = None;
        for record in records {
            let (of, ttl, data) = match record {
                Record::Address(IpAddr::V4(v4), ttl) => (A, *ttl, v4.octets().to_vec()),
                Record::Address(IpAddr::V6(v6), ttl) => (AAAA, *ttl, v6.octets().to_vec()),
                Record::Alias(to) => {
                    next = Some(to.clone());
                    (CNAME, 300, wire(to))
                }
            };
            if of == kind || of == CNAME {
                body.extend(wire(&owner));
                body.extend(of.to_be_bytes());
                body.extend(1_u16.to_be_bytes());
                body.extend(ttl.to_be_bytes());
                body.extend((data.len() as u16).to_be_bytes());
                body.extend(data);
                count += 1;
            }
        }
        match next {
            Some(next) => owner = next,
            None => break,
        }
    }
    let code: u16 = if zone.contains_key(&name) { 0 } else { 3 };
    let mut reply = question.get(..2)?.to_vec();
    reply.extend((0x8180 | code).to_be_bytes());
    reply.extend([0, 1]);
    reply.extend(count.to_be_bytes());
    reply.extend([0; 4]);
    reply.extend(question.get(12..end)?);
    reply.extend(body);
    Some(reply)
}

fn wire(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}
