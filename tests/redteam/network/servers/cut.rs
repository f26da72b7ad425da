//! Sockets that said something before: that were cut, or connected elsewhere.

use std::os::fd::OwnedFd;

use nix::libc;

use super::{
    Counts, Family, allowed, arrived, connected, ended, hello, lay, prompt, said, say_on, tell,
};
use crate::attempt::{Attempt, write};
use crate::field::Field;
use crate::network::{listener, wire};
use crate::sys::{self, Fail, Try, call};

const fn v4(id: &'static str, attack: fn(&Field) -> Try) -> Attempt {
    write(id, attack)
        .prepare(|field| lay(field, Family::V4, Counts::Name))
        .look(listener::look)
        .refused_as(libc::ECONNABORTED)
}

const fn v6(id: &'static str, attack: fn(&Field) -> Try) -> Attempt {
    v4(id, attack).prepare(|field| lay(field, Family::V6, Counts::Name))
}

/// Of a socket that was cut, and said so: where no LSM program answers, TCP does.
const fn cut4(id: &'static str, attack: fn(&Field) -> Try) -> Attempt {
    v4(id, attack).refused_as(libc::EPIPE)
}

pub const ATTEMPTS: &[Attempt] = &[
    v4("net-name-second-connection-v4", second),
    v6("net-name-second-connection-v6", second),
    v4("net-name-socket-that-listened-v4", |field| {
        super::ask(field)?;
        let to = field.noted_bytes("to");
        let socket = prompt(&to)?;
        // What comes through a socket that waited was let in, and is not read.
        wire::bind(&socket, &wire::with_port(&field.noted_bytes("to"), 0))?;
        call!(SYS_listen, &socket, 1)?;
        call!(SYS_shutdown, &socket, libc::SHUT_RDWR)?;
        wire::connect(&socket, &to)?;
        say_on(&socket, &hello::plain(&said(field)))
    })
    .never(),
    cut4("net-name-cut-go-on-v4", |field| {
        let socket = connected(field)?;
        first(&socket, field)?;
        go_on(&socket, field)
    }),
    cut4("net-name-cut-connect-again-v4", again),
    v6("net-name-cut-connect-again-v6", again).refused_as(libc::EPIPE),
    v4("net-name-cut-connect-unspecified-v4", unspecified).refused_as(libc::ETIMEDOUT),
    v6("net-name-cut-connect-unspecified-v6", unspecified).refused_as(libc::ETIMEDOUT),
    cut4("net-name-cut-in-child-v4", |field| {
        let socket = connected(field)?;
        first(&socket, field)?;
        ended(&sys::fork(|| go_on(&socket, field))?)
    }),
    cut4("net-name-cut-by-child-v4", |field| {
        let socket = connected(field)?;
        let child = sys::fork(|| first(&socket, field))?;
        ended(&child)?;
        go_on(&socket, field)
    }),
    cut4("net-name-cut-copied-v4", |field| {
        let socket = connected(field)?;
        let copy = sys::owned(call!(SYS_dup, &socket)?);
        first(&socket, field)?;
        drop(socket);
        go_on(&copy, field)
    }),
    cut4("net-name-cut-own-pidfd-v4", |field| {
        let socket = connected(field)?;
        first(&socket, field)?;
        let me = sys::owned(call!(SYS_pidfd_open, std::process::id(), 0)?);
        let copy = call!(SYS_pidfd_getfd, &me, wire::raw(&socket), 0)?;
        go_on(&sys::owned(copy), field)
    }),
    cut4("net-name-cut-splice-v4", |field| {
        let socket = connected(field)?;
        first(&socket, field)?;
        let (from, to) = sys::pipe()?;
        sys::mark(&to)?;
        call!(SYS_splice, &from, 0, &socket, 0, sys::MARK.len(), 0)?;
        arrived(&socket)
    }),
    v4("net-name-cut-shutdown-v4", |field| {
        // The end of a stream is sent with what is waiting before it.
        let socket = connected(field)?;
        tell(&socket, &hello::plain(&said(field)))?;
        sys::mark(&socket)?;
        call!(SYS_shutdown, &socket, libc::SHUT_WR)?;
        arrived(&socket)
    }),
];

/// Names the server. What is refused has happened then; the attempt is what comes after it.
fn first(socket: &OwnedFd, field: &Field) -> Try {
    let named = tell(socket, &hello::plain(&said(field))).and_then(|_| arrived(socket));
    let Err(fail) = named else {
        return sys::done();
    };
    let is_refusal = matches!(fail.errno, libc::EPERM | libc::ECONNABORTED);
    if is_refusal { sys::done() } else { Err(fail) }
}

/// Goes on with what is allowed.
fn go_on(socket: &OwnedFd, field: &Field) -> Try {
    say_on(socket, &hello::plain(&allowed(field)))
}

/// A socket that named an allowed server, connected anew.
fn second(field: &Field) -> Try {
    let to = field.noted_bytes("to");
    let socket = connected(field)?;
    tell(&socket, &hello::plain(&allowed(field)))?;
    arrived(&socket)?;
    wire::connect(&socket, &wire::unspecified())?;
    wire::connect(&socket, &to)?;
    say_on(&socket, &hello::plain(&said(field)))
}

fn again(field: &Field) -> Try {
    let socket = connected(field)?;
    first(&socket, field)?;
    match wire::connect(&socket, &field.noted_bytes("to")) {
        // The control's connection stands.
        Err(Fail { errno, .. }) if errno == libc::EISCONN => {}
        outcome => _ = outcome?,
    }
    go_on(&socket, field)
}

fn unspecified(field: &Field) -> Try {
    let socket = connected(field)?;
    first(&socket, field)?;
    wire::connect(&socket, &wire::unspecified())?;
    wire::connect(&socket, &field.noted_bytes("to"))?;
    go_on(&socket, field)
}
