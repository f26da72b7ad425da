//! Names of servers in TLS.

use nix::libc;

use super::hello::{self, ALERT, CHANGE_CIPHER_SPEC, HANDSHAKE};
use super::{Counts, Family, allowed, connected, lay, said, say, say_on, tell};
use crate::attempt::{Attempt, write};
use crate::field::Field;
use crate::network::{listener, wire};
use crate::sys::Try;

const fn v4(id: &'static str, attack: fn(&Field) -> Try) -> Attempt {
    write(id, attack)
        .prepare(|field| lay(field, Family::V4, Counts::Name))
        .look(listener::look)
        .refused_as(libc::ECONNABORTED)
}

const fn v6(id: &'static str, attack: fn(&Field) -> Try) -> Attempt {
    v4(id, attack).prepare(|field| lay(field, Family::V6, Counts::Name))
}

pub const ATTEMPTS: &[Attempt] = &[
    v4("net-name-hello-v4", plain),
    v6("net-name-hello-v6", plain),
    v4("net-name-hello-mapped", mapped),
    v4("net-name-hello-ruled-v4", |field| {
        // A rule denies what is below this; of the other names no rule speaks.
        let zone: &[u8] = match field.is_control() {
            true => b"",
            false => b".no.ok.test",
        };
        say(field, &hello::plain(&[&said(field), zone].concat()))
    }),
    v4("net-name-hello-upper-case-v4", |field| {
        say(field, &hello::plain(&said(field).to_ascii_uppercase()))
    }),
    v4("net-name-hello-dot-at-end-v4", |field| {
        say(field, &hello::plain(&[&said(field)[..], b"."].concat()))
    }),
    v4("net-name-hello-zero-in-name-v4", |field| {
        let name = [&said(field)[..], b"\0.", &allowed(field)].concat();
        say(field, &hello::plain(&name))
    })
    .never(),
    v4("net-name-hello-below-allowed-v4", |field| {
        // The allowed name in front of the other.
        let front = [&allowed(field)[..], b".", &said(field)].concat();
        say(field, &hello::plain(&front))
    }),
    v4("net-name-hello-greased-v4", greased),
    v6("net-name-hello-greased-v6", greased),
    v4("net-name-hello-two-names-v4", |field| {
        say(field, &hello::listing(&[&allowed(field), &said(field)]))
    })
    .never(),
    v4("net-name-hello-extension-twice-v4", |field| {
        say(field, &hello::repeating(&allowed(field), &said(field)))
    }),
    v4("net-name-hello-extension-twice-first-v4", |field| {
        say(field, &hello::repeating(&said(field), &allowed(field)))
    }),
    v4("net-name-hello-in-records-v4", |field| {
        say(field, &hello::in_records(&hello::bare(&said(field)), 40))
    })
    .never(),
    v4("net-name-hello-record-of-one-v4", |field| {
        let message = hello::bare(&said(field));
        let first = hello::record(HANDSHAKE, &message[..1]);
        say(
            field,
            &[first, hello::record(HANDSHAKE, &message[1..])].concat(),
        )
    })
    .never(),
    v4("net-name-hello-behind-empty-record-v4", |field| {
        behind(field, &hello::record(HANDSHAKE, &[]))
    })
    .never(),
    v6("net-name-hello-behind-empty-record-v6", |field| {
        behind(field, &hello::record(HANDSHAKE, &[]).repeat(9))
    })
    .never(),
    v4("net-name-hello-behind-cipher-change-v4", |field| {
        behind(field, &hello::record(CHANGE_CIPHER_SPEC, &[]))
    })
    .never(),
    v4("net-name-hello-behind-alert-v4", |field| {
        const WARNING: u8 = 1;
        const CANCELED: u8 = 90;
        behind(field, &hello::record(ALERT, &[WARNING, CANCELED]))
    })
    .never(),
    v4("net-name-hello-behind-postgres-v4", |field| {
        behind(field, b"\0\0\0\x08\x04\xd2\x16\x2f")
    }),
    v4("net-name-hello-behind-postgres-twice-v4", |field| {
        behind(
            field,
            b"\0\0\0\x08\x04\xd2\x16\x30\0\0\0\x08\x04\xd2\x16\x2f",
        )
    }),
    v4("net-name-hello-again-v4", again),
    v6("net-name-hello-again-v6", again),
    v4("net-name-hello-again-behind-cipher-change-v4", |field| {
        let change = hello::record(CHANGE_CIPHER_SPEC, &[1]);
        let second = [change, hello::plain(&said(field))].concat();
        after_first(field, &second)
    }),
    v4("net-name-hello-again-in-records-v4", |field| {
        let second = hello::in_records(&hello::bare(&said(field)), 40);
        after_first(field, &second)
    })
    .never(),
];

fn plain(field: &Field) -> Try {
    say(field, &hello::plain(&said(field)))
}

/// Over a socket of IPv6.
fn mapped(field: &Field) -> Try {
    super::ask(field)?;
    let to = wire::mapped(&field.noted_bytes("to"));
    let socket = super::prompt(&to)?;
    wire::connect(&socket, &to)?;
    say_on(&socket, &hello::plain(&said(field)))
}

fn greased(field: &Field) -> Try {
    say(field, &hello::greased(&said(field)))
}

/// What servers skip, and the hello.
fn behind(field: &Field, before: &[u8]) -> Try {
    say(field, &[before, &hello::plain(&said(field))].concat())
}

/// A server that wants another key asks for a second hello, and some take the name from that.
fn again(field: &Field) -> Try {
    after_first(field, &hello::plain(&said(field)))
}

/// After a hello that names the allowed server has arrived.
fn after_first(field: &Field, second: &[u8]) -> Try {
    let socket = connected(field)?;
    tell(&socket, &hello::plain(&allowed(field)))?;
    super::arrived(&socket)?;
    say_on(&socket, second)
}
