//! Programs that own a pool, and are killed: nothing of them may stay.

use std::{
    env,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use swathe::Pool;
use swathe_os::process;
use swathe_tests::Process;

use super::{
    Soak,
    draw::Draw,
    plan::{JobPlan, PoolPlan},
};

/// Tells a program that it is one of these, and which: parent, seed, number, kills a second.
const ROLE: &str = "SWATHE_SOAK_PROGRAM";
/// Stream of random numbers.
const OF_PROGRAMS: u64 = 1 << 61;
/// How long the processes of a killed program may take to go.
const PATIENCE: Duration = Duration::from_secs(20);

/// In such a program this runs jobs until it is killed, and does not return. Call it on the first line of `main`.
pub(super) fn init() {
    let Ok(role) = env::var(ROLE) else { return };
    let words: Vec<u64> = role.split(' ').filter_map(|word| word.parse().ok()).collect();
    if let &[parent, seed, number, kills] = words.as_slice()
        && process::die_with_parent(parent as u32)
    {
        let plan = PoolPlan::new(seed, number, kills as f64);
        if let Ok(pool) = plan.build() {
            work(&pool, &plan, seed);
        }
    }
    std::process::exit(1);
}

fn work(pool: &Pool, plan: &PoolPlan, seed: u64) {
    thread::scope(|scope| {
        for client in 0..plan.clients {
            scope.spawn(move || {
                for number in plan.jobs().cycle().skip(client as usize) {
                    let _ = JobPlan::new(seed, number, plan.weather).run(pool);
                }
            });
        }
    });
}

/// A program, with all its processes in one process group.
struct Program(Child);

impl Program {
    fn start(seed: u64, number: u64, kills: f64) -> std::io::Result<Self> {
        let role = format!("{} {seed} {number} {}", std::process::id(), kills as u64);
        let mut command = Command::new("/proc/self/exe");
        command.env(ROLE, role).process_group(0);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.spawn().map(Self)
    }

    fn group(&self) -> Pid {
        Pid::from_raw(self.0.id() as i32)
    }

    /// Its living processes.
    fn members(&self) -> Vec<Process> {
        let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let processes = pids.filter_map(|entry| Process::read(entry.file_name().to_str()?.parse().ok()?));
        processes
            .filter(|process| process.state != 'Z' && group_of(process.pid) == Some(self.0.id()))
            .collect()
    }

    /// Takes the zombies that it left to this process, which adopts orphans.
    fn reap(&self) {
        let group = Pid::from_raw(-self.group().as_raw());
        while waitpid(group, Some(WaitPidFlag::WNOHANG)).is_ok_and(|status| status != WaitStatus::StillAlive)
        {
        }
    }

    /// Waits until nothing of it is left. Gives what stays.
    fn vanish(&mut self) -> Vec<Process> {
        let _ = self.0.wait();
        let start = Instant::now();
        loop {
            self.reap();
            let left = self.members();
            if left.is_empty() || start.elapsed() > PATIENCE {
                self.reap();
                return left;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

fn group_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(2)?.parse().ok()
}

impl Soak {
    /// Starts programs and kills them, until the soak is over.
    pub(super) fn kill_programs(&self, kills: f64) {
        let mut draw = Draw::new(self.seed, OF_PROGRAMS);
        while !self.is_over() {
            let number = draw.within(0..1 << 40);
            let _entry = self.board.begin(format!("program {number} is killed"));
            let mut program = match Program::start(self.seed, number, kills) {
                Ok(program) => program,
                Err(error) => return self.complain(format!("a program cannot be started: {error}")),
            };
            thread::sleep(draw.micros(1000..400_000));
            let victims = program.members();
            let all_at_once = draw.percent(25);
            for process in &victims {
                let first = process.name == "swathe-zygote" && draw.percent(25);
                if all_at_once || first {
                    let _ = kill(Pid::from_raw(process.pid as i32), Signal::SIGKILL);
                }
            }
            let _ = kill(program.group(), Signal::SIGKILL);
            let left = program.vanish();
            for process in &left {
                let _ = kill(Pid::from_raw(process.pid as i32), Signal::SIGKILL);
            }
            program.vanish();
            self.sum(|summary| {
                summary.programs_killed += 1;
                summary.leaks += left.len() as u64;
                let complaint = |process: &Process| format!("program {number} was killed and left {process}");
                summary.complaints.extend(left.iter().map(complaint));
            });
            thread::sleep(draw.micros(1000..300_000));
        }
    }
}
