//! Names that look allowed and are not, or are written in odd ways.

use nix::libc;

use super::{Family, Ground, ask, exchange, look, question, told};
use crate::attempt::{Attempt, write};
use crate::field::{Field, Side};
use crate::network::dns::{self, kind};
use crate::sys::Try;
use crate::victim::PROOF;

/// A label of 62 bytes beside the field's own.
const LONG: &[u8] = b"abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghij";

/// An attempt with the name for the control and the one that must not leave.
macro_rules! shape {
    ($id:literal, $allowed:expr, $denied:expr) => {
        write($id, ask)
            .prepare(|field| {
                let allowed: &[&[u8]] = &$allowed;
                let denied: &[&[u8]] = &$denied;
                let name = match field.side {
                    Side::Allowed => allowed,
                    Side::Denied => denied,
                };
                Ground::asking(Family::V4, name).lay(field)
            })
            .look(look)
    };
}

pub const ATTEMPTS: &[Attempt] = &[
    shape!(
        "net-dns-name-allowed-and-denied",
        [b"@", b"ok", b"test"],
        [b"@", b"no", b"ok", b"test"]
    ),
    shape!(
        "net-dns-name-below-exact",
        [b"@", b"ok", b"test"],
        [b"@", b"exact", b"test"]
    ),
    shape!(
        "net-dns-name-suffix-without-dot",
        [b"@", b"ok", b"test"],
        [b"@ok", b"test"]
    ),
    shape!(
        "net-dns-name-allowed-in-front",
        [b"@", b"ok", b"test"],
        [b"@", b"ok", b"test", b"evil", b"test"]
    ),
    shape!(
        "net-dns-name-allowed-cut",
        [b"@", b"ok", b"test"],
        [b"@", b"ok", b"tes"]
    ),
    shape!("net-dns-name-single", [b"@", b"ok", b"test"], [b"@"]),
    shape!(
        "net-dns-name-upper-case",
        [b"@", b"OK", b"tEsT"],
        [b"@", b"eViL", b"TEST"]
    ),
    shape!(
        "net-dns-name-denied-upper-case",
        [b"@", b"Ok", b"Test"],
        [b"@", b"NO", b"OK", b"TEST"]
    ),
    shape!(
        "net-dns-name-dot-in-label",
        [b"@", b"ok", b"test"],
        [b"@.ok", b"test"]
    ),
    shape!(
        "net-dns-name-dots-in-one-label",
        [b"@", b"ok", b"test"],
        [b"@.ok.test"]
    ),
    shape!(
        "net-dns-name-dot-ends-label",
        [b"@", b"ok", b"test"],
        [b"@", b"ok", b"test."]
    ),
    shape!(
        "net-dns-name-escape-in-label",
        [b"@", b"ok", b"test"],
        [b"@\\.ok", b"test"]
    ),
    shape!(
        "net-dns-name-nul-in-label",
        [b"@", b"ok", b"test"],
        [b"@\0", b"ok", b"test"]
    ),
    shape!(
        "net-dns-name-nul-before-allowed",
        [b"@", b"ok", b"test"],
        [b"@", b"evil", b"test\0", b"ok", b"test"]
    ),
    shape!(
        "net-dns-name-nul-behind-allowed",
        [b"@", b"ok", b"test"],
        [b"@", b"ok", b"test\0", b"evil", b"test"]
    ),
    shape!(
        "net-dns-name-control-bytes",
        [b"@", b"ok", b"test"],
        [b"@\x01\x1b\x7f", b"ok", b"test"]
    ),
    shape!(
        "net-dns-name-space",
        [b"@", b"ok", b"test"],
        [b"@ leak", b"ok", b"test"]
    ),
    shape!(
        "net-dns-name-high-bytes",
        [b"@", b"ok", b"test"],
        [b"@\xff\xfe", b"ok", b"test"]
    ),
    shape!(
        "net-dns-name-utf8-of-punycode",
        [b"@", b"xn--bcher-kva", b"test"],
        [b"@", "b\u{fc}cher".as_bytes(), b"test"]
    ),
    shape!(
        "net-dns-name-other-punycode",
        [b"@", b"xn--bcher-kva", b"test"],
        [b"@", b"xn--bcher-0ra", b"test"]
    ),
    shape!(
        "net-dns-name-ideographic-dot",
        [b"@", b"ok", b"test"],
        [b"@", "evil\u{3002}ok".as_bytes(), b"test"]
    ),
    shape!(
        "net-dns-name-longest",
        [b"@", LONG, LONG, LONG, LONG_REST, b"ok", b"test"],
        [b"@", LONG, LONG, LONG, LONG_REST, b"no", b"ok", b"test"]
    ),
    shape!(
        "net-dns-name-longest-label",
        [b"@", LABEL, b"ok", b"test"],
        [b"@", LABEL, b"evil", b"test"]
    ),
    shape!(
        "net-dns-name-star",
        [b"@", b"ok", b"test"],
        [b"@", b"*", b"evil", b"test"]
    ),
    odd("net-dns-name-empty-label", |field| {
        // The name ends there; what follows it is read as type and class.
        dotless(field, &[0])
    }),
    odd("net-dns-name-label-of-64", |field| {
        dotless(field, &[&[64][..], &[b'a'; 64]].concat())
    })
    .refused_as(libc::EBADMSG),
    odd("net-dns-name-of-256", |field| {
        dotless(field, &[&[63][..], &[b'a'; 63]].concat().repeat(4))
    })
    .refused_as(libc::EBADMSG),
    odd("net-dns-name-without-end", |field| {
        let mut message = question(field);
        message.truncate(message.len() - 5);
        asked(field, &message)
    })
    .refused_as(libc::EBADMSG),
    odd("net-dns-name-pointer-to-itself", |field| {
        let label = field.noted_bytes("label");
        asked(
            field,
            &pointing(field, (dns::HEADER + 1 + label.len()) as u8),
        )
    })
    .refused_as(libc::EBADMSG),
    odd("net-dns-name-pointer-to-begin", |field| {
        asked(field, &pointing(field, dns::HEADER as u8))
    })
    .refused_as(libc::EBADMSG),
    odd("net-dns-name-pointer-forward", |field| {
        let message = [&pointing(field, 200)[..], &[0; 200]].concat();
        asked(field, &message)
    })
    .refused_as(libc::EBADMSG),
    odd("net-dns-name-pointer-to-header", |field| {
        // The number of the message is the label `e`, and its flags are the end of a name.
        let mut message = pointing(field, 0);
        message[..4].copy_from_slice(&[1, b'e', 0, 0]);
        asked(field, &message)
    }),
    odd("net-dns-name-zone-itself", |field| {
        // What is allowed is what lies below it.
        asked(field, &dns::query(&dns::dotted("ok.test"), kind::A))?;
        Ok(PROOF.to_vec())
    }),
    odd("net-dns-name-root", |field| {
        asked(field, &dns::query(&[0], kind::A))?;
        Ok(PROOF.to_vec())
    }),
];

/// The longest label.
const LABEL: &[u8] = b"abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijk";
/// What fills a name up to 255 bytes on the denied side: the last label of the allowed one
/// is as long.
const LONG_REST: &[u8] = b"abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrs";

/// What no agent may say, below a name that is allowed: the control is an untagged process.
const fn odd(id: &'static str, attack: fn(&Field) -> Try) -> Attempt {
    write(id, attack)
        .prepare(|field| Ground::asking(Family::V4, &[b"@", b"ok", b"test"]).lay(field))
        .look(look)
        .never()
}

fn asked(field: &Field, message: &[u8]) -> Try {
    told(&exchange(field, message)?)
}

/// A question whose name has these bytes between the field's label and the allowed zone.
fn dotless(field: &Field, between: &[u8]) -> Try {
    let label = field.noted_bytes("label");
    let mut name = vec![label.len() as u8];
    name.extend(label);
    name.extend(between);
    name.extend(dns::dotted("ok.test"));
    asked(field, &dns::query(&name, kind::A))
}

/// A question whose name is the field's label and a pointer.
fn pointing(field: &Field, at: u8) -> Vec<u8> {
    let label = field.noted_bytes("label");
    let mut name = vec![label.len() as u8];
    name.extend(label);
    name.extend([0xc0, at]);
    dns::query(&name, kind::A)
}
