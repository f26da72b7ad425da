//! Programs of the kinds that attach to cgroups.

use std::fs::File;

use aya::Ebpf;
use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, CgroupSkbAttachType, Program, ProgramError};

use super::KernelError;
use super::load::{failed, missing};

/// A link always allows others beside it; this is for attaching without one.
const MODE: CgroupAttachMode = CgroupAttachMode::Single;

/// The one program for packets that come in.
const INGRESS: &str = "cgroup_ingress";

/// Loads a program; the outer error: the object does not have it.
///
/// # Errors
/// The kernel's, and see above.
pub fn load(object: &mut Ebpf, name: &str) -> Result<Result<(), ProgramError>, KernelError> {
    let program = object.program_mut(name).ok_or_else(|| missing(name))?;
    Ok(match program {
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        Program::CgroupSkb(program) => program.load(),
        _ => return Err(missing(name)),
    })
}

/// Attaches a loaded program.
///
/// # Errors
/// The kernel's.
pub fn attach(object: &mut Ebpf, name: &str, cgroup: File) -> Result<FdLink, KernelError> {
    let refused = |error: &dyn std::error::Error| failed(&format!("attaching {name}"), error);
    let program = object.program_mut(name).ok_or_else(|| missing(name))?;
    match program {
        Program::CgroupSockAddr(program) => {
            let id = program
                .attach(cgroup, MODE)
                .map_err(|error| refused(&error))?;
            let link = program.take_link(id).map_err(|error| refused(&error))?;
            link.try_into().map_err(|error| refused(&error))
        }
        Program::CgroupSock(program) => {
            let id = program
                .attach(cgroup, MODE)
                .map_err(|error| refused(&error))?;
            let link = program.take_link(id).map_err(|error| refused(&error))?;
            link.try_into().map_err(|error| refused(&error))
        }
        Program::CgroupSkb(program) => {
            // aya wants to be told what the program's section says.
            let way = match name {
                INGRESS => CgroupSkbAttachType::Ingress,
                _ => CgroupSkbAttachType::Egress,
            };
            let id = program
                .attach(cgroup, way, MODE)
                .map_err(|error| refused(&error))?;
            let link = program.take_link(id).map_err(|error| refused(&error))?;
            link.try_into().map_err(|error| refused(&error))
        }
        _ => Err(missing(name)),
    }
}
