//! Messages of the DNS as bytes, also such as nobody should send.

/// Types of records.
pub mod kind {
    pub const A: u16 = 1;
    pub const CNAME: u16 = 5;
    pub const NULL: u16 = 10;
    pub const PTR: u16 = 12;
    pub const TXT: u16 = 16;
    pub const AAAA: u16 = 28;
    pub const DNAME: u16 = 39;
    pub const OPT: u16 = 41;
    pub const SVCB: u16 = 64;
    pub const HTTPS: u16 = 65;
    pub const AXFR: u16 = 252;
    pub const ANY: u16 = 255;
}

/// The Internet's class, and another.
pub const IN: u16 = 1;
pub const CHAOS: u16 = 3;

/// The flags of a question that wants recursion, and those of an answer to it.
pub const ASKS: u16 = 0x0100;
pub const ANSWERS: u16 = 0x8180;
/// The answer is cut.
pub const CUT: u16 = 0x0200;
/// Results.
pub mod code {
    pub const FORMERR: u8 = 1;
    pub const SERVFAIL: u8 = 2;
    pub const NXDOMAIN: u8 = 3;
    pub const NOTIMP: u8 = 4;
    pub const REFUSED: u8 = 5;
}

/// Bytes of a header.
pub const HEADER: usize = 12;
/// A pointer to the name of the question.
pub const ASKED: [u8; 2] = [0xc0, HEADER as u8];
/// The number of every question of attempts.
pub const NUMBER: u16 = 0x4147;
/// Seconds that addresses are given for, where it does not matter.
pub const TTL: u32 = 300;

/// A name of these labels, whatever they hold.
pub fn labels(labels: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in labels {
        bytes.push(label.len() as u8);
        bytes.extend(*label);
    }
    bytes.push(0);
    bytes
}

/// A name as people write it.
pub fn dotted(text: &str) -> Vec<u8> {
    labels(&text.split('.').map(str::as_bytes).collect::<Vec<_>>())
}

/// A question in a message: name, type, class.
pub fn asking(name: &[u8], kind: u16, class: u16) -> Vec<u8> {
    [name, &kind.to_be_bytes(), &class.to_be_bytes()].concat()
}

/// A message with one question and nothing else.
pub fn query(name: &[u8], kind: u16) -> Vec<u8> {
    Message::query(name, kind).bytes()
}

/// A record.
pub fn record(owner: &[u8], kind: u16, class: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    [
        owner,
        &kind.to_be_bytes(),
        &class.to_be_bytes(),
        &ttl.to_be_bytes(),
        &(data.len() as u16).to_be_bytes(),
        data,
    ]
    .concat()
}

/// A record of an address.
pub fn address(owner: &[u8], ttl: u32, address: &[u8]) -> Vec<u8> {
    let kind = match address.len() {
        4 => kind::A,
        _ => kind::AAAA,
    };
    record(owner, kind, IN, ttl, address)
}

/// A record that says that a name stands for another.
pub fn alias(owner: &[u8], to: &[u8]) -> Vec<u8> {
    record(owner, kind::CNAME, IN, TTL, to)
}

/// The data of a service (SVCB, HTTPS) at this name, with a hint of its address.
pub fn service(target: &[u8], hint: &[u8]) -> Vec<u8> {
    let key: u16 = if hint.len() == 4 { 4 } else { 6 };
    [
        &1_u16.to_be_bytes(),
        target,
        &key.to_be_bytes(),
        &(hint.len() as u16).to_be_bytes(),
        hint,
    ]
    .concat()
}

/// The record of EDNS with these options.
pub fn options(options: &[u8]) -> Vec<u8> {
    record(&[0], kind::OPT, 1232, 0, options)
}

/// An option of EDNS.
pub fn option(code: u16, data: &[u8]) -> Vec<u8> {
    [
        &code.to_be_bytes(),
        &(data.len() as u16).to_be_bytes(),
        data,
    ]
    .concat()
}

/// A message under construction.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its number.
    pub number: u16,
    /// Its flags, with operation and result.
    pub flags: u16,
    /// Questions, and the records of the three sections.
    pub sections: [Vec<Vec<u8>>; 4],
    /// What is behind the end.
    pub trailing: Vec<u8>,
}

impl Message {
    /// A question.
    pub fn query(name: &[u8], kind: u16) -> Self {
        let mut message = Self {
            number: NUMBER,
            flags: ASKS,
            sections: Default::default(),
            trailing: Vec::new(),
        };
        message.sections[0].push(asking(name, kind, IN));
        message
    }

    /// With a record in the answer section.
    pub fn answer(self, record: Vec<u8>) -> Self {
        self.with(1, record)
    }

    /// With something in a section: 0 questions, 1 answer, 2 authority, 3 additional.
    pub fn with(mut self, section: usize, record: Vec<u8>) -> Self {
        self.sections[section].push(record);
        self
    }

    /// With flags beside those that it has.
    pub fn flags(mut self, flags: u16) -> Self {
        self.flags |= flags;
        self
    }

    /// With something behind the end.
    pub fn trailing(mut self, bytes: &[u8]) -> Self {
        self.trailing = bytes.to_vec();
        self
    }

    /// As it is sent.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.number.to_be_bytes().to_vec();
        bytes.extend(self.flags.to_be_bytes());
        for section in &self.sections {
            bytes.extend((section.len() as u16).to_be_bytes());
        }
        bytes.extend(self.sections.iter().flatten().flatten());
        bytes.extend(&self.trailing);
        bytes
    }
}

/// A message with its length before it, as TCP carries it.
pub fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes()[..], message].concat()
}

/// Where the first question of a message ends; at the header's end if it cannot be read.
pub fn question_end(message: &[u8]) -> usize {
    let mut at = HEADER;
    while let Some(length) = message.get(at).copied() {
        at += 1 + usize::from(length);
        if length == 0 {
            let end = at + 4;
            return if end <= message.len() { end } else { HEADER };
        }
    }
    HEADER
}

/// Two bytes of a message, 0 behind its end.
pub fn number_at(message: &[u8], at: usize) -> u16 {
    match message.get(at..at + 2) {
        Some([high, low]) => u16::from_be_bytes([*high, *low]),
        _ => 0,
    }
}
