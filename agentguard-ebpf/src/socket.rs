//! The records of sockets that agents make: the only reader and writer of socket storage.

use core::ffi::c_void;

use agentguard_common::identity::Tag;
use agentguard_common::net::Address;
use agentguard_common::socket::{SocketRecord, socket_flag};

use crate::flow;
use crate::kernel::Sock;
use crate::maps::SOCKETS;

/// A socket as the helpers want it.
#[inline(always)]
pub fn of(sock: Sock) -> *mut c_void {
    sock.0.cast_mut().cast()
}

/// The record of a socket that an agent made.
#[inline(always)]
pub fn record(socket: *mut c_void) -> Option<&'static SocketRecord> {
    // SAFETY: checked for null; socket storage lives as long as the program runs.
    let record = unsafe { SOCKETS.get(socket).as_ref() }?;
    if record.tag.is_set() { Some(record) } else { None }
}

/// The record of a socket that the run itself made: others' are not changed.
#[inline(always)]
pub fn own(tag: &Tag, socket: *mut c_void) -> Option<&'static SocketRecord> {
    record(socket).filter(|record| record.tag.run_serial == tag.run_serial)
}

/// Makes the record of a new socket. Fails when memory does.
#[inline(always)]
pub fn make(tag: &Tag, socket: *mut c_void, flags: u32) -> bool {
    let record = SOCKETS.get_or_create(socket);
    // SAFETY: checked for null; nobody else has a socket that is being made.
    let Some(record) = (unsafe { record.as_mut() }) else {
        return false;
    };
    // A connection that is accepted has begun before.
    *record = SocketRecord {
        tag: *tag,
        flags,
        pid: flow::maker(),
        began_ns: record.began_ns,
        told_ns: record.told_ns,
        told_sent: record.told_sent,
        told_received: record.told_received,
        ..SocketRecord::NONE
    };
    true
}

/// Whether this is the flow that was decided for a socket, or its peers were let in.
#[inline(always)]
pub fn is_flow(record: &SocketRecord, flow: u64) -> bool {
    // SAFETY: reads of map memory, which others may write.
    let (decided, flags) = unsafe {
        ((&raw const record.decided).read_volatile(), (&raw const record.flags).read_volatile())
    };
    flags & socket_flag::INBOUND != 0 || decided == flow
}

/// Whether its peers were let in.
#[inline(always)]
pub fn is_inbound(record: &SocketRecord) -> bool {
    flags(record) & socket_flag::INBOUND != 0
}

/// Whether it asks the daemon's resolver.
#[inline(always)]
pub fn is_asking(record: &SocketRecord) -> bool {
    flags(record) & socket_flag::ASKING != 0
}

/// The server that was asked through it.
#[inline(always)]
pub fn asked(record: &SocketRecord) -> Address {
    Address { words: record.asked, is_v4: record.asked_is_v4 != 0 }
}

/// Notes that a question to this server goes to the daemon's resolver.
#[inline(always)]
pub fn set_asking(record: &SocketRecord, server: &Address, flow: u64, generation: u32) {
    set_flow(record, flow, generation, 0);
    let to = core::ptr::from_ref(record).cast_mut();
    // SAFETY: whole words of map memory, which others may read.
    unsafe {
        (&raw mut (*to).asked).write_volatile(server.words);
        (&raw mut (*to).asked_is_v4).write_volatile(u32::from(server.is_v4));
        (&raw mut (*to).flags).write_volatile(socket_flag::ASKING);
    }
}

/// Whether what was last sent through it was decided under this policy.
#[inline(always)]
pub fn is_of(record: &SocketRecord, generation: u32) -> bool {
    // SAFETY: as above.
    generation != 0 && unsafe { (&raw const record.generation).read_volatile() } == generation
}

/// Notes which process uses it.
#[inline(always)]
pub fn set_maker(record: &SocketRecord, pid: u32) {
    let record = core::ptr::from_ref(record).cast_mut();
    // SAFETY: a whole word of map memory, which others may read.
    unsafe { (&raw mut (*record).pid).write_volatile(pid) };
}

/// Whether something is to be looked at in its packets: see [`crate::server_name`].
#[inline(always)]
pub fn is_read(record: &SocketRecord) -> bool {
    flags(record) & (socket_flag::READING | socket_flag::CUT) != 0
}

/// Whether it named a server that is not allowed.
#[inline(always)]
pub fn is_cut(record: &SocketRecord) -> bool {
    flags(record) & socket_flag::CUT != 0
}

#[inline(always)]
fn flags(record: &SocketRecord) -> u32 {
    // SAFETY: a read of map memory, which others may write.
    unsafe { (&raw const record.flags).read_volatile() }
}

/// Sets the flow that was decided for a socket; 0: none. Its peers are not let in any more.
/// `flags`: what is known of the flow. What was cut stays cut: asking to be connected somewhere
/// does not end a connection.
#[inline(always)]
pub fn set_flow(record: &SocketRecord, flow: u64, generation: u32, flags: u32) {
    let flags = flags | (self::flags(record) & socket_flag::CUT);
    set_settled(record, 0);
    let record = core::ptr::from_ref(record).cast_mut();
    // SAFETY: whole words of map memory, which others may read.
    unsafe {
        (&raw mut (*record).flags).write_volatile(flags);
        (&raw mut (*record).generation).write_volatile(generation);
        (&raw mut (*record).decided).write_volatile(flow);
    }
}

/// Whether a packet of the same connection was let through under this policy, and nothing is
/// to be looked at in the packets.
#[inline(always)]
pub fn is_settled(record: &SocketRecord, generation: u32) -> bool {
    const LOOKED_AT: u32 = socket_flag::ASKING | socket_flag::READING | socket_flag::CUT;
    // SAFETY: a read of map memory, which others may write.
    let settled = unsafe { (&raw const record.settled).read_volatile() };
    settled == generation && generation != 0 && flags(record) & LOOKED_AT == 0
}

/// Sets the generation under which a packet of its connection was let through; 0: of another
/// connection, nothing is known.
#[inline(always)]
pub fn set_settled(record: &SocketRecord, generation: u32) {
    let record = core::ptr::from_ref(record).cast_mut();
    // SAFETY: as above.
    unsafe { (&raw mut (*record).settled).write_volatile(generation) };
}

/// Sets the flow anew under another policy; what else is known of the socket stays.
#[inline(always)]
pub fn renew_flow(record: &SocketRecord, flow: u64, generation: u32) {
    let record = core::ptr::from_ref(record).cast_mut();
    // SAFETY: as above.
    unsafe {
        (&raw mut (*record).generation).write_volatile(generation);
        (&raw mut (*record).decided).write_volatile(flow);
    }
}

/// Sets what is known of a socket.
#[inline(always)]
pub fn set_flags(record: &SocketRecord, flags: u32) {
    let record = core::ptr::from_ref(record).cast_mut();
    // SAFETY: as above.
    unsafe { (&raw mut (*record).flags).write_volatile(flags) };
}
