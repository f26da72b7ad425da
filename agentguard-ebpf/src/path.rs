//! From a kernel name to a verdict row: the names are read from the root of the
//! file system down, so that mounts, `chroot` and namespaces do not matter.

use agentguard_common::decision;
use agentguard_common::identity::PolicyRecord;
use agentguard_common::limits::{NAME_BYTES, PATH_DEPTH};
use agentguard_common::path::{
    self, ABSTRACT_NAMES, DEAD, LinkKey, Name, PathRow, PathState, PathTables, Position, Rows, StartKey, TransitionKey,
    state_flag,
};
use agentguard_common::verdict::Reason;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

use crate::kernel::{AbstractName, Dentry, Inode, S_IFCHR};
use crate::kept;
use crate::place::{self, Reached};
use crate::verifier;
use crate::maps::{GLOB_STATES, LINKS, PATH_ROWS, PATH_STARTS, PATH_STATES, PATH_TRANSITIONS};

/// `SB_KERNMOUNT`: a file system that only the kernel mounts (pipes, memfd): its
/// objects have no name that a rule could mean.
const SB_KERNMOUNT: u64 = 1 << 22;

/// What a path leads to.
pub enum Found {
    /// The rows that the automata end in: fixed, deep.
    Rows(*const PathRow, *const PathRow),
    /// Something every program needs and no rule is about.
    Builtin,
}

/// Finds the rows of a name under a policy.
#[inline(always)]
pub fn rows(policy: &PolicyRecord, dentry: Dentry) -> Result<Found, Reason> {
    if is_builtin(dentry) {
        return Ok(Found::Builtin);
    }
    let at = position(policy, dentry)?;
    match (row_of(at.fixed), row_of(at.deep)) {
        (Some(fixed), Some(deep)) => Ok(Found::Rows(fixed, deep)),
        _ => Err(Reason::ReadFailed),
    }
}

/// Whether every program needs it and no rule is about it.
#[inline(always)]
pub fn is_builtin(dentry: Dentry) -> bool {
    let of = dentry.super_block();
    // Kernel file systems that anybody can mount are among those that it mounts itself.
    of.flags() & SB_KERNMOUNT != 0 && !of.is_of_settings() || is_harmless_device(dentry.inode())
}

/// The rows of an abstract name of a unix socket: one step of an automaton of its own.
#[inline(always)]
pub fn abstract_rows(policy: &PolicyRecord, name: AbstractName) -> Result<Rows<'static>, Reason> {
    let key = StartKey { starts: policy.starts, device: ABSTRACT_NAMES };
    // SAFETY: copied at once.
    let start = unsafe { PATH_STARTS.get(key) }.map_or(DEAD, |start| start.fixed);
    let end = take_name(u64::from(start), name.address, name.len);
    if end > u64::from(u32::MAX) {
        return Err(Reason::ReadFailed);
    }
    match (row_of(end as u32), row_of(DEAD)) {
        // SAFETY: checked for null; rows of a policy in force are not rewritten.
        (Some(fixed), Some(deep)) => Ok(unsafe { Rows { fixed: &*fixed, deep: &*deep } }),
        _ => Err(Reason::ReadFailed),
    }
}

/// What the other names of a file say about it, where not all are equally free.
#[inline(always)]
pub fn other_names(policy: &PolicyRecord, dentry: Dentry) -> Option<&'static PathRow> {
    let key = LinkKey {
        starts: policy.starts,
        device: dentry.super_block().device(),
        inode: dentry.inode_number(),
    };
    // SAFETY: not preallocated: a removed row stays readable until the program ends.
    unsafe { LINKS.get(key) }
}

/// What a move from one position to another would mean, both as [`find`] gives them.
/// 0: nothing; 1: the object, or with `directory` something below it, would be less
/// restricted; 2: the tables cannot be read.
///
/// A global function of plain numbers: verified once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentguard_moves(from: u64, to: u64, defaults: u32, directory: u32) -> u32 {
    if from > LAST_POSITION || to > LAST_POSITION {
        return 2;
    }
    let (old, new) = (unpack(from), unpack(to));
    let (Some(of), Some(od), Some(nf), Some(nd)) =
        (verdicts(old.fixed), verdicts(old.deep), verdicts(new.fixed), verdicts(new.deep))
    else {
        return 2;
    };
    if directory != 0 && sheds_rules(old, new) {
        return 1;
    }
    decision::gains([of, od], [nf, nd], defaults as u16) as u32
}

#[inline(always)]
fn verdicts(state: u32) -> Option<u16> {
    PATH_ROWS.get(PATH_STATES.get(state)?.row).map(|row| row.verdicts)
}

#[inline(always)]
fn sheds_rules(from: Position, to: Position) -> bool {
    (from.fixed != to.fixed && (has_rules_below(from.fixed) || has_rules_below(to.fixed)))
        || (from.deep != to.deep && (has_rules_below(from.deep) || has_rules_below(to.deep)))
}

/// Whether something below a position has stricter rules than it has itself.
#[inline(always)]
pub fn hides_rules(at: Position) -> bool {
    has_rules_below(at.fixed) || has_rules_below(at.deep)
}

#[inline(always)]
fn has_rules_below(state: u32) -> bool {
    // A state that cannot be read is taken to have some.
    PATH_STATES.get(state).is_none_or(|info| info.flags & state_flag::RULED_BELOW != 0)
}

/// Finds the position of a name under a policy.
#[inline(always)]
pub fn position(policy: &PolicyRecord, dentry: Dentry) -> Result<Position, Reason> {
    match find(policy, dentry) {
        TOO_DEEP => Err(Reason::TooDeep),
        found if found > LAST_POSITION => Err(Reason::ReadFailed),
        found => Ok(unpack(found)),
    }
}

#[inline(always)]
fn unpack(found: u64) -> Position {
    Position { fixed: (found >> 32) as u32, deep: found as u32 }
}

/// What [`find`] returns beside positions: states are far below 2³¹.
const LAST_POSITION: u64 = (u32::MAX as u64) << 31;
const UNREADABLE_NAME: u64 = u64::MAX;
const TOO_DEEP: u64 = u64::MAX - 1;

/// The position in one number: one step from the place of the name's directory.
///
/// Not inlined: hooks that ask for two names have one copy.
#[inline(never)]
pub fn find(policy: &PolicyRecord, dentry: Dentry) -> u64 {
    // The root of a file system is its own directory, and has no name to step through.
    let directory = dentry.parent();
    let above = place_of(policy, directory);
    if above >= TOO_DEEP {
        return above;
    }
    let above = Reached(above);
    if directory == dentry {
        return position_of(above);
    }
    if above.depth() >= PATH_DEPTH {
        return TOO_DEEP;
    }
    if directory.inode().folds_case() {
        return UNREADABLE_NAME;
    }
    let fixed = take(u64::from(above.fixed()), true, dentry);
    let deep = take(u64::from(above.deep()), true, dentry);
    if fixed > u64::from(u32::MAX) || deep > u64::from(u32::MAX) {
        return UNREADABLE_NAME;
    }
    fixed << 32 | deep
}

#[inline(always)]
fn position_of(reached: Reached) -> u64 {
    u64::from(reached.fixed()) << 32 | u64::from(reached.deep())
}

/// Where a directory is ([`Reached`] as a number, or why that is not known): as kept, or by
/// a walk, which is then kept.
///
/// Not inlined: its stack is free again before the last step.
#[inline(never)]
fn place_of(policy: &PolicyRecord, directory: Dentry) -> u64 {
    let renames = kept::renames();
    if let Some(reached) = place::recall(policy, directory, renames) {
        return reached.0;
    }
    match walk(policy, directory) {
        Ok(reached) => place::keep(policy, directory, renames, reached.0),
        Err(error) => error,
    }
}

/// Walks all names from the root of the file system down.
#[inline(always)]
fn walk(policy: &PolicyRecord, dentry: Dentry) -> Result<Reached, u64> {
    let super_block = dentry.super_block();
    let depth = verifier::forget(depth(dentry, super_block.root())?);
    let key = StartKey { starts: policy.starts, device: super_block.device() };
    // SAFETY: copied at once.
    let start = unsafe { PATH_STARTS.get(key) }.copied().unwrap_or(policy.unknown_start);
    let mut walk = Walk {
        dentry,
        left: depth,
        at: Position { fixed: verifier::forget(start.fixed), deep: verifier::forget(start.deep) },
        failed: 0,
    };
    if !verifier::repeat(PATH_DEPTH.div_ceil(LEVELS), walk_levels, &mut walk) || walk.failed != 0 {
        return Err(UNREADABLE_NAME);
    }
    Ok(Reached::new(walk.at, depth))
}

#[inline(always)]
fn row_of(state: u32) -> Option<*const PathRow> {
    PATH_ROWS.get_ptr(PATH_STATES.get(state)?.row)
}

/// Names that are read in one climb: as many as the stack has room for.
const LEVELS: u32 = 4;

/// A walk down from the root of a file system.
struct Walk {
    dentry: Dentry,
    /// Names still to be read.
    left: u32,
    at: Position,
    failed: u32,
}

/// Steps through the next [`LEVELS`] names. A climb from the file gives them from
/// below; they are kept and stepped through from above. Returns 1 to stop.
unsafe extern "C" fn walk_levels(_: u64, walk: *mut Walk) -> u64 {
    // SAFETY: the state that `walk` gave.
    let walk = unsafe { &mut *walk };
    let left = walk.left;
    if left == 0 || walk.at.is_dead() {
        return 1;
    }
    let count = if left < LEVELS { left } else { LEVELS };
    walk.left = verifier::forget(left - count);
    let n1 = ancestor(walk.dentry, left - count);
    let n2 = n1.parent();
    let n3 = n2.parent();
    let n4 = n3.parent();
    // A directory that folds case shows the name as somebody typed it: not the name.
    let folds = n1.parent().inode().folds_case()
        || count > 1 && n2.parent().inode().folds_case()
        || count > 2 && n3.parent().inode().folds_case()
        || count > 3 && n4.parent().inode().folds_case();
    if folds {
        walk.failed = 1;
        return 1;
    }
    let names = [n1, n2, n3, n4];
    let fixed = take_all(walk.at.fixed, count, &names);
    let deep = take_all(walk.at.deep, count, &names);
    if fixed > u64::from(u32::MAX) || deep > u64::from(u32::MAX) {
        walk.failed = 1;
        return 1;
    }
    walk.at = Position {
        fixed: verifier::forget(fixed as u32),
        deep: verifier::forget(deep as u32),
    };
    0
}

/// Steps one automaton through up to [`LEVELS`] names, the last of them first.
/// Written out: the compiler turns a loop over an array into one whose end the
/// verifier does not see.
#[inline(always)]
fn take_all(state: u32, count: u32, names: &[Dentry; LEVELS as usize]) -> u64 {
    let [n1, n2, n3, n4] = *names;
    let mut state = u64::from(state);
    state = take(state, count > 3, n4);
    state = take(state, count > 2, n3);
    state = take(state, count > 1, n2);
    take(state, true, n1)
}

/// One step, if there is such a level, a rule can still match, and no step failed.
#[inline(always)]
fn take(state: u64, there: bool, at: Dentry) -> u64 {
    // The name is read only where a rule can still match.
    if !there || state == u64::from(DEAD) || state > u64::from(u32::MAX) {
        return state;
    }
    agentguard_path_step(state as u32, at.name(), at.name_len())
}

#[inline(always)]
fn take_name(state: u64, address: u64, len: u32) -> u64 {
    if state == u64::from(DEAD) || state > u64::from(u32::MAX) {
        return state;
    }
    agentguard_path_step(state as u32, address, len)
}

/// Number of names between a dentry and the root of its file system. A dentry
/// whose topmost ancestor is not that root is not connected to it: unreadable.
#[inline(always)]
fn depth(dentry: Dentry, root: Dentry) -> Result<u32, u64> {
    let mut climb = Climb { at: dentry, depth: verifier::forget(0), at_root: 0 };
    if !verifier::repeat(PATH_DEPTH + 1, up_to_root, &mut climb) {
        return Err(UNREADABLE_NAME);
    }
    if climb.at_root == 0 {
        return Err(TOO_DEEP);
    }
    if climb.at != root {
        return Err(UNREADABLE_NAME);
    }
    Ok(climb.depth)
}

/// A way up the tree.
struct Climb {
    at: Dentry,
    depth: u32,
    at_root: u32,
}

unsafe extern "C" fn up_to_root(_: u64, climb: *mut Climb) -> u64 {
    // SAFETY: the state that `depth` gave.
    let climb = unsafe { &mut *climb };
    let parent = climb.at.parent();
    if parent == climb.at {
        climb.at_root = 1;
        return 1;
    }
    climb.at = parent;
    climb.depth = verifier::forget(climb.depth + 1);
    0
}

/// The ancestor `up` names above a dentry.
#[inline(always)]
fn ancestor(dentry: Dentry, up: u32) -> Dentry {
    let mut climb = Climb { at: dentry, depth: 0, at_root: 0 };
    if up != 0 {
        verifier::repeat(up, one_up, &mut climb);
    }
    climb.at
}

unsafe extern "C" fn one_up(_: u64, climb: *mut Climb) -> u64 {
    // SAFETY: the state that `ancestor` gave.
    let climb = unsafe { &mut *climb };
    climb.at = climb.at.parent();
    0
}

/// `/dev/null`, `zero`, `full`, `random`, `urandom`, `tty`, `ptmx` and pseudo
/// terminals, by device number: their names differ between containers.
#[inline(always)]
fn is_harmless_device(inode: Inode) -> bool {
    if inode.kind() != S_IFCHR {
        return false;
    }
    let device = inode.rdev();
    let (major, minor) = (device >> 20, device & 0xf_ffff);
    match major {
        1 => matches!(minor, 3 | 5 | 7 | 8 | 9),
        5 => matches!(minor, 0 | 2),
        136..=143 => true,
        _ => false,
    }
}

/// One step of the automaton.
///
/// A global function with scalar arguments: the verifier checks it once, not
/// once per level of the walk. Returns the next state, or more than 32 bits if
/// the name cannot be read.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentguard_path_step(state: u32, name: u64, len: u32) -> u64 {
    if len == 0 || len > NAME_BYTES as u32 {
        return u64::MAX;
    }
    match path::step(&KernelTables, state, &KernelName { address: name, len }) {
        Ok(next) => u64::from(next),
        Err(path::Unreadable) => u64::MAX,
    }
}

/// The exact child of a state: its state, [`NO_CHILD`], or more if the name cannot be
/// read. Global for the same reason.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentguard_exact(state: u32, name: u64, len: u32) -> u64 {
    if len == 0 || len > NAME_BYTES as u32 {
        return u64::MAX;
    }
    match path::exact(&KernelTables, state, &KernelName { address: name, len }) {
        Ok(Some(next)) => u64::from(next),
        Ok(None) => NO_CHILD,
        Err(path::Unreadable) => u64::MAX,
    }
}

/// No state has this number.
const NO_CHILD: u64 = 1 << 32;

/// Runs a name through a byte automaton: the class, 0 for none, `u32::MAX` if
/// the name cannot be read. Global for the same reason.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentguard_glob_class(start: u32, name: u64, len: u32) -> u32 {
    let mut run = GlobRun { address: name, len, state: start };
    // Most names end in the first part: that one without a helper call.
    // SAFETY: the context that a loop would give.
    if unsafe { glob_part(0, &mut run) } == 0 && len > GLOB_PART {
        run.address += u64::from(GLOB_PART);
        run.len -= GLOB_PART;
        if !verifier::repeat(run.len.div_ceil(GLOB_PART), glob_part, &mut run) {
            return u32::MAX;
        }
    }
    match GLOB_STATES.get(run.state) {
        Some(end) => end.class,
        // Also where the name could not be read.
        None => u32::MAX,
    }
}

/// State of a run whose name could not be read: beyond every table.
const UNREADABLE: u32 = u32::MAX;
/// Bytes of a name that are read at once: whole words.
const GLOB_PART: u32 = 24;

/// A byte automaton on its way through a name.
#[repr(C)]
struct GlobRun {
    address: u64,
    len: u32,
    state: u32,
}

/// The body of the loop: one part of the name. Returns 1 to stop.
#[inline(never)]
unsafe extern "C" fn glob_part(index: u64, run: *mut GlobRun) -> u64 {
    // SAFETY: the context that `agentguard_glob_class` gave.
    let run = unsafe { &mut *run };
    let offset = (index as u32) * GLOB_PART;
    if offset >= run.len {
        return 1;
    }
    let rest = run.len - offset;
    let mut left = if rest < GLOB_PART { rest } else { GLOB_PART };
    let from = (run.address + u64::from(offset)) as *const core::ffi::c_void;
    let bytes = verifier::bounded::<31>(u64::from(left)) as u32;
    let mut room = verifier::zeroed();
    // SAFETY: fewer than 32 bytes go into 32; the helper does not fault.
    if unsafe { bpf_probe_read_kernel((&raw mut room).cast(), bytes, from) } != 0 {
        run.state = UNREADABLE;
        return 1;
    }
    let mut state = run.state;
    for mut word in [room[0], room[1], room[2]] {
        for _ in 0..8 {
            if left == 0 {
                break;
            }
            left -= 1;
            let Some(row) = GLOB_STATES.get(state) else {
                run.state = UNREADABLE;
                return 1;
            };
            state = u32::from(row.next[(word & 0xff) as usize]);
            word >>= 8;
        }
    }
    run.state = state;
    // Dead: no pattern can match any more.
    (state == 0) as u64
}

struct KernelTables;

impl PathTables for KernelTables {
    #[inline(always)]
    fn state(&self, state: u32) -> Option<PathState> {
        PATH_STATES.get(state).copied()
    }

    #[inline(always)]
    fn transition(&self, key: &TransitionKey) -> Option<u32> {
        // SAFETY: copied at once.
        unsafe { PATH_TRANSITIONS.get(key) }.copied()
    }

    #[inline(always)]
    fn named(&self, state: u32, name: &impl Name) -> Result<Option<u32>, path::Unreadable> {
        match agentguard_exact(state, name.address(), name.len()) {
            NO_CHILD => Ok(None),
            next if next < NO_CHILD => Ok(Some(next as u32)),
            _ => Err(path::Unreadable),
        }
    }

    #[inline(always)]
    fn classify(&self, start: u32, name: &impl Name) -> u32 {
        agentguard_glob_class(start, name.address(), name.len())
    }
}

struct KernelName {
    address: u64,
    len: u32,
}

impl Name for KernelName {
    #[inline(always)]
    fn len(&self) -> u32 {
        self.len
    }

    #[inline(always)]
    fn address(&self) -> u64 {
        self.address
    }

    #[inline(always)]
    fn read(&self, offset: u32, count: u32) -> Option<TransitionKey> {
        let mut key = TransitionKey { words: verifier::zeroed() };
        let from = (self.address + u64::from(offset)) as *const core::ffi::c_void;
        let count = verifier::bounded::<31>(u64::from(count)) as u32;
        // SAFETY: fewer than 32 bytes go into 32; the helper does not fault.
        let failed =
            unsafe { bpf_probe_read_kernel(key.words.as_mut_ptr().cast(), count, from) };
        if failed == 0 { Some(key) } else { None }
    }
}
