//! From the committed object to attached, pinned programs.
//!
//! Maps are pinned and taken over by a later daemon, so tags, runs and counters
//! survive it. Links are pinned too, so the programs stay attached without it;
//! a later daemon attaches its own programs first and only then replaces the
//! pinned links, so there is no moment without a program.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use agentguard_common::names;
use aya::programs::links::FdLink;
use aya::programs::{BtfTracePoint, FEntry, Iter, Lsm};
use aya::{Ebpf, EbpfLoader};

use super::btf::{self, Btf};
use super::fields;
use super::pins::{
    WITHOUT_NAMES, links_dir, maps_dir, pin, pin_with, prepare_pins, remove_stale_links,
};
use super::probe::{self, Host};
use super::programs::{Attach, PROGRAMS, Program, Role};
use super::takeover::Takeover;
use super::{Hook, KernelError, Options, cgroup, sys};

/// The object that `cargo xtask build-ebpf` builds.
static OBJECT: &[u8] = aya::include_bytes_aligned!("agentguard.bpf.o");

/// Maps that are pinned: everything but constants.
pub const PINNED_MAPS: [&str; 34] = {
    use agentguard_common::names::map;
    [
        map::TASKS,
        map::TASKS_BY_ADDRESS,
        map::SOCKETS,
        map::GRANTS,
        map::SERVER_NAMES,
        map::READINGS,
        map::FLOWS,
        map::DATAGRAMS,
        map::ASKERS,
        map::RESOLVER,
        map::LIVE,
        map::ENROL,
        map::RUNS,
        map::MATCHES,
        map::MATCH_SETS,
        map::MATCH_USERS,
        map::DELEGATES,
        map::HEADS,
        map::POLICIES,
        map::PATH_STARTS,
        map::PATH_STATES,
        map::PATH_TRANSITIONS,
        map::PATH_ROWS,
        map::GLOB_STATES,
        map::LINKS,
        map::FOLDS,
        map::NET_NODES,
        map::NET_SETS,
        map::NET_PORTS,
        map::DENIALS,
        map::AUDIT,
        map::LINKED,
        map::DECISIONS,
        map::COUNTERS,
    ]
};

/// Loaded and attached programs.
pub struct Loaded {
    /// Maps; the programs stay by their pinned links.
    pub object: Ebpf,
    /// Every program of the object and whether it is attached.
    pub hooks: Vec<Hook>,
    /// Why LSM programs are not attached, and what would change that.
    pub lsm_obstacle: Option<(String, String)>,
    /// What was found about the host.
    pub host: Host,
}

/// Loads, attaches and pins everything that this host takes.
///
/// # Errors
/// A host without BTF or bpffs, or a program that must load and does not.
pub fn load(options: &Options) -> Result<Loaded, KernelError> {
    let host = Host::look();
    let types = Btf::read(Path::new(btf::VMLINUX)).map_err(|error| KernelError::Failed {
        what: "reading the kernel's type information".to_owned(),
        cause: error.to_string(),
        next: "use a kernel with CONFIG_DEBUG_INFO_BTF=y".to_owned(),
    })?;
    prepare_pins(options)?;
    let addresses = Addresses::find();
    let mut lsm_obstacle = host.lsm_obstacle();
    let aya_btf = aya::Btf::from_sys_fs().map_err(|error| failed("reading BTF", &error))?;
    let takeover = take_over(options, &types, &host, &addresses)?;
    let mut object = open(
        Some(options),
        &types,
        &host,
        &addresses,
        lsm_obstacle.is_none(),
    )?;
    if lsm_obstacle.is_none() {
        lsm_obstacle = trial(&mut object, &aya_btf)?;
        if lsm_obstacle.is_some() {
            object = open(Some(options), &types, &host, &addresses, false)?;
        }
    }
    takeover.fill(&|name| super::bpf::fd(&object, name))?;
    let mut hooks = Vec::new();
    for program in &PROGRAMS {
        hooks.push(attach(
            &mut object,
            program,
            options,
            &types,
            &aya_btf,
            &lsm_obstacle,
        )?);
    }
    drop(aya_btf);
    remove_stale_links(options, &hooks);
    takeover.finish(&|name| super::bpf::fd(&object, name))?;
    // The kernel's types took tens of megabytes for a moment; give them back.
    // SAFETY: malloc_trim only returns free memory to the kernel.
    #[cfg(target_env = "gnu")]
    unsafe {
        nix::libc::malloc_trim(0);
    }
    Ok(Loaded {
        object,
        hooks,
        lsm_obstacle,
        host,
    })
}

/// What the programs can do without, at a price that is told in the log; 0: not found.
#[derive(Default)]
struct Addresses {
    mount_namespace: u32,
    rename_lock: u64,
}

impl Addresses {
    fn find() -> Self {
        let mount_namespace = probe::mount_namespace().unwrap_or_else(|| {
            tracing::warn!(
                "the mount namespace of process 1 cannot be told: an agent's mounts are judged as \
                 if they were the host's, also in a namespace of its own"
            );
            0
        });
        let rename_lock = probe::symbol("rename_lock").unwrap_or_else(|| {
            tracing::warn!(
                "the address of the kernel's `rename_lock` is not to be had (CONFIG_KALLSYMS_ALL, \
                 and CAP_SYSLOG or /run/agentguard/symbols): an agent's file operations walk \
                 their whole paths, which is slower"
            );
            0
        });
        Self {
            mount_namespace,
            rename_lock,
        }
    }
}

/// Compares what an earlier daemon left with the maps of this version.
fn take_over(
    options: &Options,
    types: &Btf,
    host: &Host,
    addresses: &Addresses,
) -> Result<Takeover, KernelError> {
    if !maps_dir(options).join(names::map::RUNS).exists() {
        return Takeover::prepare(options, &[], &|name| Err(missing(name)));
    }
    let ours = open(None, types, host, addresses, true)?;
    Takeover::prepare(options, &PINNED_MAPS, &|name| super::bpf::fd(&ours, name))
}

/// Opens the object with this kernel's constants, taking over pinned maps.
fn open(
    pins: Option<&Options>,
    types: &Btf,
    host: &Host,
    addresses: &Addresses,
    lsm: bool,
) -> Result<Ebpf, KernelError> {
    let object = fields::resolve(OBJECT, types)
        .map_err(|error| failed("fitting the programs to this kernel", &error))?;
    let can_miss = u8::from(host.storage_can_miss || !lsm);
    let lsm = u8::from(lsm);
    let mut loader = EbpfLoader::new();
    // The object needs no relocation against the kernel's types.
    loader.btf(None).allow_unsupported_maps();
    loader.override_global("STORAGE_CAN_MISS", &can_miss, true);
    loader.override_global("HOST_MNT_NS", &addresses.mount_namespace, true);
    loader.override_global("RENAME_LOCK", &addresses.rename_lock, true);
    let seed = seed()?;
    loader.override_global("KEPT_SEED", &seed, true);
    loader.override_global("LSM_ATTACHED", &lsm, true);
    let sendpage = u8::from(types.has_function("kernel_sendpage"));
    loader.override_global("SENDPAGE", &sendpage, true);
    if let Some(options) = pins {
        let maps = maps_dir(options);
        for name in PINNED_MAPS {
            loader.map_pin_path(name, maps.join(name));
        }
    }
    loader.load(&object).map_err(|error| KernelError::Failed {
        what: "opening the kernel object".to_owned(),
        cause: chain(&error),
        next: "run as root; if another version of AgentGuard left incompatible maps, end its runs \
               and remove them with `agentguard daemon --unload`"
            .to_owned(),
    })
}

/// What the hashes of the tables of kept answers begin with.
fn seed() -> Result<u64, KernelError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| KernelError::Failed {
        what: "asking the kernel for random bytes".to_owned(),
        cause: error.to_string(),
        next: "this host gives none: see the kernel's log".to_owned(),
    })?;
    Ok(u64::from_ne_bytes(bytes))
}

/// What a trial without attaching anything showed.
pub struct Tried {
    /// Why LSM programs do not load, and what would change that.
    pub lsm_obstacle: Option<(String, String)>,
    /// Stand-in programs that load.
    pub works: Vec<&'static str>,
}

/// Loads one LSM program and the stand-ins into the kernel and forgets them.
#[must_use]
pub fn try_out(host: &Host) -> Tried {
    let tried = || -> Result<Tried, KernelError> {
        let types = Btf::read(Path::new(btf::VMLINUX))
            .map_err(|error| failed("reading the kernel's type information", &error))?;
        let aya_btf = aya::Btf::from_sys_fs().map_err(|error| failed("reading BTF", &error))?;
        let mut object = open(None, &types, host, &Addresses::default(), true)?;
        let lsm_obstacle = trial(&mut object, &aya_btf)?;
        let mut works = Vec::new();
        for program in PROGRAMS.iter().filter(|program| {
            matches!(
                program.role,
                Role::Fallback(_) | Role::Second(_) | Role::Names(_)
            )
        }) {
            let loaded = match program.attach {
                Attach::Tracepoint(name) => {
                    typed::<BtfTracePoint>(&mut object, program.name)?.load(name, &aya_btf)
                }
                _ => cgroup::load(&mut object, program.name)?,
            };
            if loaded.is_ok() {
                works.push(program.name);
            }
        }
        Ok(Tried {
            lsm_obstacle,
            works,
        })
    };
    tried().unwrap_or_else(|error| Tried {
        lsm_obstacle: Some((
            format!("LSM programs could not be tried: {error}"),
            "run `agentguard doctor` as root".to_owned(),
        )),
        works: Vec::new(),
    })
}

/// Why the kernel refuses LSM programs, if it does: some refuse every program
/// that needs a trampoline, whatever their list of modules says.
fn trial(object: &mut Ebpf, aya_btf: &aya::Btf) -> Result<Option<(String, String)>, KernelError> {
    let program: &mut Lsm = typed(object, "task_free")?;
    match program.load("task_free", aya_btf) {
        Ok(()) => {
            program
                .unload()
                .map_err(|error| failed("unloading the trial program", &error))?;
            Ok(None)
        }
        Err(error) => Ok(Some((
            format!("this kernel refuses LSM programs: {}", chain(&error)),
            "use a kernel that accepts BPF LSM programs; hardened guests often refuse every \
             program that needs a trampoline"
                .to_owned(),
        ))),
    }
}

/// Loads and attaches one program, if its role asks for it here.
fn attach(
    object: &mut Ebpf,
    program: &Program,
    options: &Options,
    types: &Btf,
    aya_btf: &aya::Btf,
    lsm_obstacle: &Option<(String, String)>,
) -> Result<Hook, KernelError> {
    let mut hook = Hook {
        program: program.name,
        attach: program.attach_name(),
        attached: false,
        reason: None,
    };
    hook.reason = match (program.role, lsm_obstacle) {
        (Role::Lsm(_) | Role::LsmIfPresent(_), Some((why, _))) => Some(why.clone()),
        (Role::Fallback(_), None) => Some("not needed: LSM programs are attached".to_owned()),
        (Role::Second(_) | Role::Names(_), _) if options.cgroup_root.is_none() => {
            tracing::warn!(
                "this host has no cgroup v2 hierarchy mounted: {} is not attached; mount one (`mount \
                 -t cgroup2 none /sys/fs/cgroup/unified`), or set `cgroup_root`",
                program.name
            );
            Some("this host has no cgroup v2 hierarchy mounted".to_owned())
        }
        _ => program.fits(types).err(),
    };
    if hook.reason.is_some() {
        return match program.role {
            Role::Lsm(_) | Role::LsmIfPresent(_)
                if lsm_obstacle.is_none() && program.leaves_a_gap(types) =>
            {
                Err(KernelError::Failed {
                    what: format!("attaching {}", program.name),
                    cause: hook.reason.unwrap_or_default(),
                    next: "report this kernel; AgentGuard does not know its form of the hook"
                        .to_owned(),
                })
            }
            _ => Ok(hook),
        };
    }
    if matches!(program.role, Role::Names(_)) && lsm_obstacle.is_none() {
        cgroup::load(object, program.name)?
            .map_err(|error| failed(&format!("loading {}", program.name), &error))?;
        hook.reason = Some(WITHOUT_NAMES.to_owned());
        return Ok(hook);
    }
    match place(object, program, options, aya_btf) {
        Ok(()) => hook.attached = true,
        // A stand-in that does not work is reported by `doctor`; everything else must.
        Err(error)
            if matches!(program.role, Role::Fallback(_))
                || matches!(program.role, Role::Second(_) | Role::Names(_))
                    && lsm_obstacle.is_some() =>
        {
            hook.reason = Some(error.to_string());
        }
        Err(error) => return Err(error),
    }
    Ok(hook)
}

fn place(
    object: &mut Ebpf,
    program: &Program,
    options: &Options,
    aya_btf: &aya::Btf,
) -> Result<(), KernelError> {
    let what = format!("loading {}", program.name);
    let link: FdLink = match program.attach {
        Attach::Lsm(hook, _) => {
            let typed: &mut Lsm = typed(object, program.name)?;
            typed
                .load(hook, aya_btf)
                .map_err(|error| failed(&what, &error))?;
            let id = typed.attach().map_err(|error| failed(&what, &error))?;
            typed
                .take_link(id)
                .map_err(|error| failed(&what, &error))?
                .into()
        }
        Attach::Tracepoint(name) => {
            let typed: &mut BtfTracePoint = typed(object, program.name)?;
            typed
                .load(name, aya_btf)
                .map_err(|error| failed(&what, &error))?;
            let id = typed.attach().map_err(|error| failed(&what, &error))?;
            typed
                .take_link(id)
                .map_err(|error| failed(&what, &error))?
                .into()
        }
        Attach::Function(name) => {
            let typed: &mut FEntry = typed(object, program.name)?;
            typed
                .load(name, aya_btf)
                .map_err(|error| failed(&what, &error))?;
            let id = typed.attach().map_err(|error| failed(&what, &error))?;
            typed
                .take_link(id)
                .map_err(|error| failed(&what, &error))?
                .into()
        }
        Attach::TaskIterator => {
            let typed: &mut Iter = typed(object, program.name)?;
            typed
                .load("task", aya_btf)
                .map_err(|error| failed(&what, &error))?;
            let id = typed.attach().map_err(|error| failed(&what, &error))?;
            let link = typed.take_link(id).map_err(|error| failed(&what, &error))?;
            link.try_into().map_err(|error| failed(&what, &error))?
        }
        Attach::SocketIterator(map) => {
            return place_iterator(object, program, map, options, aya_btf);
        }
        Attach::Cgroup => {
            let root = options
                .cgroup_root
                .as_deref()
                .ok_or_else(|| KernelError::Failed {
                    what: what.clone(),
                    cause: "this host has no cgroup v2 hierarchy mounted".to_owned(),
                    next: "mount -t cgroup2 none /sys/fs/cgroup/unified, or set `cgroup_root`"
                        .to_owned(),
                })?;
            let root = File::open(root).map_err(|error| failed(&what, &error))?;
            cgroup::load(object, program.name)?.map_err(|error| failed(&what, &error))?;
            cgroup::attach(object, program.name, root)?
        }
    };
    pin(link, &links_dir(options), program.name)
}

/// Loads an iterator over a map's sockets, and pins its link: aya makes none over a map.
fn place_iterator(
    object: &mut Ebpf,
    program: &Program,
    map: &str,
    options: &Options,
    aya_btf: &aya::Btf,
) -> Result<(), KernelError> {
    let what = format!("loading {}", program.name);
    let name = program.attach_name();
    let typed: &mut Iter = typed(object, program.name)?;
    typed
        .load(name, aya_btf)
        .map_err(|error| failed(&what, &error))?;
    let loaded = typed.fd().map_err(|error| failed(&what, &error))?;
    let loaded = loaded.try_clone().map_err(|error| failed(&what, &error))?;
    let of = super::bpf::fd(object, map)?;
    pin_with(&links_dir(options), program.name, |at| {
        let at = CString::new(at.as_os_str().as_bytes()).map_err(std::io::Error::other)?;
        sys::pin_map_iterator(loaded.as_fd(), of.as_fd(), &at)
    })
}

pub(super) fn typed<'a, T>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut T, KernelError>
where
    &'a mut T: TryFrom<&'a mut aya::programs::Program>,
{
    object
        .program_mut(name)
        .ok_or_else(|| missing(name))?
        .try_into()
        .map_err(|_| missing(name))
}

/// The object lacks a program: it is not the one that was built with this daemon.
pub(super) fn missing(name: &str) -> KernelError {
    KernelError::Failed {
        what: format!("finding program {name}"),
        cause: "the built-in kernel object does not have it".to_owned(),
        next: "rebuild it: cargo xtask build-ebpf".to_owned(),
    }
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    // A refused load ends so even when the verifier never saw the program.
    let text = text.trim_end();
    let text = text.strip_suffix("Verifier output:").unwrap_or(text);
    text.trim_end_matches(['.', ' ']).to_owned()
}

pub(super) fn failed(what: &str, error: &dyn std::error::Error) -> KernelError {
    KernelError::Failed {
        what: what.to_owned(),
        cause: chain(error),
        next: "see `agentguard doctor` for what this host offers".to_owned(),
    }
}
