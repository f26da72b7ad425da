//! Replies to clients. Always built anew; never longer than the client takes.

use domain::base::iana::{ExtendedErrorCode, Opcode, OptRcode, Rcode};
use domain::base::message_builder::{AdditionalBuilder, AnswerBuilder, PushError};
use domain::base::{MessageBuilder, StaticCompressor};
use domain::dep::octseq::str::Str;

use super::answer::Answer;
use super::limits::EDNS_BYTES;
use super::question::{Head, Question, QuestionError};

/// Bytes of the longest message over TCP.
pub const TCP_ROOM: usize = 65_535;

/// Bytes kept for the OPT record. One with an extended error is longer, but then
/// there are no other records, and a question alone is far below any room.
const OPT_ROOM: usize = 11;

/// Results that we give for reasons of our own, with their extended errors
/// (RFC 8914).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Policy: NXDOMAIN, Blocked.
    Blocked,
    /// Nobody whom the kernel sent here, or a class other than IN: REFUSED.
    Prohibited,
    /// A type that is not answered: NOTIMP.
    NotSupported,
    /// A version of EDNS that does not exist: BADVERS.
    BadVersion,
    /// Beyond a limit: SERVFAIL.
    TooMany,
    /// No server answered: SERVFAIL, No Reachable Authority.
    Unreachable,
    /// The addresses could not be admitted: SERVFAIL.
    NotAdmitted,
}

impl Refused {
    fn rcode(self) -> OptRcode {
        match self {
            Self::Blocked => OptRcode::NXDOMAIN,
            Self::Prohibited => OptRcode::REFUSED,
            Self::NotSupported => OptRcode::NOTIMP,
            Self::BadVersion => OptRcode::BADVERS,
            Self::TooMany | Self::Unreachable | Self::NotAdmitted => OptRcode::SERVFAIL,
        }
    }

    /// The extended error and its text.
    fn explained(self) -> Option<(ExtendedErrorCode, &'static str)> {
        Some(match self {
            Self::Blocked => (
                ExtendedErrorCode::BLOCKED,
                "agentguard: no rule allows this name",
            ),
            Self::Prohibited => (
                ExtendedErrorCode::PROHIBITED,
                "agentguard: not answered here",
            ),
            Self::NotSupported => (
                ExtendedErrorCode::NOT_SUPPORTED,
                "agentguard: type not answered",
            ),
            Self::BadVersion => return None,
            Self::TooMany => (
                ExtendedErrorCode::OTHER,
                "agentguard: too many questions at once",
            ),
            Self::Unreachable => (
                ExtendedErrorCode::NO_REACHABLE_AUTHORITY,
                "agentguard: no server answered",
            ),
            Self::NotAdmitted => (
                ExtendedErrorCode::OTHER,
                "agentguard: addresses not admitted",
            ),
        })
    }
}

/// Replies to what is no question; `None` where nothing may be said.
#[must_use]
pub fn error(error: QuestionError) -> Option<Vec<u8>> {
    match error {
        QuestionError::Unanswerable => None,
        QuestionError::Malformed(head) => Some(bare(head, Rcode::FORMERR)),
        QuestionError::Opcode(head) => Some(bare(head, Rcode::NOTIMP)),
    }
}

/// Refuses a question.
#[must_use]
pub fn refused(question: &Question, why: Refused) -> Vec<u8> {
    let build = || {
        let mut builder = start(question, question.udp_room())?;
        builder.header_mut().set_ra(true);
        builder.header_mut().set_rcode(why.rcode().rcode());
        let mut builder = builder.additional();
        push_opt(&mut builder, question, why.rcode(), why.explained())?;
        Ok(builder.finish().into_target())
    };
    build().unwrap_or_else(|_: PushError| bare(question.head, why.rcode().rcode()))
}

/// Passes an answer on. What does not fit into `room` bytes is marked truncated,
/// and the client comes again over TCP.
#[must_use]
pub fn answer(question: &Question, answer: &Answer<'_>, room: usize) -> Vec<u8> {
    full(question, answer, room)
        .or_else(|_| truncated(question, answer, room))
        .unwrap_or_else(|_| bare(question.head, Rcode::SERVFAIL))
}

type Target = StaticCompressor<Vec<u8>>;

fn full(question: &Question, answer: &Answer<'_>, room: usize) -> Result<Vec<u8>, PushError> {
    let mut builder = start(question, room)?;
    result(&mut builder, question, answer);
    for record in &answer.records {
        builder.push(record)?;
    }
    let mut builder = builder.authority();
    for record in &answer.authority {
        builder.push(record)?;
    }
    let mut builder = builder.additional();
    push_opt(&mut builder, question, answer.rcode.into(), None)?;
    Ok(builder.finish().into_target())
}

fn truncated(question: &Question, answer: &Answer<'_>, room: usize) -> Result<Vec<u8>, PushError> {
    let mut builder = start(question, room)?;
    result(&mut builder, question, answer);
    builder.header_mut().set_tc(true);
    let mut builder = builder.additional();
    push_opt(&mut builder, question, answer.rcode.into(), None)?;
    Ok(builder.finish().into_target())
}

fn result(builder: &mut AnswerBuilder<Target>, question: &Question, answer: &Answer<'_>) {
    let wants_authentic = question.authentic_data || question.dnssec_ok();
    let header = builder.header_mut();
    header.set_ra(answer.recursion_available);
    header.set_ad(answer.authentic_data && wants_authentic);
    header.set_rcode(answer.rcode);
}

/// The header and the question.
fn start(question: &Question, room: usize) -> Result<AnswerBuilder<Target>, PushError> {
    let mut builder = MessageBuilder::from_target(StaticCompressor::new(Vec::new()))?;
    // The limit is the first length that is too long. Room for OPT is kept, because
    // a reply without it says that we do not know EDNS.
    let kept = if question.edns.is_some() { OPT_ROOM } else { 0 };
    builder.set_push_limit(room.saturating_sub(kept) + 1);
    let header = builder.header_mut();
    header.set_id(question.head.id);
    header.set_qr(true);
    header.set_opcode(Opcode::QUERY);
    header.set_rd(question.head.recursion_desired);
    header.set_cd(question.checking_disabled);
    let mut builder = builder.question();
    builder.push((&question.name, question.rtype, question.class))?;
    Ok(builder.answer())
}

/// The OPT record, if the client had one.
fn push_opt(
    builder: &mut AdditionalBuilder<Target>,
    question: &Question,
    rcode: OptRcode,
    explained: Option<(ExtendedErrorCode, &str)>,
) -> Result<(), PushError> {
    if question.edns.is_none() {
        return Ok(());
    }
    builder.clear_push_limit();
    builder.opt(|opt| {
        opt.set_rcode(rcode);
        opt.set_udp_payload_size(EDNS_BYTES);
        opt.set_dnssec_ok(question.dnssec_ok());
        if let Some((code, text)) = explained {
            // Only a text of 64 KiB is refused.
            let _ = opt.extended_error(code, Some(&Str::from_string(text.to_owned())));
        }
        Ok(())
    })
}

/// A header alone.
fn bare(head: Head, rcode: Rcode) -> Vec<u8> {
    const QR: u8 = 0x80;
    let [high, low] = head.id.to_be_bytes();
    let flags = QR | (head.opcode.to_int() & 15) << 3 | u8::from(head.recursion_desired);
    vec![
        high,
        low,
        flags,
        rcode.to_int() & 15,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ]
}
