//! Runs a program under a watchdog, and makes sure that nothing of it is left when it has ended.

use std::{
    io::Read,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

/// How long a program may run before it is taken to hang, and how long what it started may outlive it.
pub(crate) struct Watchdog {
    pub(crate) limit: Duration,
    pub(crate) patience: Duration,
}

/// What a program that ended well has left.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) stdout: String,
    pub(crate) pid: u32,
}

/// Runs an example with these arguments.
///
/// # Panics
/// If it hangs, fails, or leaves a process behind.
pub(crate) fn example(name: &str, arguments: &[&str]) -> Output {
    let watchdog = Watchdog {
        limit: Duration::from_secs(60),
        patience: Duration::from_secs(10),
    };
    let ended = watchdog.run(name, Command::new(binary(name)).args(arguments));
    ended.unwrap_or_else(|what| panic!("{what}"))
}

/// Starts an example, and kills it as soon as `ready` says so. Waits until its workers are gone, too.
///
/// # Panics
/// If it ends before, or something of it stays.
pub(crate) fn killed_when(name: &str, arguments: &[&str], ready: impl Fn() -> bool) {
    let mut command = Command::new(binary(name));
    command.args(arguments).process_group(0).stdout(Stdio::null());
    let mut child = command.spawn().expect("it starts");
    let reached = poll(Duration::from_secs(60), || ready().then_some(()));
    child.kill().expect("it can be killed");
    let status = child.wait().expect("it ends");
    assert!(
        reached.is_some() && !status.success(),
        "it was to be killed while it works: {status}"
    );
    let gone = || members(child.id()).is_empty().then_some(());
    assert!(
        poll(Duration::from_secs(10), gone).is_some(),
        "processes of {name} stay"
    );
}

/// The example's executable. `cargo test` builds the examples before it runs any test; run alone (`-p swathe-tests`),
/// the tests take the examples that are there, and build them if there are none.
fn binary(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    let test = std::env::current_exe().expect("the system tells where a test's executable lies");
    let profile = test
        .ancestors()
        .nth(2)
        .expect("tests lie in <target>/<profile>/deps");
    let path = profile.join("examples").join(name);
    if !path.exists() {
        BUILT.get_or_init(|| build_examples(profile));
        assert!(path.exists(), "{} was not built", path.display());
    }
    path
}

fn build_examples(profile: &Path) {
    let target = profile
        .parent()
        .expect("a profile's folder lies in the target folder");
    let name = match profile.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.args([
        "build",
        "--package",
        "swathe-examples",
        "--examples",
        "--profile",
        name,
        "--target-dir",
    ]);
    let status = cargo.arg(target).status().expect("Cargo can be started");
    assert!(status.success(), "the examples could not be built: {status}");
}

impl Watchdog {
    /// Runs the command in a process group of its own, to which its workers belong, too.
    ///
    /// # Errors
    /// What went wrong, with all output so far: it hung, failed, or left processes (which have been killed).
    pub(crate) fn run(&self, name: &str, command: &mut Command) -> Result<Output, String> {
        command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(|error| format!("{name} could not be started: {error}"))?;
        let pid = child.id();
        let (stdout, stderr) = (
            Collected::of(child.stdout.take()),
            Collected::of(child.stderr.take()),
        );

        let status = poll(self.limit, || child.try_wait().ok().flatten());
        let left = match status {
            Some(_) => self.left_of(pid),
            None => Vec::new(),
        };
        if status.is_none() || !left.is_empty() {
            end(&mut child);
        }
        let closed = poll(self.patience, || {
            (stdout.is_closed() && stderr.is_closed()).then_some(())
        });

        let (stdout, stderr) = (stdout.text(), stderr.text());
        let wrong = match status {
            None => format!("{name} hung: it was still running after {:?}", self.limit),
            Some(status) if !status.success() => format!("{name} failed: {status}"),
            Some(_) if !left.is_empty() => format!("{name} left processes behind: {}", left.join(", ")),
            Some(_) if closed.is_none() => format!("{name} left a process that holds its output open"),
            Some(_) => return Ok(Output { stdout, pid }),
        };
        Err(format!(
            "{wrong}\n--- its output:\n{stdout}--- its errors:\n{stderr}"
        ))
    }

    /// The processes of a group that are still there after some patience.
    fn left_of(&self, group: u32) -> Vec<String> {
        let gone = poll(self.patience, || members(group).is_empty().then_some(()));
        if gone.is_some() {
            Vec::new()
        } else {
            members(group)
        }
    }
}

/// Asks until there is an answer, or the time is over.
fn poll<T>(patience: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        let answer = ask();
        if answer.is_some() || start.elapsed() >= patience {
            return answer;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Kills a program and whatever belongs to its group.
fn end(child: &mut Child) -> Option<ExitStatus> {
    let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
    child.wait().ok()
}

/// The processes of a group, as `name (pid)`; those that have ended and only wait to be reaped do not count.
fn members(group: u32) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").expect("there is a /proc").flatten();
    let stats = processes.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    stats.filter_map(|stat| member(&stat, group)).collect()
}

/// Reads `pid (name) state parent group ...`; a name may contain anything.
fn member(stat: &str, group: u32) -> Option<String> {
    let (head, tail) = stat.rsplit_once(") ")?;
    let (pid, name) = head.split_once(" (")?;
    let mut fields = tail.split(' ');
    let (state, its_group) = (fields.next()?, fields.nth(1)?);
    (its_group.parse() == Ok(group) && !matches!(state, "Z" | "X")).then(|| format!("{name} ({pid})"))
}

/// What a pipe has brought so far, gathered by a thread, so that a hanging program's output is not lost.
struct Collected {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Collected {
    fn of(pipe: Option<impl Read + Send + 'static>) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let gathered = bytes.clone();
        let reader = thread::spawn(move || {
            let Some(mut pipe) = pipe else { return };
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = pipe.read(&mut buffer) {
                gathered
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend(&buffer[..len]);
            }
        });
        Self { bytes, reader }
    }

    /// Whether nobody can write to the pipe any more.
    fn is_closed(&self) -> bool {
        self.reader.is_finished()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, watchdog: Watchdog) -> Result<Output, String> {
        watchdog.run("the script", Command::new("sh").args(["-c", script]))
    }

    const SHORT: Duration = Duration::from_millis(100);
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_program_that_hangs_is_named_and_ended() {
        let error = shell(
            "sleep 1000 & sleep 1000",
            Watchdog {
                limit: SHORT,
                patience: LONG,
            },
        )
        .unwrap_err();
        assert!(error.starts_with("the script hung: "), "{error}");
    }

    #[test]
    fn a_process_that_is_left_behind_is_found_and_ended() {
        let error = shell(
            "sleep 1000 & echo $!",
            Watchdog {
                limit: LONG,
                patience: SHORT,
            },
        )
        .unwrap_err();
        assert!(
            error.starts_with("the script left processes behind: s"),
            "{error}"
        );
        let pid = error.lines().nth(2).expect("its output is the process id");
        let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let ended = poll(LONG, || {
            (stat().is_empty() || stat().contains(") Z ")).then_some(())
        });
        assert!(ended.is_some(), "it goes on: {}", stat());
    }

    #[test]
    fn a_failure_comes_with_all_output() {
        let error = shell(
            "echo one; echo two >&2; exit 3",
            Watchdog {
                limit: LONG,
                patience: LONG,
            },
        )
        .unwrap_err();
        assert!(error.starts_with("the script failed: exit status: 3"), "{error}");
        assert!(error.contains("one\n") && error.contains("two\n"), "{error}");
    }
}
