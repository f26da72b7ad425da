//! Putting rules in force, for the calling process and all that it starts.

use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use landlock::{
    AccessFs, BitFlags, CompatLevel, Compatible as _, PathBeneath, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};
use nix::errno::Errno;
use nix::libc;
use serde::{Deserialize, Serialize};

use super::access::Access;
use super::gap::{Effect, Gap, Subject};
use super::{RuleNode, Rules, text};
use crate::policy::manifest::{Privilege, Verb};

/// What is in force for a process and all that it starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confined {
    /// Version of the kernel's Landlock interface; 0 where nothing is confined.
    pub abi: u32,
    /// The rights that are refused wherever no rule gives them.
    pub handled: Access,
    /// Whether signals to processes outside are refused.
    pub signals: bool,
    /// How many rules give rights.
    pub rules: usize,
    /// Rules that were not put in force: what they would allow is refused.
    pub skipped: Vec<Skipped>,
    /// What this kernel's Landlock lacks.
    pub gaps: Vec<Gap>,
}

/// A rule that was not put in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// The path.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// Why Landlock cannot be used here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// Not built into the kernel, or hidden by a system call filter.
    #[error(
        "this kernel has no Landlock (CONFIG_SECURITY_LANDLOCK, Linux 5.13), or a system call filter hides it"
    )]
    NotBuilt,
    /// Not switched on at boot.
    #[error(
        "Landlock is built in but not switched on; add `landlock` to the list `lsm=` of the kernel command line"
    )]
    NotEnabled,
    /// Refused otherwise.
    #[error("Landlock does not answer: {0}")]
    Refused(String),
}

/// Why a process could not be confined. It must not go on as if it were.
#[derive(Debug, thiserror::Error)]
pub enum LandlockError {
    /// No Landlock here.
    #[error("files cannot be confined: {0}")]
    Absent(#[from] Unsupported),
    /// Only the calling thread would be confined.
    #[error("files cannot be confined: the process has {0} threads, and Landlock confines one")]
    Threads(usize),
    /// The paths could mean something else here.
    #[error(
        "files cannot be confined: the launcher is in another mount namespace ({here}) than the rules ({rules}); \
         launch from the host's own"
    )]
    MountNamespace {
        /// The launcher's.
        here: u64,
        /// The rules'.
        rules: u64,
    },
    /// `/proc` does not tell about the process.
    #[error("files cannot be confined: {path} cannot be read: {source}")]
    Proc {
        /// Which part.
        path: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The kernel refuses a rule.
    #[error("files cannot be confined: the rule for {path} is refused: {source}")]
    Rule {
        /// The path.
        path: String,
        /// Why.
        source: RulesetError,
    },
    /// The kernel refuses the rules as a whole.
    #[error(
        "files cannot be confined: {0} (E2BIG: the process is confined 16 times already, which is the most)"
    )]
    Ruleset(#[from] RulesetError),
    /// The kernel took the rules and does not keep all of them.
    #[error("files cannot be confined: the kernel puts the rules only partly in force")]
    Partial,
}

/// The version of the kernel's Landlock interface.
///
/// # Errors
/// Landlock cannot be used, and why.
pub fn supported() -> Result<u32, Unsupported> {
    /// Asks for the version instead of making a ruleset.
    const VERSION: u32 = 1;
    let nothing = std::ptr::null::<libc::c_void>();
    // SAFETY: with this flag the call takes no memory, only these constants.
    let answer = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0, VERSION) };
    match Errno::result(answer) {
        Ok(version) => u32::try_from(version)
            .ok()
            .filter(|version| *version > 0)
            .ok_or_else(|| Unsupported::Refused(format!("version {version}"))),
        Err(Errno::ENOSYS) => Err(Unsupported::NotBuilt),
        Err(Errno::EOPNOTSUPP) => Err(Unsupported::NotEnabled),
        Err(error) => Err(Unsupported::Refused(error.to_string())),
    }
}

/// Puts rules in force for the calling process, which must have one thread, and
/// for everything that it starts. There is no way back.
///
/// Rules in `observe` mode confine nothing.
///
/// # Errors
/// Nothing is confined. The caller must not execute what was to be confined.
pub fn confine(rules: &Rules) -> Result<Confined, LandlockError> {
    if !rules.enforce {
        return Ok(Confined {
            abi: 0,
            handled: Access::NONE,
            signals: false,
            rules: 0,
            skipped: Vec::new(),
            gaps: Vec::new(),
        });
    }
    let abi = supported()?;
    check_process(rules)?;
    let handled = rules.handled & Access::of_abi(abi);
    let signals = rules.scope_signals && abi >= SIGNALS_SINCE;
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(flags(handled))?;
    if signals {
        ruleset = ruleset.scope(Scope::Signal)?;
    }
    let mut created = ruleset.create()?;
    let mut confined = Confined {
        abi,
        handled,
        signals,
        rules: 0,
        skipped: Vec::new(),
        gaps: lacking(abi, rules),
    };
    for node in &rules.nodes {
        let (file, access) = match open(node) {
            Ok((file, possible)) => (file, node.access & handled & possible),
            Err(reason) => {
                confined.skipped.push(Skipped {
                    path: text::encode(&node.path),
                    reason,
                });
                continue;
            }
        };
        if access.is_empty() {
            continue;
        }
        created = created
            .add_rule(PathBeneath::new(file, flags(access)))
            .map_err(|source| LandlockError::Rule {
                path: text::encode(&node.path),
                source,
            })?;
        confined.rules += 1;
    }
    let status = created.no_new_privs(true).restrict_self()?;
    if status.ruleset != RulesetStatus::FullyEnforced || !status.no_new_privs {
        return Err(LandlockError::Partial);
    }
    Ok(confined)
}

/// The version that can keep signals inside.
const SIGNALS_SINCE: u32 = 6;

fn flags(access: Access) -> BitFlags<AccessFs> {
    BitFlags::from_bits_truncate(access.bits())
}

/// Landlock confines one thread, and the rules hold in one mount namespace.
fn check_process(rules: &Rules) -> Result<(), LandlockError> {
    let proc = |path| move |source| LandlockError::Proc { path, source };
    let tasks = "/proc/self/task";
    let threads = std::fs::read_dir(tasks).map_err(proc(tasks))?.count();
    if threads != 1 {
        return Err(LandlockError::Threads(threads));
    }
    let namespace = "/proc/self/ns/mnt";
    let here = Path::new(namespace)
        .metadata()
        .map_err(proc(namespace))?
        .ino();
    if here != rules.mount_namespace {
        return Err(LandlockError::MountNamespace {
            here,
            rules: rules.mount_namespace,
        });
    }
    Ok(())
}

/// What a rule is tied to, if it is still what it was, and the rights that it
/// can have.
fn open(node: &RuleNode) -> Result<(File, Access), String> {
    let path = Path::new(std::ffi::OsStr::from_bytes(&node.path));
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_NOFOLLOW)
        .open(path)
        .map_err(|error| error.to_string())?;
    let found = file.metadata().map_err(|error| error.to_string())?;
    if (found.dev(), found.ino()) != (node.device, node.inode) {
        return Err("it was replaced after the rules were derived".to_owned());
    }
    let possible = if found.is_dir() {
        !Access::NONE
    } else {
        Access::OF_FILES
    };
    Ok((file, possible))
}

/// What a version of Landlock cannot do of the rules.
fn lacking(abi: u32, rules: &Rules) -> Vec<Gap> {
    let missing = rules.handled & !Access::of_abi(abi);
    let gap = |subject, rule: &str, effect, reason: &str| Gap {
        subjects: vec![subject],
        rule: rule.to_owned(),
        at: format!("Landlock ABI {abi}"),
        effect,
        reason: reason.to_owned(),
    };
    let write = Subject::Verb(Verb::Write);
    let mut gaps = Vec::new();
    if missing.contains(Access::TRUNCATE) {
        gaps.push(gap(
            write,
            "truncate",
            Effect::NotEnforced,
            "files can be truncated by path wherever file permissions let; Linux 6.2 is needed",
        ));
    }
    if missing.contains(Access::IOCTL_DEV) {
        gaps.push(gap(
            write,
            "device control",
            Effect::NotEnforced,
            "devices that can be opened can be controlled (ioctl); Linux 6.10 is needed",
        ));
    }
    if rules.scope_signals && abi < SIGNALS_SINCE {
        gaps.push(gap(
            Subject::Privilege(Privilege::SignalOutside),
            "signal-outside",
            Effect::NotEnforced,
            "processes outside the run can be signalled; Linux 6.12 is needed",
        ));
    }
    if missing.contains(Access::REFER) {
        gaps.push(gap(
            Subject::Verb(Verb::Create),
            "rename, link",
            Effect::Narrowed,
            "nothing can be moved or linked to another directory; Linux 5.19 is needed",
        ));
    }
    gaps
}
