//! Answers of servers: which records belong to the question, and which addresses
//! they give the name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use domain::base::iana::{Class, Rcode, Rtype};
use domain::base::message::RecordSection;
use domain::base::name::{ParsedName, ToName};
use domain::base::record::{ParsedRecord, Record};
use domain::base::wire::ParseError;
use domain::base::{Message, Ttl};
use domain::rdata::svcb::SvcParams;
use domain::rdata::svcb::value::{Ipv4Hint, Ipv6Hint};
use domain::rdata::{AllRecordData, Cname};

use super::question::Question;
use super::{Grant, address, limits};

/// A name inside the answer's message.
pub type NameIn<'m> = ParsedName<&'m [u8]>;

/// A record inside the answer's message.
pub type RecordIn<'m> = Record<NameIn<'m>, AllRecordData<&'m [u8], NameIn<'m>>>;

/// How much of an answer is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Links of the CNAME chain ([`limits::LINKS`]).
    pub links: usize,
    /// Addresses that are admitted ([`limits::ADDRESSES`]).
    pub addresses: usize,
    /// Records of a section ([`limits::RECORDS`]).
    pub records: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            links: limits::LINKS,
            addresses: limits::ADDRESSES,
            records: limits::RECORDS,
        }
    }
}

/// Why an answer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// It does not answer this question.
    #[error("not the answer to the question")]
    NotOurs,
    /// Only the beginning: the server is to be asked over TCP.
    #[error("the answer is truncated")]
    Truncated,
    /// Not as the RFCs say.
    #[error("malformed answer: {0}")]
    Malformed(#[from] ParseError),
    /// More records than anybody needs.
    #[error("a section has more than {0} records")]
    TooManyRecords(usize),
    /// An error that only EDNS has a number for.
    #[error("the server says {0}")]
    Extended(u16),
}

/// What of an answer goes to the client, and what is admitted for it.
#[derive(Debug)]
pub struct Answer<'m> {
    /// The server's result.
    pub rcode: Rcode,
    /// Whether the server vouches for DNSSEC.
    pub authentic_data: bool,
    /// Whether the server recurses.
    pub recursion_available: bool,
    /// The chain from the name that was asked for, and the records at its names.
    pub records: Vec<RecordIn<'m>>,
    /// What a negative answer is known by: SOA, and its proof if asked for.
    pub authority: Vec<RecordIn<'m>>,
    /// The addresses.
    pub grant: Grant,
}

/// Whether a message is the answer to this question under this number.
#[must_use]
pub fn is_for(message: &[u8], id: u16, question: &Question) -> bool {
    Message::from_slice(message).is_ok_and(|m| m.header().id() == id && answers(m, question))
}

fn answers(message: &Message<[u8]>, question: &Question) -> bool {
    let header = message.header();
    header.qr()
        && header.opcode() == question.head.opcode
        && message.sole_question().is_ok_and(|asked| {
            asked.qtype() == question.rtype
                && asked.qclass() == question.class
                && asked.qname().name_eq(&question.name)
        })
}

/// Reads an answer. Work and memory are bounded by the message's length and the
/// limits.
///
/// # Errors
/// It cannot be used, and why.
pub fn read<'m>(
    message: &'m [u8],
    question: &Question,
    limits: Limits,
) -> Result<Answer<'m>, AnswerError> {
    let message = Message::from_slice(message).map_err(|_| AnswerError::NotOurs)?;
    if !answers(message, question) {
        return Err(AnswerError::NotOurs);
    }
    let header = message.header();
    if header.tc() {
        return Err(AnswerError::Truncated);
    }
    let extended = message.opt_rcode();
    if extended.to_int() > 15 {
        return Err(AnswerError::Extended(extended.to_int()));
    }
    let counts = message.header_counts();
    if usize::from(counts.ancount().max(counts.nscount())) > limits.records {
        return Err(AnswerError::TooManyRecords(limits.records));
    }
    let mut reading = Reading {
        question,
        limits,
        chain: follow(message, question, limits)?,
        grant: Grant {
            name: question.text.clone().unwrap_or_default(),
            ..Grant::default()
        },
    };
    let mut records = reading.keep(message.answer()?)?;
    let mut authority = Vec::new();
    if question.dnssec_ok() || !records.iter().any(|r| r.rtype() == question.rtype) {
        authority = reading.authority(message.authority()?)?;
    }
    if header.rcode() != Rcode::NOERROR {
        // A name that does not exist has no addresses.
        records.retain(|r| {
            !matches!(
                r.rtype(),
                Rtype::A | Rtype::AAAA | Rtype::HTTPS | Rtype::SVCB
            )
        });
        reading.grant.addresses.clear();
        reading.grant.unusable.clear();
    }
    Ok(Answer {
        rcode: header.rcode(),
        authentic_data: header.ad(),
        recursion_available: header.ra(),
        records,
        authority,
        grant: reading.grant,
    })
}

/// A name of the chain, and the least TTL on the way there.
struct Link<'m> {
    name: NameIn<'m>,
    ttl: u32,
}

/// The names from the one that was asked for along CNAME records, also those made
/// from DNAME records. Ends at a loop, and at the limit.
fn follow<'m>(
    message: &'m Message<[u8]>,
    question: &Question,
    limits: Limits,
) -> Result<Vec<Link<'m>>, AnswerError> {
    let mut chain = vec![Link {
        name: message.sole_question()?.into_qname(),
        ttl: u32::MAX >> 1,
    }];
    if question.rtype == Rtype::CNAME {
        return Ok(chain);
    }
    let aliases = message.answer()?.limit_to_in::<Cname<NameIn<'m>>>();
    let aliases = aliases.collect::<Result<Vec<_>, _>>()?;
    for _ in 0..limits.links {
        let Some(last) = chain.last() else { break };
        let Some(alias) = aliases.iter().find(|alias| *alias.owner() == last.name) else {
            break;
        };
        let link = Link {
            name: *alias.data().cname(),
            ttl: last.ttl.min(address::effective_ttl(alias.ttl().as_secs())),
        };
        if chain.iter().any(|seen| seen.name == link.name) {
            break;
        }
        chain.push(link);
    }
    Ok(chain)
}

struct Reading<'m, 'q> {
    question: &'q Question,
    limits: Limits,
    chain: Vec<Link<'m>>,
    grant: Grant,
}

impl<'m> Reading<'m, '_> {
    /// The records that belong to the question. Addresses among them are granted.
    fn keep(&mut self, section: RecordSection<'m, [u8]>) -> Result<Vec<RecordIn<'m>>, AnswerError> {
        let mut kept = Vec::new();
        for record in section {
            let record = record?;
            if record.class() != Class::IN || !self.belongs(&record) {
                continue;
            }
            let mut record: RecordIn<'m> = record.into_any_record()?;
            // The least TTL on the way is told as well: a program that kept an address
            // for longer than it is admitted would be refused.
            let link = self.chain.iter().find(|link| link.name == *record.owner());
            let ttl = address::effective_ttl(record.ttl().as_secs());
            let ttl = link.map_or(ttl, |link| link.ttl.min(ttl));
            if self.grant_of(&record, ttl) {
                tell_ttl(&mut record, ttl);
                kept.push(record);
            }
        }
        Ok(kept)
    }

    fn belongs(&self, record: &ParsedRecord<'m, [u8]>) -> bool {
        let owner = record.owner();
        let in_chain = self.chain.iter().any(|link| link.name == owner);
        match record.rtype() {
            rtype if rtype == self.question.rtype => in_chain,
            Rtype::CNAME => in_chain,
            Rtype::DNAME => self.is_above_chain(&owner),
            Rtype::RRSIG => self.question.dnssec_ok() && (in_chain || self.is_above_chain(&owner)),
            _ => false,
        }
    }

    /// Whether a name of the chain is at or below this one.
    fn is_above_chain(&self, owner: &NameIn<'m>) -> bool {
        self.chain.iter().any(|link| link.name.ends_with(owner))
    }

    /// Grants the record's addresses; whether the record goes to the client.
    fn grant_of(&mut self, record: &RecordIn<'m>, ttl: u32) -> bool {
        match record.data() {
            AllRecordData::A(a) => self.grant_one(IpAddr::V4(a.addr()), ttl),
            AllRecordData::Aaaa(aaaa) => self.grant_one(IpAddr::V6(aaaa.addr()), ttl),
            AllRecordData::Https(data) if data.is_service() => {
                self.grant_hints(data.target(), data.params(), ttl);
                true
            }
            AllRecordData::Svcb(data) if data.is_service() => {
                self.grant_hints(data.target(), data.params(), ttl);
                true
            }
            _ => true,
        }
    }

    /// Grants an address; `false` if it is one too many.
    fn grant_one(&mut self, answered: IpAddr, ttl: u32) -> bool {
        let lifetime = address::lifetime(ttl);
        let Some(address) = address::admissible(answered) else {
            // The record still goes to the client: the address is decided by
            // address rules, and a refused connection tells more than no address.
            self.unusable(answered);
            return true;
        };
        let addresses = &mut self.grant.addresses;
        if let Some((_, longest)) = addresses.iter_mut().find(|(known, _)| *known == address) {
            *longest = lifetime.max(*longest);
            return true;
        }
        if addresses.len() >= self.limits.addresses {
            self.unusable(answered);
            return false;
        }
        addresses.push((address, lifetime));
        true
    }

    /// Hints are for the target, which must be a name that was answered for.
    fn grant_hints(&mut self, target: &NameIn<'m>, params: &SvcParams<&'m [u8]>, ttl: u32) {
        let ours = target.is_root() || self.chain.iter().any(|link| link.name == *target);
        for hint in hints(params) {
            if ours {
                self.grant_one(hint, ttl);
            } else {
                self.unusable(hint);
            }
        }
    }

    fn unusable(&mut self, address: IpAddr) {
        // Bounded like the records: this is only for the event.
        if self.grant.unusable.len() < self.limits.records {
            self.grant.unusable.push(address);
        }
    }

    /// Of the authority section, what says that there is no such record. Its
    /// addresses, if any, are nothing to us.
    fn authority(
        &self,
        section: RecordSection<'m, [u8]>,
    ) -> Result<Vec<RecordIn<'m>>, AnswerError> {
        let mut kept = Vec::new();
        for record in section {
            let record = record?;
            let belongs = match record.rtype() {
                Rtype::SOA => self.is_above_chain(&record.owner()),
                Rtype::RRSIG | Rtype::NSEC | Rtype::NSEC3 => self.question.dnssec_ok(),
                _ => false,
            };
            if belongs && record.class() == Class::IN {
                let mut record: RecordIn<'m> = record.into_any_record()?;
                let ttl = record.ttl().as_secs();
                tell_ttl(&mut record, ttl);
                kept.push(record);
            }
        }
        Ok(kept)
    }
}

fn tell_ttl(record: &mut RecordIn<'_>, ttl: u32) {
    record.set_ttl(Ttl::from_secs(address::told_ttl(ttl)));
}

/// The address hints of a service (RFC 9460, section 7.3).
fn hints(params: &SvcParams<&[u8]>) -> Vec<IpAddr> {
    // Read from the bytes: the library's iterators have an `expect` inside.
    let mut hints = Vec::new();
    if let Some(v4) = params.first::<Ipv4Hint<_>>() {
        for bytes in v4.as_slice().as_chunks().0 {
            hints.push(IpAddr::V4(Ipv4Addr::from_octets(*bytes)));
        }
    }
    if let Some(v6) = params.first::<Ipv6Hint<_>>() {
        for bytes in v6.as_slice().as_chunks().0 {
            hints.push(IpAddr::V6(Ipv6Addr::from_octets(*bytes)));
        }
    }
    hints
}
