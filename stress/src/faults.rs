//! The faults that `peers/faults.py` gives to other pools, given to Swathe: the same cases, deadlines, and figures.
//!
//! Each case runs in a process of its own, in a process group of its own. It writes what it has seen into a file, line by
//! line, so that something is known of a case that hangs. Processes are found by a mark in their environment.
#![expect(
    unsafe_code,
    reason = "one task reads an address that is not mapped, and one process must hear SIGINT"
)]

use std::{
    env,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{self, SigHandler, Signal, kill, killpg},
    unistd::Pid,
};
use serde_json::{Value, json};
use swathe::{Array, Partial, Pool};

/// As `CASES` in `peers/faults.py`, with the number of right results that are hoped for.
const CASES: [(&str, u64); 15] = [
    ("kill_running", 8),
    ("kill_idle", 8),
    ("exit_0", 8),
    ("segfault", 8),
    ("abort", 8),
    ("endless", 8),
    ("sigstop", 8),
    ("initializer", 8),
    ("bad_exception", 8),
    ("storm", 0),
    ("poison", 1000),
    ("kills_100", 10_000),
    ("kill_parent", 0),
    ("kill_parent_idle", 0),
    ("ctrl_c", 0),
];
/// How long one element may take, in the cases that need it.
const LIMIT: Duration = Duration::from_secs(1);
const MARK: &str = "SWATHE_FAULTS_MARK";
const FOLDER: &str = "SWATHE_FAULTS_FOLDER";

/// Gives Swathe the faults that `peers/faults.py` gives to other pools, and says what arrived.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Only this case; may be repeated.
    #[arg(long)]
    case: Vec<String>,
    /// Writes the figures there, for `peers/faults.py --beside`.
    #[arg(long)]
    json: Option<PathBuf>,
    #[arg(long, hide = true)]
    run: Option<String>,
}

/// Runs the cases, and prints what came of each.
pub fn main(args: &Args) -> ExitCode {
    let ran = match &args.run {
        Some(case) => run_case(case).map_err(|e| e.to_string()),
        None => drive_all(args).map_err(|e| e.to_string()),
    };
    ran.map_or_else(
        |why| {
            eprintln!("{why}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

// ---------------------------------------------------------------- tasks, in the workers

/// Whether this is the first call with that name in this case, in any process.
fn once(name: &str) -> bool {
    let path = Path::new(&env::var_os(FOLDER).unwrap_or_default()).join(name);
    File::create_new(path).is_ok()
}

fn kill_me(signal: Signal) {
    let _ = kill(Pid::this(), signal);
}

fn square(x: u64) -> u64 {
    thread::sleep(Duration::from_millis(20));
    x * x
}

fn kill_running(x: u64) -> u64 {
    if x == 3 && once("killed") {
        kill_me(Signal::SIGKILL);
    }
    square(x)
}

fn sigstop(x: u64) -> u64 {
    if x == 3 && once("stopped") {
        kill_me(Signal::SIGSTOP);
    }
    square(x)
}

fn exit_0(x: u64) -> u64 {
    if x == 3 {
        std::process::exit(0);
    }
    square(x)
}

fn segfault(x: u64) -> u64 {
    if x == 3 {
        // SAFETY: none; nothing is mapped there, and the process dies of it, which is what is asked for.
        return unsafe { std::ptr::without_provenance::<u64>(8).read_volatile() };
    }
    square(x)
}

fn abort(x: u64) -> u64 {
    if x == 3 {
        std::process::abort();
    }
    square(x)
}

fn endless(x: u64) -> u64 {
    if x == 3 {
        loop {
            std::hint::spin_loop();
        }
    }
    square(x)
}

fn bad_exception(x: u64) -> u64 {
    if x == 3 {
        std::panic::panic_any(vec![Box::new(x)]);
    }
    square(x)
}

fn storm(x: u64) -> u64 {
    kill_me(Signal::SIGKILL);
    x
}

fn poison(x: u64) -> u64 {
    if x == 500 {
        kill_me(Signal::SIGKILL);
    }
    x * x
}

fn one_ms(x: u64) -> u64 {
    thread::sleep(Duration::from_millis(1));
    x * x
}

fn sleeper(x: u64) -> u64 {
    thread::sleep(Duration::from_secs(60));
    x * x
}

fn fail_to_start(_: ()) -> Result<(), String> {
    Err("no such instrument".to_owned())
}

// ---------------------------------------------------------------- a case, in a process of its own

/// Adds a line to what the driver reads.
fn say(facts: Value) -> io::Result<()> {
    let path = Path::new(&env::var_os(FOLDER).unwrap_or_default()).join("said");
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    writeln!(file, "{facts}")
}

fn run_case(case: &str) -> Result<(), Box<dyn std::error::Error>> {
    // SAFETY: nothing handles the signal yet; a driver in the background ignores it, and its cases must not.
    unsafe { signal::signal(Signal::SIGINT, SigHandler::SigDfl)? };
    let workers = if case == "kills_100" { 4 } else { 2 };
    let builder = Pool::builder().processes(workers);
    let pool = match case {
        "initializer" => builder.try_initializer(fail_to_start, ()).build()?,
        _ => builder.build()?,
    };
    if case == "kill_parent_idle" {
        pool.map(square, 0..8)?;
        say(json!({"ready": true}))?;
        thread::sleep(Duration::from_secs(60));
    }
    if case == "kill_parent" || case == "ctrl_c" {
        say(json!({"ready": true}))?;
        pool.map(sleeper, 0..4)?;
        return Ok(());
    }
    if case == "kill_idle" {
        pool.batch().chunk_size(1).map(square, 0..8)?;
        for worker in pool.workers() {
            thread::sleep(Duration::from_millis(500));
            kill(Pid::from_raw(worker.pid as i32), Signal::SIGKILL)?;
        }
        thread::sleep(Duration::from_millis(500));
    }
    let begun = Instant::now();
    let result = run_task(case, &pool);
    let seconds = (begun.elapsed().as_secs_f64() * 100.0).round() / 100.0;
    say(count(&result))?;
    say(json!({"seconds": seconds, "phase": "after"}))?;
    let again = pool.map(square, 0..4).is_ok_and(|values| values == [0, 1, 4, 9]);
    say(json!({"after": if again { "usable" } else { "broken" }, "phase": "close"}))?;
    pool.close();
    let _ = pool.join();
    Ok(())
}

fn run_task(case: &str, pool: &Pool) -> swathe::Result<Partial<Array<u64>>> {
    let batch = pool.batch().chunk_size(1).collect_errors();
    match case {
        "kill_running" => batch.map(kill_running, 0..8),
        "exit_0" => batch.map(exit_0, 0..8),
        "segfault" => batch.map(segfault, 0..8),
        "abort" => batch.map(abort, 0..8),
        "endless" => batch.timeout(LIMIT).map(endless, 0..8),
        "sigstop" => batch.timeout(LIMIT).map(sigstop, 0..8),
        // A pool that breaks says why in the error of the call.
        "initializer" => pool.map(square, 0..8).and_then(|_| batch.map(square, 0..8)),
        "bad_exception" => batch.map(bad_exception, 0..8),
        "storm" => batch.map(storm, 0..8),
        "poison" => batch.map(poison, 0..1000),
        "kills_100" => thread::scope(|scope| {
            scope.spawn(|| kill_at_random(pool, 100));
            batch.map(one_ms, 0..10_000)
        }),
        _ => batch.map(square, 0..8),
    }
}

/// Kills some worker, again and again.
fn kill_at_random(pool: &Pool, times: u32) {
    let mut state = 20_261_122_u64;
    let mut below = |limit: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % limit
    };
    for _ in 0..times {
        thread::sleep(Duration::from_millis(5 + below(25)));
        let workers = pool.workers();
        let Some(worker) = workers.get(below(workers.len().max(1) as u64) as usize) else {
            continue;
        };
        let _ = kill(Pid::from_raw(worker.pid as i32), Signal::SIGKILL);
    }
}

/// How many values are right, and what the first error is.
fn count(result: &swathe::Result<Partial<Array<u64>>>) -> Value {
    let partial = match result {
        Ok(partial) => partial,
        Err(error) => {
            let text = error.to_string();
            let first = text.split([',', ':']).next().unwrap_or_default();
            return json!({"ended": first, "error": text});
        }
    };
    let (mut arrived, mut wrong) = (0, 0);
    for position in 0..partial.len() {
        match partial.value(position) {
            Ok(Some(value)) if value == (position * position) as u64 => arrived += 1,
            Ok(None) => {}
            _ => wrong += 1,
        }
    }
    let failures = partial.failures();
    let first = failures.first();
    let ended = first.map_or("done".to_owned(), |first| {
        let status = format!("{:?}", first.status());
        match failures.iter().map(swathe::ItemError::span).sum::<u64>() {
            1 => format!("{status} {}", first.position()),
            many => format!("{many} {status}"),
        }
    });
    let error = first.map_or(String::new(), ToString::to_string);
    json!({"arrived": arrived, "wrong": wrong, "ended": ended, "error": error})
}

// ---------------------------------------------------------------- the driver

fn drive_all(args: &Args) -> io::Result<()> {
    let chosen = |name: &str| args.case.is_empty() || args.case.iter().any(|case| case == name);
    let mut results = Vec::new();
    println!("| case | Swathe |\n| --- | --- |");
    for (case, expected) in CASES.into_iter().filter(|(name, _)| chosen(name)) {
        let facts = drive(case, expected)?;
        println!("| `{case}` | {} |", cell(&facts));
        results.push(facts);
    }
    match &args.json {
        Some(path) => fs::write(path, format!("{:#}", Value::Array(results))),
        None => Ok(()),
    }
}

/// A case that runs.
struct Case {
    child: Child,
    mark: String,
    folder: PathBuf,
}

impl Drop for Case {
    fn drop(&mut self) {
        loop {
            let pids = self.processes();
            if pids.is_empty() {
                break;
            }
            for pid in pids {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            let _ = self.child.try_wait();
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Case {
    fn start(case: &str) -> io::Result<Self> {
        let stamp = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let mark = format!("{}-{}", std::process::id(), stamp.unwrap_or_default().as_nanos());
        let folder = env::temp_dir().join(format!("faults-{mark}"));
        fs::create_dir(&folder)?;
        let lines = File::create(folder.join("lines"))?;
        let child = Command::new(env::current_exe()?)
            .args(["faults", "--run", case])
            .env(MARK, &mark)
            .env(FOLDER, &folder)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(lines.try_clone()?)
            .stderr(lines)
            .spawn()?;
        Ok(Self { child, mark, folder })
    }

    /// Its processes, zombies left out.
    fn processes(&self) -> Vec<i32> {
        let names = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = names.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid| self.is_ours(*pid)).collect()
    }

    fn is_ours(&self, pid: i32) -> bool {
        let wanted = format!("{MARK}={}", self.mark);
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == wanted.as_bytes())
            && state.is_some_and(|state| !"ZX".contains(state))
    }

    /// Takes in what the case has said so far. Gives the phase that it is in.
    fn listen(&self, facts: &mut Value) -> String {
        let said = fs::read_to_string(self.folder.join("said")).unwrap_or_default();
        let mut phase = String::new();
        for line in said
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        {
            for (key, value) in line.as_object().into_iter().flatten() {
                match (key.as_str(), value.as_str()) {
                    ("phase", Some(now)) => phase = now.to_owned(),
                    ("ready", _) => phase = "ready".to_owned(),
                    _ => facts[key] = value.clone(),
                }
            }
        }
        phase
    }

    fn lines(&self) -> usize {
        fs::read(self.folder.join("lines"))
            .map_or(0, |text| text.iter().filter(|byte| **byte == b'\n').count())
    }
}

fn names() -> usize {
    fs::read_dir("/dev/shm").map_or(0, Iterator::count)
}

fn drive(name: &str, expected: u64) -> io::Result<Value> {
    let names_before = names();
    let mut facts = json!({"case": name, "peer": "Swathe", "expected": expected, "arrived": 0, "wrong": 0, "ended": "done"});
    let mut case = Case::start(name)?;
    let patience = Duration::from_secs(if name == "kills_100" { 120 } else { 20 });
    let begun = Instant::now();
    let phase = loop {
        thread::sleep(Duration::from_millis(10));
        let over = case.child.try_wait()?;
        let phase = case.listen(&mut facts);
        if phase == "ready" {
            strike(name, &mut case, &mut facts)?;
            break phase;
        }
        if let Some(status) = over {
            if phase.is_empty() {
                facts["ended"] = json!(format!("exit {:?}", status.code().or(status.signal())));
            }
            look_again(&case);
            break phase;
        }
        if begun.elapsed() > patience {
            facts[if phase.is_empty() { "ended" } else { &phase }] = json!("hangs");
            break "hangs".to_owned();
        }
    };
    if phase != "hangs" {
        facts["left"] = json!(case.processes().len());
        facts["shm"] = json!(names().saturating_sub(names_before));
    }
    facts["lines"] = json!(case.lines());
    Ok(facts)
}

/// The fault that comes from outside: the parent's death, or Ctrl-C.
fn strike(name: &str, case: &mut Case, facts: &mut Value) -> io::Result<()> {
    thread::sleep(Duration::from_millis(1500));
    facts["processes"] = json!(case.processes().len());
    let parent = Pid::from_raw(case.child.id() as i32);
    if name != "ctrl_c" {
        kill(parent, Signal::SIGKILL)?;
        case.child.wait()?;
        thread::sleep(Duration::from_secs(1));
        return Ok(());
    }
    let begun = Instant::now();
    killpg(parent, Signal::SIGINT)?;
    while !case.processes().is_empty() && begun.elapsed() < Duration::from_secs(20) {
        let _ = case.child.try_wait();
        thread::sleep(Duration::from_millis(10));
    }
    facts["seconds"] = json!((begun.elapsed().as_secs_f64() * 100.0).round() / 100.0);
    if !case.processes().is_empty() {
        facts["ended"] = json!("hangs");
    }
    Ok(())
}

/// Waits up to a second for the last process of a case that has ended.
fn look_again(case: &Case) {
    for _ in 0..100 {
        if case.processes().is_empty() {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// What happened, in a few words, as `peers/faults.py` says it.
fn cell(facts: &Value) -> String {
    let text = |key: &str| facts[key].as_str().unwrap_or_default().to_owned();
    let number = |key: &str| facts[key].as_u64().unwrap_or_default();
    match text("case").as_str() {
        "kill_parent" | "kill_parent_idle" => {
            let others = number("processes").saturating_sub(1);
            return format!(
                "{} of {others} processes left; {} names",
                number("left"),
                number("shm")
            );
        }
        "ctrl_c" if text("ended") == "hangs" => {
            return format!(
                "{} processes left after 20 s, {} lines",
                number("left"),
                number("lines")
            );
        }
        "ctrl_c" => return format!("gone after {} s, {} lines", facts["seconds"], number("lines")),
        _ => {}
    }
    let mut cell = format!("{} of {}", number("arrived"), number("expected"));
    if number("wrong") > 0 {
        cell += &format!(", {} wrong", number("wrong"));
    }
    if text("ended") != "done" {
        cell += &format!(", {}", text("ended"));
    }
    if let Some(seconds) = facts["seconds"].as_f64() {
        cell += &format!(", {seconds} s");
    }
    if !["", "usable"].contains(&text("after").as_str()) {
        cell += &format!("; then {}", text("after"));
    }
    if !text("close").is_empty() {
        cell += "; close hangs";
    }
    if number("left") > 0 {
        cell += &format!("; {} processes left", number("left"));
    }
    cell
}
