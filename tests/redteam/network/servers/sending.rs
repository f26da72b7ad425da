//! A hello that names another server, on every way into the stream.

use std::os::fd::OwnedFd;

use nix::libc;

use super::{Counts, Family, allowed, arrived, connected, hello, lay, prompt, said, say_on, tell};
use crate::attempt::{Attempt, write};
use crate::field::Field;
use crate::network::listener;
use crate::network::wire::{self, Message};
use crate::ring::{ASYNC, Entry, LACKS, op};
use crate::sys::{self, Fail, Try, call};

const TCP_FASTOPEN_CONNECT: i32 = 30;

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
    v4("net-name-send-byte-by-byte-v4", byte_by_byte),
    v6("net-name-send-byte-by-byte-v6", byte_by_byte),
    v4("net-name-send-cut-in-name-v4", |field| {
        let bytes = hello::plain(&said(field));
        let (head, tail) = bytes.split_at(in_name(&bytes, field));
        by(field, |socket| {
            tell(socket, head)?;
            arrived(socket)?;
            tell(socket, tail)
        })
    }),
    v4("net-name-send-small-segments-v4", small_segments),
    v6("net-name-send-small-segments-v6", small_segments),
    v4("net-name-send-corked-v4", |field| {
        by(field, |socket| {
            wire::set_number(socket, libc::IPPROTO_TCP, libc::TCP_CORK, 1)?;
            for byte in hello::plain(&said(field)) {
                tell(socket, &[byte])?;
            }
            wire::set_number(socket, libc::IPPROTO_TCP, libc::TCP_CORK, 0)
        })
    }),
    v4("net-name-send-more-v4", |field| {
        let bytes = hello::plain(&said(field));
        by(field, |socket| {
            let length = bytes.len();
            call!(SYS_sendto, socket, &bytes[..], length, libc::MSG_MORE, 0, 0)?;
            sys::done()
        })
    }),
    v4("net-name-send-writev-v4", |field| {
        let bytes = hello::plain(&said(field));
        let vector: Vec<u8> = bytes.chunks(5).flat_map(sys::iovec).collect();
        by(field, |socket| {
            call!(SYS_writev, socket, &vector[..], vector.len() / 16)?;
            sys::done()
        })
    }),
    v4("net-name-send-sendmsg-v4", sendmsg),
    v6("net-name-send-sendmsg-v6", sendmsg),
    v4("net-name-send-sendmmsg-v4", |field| {
        let bytes = hello::plain(&said(field));
        let pieces = bytes.chunks(5);
        let messages: Vec<Message> = pieces
            .map(|piece| Message::new(&[], &[piece], &[]))
            .collect();
        by(field, |socket| {
            wire::send_many(wire::raw(socket), &messages)?;
            sys::done()
        })
    }),
    v4("net-name-send-zero-copy-v4", |field| {
        const SO_ZEROCOPY: i32 = 60;
        const MSG_ZEROCOPY: i32 = 0x400_0000;
        let bytes = hello::plain(&said(field));
        by(field, |socket| {
            wire::set_number(socket, libc::SOL_SOCKET, SO_ZEROCOPY, 1)?;
            call!(
                SYS_sendto,
                socket,
                &bytes[..],
                bytes.len(),
                MSG_ZEROCOPY,
                0,
                0
            )?;
            sys::done()
        })
    }),
    v4("net-name-send-splice-v4", splice),
    v6("net-name-send-splice-v6", splice),
    v4("net-name-send-vmsplice-v4", |field| {
        let bytes = hello::plain(&said(field));
        by(field, |socket| {
            let (from, to) = sys::pipe()?;
            call!(SYS_vmsplice, &to, &sys::iovec(&bytes)[..], 1, 0)?;
            call!(SYS_splice, &from, 0, socket, 0, bytes.len(), 0)?;
            sys::done()
        })
    }),
    v4("net-name-send-sendfile-v4", sendfile),
    v6("net-name-send-sendfile-v6", sendfile),
    v4("net-name-send-uring-send-v4", |field| {
        ring(field, op::SEND, 0)
    })
    .lacks(LACKS),
    v4("net-name-send-uring-send-async-v4", |field| {
        ring(field, op::SEND, ASYNC)
    })
    .lacks(LACKS),
    v4("net-name-send-uring-write-v4", |field| {
        ring(field, op::WRITE, 0)
    })
    .lacks(LACKS),
    v4("net-name-send-uring-zero-copy-v4", |field| {
        ring(field, op::SEND_ZC, 0)
    })
    .lacks(LACKS),
    v6("net-name-send-uring-zero-copy-v6", |field| {
        ring(field, op::SEND_ZC, 0)
    })
    .lacks(LACKS),
    v4("net-name-send-by-child-v4", |field| {
        let bytes = hello::plain(&said(field));
        let (head, tail) = bytes.split_at(in_name(&bytes, field));
        by(field, |socket| {
            tell(socket, head)?;
            super::ended(&sys::fork(|| tell(socket, tail))?)
        })
    }),
    v4("net-name-fastopen-v4", fast_open),
    v6("net-name-fastopen-v6", fast_open),
    v4("net-name-fastopen-cookie-v4", with_cookie),
    v6("net-name-fastopen-cookie-v6", with_cookie),
    v4("net-name-fastopen-cookie-connect-v4", connect_with_cookie),
    v6("net-name-fastopen-cookie-connect-v6", connect_with_cookie),
    v4("net-name-fastopen-cookie-half-v4", |field| {
        // Half of the name with the first packet.
        let bytes = hello::plain(&said(field));
        let (head, tail) = bytes.split_at(in_name(&bytes, field));
        cookie(field)?;
        let to = field.noted_bytes("to");
        let socket = prompt(&to)?;
        wire::send_bytes_to(&socket, head, &to, wire::FAST_OPEN)?;
        say_on(&socket, tail)?;
        was_first(&socket)
    }),
    // Who receives takes an urgent byte out of the stream.
    v4("net-name-urgent-first-v4", |field| urgent(field, 0)).never(),
    v6("net-name-urgent-first-v6", |field| urgent(field, 0)).never(),
    v4("net-name-urgent-in-name-v4", |field| {
        urgent(field, in_name(&hello::plain(&said(field)), field))
    })
    .never(),
    v4("net-name-urgent-behind-much-v4", |field| {
        let bytes = hello::plain(&said(field));
        let (head, tail) = bytes.split_at(in_name(&bytes, field));
        by(field, |socket| {
            let first = [head, b"?"].concat();
            out_of_band(socket, &first)?;
            tell(socket, tail)
        })
    })
    .never(),
    v4("net-name-urgent-in-host-v4", |field| {
        by(field, |socket| {
            tell(socket, b"GET / HTTP/1.1\r\nHo")?;
            out_of_band(socket, b"?")?;
            tell(socket, &[b"st: ", &said(field)[..], b"\r\n\r\n"].concat())
        })
    })
    .prepare(|field| lay(field, Family::V4, Counts::Mark))
    .never(),
];

/// Sends in this way on a new connection, and the mark behind it.
fn by(field: &Field, way: impl FnOnce(&OwnedFd) -> Try) -> Try {
    let socket = connected(field)?;
    way(&socket)?;
    say_on(&socket, &[])
}

/// A place within the name.
fn in_name(bytes: &[u8], field: &Field) -> usize {
    let name = said(field);
    let found = bytes.windows(name.len()).position(|part| part == name);
    found.unwrap_or_default() + name.len() / 2
}

fn byte_by_byte(field: &Field) -> Try {
    by(field, |socket| {
        for byte in hello::plain(&said(field)) {
            tell(socket, &[byte])?;
        }
        sys::done()
    })
}

/// The kernel itself cuts it.
fn small_segments(field: &Field) -> Try {
    const SMALLEST: i32 = 88;
    super::ask(field)?;
    let to = field.noted_bytes("to");
    let socket = prompt(&to)?;
    wire::set_number(&socket, libc::IPPROTO_TCP, libc::TCP_MAXSEG, SMALLEST)?;
    wire::connect(&socket, &to)?;
    say_on(&socket, &hello::greased(&said(field)))
}

fn sendmsg(field: &Field) -> Try {
    let bytes = hello::plain(&said(field));
    let pieces: Vec<&[u8]> = bytes.chunks(3).collect();
    by(field, |socket| {
        Message::new(&[], &pieces, &[]).send(socket, 0)
    })
}

fn splice(field: &Field) -> Try {
    let bytes = hello::plain(&said(field));
    by(field, |socket| {
        let (from, to) = sys::pipe()?;
        tell(&to, &bytes)?;
        call!(SYS_splice, &from, 0, socket, 0, bytes.len(), 0)?;
        sys::done()
    })
}

fn sendfile(field: &Field) -> Try {
    let bytes = hello::plain(&said(field));
    // In memory: where Landlock holds rules about files, it may close the directories.
    let file = sys::owned(call!(SYS_memfd_create, c"hello", 0)?);
    tell(&file, &bytes)?;
    call!(SYS_lseek, &file, 0, libc::SEEK_SET)?;
    by(field, |socket| {
        call!(SYS_sendfile, socket, &file, 0, bytes.len())?;
        sys::done()
    })
}

fn ring(field: &Field, code: u8, flags: u8) -> Try {
    let bytes = hello::plain(&said(field));
    by(field, |socket| {
        let entry = Entry {
            code,
            flags,
            fd: wire::raw(socket),
            address: bytes.as_ptr() as u64,
            length: bytes.len() as u32,
            ..Entry::default()
        };
        entry.alone("io_uring send", 0)?;
        sys::done()
    })
}

/// Without a cookie: the data come after the first packet.
fn fast_open(field: &Field) -> Try {
    super::ask(field)?;
    let to = field.noted_bytes("to");
    let socket = prompt(&to)?;
    let bytes = hello::plain(&said(field));
    wire::send_bytes_to(&socket, &bytes, &to, wire::FAST_OPEN)?;
    say_on(&socket, &[])
}

/// Gets the server's cookie by a connection that names an allowed server.
fn cookie(field: &Field) -> Try {
    super::ask(field)?;
    let to = field.noted_bytes("to");
    let socket = prompt(&to)?;
    let bytes = hello::plain(&allowed(field));
    wire::send_bytes_to(&socket, &bytes, &to, wire::FAST_OPEN)?;
    arrived(&socket)
}

/// Fails if the data did not come with the first packet: then nothing was tried.
fn was_first(socket: &OwnedFd) -> Try {
    const SYN_DATA: u8 = 32;
    match wire::tcp_info(socket)?[5] & SYN_DATA {
        0 => Err(Fail::new("the first packet had no data", 0)),
        _ => sys::done(),
    }
}

fn with_cookie(field: &Field) -> Try {
    cookie(field)?;
    let to = field.noted_bytes("to");
    let socket = prompt(&to)?;
    let bytes = hello::plain(&said(field));
    wire::send_bytes_to(&socket, &bytes, &to, wire::FAST_OPEN)?;
    say_on(&socket, &[])?;
    was_first(&socket)
}

fn connect_with_cookie(field: &Field) -> Try {
    cookie(field)?;
    let to = field.noted_bytes("to");
    let socket = prompt(&to)?;
    wire::set_number(&socket, libc::IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)?;
    wire::connect(&socket, &to)?;
    say_on(&socket, &hello::plain(&said(field)))?;
    was_first(&socket)
}

fn out_of_band(socket: &OwnedFd, bytes: &[u8]) -> Try {
    call!(SYS_sendto, socket, bytes, bytes.len(), libc::MSG_OOB, 0, 0)?;
    sys::done()
}

/// A hello with an urgent byte at this place.
fn urgent(field: &Field, at: usize) -> Try {
    let bytes = hello::plain(&said(field));
    let (head, tail) = bytes.split_at(at);
    by(field, |socket| {
        tell(socket, head)?;
        out_of_band(socket, b"?")?;
        tell(socket, tail)
    })
}
