//! [`Port`] on the real kernel.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use agentguard_common::counter::Counter;
use agentguard_common::event::{Fold, FoldKey, Header, Kind, flag};
use agentguard_common::flow::{FlowKey, NamedFlow};
use agentguard_common::identity::{EnrolRequest, RunRecord, Tag, policy_flag, run_state};
use agentguard_common::limits;
use agentguard_common::names::map;
use agentguard_common::resolver::{Asker, AskerKey, Grant, GrantKey, ResolverRecord};
use agentguard_common::verb::Verb;
use agentguard_common::verdict::{Mode, Verdict};
use aya::maps::{Map, MapData, RingBuf};

use super::banks::Banks;
use super::flows::Flows;
use super::load::{self, Loaded, failed};
use super::pins::{self, links_dir};
use super::server_names::ServerNames;
use super::table::Table;
use super::{
    Askers, DecisionCount, Fill, Hook, KernelError, KernelRun, LinkRow, Look, NewRun, Options,
    Port, Protection, RawRecord, programs, protections, sock_diag, sys,
};
use crate::decode;
use crate::policy::compile::Compiled;

pub use super::pins::unload;

/// The kernel side of a running daemon.
pub struct Bpf {
    /// Programs that are attached and detached as policies want it.
    object: aya::Ebpf,
    options: Options,
    hooks: Vec<Hook>,
    lsm_obstacle: Option<(String, String)>,
    host: super::probe::Host,
    banks: Banks,
    runs: Table<RunRecord>,
    decisions: Table<[u64; DECISION_SLOTS]>,
    counters: OwnedFd,
    live: OwnedFd,
    tasks: OwnedFd,
    enrol: OwnedFd,
    folds: OwnedFd,
    flows: Flows,
    grants: OwnedFd,
    /// What is in `grants`, for the daemon alone writes it.
    granted: HashSet<GrantKey>,
    server_names: ServerNames,
    askers: OwnedFd,
    resolver: Table<ResolverRecord>,
    denials: RingBuf<MapData>,
    audit: RingBuf<MapData>,
    linked: RingBuf<MapData>,
}

/// Counts of one agent: mode, verb, verdict.
const DECISION_SLOTS: usize = 2 * Verb::COUNT * Verdict::COUNT;

/// Loads the programs, or takes over what an earlier daemon left in force.
///
/// # Errors
/// The host lacks something essential, or the kernel refused a program.
pub fn open(options: &Options) -> Result<Bpf, KernelError> {
    let Loaded {
        mut object,
        hooks,
        lsm_obstacle,
        host,
    } = load::load(options)?;
    let maps = |name: &str| fd(&object, name);
    let banks = Banks::open(&maps)?;
    let runs = Table::map(maps(map::RUNS)?, limits::RUNS)
        .map_err(|error| failed("mapping RUNS", &error))?;
    let decisions = Table::map(maps(map::DECISIONS)?, limits::AGENTS)
        .map_err(|error| failed("mapping DECISIONS", &error))?;
    let (counters, live) = (maps(map::COUNTERS)?, maps(map::LIVE)?);
    let (tasks, enrol) = (maps(map::TASKS)?, maps(map::ENROL)?);
    let folds = maps(map::FOLDS)?;
    let flows = Flows::new(
        maps(map::FLOWS)?,
        maps(map::DATAGRAMS)?,
        links_dir(options).join("flows"),
    );
    let server_names = ServerNames::new(maps(map::SERVER_NAMES)?);
    let (grants, askers) = (maps(map::GRANTS)?, maps(map::ASKERS)?);
    let granted = sys::keys(grants.as_fd())
        .map_err(|error| failed("reading what runs were given for names", &error))?;
    let resolver =
        Table::map(maps(map::RESOLVER)?, 1).map_err(|error| failed("mapping RESOLVER", &error))?;
    let denials = ring(&mut object, map::DENIALS)?;
    let audit = ring(&mut object, map::AUDIT)?;
    let linked = ring(&mut object, map::LINKED)?;
    Ok(Bpf {
        object,
        options: options.clone(),
        hooks,
        lsm_obstacle,
        host,
        banks,
        runs,
        decisions,
        counters,
        live,
        tasks,
        enrol,
        folds,
        flows,
        grants,
        granted: granted.into_iter().collect(),
        server_names,
        askers,
        resolver,
        denials,
        audit,
        linked,
    })
}

/// A file descriptor of a map of its own, whatever type aya takes it for.
pub(super) fn fd(object: &aya::Ebpf, name: &str) -> Result<OwnedFd, KernelError> {
    let Some(
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::SkStorage(data)
        | Map::RingBuf(data)
        | Map::Unsupported(data),
    ) = object.map(name)
    else {
        return Err(missing(name));
    };
    data.fd()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| failed(&format!("keeping map {name}"), &error))
}

fn ring(object: &mut aya::Ebpf, name: &str) -> Result<RingBuf<MapData>, KernelError> {
    let map = object.take_map(name).ok_or_else(|| missing(name))?;
    RingBuf::try_from(map).map_err(|error| failed(&format!("opening ring {name}"), &error))
}

fn missing(name: &str) -> KernelError {
    KernelError::Failed {
        what: format!("finding map {name}"),
        cause: "the built-in kernel object does not have it in the expected form".to_owned(),
        next: "rebuild it: cargo xtask build-ebpf".to_owned(),
    }
}

impl Bpf {
    /// The record of a run, if the tag's run still has its slot.
    fn run(&self, tag: Tag) -> Result<RunRecord, KernelError> {
        match self.runs.get(tag.run) {
            Some(run) if run.serial == tag.run_serial => Ok(run),
            _ => Err(KernelError::Failed {
                what: format!("finding run {} in the kernel", tag.run_serial),
                cause: "its slot belongs to another run".to_owned(),
                next: "list live runs with `agentguard runs list`".to_owned(),
            }),
        }
    }
}

impl Port for Bpf {
    fn protections(&self) -> Vec<Protection> {
        let attached = |name: &str| {
            self.hooks
                .iter()
                .any(|hook| hook.program == name && hook.attached)
        };
        protections::describe(self.lsm_obstacle.as_ref(), &self.host, &attached)
    }

    fn hooks(&self) -> Vec<Hook> {
        self.hooks.clone()
    }

    fn needs_landlock(&self) -> bool {
        self.lsm_obstacle.is_some()
    }

    fn put_policy(&mut self, policy: &Compiled) -> Result<(), KernelError> {
        let names = policy
            .agents
            .iter()
            .any(|agent| agent.record.flags & policy_flag::NAMES != 0);
        self.server_names.write(policy)?;
        // Where LSM programs are refused they decide as well, and stay.
        let follows = self.lsm_obstacle.is_none();
        // Before the first question, and until the last policy that has names is gone.
        if follows && names {
            pins::follow_names(&mut self.object, &self.options, &mut self.hooks, true)?;
        }
        self.banks.put(policy)?;
        if follows && !names {
            pins::follow_names(&mut self.object, &self.options, &mut self.hooks, false)?;
        }
        if let Err(error) = self.server_names.keep_only(policy.generation) {
            tracing::error!("{error}");
        }
        Ok(())
    }

    fn start_run(&mut self, run: &NewRun) -> Result<Tag, KernelError> {
        // Slot 0 is left free, so that a zeroed tag never names a run.
        let free = (1..limits::RUNS).find(|slot| {
            self.runs
                .get(*slot)
                .is_some_and(|run| run.state == run_state::FREE)
        });
        let Some(slot) = free else {
            return Err(KernelError::Limit {
                what: "live runs",
                limit: u64::from(limits::RUNS - 1),
                next: "end runs, see `agentguard runs list`",
            });
        };
        // Serial numbers grow with the boot clock: unique even over daemons.
        let serial = sys::boot_time().max(1);
        let record = RunRecord {
            serial,
            lease_until: run.lease_until,
            id: *run.id.as_bytes(),
            state: run_state::ACTIVE,
            agent: run.agent,
            ..RunRecord::default()
        };
        self.runs.set(slot, record);
        Ok(Tag {
            agent: run.agent,
            run: slot,
            run_serial: serial,
        })
    }

    fn enrol(&mut self, tag: Tag, pid: u32, pidfd: BorrowedFd<'_>) -> Result<(), KernelError> {
        let refuse = |reason: String| Err(KernelError::Enrol { pid, reason });
        match self.tag_of(pidfd)? {
            Some(old) if old == tag => return Ok(()),
            Some(_) => return refuse("it already belongs to a run".to_owned()),
            None => {}
        }
        let request = EnrolRequest {
            tag,
            tgid: pid,
            ..EnrolRequest::default()
        };
        // A task storage lookup may miss for a moment on older kernels; the iterator
        // then counts a failure and is asked again.
        for _ in 0..16 {
            self.ask_iterator(&request)?;
            let answer: Option<EnrolRequest> = sys::lookup(self.enrol.as_fd(), &0u32)
                .map_err(|error| failed("reading the answer of the enrolment", &error))?;
            let done = answer.is_some_and(|answer| answer.failed == 0);
            if done && self.tag_of(pidfd)? == Some(tag) {
                return self.ask_iterator(&EnrolRequest::default());
            }
        }
        self.ask_iterator(&EnrolRequest::default())?;
        refuse("it ended, or the kernel could not tag every thread of it".to_owned())
    }

    fn tag_of(&self, pidfd: BorrowedFd<'_>) -> Result<Option<Tag>, KernelError> {
        let found: Option<Tag> = sys::lookup(self.tasks.as_fd(), &pidfd.as_raw_fd())
            .map_err(|error| failed("reading a task's tag", &error))?;
        Ok(found.filter(Tag::is_set))
    }

    fn set_run_state(&mut self, tag: Tag, state: u32) -> Result<(), KernelError> {
        self.run(tag)?;
        if let Some(slot) = self.runs.atomic_u32(tag.run, offset_of!(RunRecord, state)) {
            slot.store(state, Ordering::SeqCst);
        }
        Ok(())
    }

    fn end_run(&mut self, tag: Tag) -> Result<(), KernelError> {
        let run = self.run(tag)?;
        if run.tasks > 0 {
            return Err(KernelError::Failed {
                what: format!("freeing the slot of run {}", tag.run_serial),
                cause: format!("{} tasks are still in it", run.tasks),
                next: "wait for them to end".to_owned(),
            });
        }
        self.runs.set(tag.run, RunRecord::default());
        Ok(())
    }

    fn runs(&self) -> Vec<KernelRun> {
        (1..limits::RUNS)
            .filter_map(|slot| self.runs.get(slot).map(|run| (slot, run)))
            .filter(|(_, run)| run.state != run_state::FREE)
            .map(|(slot, run)| KernelRun {
                slot,
                serial: run.serial,
                id: uuid::Uuid::from_bytes(run.id),
                agent: run.agent,
                tasks: run.tasks,
                events: run.events,
                lost: run.lost,
                denials: run.denials,
                folded: run.folded,
                first_lost: run.first_lost,
                last_lost: run.last_lost,
                state: run.state,
                lease_until: run.lease_until,
            })
            .collect()
    }

    fn take_repeats(&mut self) -> Vec<(FoldKey, Fold)> {
        sys::take_all(self.folds.as_fd()).unwrap_or_else(|error| {
            tracing::error!("the counts of repeated decisions cannot be read: {error}");
            Vec::new()
        })
    }

    fn take_flows(&mut self, look: Look) -> Vec<(FlowKey, NamedFlow)> {
        self.flows.take(look)
    }

    fn put_links(
        &mut self,
        links: &[LinkRow],
        replace: Option<&HashSet<u32>>,
    ) -> Result<usize, KernelError> {
        self.banks.put_links(links, replace)
    }

    fn generation(&self) -> u32 {
        self.banks.generation()
    }

    fn put_grants(&mut self, grants: &[(GrantKey, Grant)]) -> Result<(), KernelError> {
        let (keys, values): (Vec<GrantKey>, Vec<Grant>) = grants.iter().copied().unzip();
        // Also those that fail: some may be there.
        self.granted.extend(&keys);
        sys::update_batch(self.grants.as_fd(), &keys, &values)
            .map_err(|error| failed("writing what runs were given for names", &error))
    }

    fn remove_grants(&mut self, keys: &[GrantKey]) -> Result<(), KernelError> {
        for key in keys {
            sys::delete(self.grants.as_fd(), key)
                .map_err(|error| failed("removing what a run was given for names", &error))?;
            self.granted.remove(key);
        }
        Ok(())
    }

    fn grants(&self) -> Result<Vec<(GrantKey, Grant)>, KernelError> {
        let broken = |error| failed("reading what runs were given for names", &error);
        let mut found = Vec::new();
        for key in sys::keys::<GrantKey>(self.grants.as_fd()).map_err(broken)? {
            let grant = sys::lookup(self.grants.as_fd(), &key).map_err(broken)?;
            found.extend(grant.map(|grant| (key, grant)));
        }
        Ok(found)
    }

    fn askers(&self) -> Result<Arc<dyn Askers>, KernelError> {
        let copy = self.askers.try_clone();
        copy.map(|fd| Arc::new(AskerMap(fd)) as Arc<dyn Askers>)
            .map_err(|error| failed("keeping map ASKERS", &error))
    }

    fn set_resolver(&mut self, record: &ResolverRecord) -> Result<(), KernelError> {
        self.resolver.set(0, *record);
        Ok(())
    }

    fn decisions(&self) -> Vec<DecisionCount> {
        let mut counts = Vec::new();
        for agent in 0..limits::AGENTS {
            let Some(slots) = self.decisions.get(agent) else {
                continue;
            };
            for (index, count) in slots.iter().enumerate().filter(|(_, count)| **count != 0) {
                let verdict = Verdict::from_bits((index % Verdict::COUNT) as u8);
                let verb = Verb::from_u8((index / Verdict::COUNT % Verb::COUNT) as u8);
                let enforce = index / Verdict::COUNT / Verb::COUNT == 1;
                let mode = if enforce {
                    Mode::Enforce
                } else {
                    Mode::Observe
                };
                if let (Some(verb), Some(verdict)) = (verb, verdict) {
                    counts.push(DecisionCount {
                        agent,
                        verb,
                        verdict,
                        mode,
                        count: *count,
                    });
                }
            }
        }
        counts
    }

    fn counters(&self) -> Vec<u64> {
        let mut counters: Vec<u64> = (0..Counter::COUNT as u32)
            .map(|index| {
                sys::lookup(self.counters.as_fd(), &index)
                    .ok()
                    .flatten()
                    .unwrap_or(0)
            })
            .collect();
        if let Some(missed) = counters.get_mut(Counter::ProgramMissed as usize) {
            *missed = programs::missed(&self.object);
        }
        counters
    }

    fn fills(&self) -> Vec<Fill> {
        let mut fills = self.banks.fills();
        let used = self.runs().len() as u64;
        fills.push(Fill {
            map: map::RUNS,
            used,
            limit: u64::from(limits::RUNS - 1),
        });
        fills.push(Fill {
            map: map::TASKS,
            used: self.tagged_tasks(),
            limit: u64::from(limits::TASKS),
        });
        fills.push(Fill {
            map: map::GRANTS,
            used: self.granted.len() as u64,
            limit: u64::from(limits::GRANTS),
        });
        fills.push(self.server_names.fill());
        fills
    }

    fn tagged_tasks(&self) -> u64 {
        let live: Option<i64> = sys::lookup(self.live.as_fd(), &0u32).ok().flatten();
        live.unwrap_or(0).max(0).unsigned_abs()
    }

    fn ring_fds(&self) -> Vec<RawFd> {
        let rings = [&self.denials, &self.linked, &self.audit];
        rings.map(AsRawFd::as_raw_fd).to_vec()
    }

    fn drain(&mut self, at_most: usize, into: &mut Vec<RawRecord>) {
        let upto = into.len() + at_most;
        for ring in [&mut self.denials, &mut self.linked, &mut self.audit] {
            while into.len() < upto
                && let Some(record) = ring.next()
            {
                let record = parse(&record);
                if let Some(record) = &record {
                    end_if_cut(record);
                }
                into.extend(record);
            }
        }
    }
}

/// Ends a connection that was cut for the server that it names. Nothing of it leaves any
/// more; this tells the program so.
fn end_if_cut(record: &RawRecord) {
    let cut = record.header.kind == Kind::ServerName as u8
        && record.header.flags & flag::NOT_BLOCKED == 0;
    let Some(connection) = decode::named(&record.tail).filter(|_| cut) else {
        return;
    };
    match sock_diag::destroy(&connection) {
        Ok(()) => {}
        // It is over, or of another network namespace.
        Err(error) if error.raw_os_error() == Some(nix::libc::ENOENT) => {}
        Err(error) => tracing::warn!(
            "a connection that was cut for the server that it names cannot be ended, its program \
             waits until TCP gives up: {error}"
        ),
    }
}

/// Map `ASKERS`.
struct AskerMap(OwnedFd);

impl Askers for AskerMap {
    fn get(&self, key: &AskerKey) -> Option<Asker> {
        sys::lookup(self.0.as_fd(), key).unwrap_or_else(|error| {
            tracing::error!("who asks the resolver cannot be read: {error}");
            None
        })
    }
}

impl Bpf {
    /// Writes the request and runs the iterator by reading its pin.
    fn ask_iterator(&self, request: &EnrolRequest) -> Result<(), KernelError> {
        sys::update_batch(self.enrol.as_fd(), &[0u32], &[*request])
            .map_err(|error| failed("asking for an enrolment", &error))?;
        if request.tgid == 0 {
            return Ok(());
        }
        let path = links_dir(&self.options).join("enrol");
        let mut text = Vec::new();
        File::open(&path)
            .and_then(|mut file| file.read_to_end(&mut text))
            .map_err(|error| failed(&format!("reading {}", path.display()), &error))?;
        Ok(())
    }
}

/// Cuts a ring record into header and tail. A record shorter than a header can
/// only come from another version of the programs; it is left out.
fn parse(bytes: &[u8]) -> Option<RawRecord> {
    let head = bytes.get(..size_of::<Header>())?;
    // SAFETY: enough bytes; Header is made of integers only, any bits are valid.
    let header: Header = unsafe { head.as_ptr().cast::<Header>().read_unaligned() };
    let tail = bytes.get(size_of::<Header>()..)?;
    let start = usize::from(header.tail_start);
    let tail = tail
        .get(start..start + usize::from(header.tail_len))
        .unwrap_or_default()
        .to_vec();
    Some(RawRecord { header, tail })
}
