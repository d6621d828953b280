//! Processes that have ended: why, what follows for their pool, and what their zygote takes with it.

use std::time::Instant;

use swathe_os::{
    memory_limits::{OomKill, OomKills},
    process::{self, ExitCause},
};

use crate::{
    parent::{core::Core, jobs::State},
    supervisor::{
        KILL, ORPHANAGE, SETUP_TRIES, Supervisor,
        clock::KillReason,
        mark,
        recovery::{self, Death, DeathKind},
    },
};

impl Supervisor {
    /// Begins to count the kernel's kills, and takes those into account for which it was not asked when they were heard of.
    pub(super) fn count_oom_kills(&mut self) {
        let kills = self.oom_kills.get_or_insert_with(OomKills::from_now);
        for _ in 0..std::mem::take(&mut self.unexplained) {
            kills.claim();
        }
    }

    /// Whether the kernel has sent the SIGKILL of which a worker has just died.
    pub(super) fn explain_kill(&mut self) -> Option<OomKill> {
        self.count_oom_kills();
        self.oom_kills.as_mut()?.claim()
    }

    /// A worker is gone: its work is handed on, its slot is free.
    pub(super) fn lose_worker(&mut self, slot: usize, pid: u32, cause: ExitCause, peak_memory: Option<u64>) {
        // What it still asked for is answered by nobody, and it waits no more.
        let process = self.forget(slot);
        let (kill_reason, hit_by_chaos) = process.map_or((None, false), |process| {
            (process.kill_reason, process.hit_by_chaos)
        });
        let core = self.core.clone();
        let mut state = core.state.lock();
        state.pids[slot] = None;
        // Who sent SIGKILL is asked when it is to be said; otherwise later, so that the work of the dead is handed on at once.
        let killed = cause == ExitCause::Signal(KILL) && kill_reason.is_none();
        let asked = killed && state.may_blame_next_death();
        if asked && let Some(kill) = self.explain_kill() {
            core.control.slots[slot].write_last_words(&format!("it {kill}"));
        }
        let verdict = recovery::recover(
            &core,
            &mut state,
            Death {
                worker: slot,
                pid,
                cause,
                peak_memory,
                kill_reason,
                max_memory: self.limits.max_memory,
            },
        );
        core.changed.notify_all();
        self.unexplained += u32::from(killed && !asked);
        if self.course.stopping().is_none()
            && !matches!(verdict, DeathKind::Left | DeathKind::Panicked)
            && kill_reason.is_none_or(KillReason::is_own_fault)
            && cause != ExitCause::Unknown
        {
            self.count_death(&core, &mut state, slot, pid, cause);
        }
        match verdict {
            // Lost with the zygote, or on purpose: that is not the initializer's fault.
            DeathKind::NeverWorked(_) if hit_by_chaos || cause == ExitCause::Unknown => {}
            DeathKind::NeverWorked(text) if self.course.stopping().is_none() => {
                self.setup_failures[slot] += 1;
                let tries = self.setup_failures[slot];
                if tries >= SETUP_TRIES {
                    drop(state);
                    self.give_up(match text.is_empty() {
                        _ if kill_reason == Some(KillReason::Setup) => format!(
                            "the initializer did not end within {:?}, {tries} times in a row (last in pid {pid})",
                            self.patience.initializer.unwrap_or_default()
                        ),
                        false => format!("the initializer failed {tries} times in a row, last with: {text}"),
                        true => format!(
                            "worker {slot} {cause} before it came to work, {tries} times in a row (last pid {pid})"
                        ),
                    });
                }
            }
            _ => {
                self.setup_failures[slot] = 0;
                self.crashes = 0;
            }
        }
    }

    /// Workers that die again and again are replaced only so often.
    pub(super) fn count_death(
        &mut self,
        core: &Core,
        state: &mut State,
        slot: usize,
        pid: u32,
        cause: ExitCause,
    ) {
        let (most, within) = self.limits.restarts;
        let now = Instant::now();
        self.deaths.push_back(now);
        while self
            .deaths
            .front()
            .is_some_and(|at| now.duration_since(*at) > within)
        {
            self.deaths.pop_front();
        }
        if self.deaths.len() as u64 <= u64::from(most) || state.phase.is_stopping() {
            return;
        }
        let words = recovery::last_words(&core.control.slots[slot]);
        let words = if words.is_empty() {
            words
        } else {
            format!(", and said last: {words}")
        };
        let text = format!(
            "{} workers died within {within:?}, and it may lose {most} in that time; the last, worker {slot} (pid {pid}), \
             {cause}{words}",
            self.deaths.len()
        );
        state.break_down(core, text);
    }

    /// The zygote is gone, and with it, by their parent-death signal, all workers. Their work is handed on when they have
    /// really ended.
    pub(super) fn lose_zygote(&mut self) {
        let Some(mut zygote) = self.zygote.take() else {
            return;
        };
        self.sources.remove(&zygote.socket);
        let loss = zygote.end();
        if process::adopts_orphans() {
            self.orphanage = Some(Instant::now() + ORPHANAGE);
        }
        for slot in 0..self.processes.len() {
            let Some(process) = &mut self.processes[slot] else {
                continue;
            };
            if process.is_unborn() {
                // It was never told that it may begin, and has ended, or is about to.
                self.lose_worker(slot, 0, ExitCause::Unknown, None);
                continue;
            }
            process.orphan = true;
            if let Some(pidfd) = &process.pidfd {
                pidfd.kill();
                let _ = self.sources.add(pidfd, mark::ORPHAN | slot as u64);
            }
        }
        self.recover_orphans();
        if self.course.stopping().is_some() {
            return;
        }
        if loss.is_crash() {
            self.crashes += 1;
        }
        match loss.is_final(self.crashes) {
            true => self.give_up(loss.to_string()),
            false => self.fall_short(loss.to_string()),
        }
    }

    /// Those that have ended and whose zygote is lost.
    pub(super) fn recover_orphans(&mut self) {
        for slot in 0..self.processes.len() {
            if let Some(process) = &self.processes[slot]
                && process.orphan
                && process.is_gone()
            {
                let pid = process.pid;
                self.lose_worker(slot, pid, ExitCause::Unknown, None);
            }
        }
    }

    /// The zygote answers, and has not reported some that have ended: somebody else has reaped them.
    pub(super) fn recover_unreported(&mut self) {
        for slot in 0..self.processes.len() {
            if let Some(process) = &self.processes[slot]
                && process.watch.hung_up.is_some()
                && process.pid != 0
                && process.is_gone()
            {
                let pid = process.pid;
                self.lose_worker(slot, pid, ExitCause::Unknown, None);
            }
        }
    }
}
