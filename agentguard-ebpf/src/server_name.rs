//! Server names: reads what a connection says of whom it is for, packet by packet, before it
//! leaves, and cuts it where the policy does not allow that. See
//! [`agentguard_common::server_name`] for what is read.
//!
//! What is read is what leaves: the program sees the packets of TCP, whoever writes them in
//! what pieces. Packets with nothing to be read pass; from the one on that completes a name
//! that is not allowed, nothing with data does.

use agentguard_common::counter::Counter;
use agentguard_common::identity::PolicyRecord;
use agentguard_common::net::{NetMatch, port_key};
use agentguard_common::resolver::DNS_PORT;
use agentguard_common::server_name::{PIECE, PIECE_AT, Reading, Step, stage};
use agentguard_common::socket::{SocketRecord, socket_flag};
use agentguard_common::verdict::Mode;
use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_skb_load_bytes};

use crate::address::Destination;
use crate::emit::Connection;
use crate::maps::{READINGS, SERVER_NAMES};
use crate::{emit, enforce, resolver, socket, verifier};

const TCP: u16 = 6;
/// Turns in one packet: each takes a piece, of a request a byte.
const TURNS: u32 = 8_192;
/// Bytes of [`Reading::room`] that are looked at as a name.
const ROOM: u64 = 511;

/// What is to be known of a flow that begins to somewhere under this policy.
#[inline(always)]
pub fn flags(policy: &PolicyRecord, to: &Destination) -> u32 {
    // Who is only observed is to be seen with whom it talks.
    let wanted = resolver::has_names(policy) || policy.mode == Mode::Observe as u8;
    if to.protocol == TCP && to.port != DNS_PORT && wanted {
        socket_flag::READING
    } else {
        0
    }
}

/// Where the stream's bytes are in a packet.
#[derive(Clone, Copy)]
struct Segment {
    /// Number of the first byte in TCP.
    number: u32,
    /// Where it is in the packet.
    at: u32,
    /// How many there are.
    len: u32,
    /// Whether it opens a connection.
    opens: u32,
    /// Whether a byte of what is sent is urgent.
    urgent: u32,
    from: [u32; 4],
    from_port: u16,
}

/// Looks at a packet of a socket that is being read, or was cut. Returns whether it leaves.
#[inline(never)]
pub fn packet(
    skb: *mut __sk_buff,
    sock: *mut bpf_sock,
    own: &SocketRecord,
    to: Option<Destination>,
) -> bool {
    let Some(segment) = segment(skb) else {
        return unread(own);
    };
    if socket::is_cut(own) {
        return segment.len == 0;
    }
    if segment.opens != 0 {
        // SAFETY: checked for null; the kernel sends a socket's packets one after the other.
        let Some(reading) = (unsafe { READINGS.get_or_create(sock.cast()).as_mut() }) else {
            return unread(own);
        };
        reading.begin(segment.number);
    }
    if segment.len == 0 {
        return true;
    }
    let reading = READINGS.get(sock.cast());
    // It was connected before there was something to be read, or everything is: a program may
    // ask to be connected again.
    // SAFETY: checked for null; socket storage lives as long as the program runs.
    if reading.is_null() || unsafe { (*reading).stage } == stage::OVER {
        socket::set_flags(own, 0);
        return true;
    }
    to.is_some_and(|to| read(skb, to, own, reading, &segment))
}

/// A packet that cannot be read leaves only where no name is asked about. Returns whether.
#[inline(never)]
fn unread(own: &SocketRecord) -> bool {
    emit::count(Counter::ServerNameUnreadable);
    enforce::records(&own.tag).is_some_and(|(policy, _)| !resolver::has_names(policy))
}

/// A packet of TCP; `None` if it cannot be read. (On its own, for the stack's sake.)
#[inline(never)]
fn segment(skb: *mut __sk_buff) -> Option<Segment> {
    const SYN: u8 = 2;
    const ACK: u8 = 16;
    const URG: u8 = 32;
    let head: [u32; 10] = load(skb, 0).or_else(|| short_head(skb))?;
    let version = u32::from_be(head[0]) >> 28;
    let (behind, from, protocol) = if version == 4 {
        let words = u32::from_be(head[0]) >> 24 & 15;
        (words * 4, [u32::from_be(head[3]), 0, 0, 0], u32::from_be(head[2]) >> 16 & 255)
    } else {
        let from = [head[2], head[3], head[4], head[5]].map(u32::from_be);
        (40, from, u32::from_be(head[1]) >> 8 & 255)
    };
    if protocol != u32::from(TCP) {
        return None;
    }
    let tcp: [u32; 4] = load(skb, behind)?;
    let (ports, number, word) =
        (u32::from_be(tcp[0]), u32::from_be(tcp[1]), u32::from_be(tcp[3]));
    let flags = (word >> 16) as u8;
    let at = behind + (word >> 28) * 4;
    // SAFETY: the context; the verifier rewrites the access.
    let all = unsafe { (*skb).len };
    let opens = flags & (SYN | ACK) == SYN;
    Some(Segment {
        number: number.wrapping_add(u32::from(flags & SYN != 0)),
        at,
        len: all.saturating_sub(at),
        opens: u32::from(opens),
        urgent: u32::from(flags & URG != 0),
        from,
        from_port: (ports >> 16) as u16,
    })
}

/// The head of IPv4 where there is not enough for one of IPv6.
#[inline(always)]
fn short_head(skb: *mut __sk_buff) -> Option<[u32; 10]> {
    let [a, b, c, d, e]: [u32; 5] = load(skb, 0)?;
    Some([a, b, c, d, e, 0, 0, 0, 0, 0])
}

#[inline(always)]
fn load<const WORDS: usize>(skb: *mut __sk_buff, at: u32) -> Option<[u32; WORDS]> {
    let mut words = [0; WORDS];
    let len = size_of::<[u32; WORDS]>() as u32;
    // SAFETY: the helper fills the array or fails.
    let result =
        unsafe { bpf_skb_load_bytes(skb.cast(), at, words.as_mut_ptr().cast(), len) };
    if result == 0 { Some(words) } else { None }
}

/// What is read, and what came of it.
struct Turn {
    skb: *mut __sk_buff,
    reading: *mut Reading,
    policy: *const PolicyRecord,
    /// Where the segment is in the stream, and its first byte in the packet.
    start: u32,
    len: u32,
    at: u32,
    agent: u32,
    to: Destination,
    outcome: u32,
    /// What the rules say of the name that was found last.
    named: u32,
}

/// [`Turn::outcome`]
mod outcome {
    /// The turns are used up, or a piece cannot be read.
    pub const UNREADABLE: u32 = 0;
    /// The rest comes with another packet.
    pub const MORE: u32 = 1;
    /// There is nothing more to be read.
    pub const OVER: u32 = 2;
    /// A name is not allowed.
    pub const REFUSED: u32 = 3;
}

#[inline(always)]
fn read(
    skb: *mut __sk_buff,
    to: Destination,
    own: &SocketRecord,
    reading: *mut Reading,
    segment: &Segment,
) -> bool {
    let Some((policy, _)) = enforce::records(&own.tag) else {
        return false;
    };
    // SAFETY: checked for null; socket storage lives as long as the program runs.
    let state = unsafe { &*reading };
    let start = segment.number.wrapping_sub(state.first);
    let next = state.at.wrapping_add(state.have);
    // It was read before: it is sent again. (Half of the numbers are before the first.)
    if start.wrapping_add(segment.len) <= next || start > u32::MAX / 2 {
        return true;
    }
    let mut turn = Turn {
        skb,
        reading,
        policy,
        start,
        len: segment.len,
        at: segment.at,
        agent: own.tag.agent,
        to,
        outcome: outcome::UNREADABLE,
        named: 0,
    };
    // What is missing before it could be anything, and who receives an urgent byte takes it
    // out of the stream.
    if start <= next && segment.urgent == 0 {
        verifier::repeat(TURNS, take, &mut turn);
    }
    match turn.outcome {
        outcome::MORE => return true,
        outcome::OVER => return over(own, reading),
        // No name is asked about: what was found is told, if anything was.
        _ if !resolver::has_names(policy) => return over(own, reading),
        _ => {}
    }
    let named = if turn.outcome == outcome::REFUSED { Some(unpacked(turn.named)) } else { None };
    // SAFETY: the context of a packet.
    let cookie = unsafe { bpf_get_socket_cookie(skb.cast()) };
    let connection =
        Connection { to, from: segment.from, cookie, from_port: segment.from_port };
    // SAFETY: as above; the offset is masked so that what is read stays inside.
    let (name, len) = unsafe {
        let at = verifier::bounded::<256>(u64::from((*reading).name_at));
        ((&raw const (*reading).room).cast::<u8>().add(at as usize), (*reading).name_len)
    };
    let len = if named.is_some() { len } else { 0 };
    if enforce::net::server(own, &connection, named, name, len) {
        socket::set_flags(own, socket_flag::CUT);
        return false;
    }
    over(own, reading)
}

/// There is nothing more to be read.
#[inline(always)]
fn over(own: &SocketRecord, reading: *mut Reading) -> bool {
    // SAFETY: socket storage that lives as long as the program runs.
    unsafe { (*reading).stage = stage::OVER };
    socket::set_flags(own, 0);
    true
}

unsafe extern "C" fn take(_: u64, turn: *mut Turn) -> u64 {
    // SAFETY: the state that `read` gave.
    let turn = unsafe { &mut *turn };
    // SAFETY: socket storage that lives as long as the program runs.
    let reading = unsafe { &mut *turn.reading };
    let (offset, bytes) = reading.wanted(turn.start, turn.len);
    if bytes == 0 {
        turn.outcome = outcome::MORE;
        return 1;
    }
    // From 1 to 256, which 6.1's verifier does not see in the comparison.
    let bytes = verifier::bounded::<255>(u64::from(bytes - 1)) as u32 + 1;
    let have = verifier::bounded::<255>(u64::from(reading.have)) as usize;
    // SAFETY: both are masked: at most 511 bytes from PIECE_AT on, of 512.
    let loaded = unsafe {
        let room = (&raw mut reading.room).cast::<u8>().add(PIECE_AT + have);
        bpf_skb_load_bytes(turn.skb.cast(), turn.at.wrapping_add(offset), room.cast(), bytes)
    };
    if loaded != 0 {
        turn.outcome = outcome::UNREADABLE;
        return 1;
    }
    reading.have += bytes;
    if reading.have < reading.want {
        turn.outcome = outcome::MORE;
        return 1;
    }
    match reading.step() {
        Step::More => {
            turn.outcome = outcome::UNREADABLE;
            0
        }
        Step::Done => {
            turn.outcome = outcome::OVER;
            1
        }
        Step::Unreadable => {
            turn.outcome = outcome::UNREADABLE;
            1
        }
        Step::Name => judge(turn, reading),
    }
}

/// Asks the rules about a name that was found.
#[inline(always)]
fn judge(turn: &mut Turn, reading: &mut Reading) -> u64 {
    // SAFETY: map memory that outlives the program.
    let policy = unsafe { &*turn.policy };
    let key = &raw mut reading.key;
    // SAFETY: socket storage that lives as long as the program runs.
    unsafe {
        for word in 0..32 {
            (&raw mut (*key).name).cast::<u64>().add(word).write_volatile(0);
        }
        (*key).generation = policy.generation;
        (*key).agent = turn.agent as u16;
        (*key).below = 0;
    }
    let mut len = reading.name_len & 0xff;
    let from = reading.name_at & 0x100;
    let last = (from + len).wrapping_sub(1) & ROOM as u32;
    // A dot at the end means the same name.
    if len > 1 && reading.room[last as usize] == b'.' {
        len -= 1;
    }
    let mut name = Name {
        key: key.cast(),
        room: (&raw const reading.room).cast(),
        named: (&raw mut reading.named).cast(),
        from,
        len,
        at: 0,
        found: 0,
        strange: 0,
        number: 0,
        value: 0,
        asked: port_key(turn.to.transport, turn.to.port),
    };
    verifier::repeat(PIECE as u32, copy, &mut name);
    // A server may take a zero for the name's end.
    if name.strange != 0 {
        reading.named_len = 0;
        turn.outcome = outcome::UNREADABLE;
        return 1;
    }
    reading.named_len = len;
    name.found = look_up(name.key, name.asked);
    name.at = verifier::forget(256 - len);
    // SAFETY: as above.
    unsafe { (*key).below = 1 };
    verifier::repeat(PIECE as u32, strip, &mut name);
    turn.named = name.found;
    // The address itself says nothing of a server.
    let to = turn.to.address.reached();
    let is_itself = to.is_v4 && name.address() == Some(to.words[0]);
    if is_itself
        || !resolver::has_names(policy)
        || enforce::net::names_server(policy, &turn.to, unpacked(name.found))
    {
        turn.outcome = outcome::UNREADABLE;
        return 0;
    }
    turn.outcome = outcome::REFUSED;
    1
}

/// A name on its way into the key, and out of it label by label.
struct Name {
    key: *mut u8,
    room: *const u8,
    /// Where it is kept for those who ask for it later.
    named: *mut u8,
    from: u32,
    len: u32,
    at: u32,
    asked: u32,
    found: u32,
    /// 1 if it has bytes that no name has.
    strange: u32,
    /// As an IPv4 address: its last number, and those before it with how many there are above;
    /// [`NO_ADDRESS`] above if it is none.
    number: u32,
    value: u64,
}

/// What a name is that is no address, above the 32 bits of one.
const NO_ADDRESS: u64 = 1 << 40;

/// Where the name is in the key.
const NAME_AT: usize = core::mem::offset_of!(agentguard_common::server_name::NameKey, name);

unsafe extern "C" fn copy(index: u64, name: *mut Name) -> u64 {
    // SAFETY: the state that `judge` gave.
    let name = unsafe { &mut *name };
    let index = index as u32;
    if index >= name.len {
        return 1;
    }
    let from = verifier::bounded::<ROOM>(u64::from(name.from + index)) as usize;
    let to = verifier::bounded::<255>(u64::from(256 - name.len + index)) as usize;
    // SAFETY: both are masked to what there is.
    unsafe {
        let byte = name.room.add(from).read_volatile();
        let upper = byte.wrapping_sub(b'A') < 26;
        if !byte.is_ascii_graphic() {
            name.strange = 1;
            return 1;
        }
        let lower = byte | u8::from(upper) << 5;
        name.key.add(NAME_AT + to).write_volatile(lower);
        let kept = verifier::bounded::<255>(u64::from(index)) as usize;
        name.named.add(kept).write_volatile(lower);
        name.count_in(byte);
    }
    0
}

impl Name {
    /// Takes the next byte of what may be an IPv4 address.
    #[inline(always)]
    fn count_in(&mut self, byte: u8) {
        let digit = u32::from(byte.wrapping_sub(b'0'));
        let (mut value, mut number) = (self.value, self.number);
        if byte == b'.' {
            let dots = (value >> 32) + 1;
            value = dots << 32 | u64::from((value as u32) << 8 | number & 0xff);
            number = 0;
        } else if digit > 9 || number > 25 {
            value = NO_ADDRESS;
        } else {
            number = number * 10 + digit;
        }
        // Each turn changes them.
        self.value = verifier::forget_wide(value);
        self.number = verifier::forget(number);
    }

    /// The IPv4 address that it is.
    #[inline(always)]
    fn address(&self) -> Option<u32> {
        if self.value >> 32 == 3 && self.number <= 255 {
            Some((self.value as u32) << 8 | self.number)
        } else {
            None
        }
    }
}

unsafe extern "C" fn strip(_: u64, name: *mut Name) -> u64 {
    // SAFETY: the state that `judge` gave.
    let name = unsafe { &mut *name };
    if name.at >= 256 {
        return 1;
    }
    let at = verifier::bounded::<255>(u64::from(name.at)) as usize;
    name.at = verifier::forget(name.at + 1);
    // SAFETY: masked to what there is.
    let byte = unsafe {
        let place = name.key.add(NAME_AT + at);
        let byte = place.read_volatile();
        place.write_volatile(0);
        byte
    };
    if byte == b'.' {
        let found = look_up(name.key, name.asked);
        if found > name.found {
            name.found = found;
        }
    }
    0
}

/// What rules say of the name in the key, packed so that the strictest is the greatest.
#[inline(always)]
fn look_up(key: *const u8, asked: u32) -> u32 {
    // SAFETY: a whole key; not preallocated: what is removed stays readable until the end.
    match unsafe { SERVER_NAMES.get(&*key.cast()) } {
        Some(ranges) => {
            let found = ranges.lookup(asked);
            u32::from(found.verdict) << 16 | u32::from(found.rule)
        }
        None => 0,
    }
}

#[inline(always)]
fn unpacked(found: u32) -> NetMatch {
    NetMatch { verdict: (found >> 16) as u8 & 3, rule: found as u16 }
}
