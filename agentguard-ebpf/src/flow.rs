//! Flows: with whom agents' sockets exchange how much.
//!
//! TCP counts itself: what it counted is read when a connection ends, and every minute. The
//! bytes of datagrams are counted packet by packet.

use core::mem::MaybeUninit;

use agentguard_common::counter::Counter;
use agentguard_common::event::NetTail;
use agentguard_common::flow::{Flow, FlowKey, FlowSide, FlowState, NamedFlow, TOLD_EVERY};
use agentguard_common::identity::{PolicyRecord, RunRecord};
use agentguard_common::resolver::DNS_PORT;
use agentguard_common::socket::SocketRecord;
use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::generated::{bpf_get_current_pid_tgid, bpf_probe_read_kernel};

use crate::address::Destination;
use crate::kernel::Sock;
use crate::maps::{DATAGRAMS, FLOWS, READINGS};
use crate::{atomic, emit, enforce, hash, resolver, socket, verifier};

/// The running process.
#[inline(always)]
pub fn maker() -> u32 {
    // SAFETY: helper without arguments.
    (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32
}

/// A connection begins: its first packet is about to leave, or has come.
#[inline(always)]
pub fn began(own: &SocketRecord) {
    // It may go elsewhere than the one before.
    socket::set_settled(own, 0);
    let record = core::ptr::from_ref(own).cast_mut();
    // SAFETY: map memory; nobody else changes these while the connection is not there.
    unsafe {
        (*record).told_ns = 0;
        (*record).told_sent = 0;
        (*record).told_received = 0;
        (&raw mut (*record).began_ns).write_volatile(emit::now());
    }
}

/// A connection has ended. `failed`: it never came about.
#[inline(always)]
pub fn ended(own: &SocketRecord, sock: Sock, failed: bool) {
    // SAFETY: a read of map memory, which others may write.
    let began = unsafe { (&raw const own.began_ns).read_volatile() };
    if began != 0 {
        tell(own, sock, began, if failed { FlowState::Failed } else { FlowState::Closed });
        let record = core::ptr::from_ref(own).cast_mut();
        // SAFETY: a whole word of map memory.
        unsafe { (&raw mut (*record).began_ns).write_volatile(0) };
    }
}

/// A connection goes on: it is told of every minute, and when its run has ended.
#[inline(always)]
pub fn goes_on(own: &SocketRecord, sock: Sock) {
    // SAFETY: reads of map memory, which others may write.
    let (began, told) = unsafe {
        ((&raw const own.began_ns).read_volatile(), (&raw const own.told_ns).read_volatile())
    };
    if began == 0 {
        return;
    }
    let Some((_, run)) = living(own) else {
        return;
    };
    // SAFETY: map memory that outlives the program.
    let is_over = unsafe { (&raw const (*run).tasks).read_volatile() } <= 0;
    let last = if told == 0 { began } else { told };
    if is_over || emit::now().wrapping_sub(last) >= TOLD_EVERY {
        tell(own, sock, began, FlowState::Open);
    }
}

/// The records of a socket's run, which may be gone.
#[inline(always)]
fn living(own: &SocketRecord) -> Option<(&'static PolicyRecord, *mut RunRecord)> {
    let (policy, run) = enforce::records(&own.tag)?;
    // SAFETY: map memory that outlives the program.
    let serial = unsafe { (&raw const (*run).serial).read_volatile() };
    if serial == own.tag.run_serial { Some((policy, run)) } else { None }
}

/// Puts what happened since the last time into the record of such flows. (Inlined: what it
/// puts together is most of what a stack can hold.)
#[inline(always)]
fn tell(own: &SocketRecord, sock: Sock, began: u64, state: FlowState) {
    let Some((policy, run)) = living(own) else {
        return;
    };
    let mut room = MaybeUninit::uninit();
    let value = emptied(&mut room);
    let Some(with) = sock.peer() else {
        return emit::untold(run, Counter::FlowUntold);
    };
    value.flow.with = met(own, &with);
    let Some((sent, received)) = sock.exchanged() else {
        return emit::untold(run, Counter::FlowUntold);
    };
    let flow = &mut value.flow;
    flow.first_ns = began;
    flow.last_ns = emit::now();
    let record = core::ptr::from_ref(own).cast_mut();
    // SAFETY: map memory; what two tell at once is taken by one of them.
    unsafe {
        (&raw mut (*record).told_ns).write_volatile(flow.last_ns);
        let before = atomic::put(&raw mut (*record).told_sent, sent);
        flow.sent = sent.saturating_sub(before);
        let before = atomic::put(&raw mut (*record).told_received, received);
        flow.received = received.saturating_sub(before);
        flow.pid = (&raw const own.pid).read_volatile();
    }
    flow.count = 1;
    flow.agent = own.tag.agent;
    flow.generation = policy.generation;
    flow.state = state as u8;
    let side = if socket::is_inbound(own) { FlowSide::Inbound } else { FlowSide::Outbound };
    flow.side = side as u8;
    let how = u64::from(flow.pid) << 32 | u64::from(flow.state) << 8 | u64::from(flow.side);
    let mut what = place(&flow.with);
    what = hash::with(what, how);
    what = name(sock, value, what);
    // SAFETY: map memory, shared by atomics only.
    unsafe { atomic::add(&raw mut (*run).folded, 1) };
    let key = FlowKey { run_serial: own.tag.run_serial, what };
    if add(&key, &value.flow) || FLOWS.insert(&key, &*value, u64::from(BPF_NOEXIST)).is_ok() {
        return;
    }
    // Another processor was first, or there is no room.
    if !add(&key, &value.flow) {
        // SAFETY: as above.
        unsafe { atomic::add(&raw mut (*run).folded, u64::MAX) };
        emit::untold(run, Counter::FlowUntold);
    }
}

/// With whom a socket exchanges something: the server that it asked, where the daemon's
/// resolver answers.
#[inline(always)]
fn met(own: &SocketRecord, with: &Destination) -> NetTail {
    let mut tail = emit::net_tail(with);
    if socket::is_asking(own) && resolver::is_here(&with.address, with.port) {
        tail.address = own.asked;
        tail.port = DNS_PORT;
    }
    tail
}

/// A hash of a place.
#[inline(always)]
fn place(with: &NetTail) -> u64 {
    let [a, b, c, d] = with.address;
    let kind = u64::from(with.port)
        | u64::from(with.family) << 16
        | u64::from(with.protocol) << 32
        | u64::from(with.is_v4) << 48;
    let what = hash::with(hash::START, u64::from(a) << 32 | u64::from(b));
    let what = hash::with(what, u64::from(c) << 32 | u64::from(d));
    hash::with(what, kind)
}

/// Adds the server that the connection says it is for; a hash of everything.
#[inline(always)]
fn name(sock: Sock, value: &mut NamedFlow, mut what: u64) -> u64 {
    let reading = READINGS.get(socket::of(sock));
    // SAFETY: checked for null; socket storage lives as long as the program runs.
    if reading.is_null() || unsafe { (*reading).named_len } == 0 {
        return what;
    }
    // SAFETY: as above; the length is masked to what there is.
    unsafe {
        let len = verifier::bounded::<255>(u64::from((*reading).named_len));
        let from = (&raw const (*reading).named).cast::<core::ffi::c_void>();
        bpf_probe_read_kernel((&raw mut value.name).cast(), len as u32, from);
        value.name_len = len;
    }
    for word in 0..32 {
        // SAFETY: inside the name, which is aligned.
        let word = unsafe { (&raw const value.name).cast::<u64>().add(word).read() };
        what = hash::with(what, word);
    }
    what
}

/// A record with nothing in it. Zeroed word by word: the compiler would call a function that
/// does it byte by byte, which needs a stack of its own.
#[inline(always)]
fn emptied(room: &mut MaybeUninit<NamedFlow>) -> &mut NamedFlow {
    for word in 0..size_of::<NamedFlow>() / 8 {
        // SAFETY: inside the value, which consists of whole words.
        unsafe { room.as_mut_ptr().cast::<u64>().add(word).write_volatile(0) };
    }
    // SAFETY: made of integers, all of which were set.
    unsafe { room.assume_init_mut() }
}

/// Adds to a record of connections, if there is one.
#[inline(always)]
fn add(key: &FlowKey, flow: &Flow) -> bool {
    let Some(known) = FLOWS.get_ptr_mut(key) else {
        return false;
    };
    // SAFETY: map memory; counts are shared by atomics, and either of two times will do.
    unsafe {
        let known = &raw mut (*known).flow;
        atomic::add(&raw mut (*known).sent, flow.sent);
        atomic::add(&raw mut (*known).received, flow.received);
        atomic::add(&raw mut (*known).count, flow.count);
        if flow.first_ns < (*known).first_ns {
            (*known).first_ns = flow.first_ns;
        }
        (*known).last_ns = flow.last_ns;
    }
    true
}

/// A datagram leaves (`sent`), or has come.
#[inline(never)]
pub fn datagram(own: &SocketRecord, with: &Destination, bytes: u32, sent: bool) {
    let Some((policy, run)) = living(own) else {
        return;
    };
    let with = met(own, with);
    let bytes = u64::from(bytes);
    let (sent, received) = if sent { (bytes, 0) } else { (0, bytes) };
    // SAFETY: a read of map memory, which others may write.
    let pid = unsafe { (&raw const own.pid).read_volatile() };
    let what = hash::with(place(&with), u64::from(pid));
    let key = FlowKey { run_serial: own.tag.run_serial, what };
    let now = emit::now();
    if counted(&key, sent, received, now) {
        return;
    }
    let flow = Flow {
        first_ns: now,
        last_ns: now,
        sent,
        received,
        count: 1,
        agent: own.tag.agent,
        generation: policy.generation,
        pid,
        state: FlowState::Open as u8,
        side: FlowSide::None as u8,
        reserved: 0,
        with,
    };
    if DATAGRAMS.insert(&key, &flow, u64::from(BPF_NOEXIST)).is_ok() {
        // SAFETY: map memory, shared by atomics only.
        unsafe { atomic::add(&raw mut (*run).folded, 1) };
    } else if !counted(&key, sent, received, now) {
        emit::untold(run, Counter::FlowUntold);
    }
}

/// Adds to a record of datagrams, if there is one. (What is added in the moment in which the
/// daemon takes the record away is not told.)
#[inline(always)]
fn counted(key: &FlowKey, sent: u64, received: u64, now: u64) -> bool {
    let Some(known) = DATAGRAMS.get_ptr_mut(key) else {
        return false;
    };
    // SAFETY: map memory; counts are shared by atomics, and either of two times will do.
    unsafe {
        atomic::add(&raw mut (*known).sent, sent);
        atomic::add(&raw mut (*known).received, received);
        (*known).last_ns = now;
    }
    true
}
