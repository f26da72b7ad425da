//! Which program a process runs, from exec and exit records.
//!
//! Process ids are reused: an entry counts only for the run that made it, and
//! goes when the process exits or the run ends. A process that has not executed
//! anything since it was forked runs its parent's program.

use std::collections::HashMap;
use std::sync::Arc;

/// Processes known at once. One more is not remembered: its events have a null
/// `exe`, nothing else changes.
const PROCESSES: usize = 65_536;

#[derive(Default)]
pub(super) struct Processes {
    by_pid: HashMap<u32, Program>,
    /// Those that exited a moment ago: what the kernel collects is told after their exit.
    gone: [HashMap<u32, Program>; 2],
}

struct Program {
    serial: u64,
    exe: Arc<str>,
}

impl Processes {
    pub fn started(&mut self, serial: u64, pid: u32, exe: Arc<str>) {
        if self.by_pid.len() < PROCESSES || self.by_pid.contains_key(&pid) {
            self.by_pid.insert(pid, Program { serial, exe });
        }
    }

    pub fn exited(&mut self, serial: u64, pid: u32) {
        if self.of(serial, pid).is_some()
            && let Some(program) = self.by_pid.remove(&pid)
        {
            self.gone[0].insert(pid, program);
        }
    }

    /// A second has passed: those that exited before it are forgotten.
    pub fn grow_older(&mut self) {
        self.gone[1] = std::mem::take(&mut self.gone[0]);
    }

    /// The program of a process that may have exited a moment ago.
    pub fn program_once(&self, serial: u64, pid: u32) -> Option<Arc<str>> {
        let gone = || self.gone.iter().find_map(|gone| of(gone, serial, pid));
        self.of(serial, pid).or_else(gone)
    }

    pub fn run_ended(&mut self, serial: u64) {
        let [fresh, old] = &mut self.gone;
        for programs in [&mut self.by_pid, fresh, old] {
            programs.retain(|_, program| program.serial != serial);
        }
    }

    /// The program of a process; a forked one is remembered with its parent's.
    pub fn program(&mut self, serial: u64, pid: u32, ppid: u32) -> Option<Arc<str>> {
        if let Some(exe) = self.of(serial, pid) {
            return Some(exe);
        }
        let exe = self.of(serial, ppid)?;
        self.started(serial, pid, Arc::clone(&exe));
        Some(exe)
    }

    fn of(&self, serial: u64, pid: u32) -> Option<Arc<str>> {
        of(&self.by_pid, serial, pid)
    }
}

fn of(programs: &HashMap<u32, Program>, serial: u64, pid: u32) -> Option<Arc<str>> {
    programs
        .get(&pid)
        .filter(|program| program.serial == serial)
        .map(|program| Arc::clone(&program.exe))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forks_inherit_and_exits_forget() {
        let mut processes = Processes::default();
        processes.started(7, 10, "/usr/bin/python3".into());
        assert_eq!(
            processes.program(7, 11, 10).as_deref(),
            Some("/usr/bin/python3")
        );
        processes.started(7, 10, "/usr/bin/curl".into());
        assert_eq!(
            processes.program(7, 11, 10).as_deref(),
            Some("/usr/bin/python3")
        );
        processes.exited(7, 11);
        assert_eq!(processes.program(7, 11, 1), None);
    }

    #[test]
    fn an_exit_is_remembered_for_what_is_told_after_it() {
        let mut processes = Processes::default();
        processes.started(7, 10, "/usr/bin/curl".into());
        processes.exited(7, 10);
        processes.grow_older();
        let exe = processes.program_once(7, 10);
        assert_eq!(exe.as_deref(), Some("/usr/bin/curl"));
        assert_eq!(processes.program_once(8, 10), None);
        processes.grow_older();
        assert_eq!(processes.program_once(7, 10), None);
    }

    #[test]
    fn a_reused_process_id_belongs_to_its_own_run() {
        let mut processes = Processes::default();
        processes.started(7, 10, "/usr/bin/python3".into());
        assert_eq!(processes.program(8, 10, 1), None);
        processes.exited(8, 10);
        assert!(processes.program(7, 10, 1).is_some());
        processes.run_ended(7);
        assert_eq!(processes.program(7, 10, 1), None);
    }

    #[test]
    fn the_table_is_bounded() {
        let mut processes = Processes::default();
        for pid in 0..u32::try_from(PROCESSES).unwrap() + 10 {
            processes.started(1, pid, "/x".into());
        }
        assert_eq!(processes.by_pid.len(), PROCESSES);
    }
}
