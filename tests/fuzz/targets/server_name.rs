//! What a connection says of its server: the same however it is cut into packets, in bounded
//! steps, and no name that was not sent.

#![no_main]

use agentguard_common::server_name::{MOST_BYTES, NAME, Reading, Step};
use libfuzzer_sys::fuzz_target;

fn read(packets: &[&[u8]]) -> (Vec<Vec<u8>>, Step) {
    let mut reading = Reading::NEW;
    let mut names = Vec::new();
    let mut start = 0;
    for packet in packets {
        let step = reading.packet(start, packet, |name| names.push(name.to_vec()));
        assert!(step != Step::More || reading.at <= MOST_BYTES && reading.have <= reading.want);
        if step != Step::More {
            return (names, step);
        }
        start += packet.len() as u32;
    }
    (names, Step::More)
}

fuzz_target!(|bytes: &[u8]| {
    let whole = read(&[bytes]);
    let singly: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(read(&singly), whole);
    if let Some((first, rest)) = bytes.split_first() {
        let (head, tail) = rest.split_at(usize::from(*first).min(rest.len()));
        assert_eq!(read(&[head, tail]), read(&[rest]));
    }
    for name in &whole.0 {
        assert!(!name.is_empty() && name.len() <= NAME);
        // A folded header has other bytes between them, so each byte has to be there.
        assert!(name.iter().all(|byte| bytes.contains(byte)));
    }
});
