//! The resolver against a server that is played here. Loopback only; nothing
//! depends on how fast the machine is.

mod answers;
mod bounds;
mod client;
mod hostile;
mod messages;
mod server;
mod upstream;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use domain::base::iana::{Class, Rcode, Rtype};
use domain::base::opt::ExtendedError;
use domain::base::{Message, MessageBuilder, Name};
use domain::rdata::{A, Aaaa, AllRecordData, Cname};
use tokio::sync::Semaphore;

use super::{AdmitError, Asker, Authority, Grant, Protocol, Refusal};

type Data = AllRecordData<Vec<u8>, Name<Vec<u8>>>;
type Owned = (Name<Vec<u8>>, u32, Data);

fn name(text: &str) -> Name<Vec<u8>> {
    Name::vec_from_str(text).expect("a name")
}

fn a(owner: &str, ttl: u32, address: &str) -> Owned {
    let data = match address.parse().expect("an address") {
        IpAddr::V4(v4) => A::new(v4).into(),
        IpAddr::V6(v6) => Aaaa::new(v6).into(),
    };
    (name(owner), ttl, data)
}

fn cname(owner: &str, ttl: u32, target: &str) -> Owned {
    (name(owner), ttl, Cname::new(name(target)).into())
}

/// A plain question, without EDNS.
fn ask(text: &str, rtype: Rtype) -> Vec<u8> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(0x1234);
    builder.header_mut().set_rd(true);
    let mut builder = builder.question();
    builder.push((name(text), rtype)).expect("pushed");
    builder.finish()
}

/// A question with EDNS: options and all.
fn ask_edns(text: &str, rtype: Rtype, bytes: u16, dnssec_ok: bool) -> Vec<u8> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(0x1234);
    builder.header_mut().set_rd(true);
    let mut builder = builder.question();
    builder.push((name(text), rtype)).expect("pushed");
    let mut builder = builder.additional();
    builder
        .opt(|opt| {
            opt.set_udp_payload_size(bytes);
            opt.set_dnssec_ok(dnssec_ok);
            opt.push_raw_option(10.into(), 8, |target| {
                domain::dep::octseq::builder::OctetsBuilder::append_slice(target, b"COOKIE!!")
            })
        })
        .expect("pushed");
    builder.finish()
}

/// What a server says to a query: the given sections.
fn answer_to(query: &[u8], rcode: Rcode, answer: &[Owned], rest: &[Owned]) -> Vec<u8> {
    let query = Message::from_octets(query).expect("a message");
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(query.header().id());
    builder.header_mut().set_qr(true);
    builder.header_mut().set_ra(true);
    builder.header_mut().set_rcode(rcode);
    let mut builder = builder.question();
    builder
        .push(query.sole_question().expect("one"))
        .expect("pushed");
    let mut builder = builder.answer();
    for record in answer {
        builder.push(record.clone()).expect("pushed");
    }
    let mut builder = builder.authority();
    for record in rest {
        builder.push(record.clone()).expect("pushed");
    }
    let mut builder = builder.additional();
    for record in rest {
        builder.push(record.clone()).expect("pushed");
    }
    builder.finish()
}

/// A reply as a test looks at it.
#[derive(Debug)]
struct Seen {
    bytes: usize,
    id: u16,
    rcode: Rcode,
    truncated: bool,
    /// `owner ttl TYPE data` of the answer section.
    records: Vec<String>,
    authority: Vec<Rtype>,
    /// The extended error, if there was an OPT record with one.
    extended: Option<u16>,
    has_opt: bool,
    question: String,
}

fn seen(message: &[u8]) -> Seen {
    let parsed = Message::from_octets(message).expect("a message");
    assert!(parsed.header().qr());
    let show = |record: domain::base::ParsedRecord<'_, &[u8]>| {
        let record = record
            .to_any_record::<AllRecordData<&[u8], domain::base::ParsedName<&[u8]>>>()
            .expect("readable");
        assert_eq!(record.class(), Class::IN);
        let ttl = record.ttl().as_secs();
        format!(
            "{} {ttl} {} {}",
            record.owner(),
            record.rtype(),
            record.data()
        )
    };
    let records = parsed.answer().expect("section");
    let authority = parsed.authority().expect("section");
    let opt = parsed.opt();
    Seen {
        bytes: message.len(),
        id: parsed.header().id(),
        rcode: parsed.header().rcode(),
        truncated: parsed.header().tc(),
        records: records.map(|r| show(r.expect("record"))).collect(),
        authority: authority.map(|r| r.expect("record").rtype()).collect(),
        extended: opt.as_ref().and_then(|opt| {
            opt.opt()
                .first::<ExtendedError<&[u8]>>()
                .map(|e| e.code().to_int())
        }),
        has_opt: opt.is_some(),
        question: parsed
            .first_question()
            .map(|q| q.qname().to_string())
            .unwrap_or_default(),
    }
}

/// The daemon's side, played.
#[derive(Clone)]
struct Fake(Arc<Inner>);

struct Inner {
    allowed: Vec<&'static str>,
    upstreams: Vec<SocketAddr>,
    knows_nobody: bool,
    cannot_admit: bool,
    /// Taken by each admission.
    gate: Semaphore,
    log: Mutex<Vec<String>>,
    grants: Mutex<Vec<Grant>>,
}

impl Fake {
    fn new(allowed: &[&'static str], upstreams: &[SocketAddr]) -> Self {
        Self(Arc::new(Inner {
            allowed: allowed.to_vec(),
            upstreams: upstreams.to_vec(),
            knows_nobody: false,
            cannot_admit: false,
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            log: Mutex::default(),
            grants: Mutex::default(),
        }))
    }

    fn with(self, change: impl FnOnce(&mut Inner)) -> Self {
        let mut inner = Arc::into_inner(self.0).expect("not shared yet");
        change(&mut inner);
        Self(Arc::new(inner))
    }

    fn log(&self, line: impl Into<String>) {
        self.0.log.lock().expect("unpoisoned").push(line.into());
    }

    fn lines(&self) -> Vec<String> {
        self.0.log.lock().expect("unpoisoned").clone()
    }

    fn grants(&self) -> Vec<Grant> {
        self.0.grants.lock().expect("unpoisoned").clone()
    }

    fn only_grant(&self) -> Grant {
        let grants = self.grants();
        assert_eq!(grants.len(), 1, "{grants:?}");
        grants.into_iter().next().expect("one")
    }
}

impl Authority for Fake {
    fn asker(&self, protocol: Protocol, peer: SocketAddr) -> Option<Asker> {
        (!self.0.knows_nobody).then_some(Asker {
            run: 7,
            serial: 1,
            protocol,
            server: peer,
        })
    }

    fn may_ask(&self, _: &Asker, name: &str) -> bool {
        self.0.allowed.contains(&name)
    }

    fn upstreams(&self, _: &Asker) -> Vec<SocketAddr> {
        self.0.upstreams.clone()
    }

    async fn admit(&self, _: &Asker, grant: &Grant) -> Result<(), AdmitError> {
        self.log(format!("admitting {}", grant.name));
        if self.0.cannot_admit {
            return Err(AdmitError("the map is full".into()));
        }
        self.0.gate.acquire().await.expect("open").forget();
        self.0
            .grants
            .lock()
            .expect("unpoisoned")
            .push(grant.clone());
        self.log(format!("admitted {}", grant.name));
        Ok(())
    }

    fn refused(&self, _: &Asker, name: &str, why: Refusal) {
        self.log(format!("refused {name}: {why:?}"));
    }
}

/// Until the condition holds; a test that waits in vain fails after a minute.
async fn until(mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait)
        .await
        .expect("the condition holds in time");
}
