//! Questions: read from what a client sent, and asked anew of a server.

use domain::base::iana::{Class, Opcode, OptRcode, Rtype};
use domain::base::message_builder::PushError;
use domain::base::name::ToName;
use domain::base::opt::Opt;
use domain::base::record::ParsedRecord;
use domain::base::wire::ParseError;
use domain::base::{Message, MessageBuilder, Name};

use super::limits::{EDNS_BYTES, QUESTION_BYTES, UDP_LEAST, UDP_MOST};

/// What a reply to any message must repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The client's number for it.
    pub id: u16,
    /// What was to be done.
    pub opcode: Opcode,
    /// Whether recursion was desired.
    pub recursion_desired: bool,
}

/// Why a message is not a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuestionError {
    /// No identifier to answer to, or itself an answer: must not be answered.
    #[error("not a DNS message that can be answered")]
    Unanswerable,
    /// Not as RFC 1035 and RFC 6891 say, or not exactly one question.
    #[error("malformed DNS question")]
    Malformed(Head),
    /// Another operation than QUERY.
    #[error("DNS operation {} is not supported", .0.opcode)]
    Opcode(Head),
}

/// What the client's OPT record says (RFC 6891).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    /// Bytes of a datagram that it takes, as it said.
    pub udp_bytes: u16,
    /// The version that it speaks; only 0 exists.
    pub version: u8,
    /// Whether it wants DNSSEC records.
    pub dnssec_ok: bool,
}

/// One question. Of the message it came in, nothing else is kept.
#[derive(Clone, Debug)]
pub struct Question {
    /// What the reply repeats.
    pub head: Head,
    /// The name as the client wrote it: the reply repeats upper and lower case.
    pub name: Name<Vec<u8>>,
    /// The name in lower case, without the trailing dot; `None` if no rule can
    /// mean it.
    pub text: Option<String>,
    /// The type.
    pub rtype: Rtype,
    /// The class.
    pub class: Class,
    /// The AD flag.
    pub authentic_data: bool,
    /// The CD flag.
    pub checking_disabled: bool,
    /// The OPT record.
    pub edns: Option<Edns>,
}

/// Reads a question.
///
/// # Errors
/// The message is not one: with what is needed to say so to the client.
pub fn read(message: &[u8]) -> Result<Question, QuestionError> {
    let parsed = Message::from_slice(message).map_err(|_| QuestionError::Unanswerable)?;
    let header = parsed.header();
    if header.qr() {
        return Err(QuestionError::Unanswerable);
    }
    let head = Head {
        id: header.id(),
        opcode: header.opcode(),
        recursion_desired: header.rd(),
    };
    if head.opcode != Opcode::QUERY {
        return Err(QuestionError::Opcode(head));
    }
    if message.len() > QUESTION_BYTES {
        return Err(QuestionError::Malformed(head));
    }
    read_body(parsed, head).map_err(|_| QuestionError::Malformed(head))
}

fn read_body(message: &Message<[u8]>, head: Head) -> Result<Question, ParseError> {
    let counts = message.header_counts();
    if counts.qdcount() != 1 || counts.ancount() != 0 || counts.nscount() != 0 {
        return Err(ParseError::form_error("not one question alone"));
    }
    let question = message.sole_question()?;
    let name: Name<Vec<u8>> = question.qname().to_vec();
    let header = message.header();
    Ok(Question {
        head,
        text: text(&name),
        name,
        rtype: question.qtype(),
        class: question.qclass(),
        authentic_data: header.ad(),
        checking_disabled: header.cd(),
        edns: read_edns(message)?,
    })
}

fn read_edns(message: &Message<[u8]>) -> Result<Option<Edns>, ParseError> {
    let mut found = None;
    for record in message.additional()? {
        let record: ParsedRecord<'_, [u8]> = record?;
        if record.rtype() != Rtype::OPT {
            continue;
        }
        if found.is_some() || !record.owner().is_root() {
            return Err(ParseError::form_error("not one OPT record of the root"));
        }
        // The fields of an OPT record are packed into class and TTL.
        let [_, version, flags, _] = record.ttl().as_secs().to_be_bytes();
        found = Some(Edns {
            udp_bytes: record.class().to_int(),
            version,
            dnssec_ok: flags & 0x80 != 0,
        });
        // What options say does not matter, because it goes nowhere; only that
        // each is within the record.
        record.into_record::<Opt<&[u8]>>()?;
    }
    Ok(found)
}

/// The name as rules write it.
fn text(name: &Name<Vec<u8>>) -> Option<String> {
    let mut text = String::with_capacity(name.len());
    for label in name.iter().filter(|label| !label.is_root()) {
        if !text.is_empty() {
            text.push('.');
        }
        for &byte in label.as_slice() {
            if !byte.is_ascii_graphic() || byte == b'.' {
                return None;
            }
            text.push(byte.to_ascii_lowercase().into());
        }
    }
    (!text.is_empty()).then_some(text)
}

impl Question {
    /// Bytes of a datagram that the client takes.
    #[must_use]
    pub fn udp_room(&self) -> usize {
        self.edns.map_or(UDP_LEAST, |edns| {
            usize::from(edns.udp_bytes).clamp(UDP_LEAST, UDP_MOST)
        })
    }

    /// Whether the client wants DNSSEC records.
    #[must_use]
    pub fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec_ok)
    }

    /// The name for events, odd bytes escaped.
    #[must_use]
    pub fn shown(&self) -> String {
        self.text.clone().unwrap_or_else(|| self.name.to_string())
    }

    /// Whether the type is one of those that mean several records, transfers or
    /// messages about messages (RFC 6895: OPT, and 128 to 255, of which ANY is one).
    #[must_use]
    pub fn is_meta(&self) -> bool {
        self.rtype == Rtype::OPT || (128..=255).contains(&self.rtype.to_int())
    }

    /// The message that asks a server. Built anew: the name in lower case, type and
    /// class, three flags, and an OPT record of ours. Nothing else of the client's
    /// message leaves the host, so that it carries no hidden data.
    ///
    /// # Errors
    /// The builder's; there is none for a name that was read.
    pub fn query(&self, id: u16) -> Result<Vec<u8>, PushError> {
        let mut builder = MessageBuilder::new_vec();
        let header = builder.header_mut();
        header.set_id(id);
        header.set_rd(true);
        header.set_ad(self.authentic_data);
        header.set_cd(self.checking_disabled);
        let mut builder = builder.question();
        let canonical: Name<Vec<u8>> = self.name.to_canonical_name();
        builder.push((&canonical, self.rtype, self.class))?;
        let mut builder = builder.additional();
        builder.opt(|opt| {
            opt.set_rcode(OptRcode::NOERROR);
            opt.set_udp_payload_size(EDNS_BYTES);
            opt.set_dnssec_ok(self.dnssec_ok());
            Ok(())
        })?;
        Ok(builder.finish())
    }
}
