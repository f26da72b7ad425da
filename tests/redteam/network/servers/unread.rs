//! What is not promised: names that the kernel does not look for.

use nix::libc::{self, SOCK_DGRAM};

use super::{
    Counts, Family, allowed, arrived, connected, hello, lay, leading, said, say, say_on, tell,
};
use crate::attempt::{Attempt, write};
use crate::field::Field;
use crate::network::{listener, names, nameserver, wire};
use crate::sys::{self, Map, Try, call};

const fn v4(id: &'static str, attack: fn(&Field) -> Try) -> Attempt {
    write(id, attack)
        .prepare(|field| lay(field, Family::V4, Counts::Name))
        .look(listener::look)
}

pub const ATTEMPTS: &[Attempt] = &[
    v4("net-name-unread-nameless-hello-v4", |field| {
        say(field, &hello::nameless())
    }),
    v4("net-name-unread-later-request-v4", |field| {
        let first = [
            b"GET / HTTP/1.1\r\nHost: ",
            &allowed(field)[..],
            b"\r\n\r\n",
        ]
        .concat();
        let later = [b"GET / HTTP/1.1\r\nHost: ", &said(field)[..], b"\r\n\r\n"].concat();
        let socket = connected(field)?;
        tell(&socket, &first)?;
        arrived(&socket)?;
        say_on(&socket, &later)
    }),
    v4("net-name-unread-http2-v4", |field| {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        say(field, &[preface, &said(field)[..]].concat())
    }),
    v4("net-name-unread-start-tls-v4", |field| {
        let start = b"EHLO a\r\nSTARTTLS\r\n".as_slice();
        say(field, &[start, &hello::plain(&said(field))].concat())
    }),
    v4("net-name-unread-quic-v4", |field| {
        super::ask(field)?;
        let to = field.noted_bytes("to");
        let socket = wire::socket_to(&to, SOCK_DGRAM)?;
        wire::send_bytes_to(&socket, &hello::plain(&said(field)), &to, 0)
    })
    .prepare(|field| {
        let to = names::listen_at(field, &names::fresh(Family::V4)?, SOCK_DGRAM)?;
        let label = nameserver::fresh_label();
        let said = [&label[..], b".evil.test"].concat();
        let facts = serde_json::json!({ "said": said });
        leading(Family::V4, to).lay_with(field, label, facts)
    }),
    v4("net-name-unread-changed-page-v4", |field| {
        // Of the same length, so that nothing but the name changes.
        let longer = said(field).len() - allowed(field).len();
        let first = [&b"a."[..longer], &allowed(field)].concat();
        let (first, other) = (hello::plain(&first), hello::plain(&said(field)));
        let length = other.len();
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let page = Map::new(4096, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)?;
        page.store(&first);
        let socket = connected(field)?;
        let (from, to) = sys::pipe()?;
        let vector = sys::words(&[page.address as u64, length as u64]);
        call!(SYS_vmsplice, &to, &vector[..], 1, 0)?;
        call!(SYS_splice, &from, 0, &socket, 0, length, 0)?;
        arrived(&socket)?;
        // The driver has not looked yet: it reads the page.
        page.store(&other);
        sys::done()
    }),
];
