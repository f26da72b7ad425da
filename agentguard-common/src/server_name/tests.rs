extern crate std;

use std::string::String;
use std::vec::Vec;

use super::*;

/// The names in these packets, and what came of the last.
fn read(packets: &[&[u8]]) -> (Vec<String>, Step) {
    let mut reading = Reading::NEW;
    let mut names = Vec::new();
    let mut start = 0;
    for packet in packets {
        let step = reading.packet(start, packet, |name| {
            names.push(String::from_utf8_lossy(name).into_owned());
        });
        if step != Step::More {
            return (names, step);
        }
        start += packet.len() as u32;
    }
    (names, Step::More)
}

fn with_len(bytes: &[u8], width: usize) -> Vec<u8> {
    let len = (bytes.len() as u32).to_be_bytes();
    [&len[4 - width..], bytes].concat()
}

fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &with_len(body, 2)].concat()
}

fn server_name(name: &[u8]) -> Vec<u8> {
    extension(0, &with_len(&[&[0], &with_len(name, 2)[..]].concat(), 2))
}

fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind, 3, 1][..], &with_len(body, 2)].concat()
}

fn hello_of(extensions: &[u8]) -> Vec<u8> {
    let body = [
        &[3, 3][..],
        &[7; 32],
        &with_len(&[9; 32], 1),
        &with_len(&[0x13, 1, 0x13, 2], 2),
        &with_len(&[0], 1),
        &with_len(extensions, 2),
    ]
    .concat();
    let handshake = [&[1][..], &with_len(&body, 3)].concat();
    record(22, &handshake)
}

fn hello(name: &[u8]) -> Vec<u8> {
    hello_of(
        &[
            extension(10, &[0; 300]),
            server_name(name),
            extension(43, &[2, 3, 4]),
        ]
        .concat(),
    )
}

/// However it is cut into packets.
fn cut_anywhere(stream: &[u8], names: &[&str], end: Step) {
    for at in 0..=stream.len() {
        let (head, tail) = stream.split_at(at);
        assert_eq!(read(&[head, tail]), read(&[stream]), "cut at {at}");
    }
    let singly: Vec<&[u8]> = stream.chunks(1).collect();
    let (found, step) = read(&singly);
    assert_eq!(
        (found.as_slice(), step),
        (names.map_owned().as_slice(), end)
    );
}

trait Owned {
    fn map_owned(&self) -> Vec<String>;
}

impl Owned for &[&str] {
    fn map_owned(&self) -> Vec<String> {
        self.iter().map(|name| String::from(*name)).collect()
    }
}

#[test]
fn a_hello_names_its_server_however_it_is_cut() {
    let goes_on = |hello: Vec<u8>| [hello, record(23, &[0; 40])].concat();
    let streams: [(Vec<u8>, &[&str]); 4] = [
        (hello(b"api.example"), &["api.example"]),
        (hello_of(&server_name(b"a.b")), &["a.b"]),
        (hello_of(&extension(43, &[2, 3, 4])), &[]),
        (
            [&[0, 0, 0, 8, 4, 210, 22, 47][..], &hello(b"db.example")].concat(),
            &["db.example"],
        ),
    ];
    for (stream, names) in streams {
        cut_anywhere(&stream, names, Step::More);
        cut_anywhere(&goes_on(stream), names, Step::Done);
    }
    let long = [b'a'; NAME];
    assert_eq!(read(&[&hello(&long)]).0[0].len(), NAME);
}

#[test]
fn what_follows_a_hello_may_be_another() {
    let (first, second) = (hello(b"a.example"), hello(b"b.example"));
    let change = record(20, &[1]);
    let early = hello_of(&[server_name(b"a.example"), extension(42, &[])].concat());
    let data = record(23, &[0; 40]);
    for between in [Vec::new(), change.clone(), change.repeat(3)] {
        let stream = [&first[..], &between, &second].concat();
        cut_anywhere(&stream, &["a.example", "b.example"], Step::More);
    }
    let stream = [&early[..], &change, &data, &data, &second].concat();
    cut_anywhere(&stream, &["a.example", "b.example"], Step::More);
    let endless = [early, data.repeat(1_000)].concat();
    assert_eq!(read(&[&endless]).1, Step::Done);
    // The key exchange of TLS 1.2, the encrypted end of a handshake, an alert.
    for next in [
        record(22, &[16, 0, 0, 1]),
        [change.clone(), record(22, &[7; 40])].concat(),
        // It looks like a hello, but for the length of its session id.
        [
            change.clone(),
            record(22, &[&[1, 0][..], &[40; 38]].concat()),
        ]
        .concat(),
    ] {
        cut_anywhere(&[&first[..], &next].concat(), &["a.example"], Step::Done);
    }
    let ended = [&first[..], &record(21, &[2, 40])].concat();
    cut_anywhere(&ended, &["a.example"], Step::More);
    let pieces = [record(22, &second[5..6]), record(22, &second[6..])].concat();
    let more = [pieces, record(22, &[]), record(20, &[])];
    for bad in more
        .iter()
        .flat_map(|more| [more.clone(), [&change[..], more].concat()])
    {
        let stream = [&first[..], &bad, &[0; 64]].concat();
        assert_eq!(read(&[&stream]).1, Step::Unreadable, "{bad:?}");
    }
}

#[test]
fn what_some_servers_skip_before_a_hello_is_unreadable() {
    let hello = hello(b"a.example");
    let skipped = [
        record(22, &[]),
        record(20, &[]),
        record(20, &[1]),
        record(21, &[1, 90]),
    ];
    for before in skipped {
        let stream = [&before[..], &hello].concat();
        assert_eq!(read(&[&stream]).1, Step::Unreadable, "{before:?}");
    }
}

#[test]
fn a_hello_that_contradicts_itself_is_unreadable() {
    let twice = hello_of(&[server_name(b"a.example"), server_name(b"b.example")].concat());
    assert_eq!(read(&[&twice]).0, ["a.example", "b.example"]);
    let mut fragment = hello(b"api.example");
    fragment[3..5].copy_from_slice(&[0, 100]);
    let mut beyond = hello(b"api.example");
    // The length of the extensions.
    beyond[5 + 4 + 2 + 32 + 33 + 6 + 2] ^= 1;
    let two_names = hello_of(&extension(
        0,
        &[0, 10, 0, 0, 2, b'a', b'b', 0, 0, 2, b'c', b'd'],
    ));
    let empty = hello_of(&extension(0, &[0, 3, 0, 0, 0]));
    for stream in [fragment, beyond, two_names, empty, hello(&[b'a'; 256])] {
        assert_eq!(read(&[&stream]).1, Step::Unreadable);
    }
}

#[test]
fn a_request_names_its_host_however_it_is_cut() {
    let requests: [(&str, &[&str]); 17] = [
        (
            "GET / HTTP/1.1\r\nHost: api.example\r\n\r\n",
            &["api.example"],
        ),
        ("GET / HTTP/1.1\nhOsT:api.example:80\n\n", &["api.example"]),
        (
            "\r\nPOST /x HTTP/1.1\r\nA: b\r\nHost : a.b \r\n\r\n",
            &["a.b"],
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", &["a", "b"]),
        (
            "GET / HTTP/1.1\r\nHost:\r\n folded.example\r\n\r\n",
            &["folded.example"],
        ),
        (
            "GET http://a.b/c HTTP/1.1\r\nHost: d\r\n\r\n",
            &["a.b", "d"],
        ),
        (
            "GET http://x:y@a.b:8/@e HTTP/1.1\r\nHost: d\r\n\r\n",
            &["a.b", "d"],
        ),
        ("CONNECT a.b:443 HTTP/1.1\r\nHost: d\r\n\r\n", &["a.b", "d"]),
        ("OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", &[]),
        ("a_b\t/ http/1.1 \r\nHost: a\r\n\r\n", &["a"]),
        (" \r\x1fGET\r/\x1cHTTP/1.1\r\nHost: a\r\n\r\n", &["a"]),
        (
            "GET http://a.b/\rHTTP/1.1\r\nHost: a\r\n\r\n",
            &["a.b", "a"],
        ),
        (
            "GET / HTTP/1.1\r\nA: b\r\rHost: a\rHost: b\r\n\r\n",
            &["a", "b"],
        ),
        ("GET / HTTP/1.1\r\nA: b\r\r\nHo\r\nHost: a\r\n\r\n", &["a"]),
        ("GET /a/HTTP/1.1 HTTP/1.0\r\nHosts: a\r\n\r\n", &[]),
        ("PRI * HTTP/2.0\r\n\r\n", &[]),
        ("EHLO mail.example\r\n", &[]),
    ];
    for (request, names) in requests {
        cut_anywhere(request.as_bytes(), names, Step::Done);
    }
    let unreadable = ["GET http:@a/ HTTP/1.1\r\n", "CONNECT a@b:1 HTTP/1.1\r\n"];
    for request in unreadable {
        assert_eq!(read(&[request.as_bytes()]).1, Step::Unreadable, "{request}");
    }
    let endless = [b"GET / HTTP/1.1\r\nA: ".as_slice(), &[b'a'; 40_000]].concat();
    assert_eq!(read(&[&endless]).1, Step::Unreadable);
}

#[test]
fn other_protocols_name_nobody() {
    let others: [&[u8]; 6] = [
        b"SSH-2.0-OpenSSH\r\n",
        b"PING\r\n",
        b"{\"a\":1}",
        &[0, 0, 0, 8, 1, 2, 3, 4],
        &[22, 3, 3, 0, 50, 2, 0, 0, 46, 0, 0, 0],
        b"*1\r\n",
    ];
    for stream in others {
        let padded = [stream, &[0; 64]].concat();
        assert_eq!(read(&[&padded]), (Vec::new(), Step::Done));
    }
}

#[test]
fn keys_hold_names_at_their_end() {
    let key = NameKey::new(1, 2, true, "a.b").unwrap();
    assert_eq!((&key.name[253..], key.name[252]), (&b"a.b"[..], 0));
    assert!(NameKey::new(1, 2, false, &"a".repeat(256)).is_none());
}
