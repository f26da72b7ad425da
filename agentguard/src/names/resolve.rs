//! One question, from what a client sent to what it gets.

use std::net::SocketAddr;
use std::sync::Arc;

use domain::base::iana::{Class, Rcode};
use tokio::time::timeout;
use tracing::debug;

use super::answer::{self, Limits};
use super::counters::{Count, Counters};
use super::limits::{ADMIT_TIME, ALL_QUESTIONS, Held, InHand, RUN_QUESTIONS, SERVERS, TRIES};
use super::question::{self, Question};
use super::reply::{self, Refused};
use super::upstream::Upstream;
use super::{Asker, Authority, Grant, Protocol, Refusal};

/// What is to be done about a message.
pub(super) enum Next {
    /// Nothing: it must not be answered.
    Nothing,
    /// The reply.
    Reply(Vec<u8>),
    /// Servers are to be asked: [`Resolver::finish`].
    Ask(Pending),
}

/// A question that may be asked of servers.
pub(super) struct Pending {
    asker: Asker,
    question: Question,
    protocol: Protocol,
    _held: Held,
}

/// A reply that waits for its addresses to be admitted. Nothing else of the answer
/// is kept while it waits.
struct Prepared {
    reply: Vec<u8>,
    grant: Grant,
}

/// Answers questions.
pub(super) struct Resolver<A> {
    pub(super) authority: A,
    pub(super) counters: Arc<Counters>,
    questions: Arc<InHand>,
    upstream: Upstream,
}

impl<A: Authority> Resolver<A> {
    pub(super) fn new(authority: A) -> Self {
        Self {
            authority,
            counters: Arc::default(),
            questions: InHand::new(RUN_QUESTIONS, ALL_QUESTIONS),
            upstream: Upstream::new(),
        }
    }

    /// Decides about a message, without waiting for anything.
    pub(super) fn begin(&self, protocol: Protocol, peer: SocketAddr, message: &[u8]) -> Next {
        self.counters.add(Count::Messages);
        let question = match question::read(message) {
            Ok(question) => question,
            Err(error) => {
                self.counters.add(Count::Malformed);
                return reply::error(error).map_or(Next::Nothing, Next::Reply);
            }
        };
        let Some(asker) = self.authority.asker(protocol, peer) else {
            return self.refuse(&question, Count::Strangers, Refused::Prohibited);
        };
        if let Some(why) = self.refusal(&asker, &question) {
            self.authority.refused(&asker, &question.shown(), why);
            return self.refuse(&question, Count::Refused, Refused::Blocked);
        }
        if question.edns.is_some_and(|edns| edns.version != 0) {
            return self.refuse(&question, Count::Unsupported, Refused::BadVersion);
        }
        if question.class != Class::IN {
            return self.refuse(&question, Count::Unsupported, Refused::Prohibited);
        }
        if question.is_meta() {
            return self.refuse(&question, Count::Unsupported, Refused::NotSupported);
        }
        let Some(held) = self.questions.take(&asker) else {
            self.authority
                .refused(&asker, &question.shown(), Refusal::TooMany);
            return self.refuse(&question, Count::TooManyQuestions, Refused::TooMany);
        };
        Next::Ask(Pending {
            asker,
            question,
            protocol,
            _held: held,
        })
    }

    /// Asks the servers, has the addresses admitted, and then makes the reply.
    pub(super) async fn finish(&self, pending: Pending) -> Vec<u8> {
        let Pending {
            asker, question, ..
        } = &pending;
        let room = match pending.protocol {
            Protocol::Udp => question.udp_room(),
            Protocol::Tcp => reply::TCP_ROOM,
        };
        let Some(Prepared { reply, grant }) = self.ask(asker, question, room).await else {
            self.counters.add(Count::Unanswered);
            return reply::refused(question, Refused::Unreachable);
        };
        if !grant.unusable.is_empty() {
            self.counters.add(Count::Unusable);
        }
        if !grant.is_empty() {
            let admitted = timeout(ADMIT_TIME, self.authority.admit(asker, &grant)).await;
            if !matches!(admitted, Ok(Ok(()))) {
                self.counters.add(Count::NotAdmitted);
                return reply::refused(question, Refused::NotAdmitted);
            }
        }
        self.counters.add(Count::Answered);
        reply
    }

    fn refuse(&self, question: &Question, count: Count, why: Refused) -> Next {
        self.counters.add(count);
        Next::Reply(reply::refused(question, why))
    }

    fn refusal(&self, asker: &Asker, question: &Question) -> Option<Refusal> {
        match &question.text {
            None => Some(Refusal::NotText),
            Some(name) if !self.authority.may_ask(asker, name) => Some(Refusal::NotAllowed),
            Some(_) => None,
        }
    }

    /// Asks each server in turn, twice. One that says that it cannot answer is passed
    /// over; if none can, the client is told what the last of them said.
    async fn ask(&self, asker: &Asker, question: &Question, room: usize) -> Option<Prepared> {
        let mut servers = self.authority.upstreams(asker);
        servers.truncate(SERVERS);
        let mut excuse = None;
        for _ in 0..TRIES {
            let mut silent = Vec::new();
            for server in servers {
                match self.upstream.ask(server, question, &self.counters).await {
                    Ok(message) => match self.prepare(server, &message, question, room) {
                        Some((rcode, prepared)) if is_final(rcode) => return Some(prepared),
                        Some((_, prepared)) => excuse = Some(prepared),
                        None => silent.push(server),
                    },
                    Err(error) => {
                        self.counters.add(Count::FailedTries);
                        debug!(%server, %error, "a DNS server did not answer");
                        silent.push(server);
                    }
                }
            }
            servers = silent;
        }
        excuse
    }

    fn prepare(
        &self,
        server: SocketAddr,
        message: &[u8],
        question: &Question,
        room: usize,
    ) -> Option<(Rcode, Prepared)> {
        match answer::read(message, question, Limits::default()) {
            Ok(answer) => {
                let prepared = Prepared {
                    reply: reply::answer(question, &answer, room),
                    grant: answer.grant,
                };
                Some((answer.rcode, prepared))
            }
            Err(error) => {
                self.counters.add(Count::FailedTries);
                debug!(%server, %error, "a DNS server's answer cannot be used");
                None
            }
        }
    }
}

/// Whether the result is about the name, and not about the server.
fn is_final(rcode: Rcode) -> bool {
    !matches!(
        rcode,
        Rcode::FORMERR | Rcode::SERVFAIL | Rcode::NOTIMP | Rcode::REFUSED
    )
}
