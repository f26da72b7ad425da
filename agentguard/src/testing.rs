//! What the unit tests share: records, manifests, runs, and a kernel that is
//! not one.

use std::collections::{HashMap, HashSet, VecDeque};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use agentguard_common::counter::Counter;
use agentguard_common::event::{Fold, FoldKey, Header, Kind};
use agentguard_common::flow::{FlowKey, NamedFlow};
use agentguard_common::identity::{Tag, run_state};
use agentguard_common::limits::RUNS;
use agentguard_common::resolver::{Asker, AskerKey, Grant, GrantKey, ResolverRecord};
use agentguard_common::verb::Verb;
use agentguard_common::verdict::{Mode, Reason, Verdict};
use nix::sys::eventfd::EventFd;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::event::Identity;
use crate::kernel::{
    Askers, DecisionCount, Fill, Hook, KernelError, KernelRun, LinkRow, Look, NewRun, Port,
    Protection, ProtectionStatus, RawRecord,
};
use crate::policy::compile::Compiled;
use crate::policy::manifest::{
    Approvals, Authority, Environment, Limits, Location, Manifest, Mode as ManifestMode,
    Permissions,
};
use crate::runs::Run;

/// The identity of every record made here.
pub const TAG: Tag = Tag {
    agent: 0,
    run: 3,
    run_serial: 77,
};

/// A header of a denied operation.
pub fn header(kind: Kind) -> Header {
    Header {
        boot_ns: 1_000_000_000,
        run_seq: 1,
        cgroup: 42,
        inode: 4_711,
        fold: 0,
        tag: TAG,
        generation: 1,
        pid: 100,
        tid: 101,
        ppid: 99,
        uid: 1_000,
        device: 8,
        code: 0,
        count: 1,
        rule: 0,
        tail_len: 0,
        tail_start: 0,
        kind: kind as u8,
        verb: 0,
        verdict: Verdict::Deny as u8,
        reason: Reason::Rule as u8,
        mode: Mode::Enforce as u8,
        flags: 0,
        comm: *b"python3\0\0\0\0\0\0\0\0\0",
    }
}

/// A decision about a path.
pub fn path_record(verb: Verb, verdict: Verdict, path: &str) -> RawRecord {
    let mut header = header(Kind::Path);
    header.verb = verb as u8;
    header.verdict = verdict as u8;
    RawRecord {
        header,
        tail: path.as_bytes().to_vec(),
    }
}

/// A decision about a TCP address.
pub fn net_record(verb: Verb, verdict: Verdict, address: &str, port: u16) -> RawRecord {
    let mut header = header(Kind::Net);
    header.verb = verb as u8;
    header.verdict = verdict as u8;
    let address: std::net::IpAddr = address.parse().unwrap();
    let (words, family, is_v4) = match address {
        std::net::IpAddr::V4(v4) => ([v4.to_bits(), 0, 0, 0], 2_u16, 1_u8),
        std::net::IpAddr::V6(v6) => {
            let bits = v6.to_bits();
            let word = |shift: u32| (bits >> shift) as u32;
            ([word(96), word(64), word(32), word(0)], 10, 0)
        }
    };
    let mut tail = Vec::new();
    for word in words {
        tail.extend(word.to_ne_bytes());
    }
    tail.extend(port.to_ne_bytes());
    tail.extend(family.to_ne_bytes());
    tail.extend([0, is_v4]);
    tail.extend(6_u16.to_ne_bytes());
    RawRecord { header, tail }
}

/// A manifest without rules.
pub fn manifest(name: &str) -> Arc<Manifest> {
    Arc::new(manifest_of(name, |_| {}))
}

/// A manifest without rules, changed.
pub fn manifest_of(name: &str, change: impl FnOnce(&mut Manifest)) -> Manifest {
    let mut manifest = Manifest {
        name: name.to_owned(),
        description: None,
        owner: "team@example.com".to_owned(),
        environment: Environment::Production,
        authority: Authority::Service,
        mode: ManifestMode::Enforce,
        lease: Some(Duration::from_secs(7_200)),
        launch_users: Vec::new(),
        matches: Vec::new(),
        permissions: Permissions::default(),
        delegates: Vec::new(),
        limits: Limits::default(),
        approvals: Approvals::default(),
        tests: Vec::new(),
        version: format!("{name}-v1"),
        source: Location {
            file: Path::new("/etc/agentguard/agents.d/test.yaml").into(),
            line: 1,
            column: 1,
        },
    };
    change(&mut manifest);
    manifest
}

/// The identity of a run of this agent.
pub fn identity(agent: &str, id: Uuid) -> Identity {
    Identity {
        agent: agent.to_owned(),
        owner: "team@example.com".to_owned(),
        environment: "production".to_owned(),
        run: Some(id),
        parent_run: None,
        on_behalf_of: None,
        task: Some("TICKET-1".to_owned()),
        visible_to: None,
    }
}

/// A live run. Ids rise with the serial number.
pub fn run(agent: &str, serial: u64) -> Run {
    let id = Uuid::from_u128(0x0189_0a5d_ac96_774b_bcce_b302_0000_0000 + u128::from(serial));
    Run {
        id,
        agent_index: 0,
        slot: 3,
        serial,
        boot_id: "boot".to_owned(),
        identity: identity(agent, id),
        agent_version: format!("{agent}-v1"),
        started: Timestamp::from_nanos(1),
        uid: 1_000,
        started_by: "alice".to_owned(),
        pid: 100,
        command: vec!["true".to_owned()],
        lease_until: None,
        traceparent: String::new(),
        ended: None,
    }
}

/// A kernel in memory. Clones are the same kernel: a test keeps one and gives
/// the other to the engine.
#[derive(Clone)]
pub struct FakePort {
    state: Arc<Mutex<Fake>>,
    wake: Arc<EventFd>,
}

/// What a [`FakePort`] holds.
pub struct Fake {
    pub protections: Vec<Protection>,
    pub generations: Vec<u32>,
    pub runs: Vec<KernelRun>,
    pub tagged: Vec<(u32, Tag)>,
    pub decisions: Vec<DecisionCount>,
    pub counters: Vec<u64>,
    pub ring: VecDeque<RawRecord>,
    pub repeats: Vec<(FoldKey, Fold)>,
    /// Flows that wait to be collected.
    pub flows: Vec<(FlowKey, NamedFlow)>,
    pub links: Vec<LinkRow>,
    pub refuse_policy: Option<String>,
    pub refuse_enrol: Option<String>,
    pub grants: HashMap<GrantKey, Grant>,
    pub refuse_grants: Option<String>,
    /// The grants as they were when each policy came into force.
    pub grants_at: Vec<HashMap<GrantKey, Grant>>,
    pub askers: HashMap<AskerKey, Asker>,
    pub resolver: ResolverRecord,
    next_serial: u64,
}

impl FakePort {
    pub fn new() -> Self {
        let protection = |name| Protection {
            name,
            status: ProtectionStatus::Enforcing,
            detail: "works".to_owned(),
            fix: None,
        };
        let state = Fake {
            protections: ["identity", "files", "exec", "network"]
                .map(protection)
                .into(),
            generations: Vec::new(),
            runs: Vec::new(),
            tagged: Vec::new(),
            decisions: Vec::new(),
            counters: vec![0; Counter::COUNT],
            ring: VecDeque::new(),
            repeats: Vec::new(),
            flows: Vec::new(),
            links: Vec::new(),
            refuse_policy: None,
            refuse_enrol: None,
            grants: HashMap::new(),
            refuse_grants: None,
            grants_at: Vec::new(),
            askers: HashMap::new(),
            resolver: ResolverRecord::default(),
            next_serial: 77,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            wake: Arc::new(EventFd::new().unwrap()),
        }
    }

    pub fn state(&self) -> MutexGuard<'_, Fake> {
        self.state.lock().unwrap()
    }

    /// Puts records into the ring, and counts them for their runs.
    pub fn emit(&self, records: impl IntoIterator<Item = RawRecord>) {
        let mut state = self.state();
        for mut record in records {
            let serial = record.header.tag.run_serial;
            if let Some(run) = state.runs.iter_mut().find(|run| run.serial == serial) {
                run.events += 1;
                run.denials += u64::from(record.header.verdict != Verdict::Allow as u8);
                record.header.run_seq = run.events;
            }
            state.ring.push_back(record);
        }
        drop(state);
        self.wake.write(1).unwrap();
    }

    /// The last task of a run ends.
    pub fn exit_all(&self, serial: u64) {
        let mut state = self.state();
        let run = state
            .runs
            .iter_mut()
            .find(|run| run.serial == serial)
            .unwrap();
        run.tasks = 0;
        let tag = tag_of(run);
        drop(state);
        let mut header = header(Kind::RunEnded);
        header.tag = tag;
        header.verdict = Verdict::Allow as u8;
        self.emit([RawRecord {
            header,
            tail: Vec::new(),
        }]);
    }
}

fn tag_of(run: &KernelRun) -> Tag {
    Tag {
        agent: run.agent,
        run: run.slot,
        run_serial: run.serial,
    }
}

/// The process id behind a pidfd, as `/proc` says it; 0 where it has ended (`-1` there).
fn pid_of(pidfd: BorrowedFd<'_>) -> u32 {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let text = std::fs::read_to_string(path).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Pid:"))
        .unwrap();
    let pid: i64 = line.trim().parse().unwrap();
    u32::try_from(pid).unwrap_or(0)
}

/// A pidfd of a process.
pub fn pidfd(pid: u32) -> OwnedFd {
    crate::control::peer::pidfd_open(pid).unwrap()
}

impl Port for FakePort {
    fn protections(&self) -> Vec<Protection> {
        self.state().protections.clone()
    }

    fn hooks(&self) -> Vec<Hook> {
        vec![Hook {
            program: "file_open",
            attach: "file_open",
            attached: true,
            reason: None,
        }]
    }

    fn needs_landlock(&self) -> bool {
        false
    }

    fn put_policy(&mut self, policy: &Compiled) -> Result<(), KernelError> {
        let mut state = self.state();
        if let Some(cause) = &state.refuse_policy {
            return Err(KernelError::Failed {
                what: "put the policy in force".to_owned(),
                cause: cause.clone(),
                next: "try again".to_owned(),
            });
        }
        state.generations.push(policy.generation);
        let grants = state.grants.clone();
        state.grants_at.push(grants);
        Ok(())
    }

    fn start_run(&mut self, run: &NewRun) -> Result<Tag, KernelError> {
        let mut state = self.state();
        let serial = state.next_serial;
        state.next_serial += 1;
        let slot = (0..RUNS)
            .find(|slot| state.runs.iter().all(|run| run.slot != *slot))
            .unwrap();
        let run = KernelRun {
            slot,
            serial,
            id: run.id,
            agent: run.agent,
            tasks: 0,
            events: 0,
            lost: 0,
            denials: 0,
            folded: 0,
            first_lost: 0,
            last_lost: 0,
            state: run_state::ACTIVE,
            lease_until: run.lease_until,
        };
        let tag = tag_of(&run);
        state.runs.push(run);
        Ok(tag)
    }

    fn enrol(&mut self, tag: Tag, pid: u32, pidfd: BorrowedFd<'_>) -> Result<(), KernelError> {
        let mut state = self.state();
        let reason = match &state.refuse_enrol {
            Some(reason) => Some(reason.clone()),
            None if pid_of(pidfd) != pid => Some("the process id was reused".to_owned()),
            None => None,
        };
        if let Some(reason) = reason {
            return Err(KernelError::Enrol { pid, reason });
        }
        let run = state
            .runs
            .iter_mut()
            .find(|run| run.serial == tag.run_serial)
            .unwrap();
        run.tasks += 1;
        state.tagged.push((pid, tag));
        Ok(())
    }

    fn tag_of(&self, pidfd: BorrowedFd<'_>) -> Result<Option<Tag>, KernelError> {
        let pid = pid_of(pidfd);
        Ok(self
            .state()
            .tagged
            .iter()
            .find(|(tagged, _)| *tagged == pid)
            .map(|(_, tag)| *tag))
    }

    fn set_run_state(&mut self, tag: Tag, state: u32) -> Result<(), KernelError> {
        let mut fake = self.state();
        let run = fake
            .runs
            .iter_mut()
            .find(|run| run.serial == tag.run_serial)
            .unwrap();
        run.state = state;
        Ok(())
    }

    fn end_run(&mut self, tag: Tag) -> Result<(), KernelError> {
        self.state().runs.retain(|run| run.serial != tag.run_serial);
        Ok(())
    }

    fn runs(&self) -> Vec<KernelRun> {
        self.state().runs.clone()
    }

    fn take_repeats(&mut self) -> Vec<(FoldKey, Fold)> {
        std::mem::take(&mut self.state().repeats)
    }

    fn take_flows(&mut self, _look: Look) -> Vec<(FlowKey, NamedFlow)> {
        std::mem::take(&mut self.state().flows)
    }

    fn put_links(
        &mut self,
        links: &[LinkRow],
        _replace: Option<&HashSet<u32>>,
    ) -> Result<usize, KernelError> {
        self.state().links.extend_from_slice(links);
        Ok(0)
    }

    fn generation(&self) -> u32 {
        self.state().generations.last().copied().unwrap_or(0)
    }

    fn put_grants(&mut self, grants: &[(GrantKey, Grant)]) -> Result<(), KernelError> {
        let mut state = self.state();
        if let Some(cause) = &state.refuse_grants {
            return Err(KernelError::Failed {
                what: "write grants".to_owned(),
                cause: cause.clone(),
                next: "try again".to_owned(),
            });
        }
        state.grants.extend(grants.iter().copied());
        Ok(())
    }

    fn remove_grants(&mut self, keys: &[GrantKey]) -> Result<(), KernelError> {
        let mut state = self.state();
        for key in keys {
            state.grants.remove(key);
        }
        Ok(())
    }

    fn grants(&self) -> Result<Vec<(GrantKey, Grant)>, KernelError> {
        let state = self.state();
        Ok(state
            .grants
            .iter()
            .map(|(key, grant)| (*key, *grant))
            .collect())
    }

    fn askers(&self) -> Result<Arc<dyn Askers>, KernelError> {
        Ok(Arc::new(self.clone()))
    }

    fn set_resolver(&mut self, record: &ResolverRecord) -> Result<(), KernelError> {
        self.state().resolver = *record;
        Ok(())
    }

    fn decisions(&self) -> Vec<DecisionCount> {
        self.state().decisions.clone()
    }

    fn counters(&self) -> Vec<u64> {
        self.state().counters.clone()
    }

    fn fills(&self) -> Vec<Fill> {
        vec![Fill {
            map: "RUNS",
            used: self.state().runs.len() as u64,
            limit: u64::from(RUNS),
        }]
    }

    fn tagged_tasks(&self) -> u64 {
        self.state().runs.iter().map(|run| run.tasks as u64).sum()
    }

    fn ring_fds(&self) -> Vec<RawFd> {
        vec![self.wake.as_raw_fd()]
    }

    fn drain(&mut self, at_most: usize, into: &mut Vec<RawRecord>) {
        let mut state = self.state();
        let count = state.ring.len().min(at_most);
        into.extend(state.ring.drain(..count));
    }
}

impl Askers for FakePort {
    fn get(&self, key: &AskerKey) -> Option<Asker> {
        self.state().askers.get(key).copied()
    }
}
