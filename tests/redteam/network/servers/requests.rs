//! Names of servers in requests of HTTP.

use nix::libc;

use super::{Counts, Family, allowed, connected, lay, said, say, say_on};
use crate::attempt::{Attempt, write};
use crate::field::Field;
use crate::network::listener;
use crate::sys::{self, Try, call};

const fn v4(id: &'static str, attack: fn(&Field) -> Try) -> Attempt {
    write(id, attack)
        .prepare(|field| lay(field, Family::V4, Counts::Mark))
        .look(listener::look)
        .refused_as(libc::ECONNABORTED)
}

/// A request, in which `@` stands for the server that is named and `%` for an allowed one.
macro_rules! request {
    ($id:literal, $text:expr) => {
        v4($id, |field| say(field, &request(field, $text)))
    };
}

pub const ATTEMPTS: &[Attempt] = &[
    request!("net-name-request-v4", HOST),
    v4("net-name-request-v6", |field| {
        say(field, &request(field, HOST))
    })
    .prepare(|field| lay(field, Family::V6, Counts::Mark)),
    v4("net-name-request-byte-by-byte-v4", |field| {
        let socket = connected(field)?;
        for byte in request(field, HOST) {
            call!(SYS_write, &socket, &[byte][..], 1)?;
        }
        say_on(&socket, &[])
    }),
    request!(
        "net-name-request-odd-case-v4",
        b"get / http/1.1\r\nhOSt:@\r\n\r\n"
    ),
    request!(
        "net-name-request-spaces-around-v4",
        b"GET / HTTP/1.1\r\nHost \t:\t @ \t\r\n\r\n"
    ),
    request!(
        "net-name-request-folded-v4",
        b"GET / HTTP/1.1\r\nHost:\r\n\t\r\n  @\r\n\r\n"
    ),
    request!(
        "net-name-request-with-port-v4",
        b"GET / HTTP/1.1\r\nHost: @:80\r\n\r\n"
    ),
    request!(
        "net-name-request-bare-line-feeds-v4",
        b"GET / HTTP/1.1\nHost: @\n\n"
    ),
    request!(
        "net-name-request-of-1.0-v4",
        b"GET / HTTP/1.0\r\nHost: @\r\n\r\n"
    ),
    request!(
        "net-name-request-empty-lines-before-v4",
        b"\r\n\r\n\n\n\r\nGET / HTTP/1.1\r\nHost: @\r\n\r\n"
    ),
    request!(
        "net-name-request-tabs-in-line-v4",
        b"GET\t \x0b/\x0c\tHTTP/1.1\r\nHost: @\r\n\r\n"
    ),
    // Some servers split the line where Python's `split` does, and begin a line at a bare
    // carriage return.
    request!(
        "net-name-request-space-before-v4",
        b" \tGET / HTTP/1.1\r\nHost: @\r\n\r\n"
    ),
    request!(
        "net-name-request-separators-in-line-v4",
        b"GET\x1c/\x1fHTTP/1.1\r\nHost: @\r\n\r\n"
    ),
    request!(
        "net-name-request-high-spaces-in-line-v4",
        b"\xa0GET\x85/\xa0HTTP/1.1\r\nHost: @\r\n\r\n"
    ),
    request!(
        "net-name-request-returns-in-line-v4",
        b"GET\r/\rHTTP/1.1\r\nHost: @\r\n\r\n"
    ),
    request!(
        "net-name-request-return-before-host-v4",
        b"GET / HTTP/1.1\r\nAccept: a\rHost: @\r\n\r\n"
    ),
    request!(
        "net-name-request-host-twice-v4",
        b"GET / HTTP/1.1\r\nHost: %\r\nHost: @\r\n\r\n"
    ),
    request!(
        "net-name-request-host-twice-first-v4",
        b"GET / HTTP/1.1\r\nHost: @\r\nHost: %\r\n\r\n"
    ),
    request!(
        "net-name-request-absolute-v4",
        b"GET http://@/ HTTP/1.1\r\nHost: %\r\n\r\n"
    ),
    v4("net-name-request-absolute-user-v4", |field| {
        let before = [b"GET http://", &allowed(field)[..], b":80@"].concat();
        let line = request(field, b"@/ HTTP/1.1\r\nHost: %\r\n\r\n");
        say(field, &[before, line].concat())
    }),
    request!(
        "net-name-request-connect-v4",
        b"CONNECT @:443 HTTP/1.1\r\nHost: %\r\n\r\n"
    ),
    v4("net-name-request-zero-in-name-v4", |field| {
        say(
            field,
            &request(field, b"GET / HTTP/1.1\r\nHost: @\0.%\r\n\r\n"),
        )
    })
    .never(),
    v4("net-name-request-long-headers-v4", |field| {
        let filler = [b"A: ".as_slice(), &[b'a'; 1_000], b"\r\n"]
            .concat()
            .repeat(40);
        let [line, rest] = [b"GET / HTTP/1.1\r\n".as_slice(), b"Host: @\r\n\r\n"];
        say(field, &[line, &filler, &request(field, rest)].concat())
    })
    .never(),
    v4("net-name-request-later-header-v4", |field| {
        let filler = b"A: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n";
        let socket = connected(field)?;
        call!(SYS_write, &socket, b"GET / HTTP/1.1\r\n".as_slice(), 16)?;
        for _ in 0..100 {
            call!(SYS_write, &socket, filler.as_slice(), filler.len())?;
        }
        say_on(&socket, &request(field, b"Host: @\r\n\r\n"))
    }),
    v4("net-name-request-by-children-v4", |field| {
        // Each half by another process.
        let socket = connected(field)?;
        let bytes = request(field, HOST);
        for half in bytes.chunks(bytes.len() / 2 + 1) {
            let child = sys::fork(|| super::tell(&socket, half))?;
            super::ended(&child)?;
        }
        say_on(&socket, &[])
    }),
];

const HOST: &[u8] = b"GET / HTTP/1.1\r\nHost: @\r\n\r\n";

fn request(field: &Field, text: &[u8]) -> Vec<u8> {
    let one = |byte: &u8| match byte {
        b'@' => said(field),
        b'%' => allowed(field),
        other => vec![*other],
    };
    text.iter().flat_map(one).collect()
}
