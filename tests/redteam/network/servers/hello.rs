//! ClientHellos of TLS, byte by byte (RFC 8446, 4.1.2; RFC 6066, 3).

/// Types of records.
pub const CHANGE_CIPHER_SPEC: u8 = 20;
pub const ALERT: u8 = 21;
pub const HANDSHAKE: u8 = 22;

/// Types of extensions.
mod kind {
    pub const SERVER_NAME: u16 = 0;
    pub const GROUPS: u16 = 10;
    pub const PADDING: u16 = 21;
    pub const VERSIONS: u16 = 43;
    pub const KEY_SHARES: u16 = 51;
    /// Encrypted ClientHello.
    pub const ENCRYPTED: u16 = 0xfe0d;
    /// One of the numbers that mean nothing (RFC 8701).
    pub const GREASE: u16 = 0x4a4a;
}

fn with_length(bytes: &[u8], width: usize) -> Vec<u8> {
    let length = (bytes.len() as u32).to_be_bytes();
    [&length[4 - width..], bytes].concat()
}

fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &with_length(body, 2)].concat()
}

/// A record.
pub fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind, 3, 1][..], &with_length(body, 2)].concat()
}

/// The extension that lists these servers.
fn servers(names: &[&[u8]]) -> Vec<u8> {
    let entry = |name: &&[u8]| [&[0], &with_length(name, 2)[..]].concat();
    let entries: Vec<u8> = names.iter().flat_map(entry).collect();
    extension(kind::SERVER_NAME, &with_length(&entries, 2))
}

/// A hello with these extensions, without a record around it.
fn message(extensions: &[Vec<u8>]) -> Vec<u8> {
    let body = [
        &[3, 3][..],
        &[7; 32],
        &with_length(&[9; 32], 1),
        &with_length(&[0x13, 1, 0x13, 2, 0xc0, 0x2b], 2),
        &with_length(&[0], 1),
        &with_length(&extensions.concat(), 2),
    ]
    .concat();
    [&[1][..], &with_length(&body, 3)].concat()
}

fn usual(server: Vec<u8>) -> Vec<Vec<u8>> {
    vec![
        server,
        extension(kind::GROUPS, &[0, 2, 0, 29]),
        extension(kind::VERSIONS, &[2, 3, 4]),
        extension(kind::KEY_SHARES, &[0, 0]),
    ]
}

/// The message, for those who put it into records in their own way.
pub fn bare(name: &[u8]) -> Vec<u8> {
    message(&usual(servers(&[name])))
}

/// A hello that names this server.
pub fn plain(name: &[u8]) -> Vec<u8> {
    record(HANDSHAKE, &bare(name))
}

/// One that names several, in one list.
pub fn listing(names: &[&[u8]]) -> Vec<u8> {
    record(HANDSHAKE, &message(&usual(servers(names))))
}

/// One that has the extension twice.
pub fn repeating(first: &[u8], second: &[u8]) -> Vec<u8> {
    let mut extensions = usual(servers(&[first]));
    extensions.push(servers(&[second]));
    record(HANDSHAKE, &message(&extensions))
}

/// One that names the server at the end, behind what means nothing.
pub fn greased(name: &[u8]) -> Vec<u8> {
    let extensions = [
        extension(kind::GREASE, &[]),
        extension(kind::ENCRYPTED, &[0; 200]),
        extension(kind::PADDING, &[0; 700]),
        extension(kind::GREASE + 0x1010, &[0]),
        servers(&[name]),
    ];
    record(HANDSHAKE, &message(&extensions))
}

/// One that names nobody.
pub fn nameless() -> Vec<u8> {
    record(HANDSHAKE, &message(&usual(Vec::new())))
}

/// Some of a message in each record.
pub fn in_records(message: &[u8], size: usize) -> Vec<u8> {
    let pieces = message.chunks(size);
    pieces.flat_map(|piece| record(HANDSHAKE, piece)).collect()
}
