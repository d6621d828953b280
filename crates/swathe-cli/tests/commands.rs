//! The `swathe` command, as a user calls it.

use std::{
    io::{BufRead, BufReader, Read},
    os::unix::fs::symlink,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;
use swathe::Array;
use swathe_tests::{until, watch};

fn swathe(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_swathe"));
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs it to its end: exit code, standard output, standard error.
fn run(args: &[&str]) -> (i32, String, String) {
    let _watch = watch();
    ended(swathe(args).output().unwrap())
}

fn ended(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code().expect("no signal ends it");
    (code, text(output.stdout), text(output.stderr))
}

/// A refusal: this exit code, this in what is said, and nothing but a sentence.
#[track_caller]
fn refused(args: &[&str], code: i32, says: &str) {
    let (found, out, error) = run(args);
    assert_eq!((found, out.as_str()), (code, ""), "{args:?}: {error}");
    assert!(error.contains(says), "{args:?}: {error}");
    let said = error.split("\n\nFor more information").next().unwrap_or_default();
    assert_eq!(said.trim_end().lines().count(), 1, "{args:?}: {error}");
}

const SMALL: [&str; 5] = ["bench", "--processes", "1,2", "--rounds", "2"];

#[test]
fn bench_shows_all_contenders_of_every_kernel() {
    for (kernel, len) in [
        ("stream", "10000"),
        ("compute", "1000"),
        ("irregular", "20"),
        ("tiny", "5000"),
    ] {
        let (code, out, error) = run(&[&SMALL[..], &["--kernel", kernel, "--len", len]].concat());
        assert_eq!((code, error.as_str()), (0, ""), "{kernel}");
        assert!(out.starts_with(&format!("{kernel}: {len} elements")), "{out}");
        let count = |who: &str| {
            let first = out.lines().filter_map(|line| line.split_whitespace().next());
            first.filter(|word| *word == who).count()
        };
        assert_eq!(
            (count("swathe"), count("threads"), count("serial")),
            (2, 2, 1),
            "{out}"
        );
        assert!(out.contains("× threads") && out.contains("× serial"), "{out}");
    }
}

#[test]
fn bench_gives_its_figures_to_programs() {
    let folder = tempfile::tempdir().unwrap();
    let csv = folder.path().join("figures.csv");
    let csv_name = csv.to_str().unwrap();
    let asked = [
        "--len",
        "2000",
        "--chunk-size",
        "auto,pool,100",
        "--json",
        "--csv",
        csv_name,
    ];
    let (code, out, error) = run(&[&SMALL[..], &asked].concat());
    assert_eq!(code, 0, "{error}");
    let figures: Value = serde_json::from_str(&out).expect("nothing but JSON on standard output");
    let lines = figures["lines"].as_array().unwrap();
    assert_eq!(
        lines.len(),
        2 * 3 * 2 + 1,
        "processes, chunk sizes, swathe and threads; serial"
    );
    for line in lines {
        let time = |name: &str| line[name].as_f64().unwrap();
        assert!(
            time("min") <= time("median") && time("median") <= time("max"),
            "{line}"
        );
        assert!(time("elements_per_second") > 0.0);
        let is_swathe = line["contender"] == "swathe";
        assert_eq!(line["times_serial"].is_number(), is_swathe, "{line}");
        let one = lines.iter().find(|one| {
            one["workers"] == 1
                && ["contender", "chunk_size"]
                    .iter()
                    .all(|&name| one[name] == line[name])
        });
        let rate = |line: &Value| line["elements_per_second"].as_f64().unwrap();
        let speed_up = (line["contender"] != "serial").then(|| rate(line) / rate(one.unwrap()));
        let thousandths = |number: Option<f64>| number.map(|number| (number * 1e3).round());
        assert_eq!(
            thousandths(line["speed_up"].as_f64()),
            thousandths(speed_up),
            "{line}"
        );
    }
    let table = std::fs::read_to_string(csv).unwrap();
    assert_eq!(table.lines().count(), 1 + lines.len());
    assert!(table.starts_with("kernel,contender,workers,chunk_size,"));
}

#[test]
fn bench_squares_the_numbers_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("numbers.npy");
    let name = file.to_str().unwrap();
    Array::from_fn(3000, |i| i as i32 - 1500)
        .unwrap()
        .to_npy(&file)
        .unwrap();
    let (code, out, error) = run(&[&SMALL[..], &["--kernel", name]].concat());
    assert_eq!((code, error.as_str()), (0, ""));
    assert!(
        out.contains("numbers.npy: 3000 elements, 35.2 KiB in and out"),
        "{out}"
    );

    std::fs::write(&file, b"\x93NUMPY\x01\x00and then nonsense").unwrap();
    refused(&["bench", "--kernel", name], 1, "numbers.npy");
    Array::from_fn(3, |i| i as u8).unwrap().to_npy(&file).unwrap();
    refused(&["bench", "--kernel", name], 1, "holds elements of type \"u1\"");
    Array::<f64>::from_vec(Vec::new()).unwrap().to_npy(&file).unwrap();
    refused(&["bench", "--kernel", name], 1, "without elements");
    refused(&["bench", "--kernel", name, "--len", "3"], 1, "leave out --len");
}

#[test]
fn bench_against_python_agrees_or_says_that_there_is_none() {
    let (code, out, error) = run(&[
        "bench",
        "--processes",
        "1",
        "--rounds",
        "1",
        "--kernel",
        "irregular",
        "--len",
        "250",
        "--against",
        "python",
    ]);
    assert_eq!(code, 0, "{error}");
    assert!(
        out.contains("python is Python 3") && out.contains("one element in 3")
            || out.contains("there is no python3"),
        "{out}"
    );
    let _watch = watch();
    let output = swathe(&[
        "bench",
        "--processes",
        "1",
        "--rounds",
        "1",
        "--len",
        "100",
        "--against",
        "python,serial",
    ])
    .env("PATH", "")
    .output();
    let (code, out, _) = ended(output.unwrap());
    assert_eq!(code, 0);
    assert!(
        out.contains("there is no python3") && out.contains("serial"),
        "{out}"
    );
}

#[test]
fn a_contender_that_computes_something_else_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let python = folder.path().join("python3");
    // It gives 100 zeros, whatever it is asked.
    let script = "#!/bin/sh\n[ \"$1\" = --version ] && { echo Python 3.0; exit; }\nread chunk\n\
                  echo 0.001 100 800\nhead -c 800 /dev/zero\n";
    std::fs::write(&python, script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&python, mode).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let _watch = watch();
    let output = swathe(&["bench", "--processes", "1", "--len", "100", "--against", "python"])
        .env("PATH", path)
        .output();
    let (code, out, error) = ended(output.unwrap());
    assert_eq!((code, out.as_str()), (3, ""), "{error}");
    assert!(
        error.contains("the results of python with 1 worker, chunk size auto differ"),
        "{error}"
    );
}

#[test]
fn the_report_has_three_plots_and_needs_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("a new folder");
    let asked = [
        "--len",
        "20000",
        "--against",
        "threads",
        "--report",
        pages.to_str().unwrap(),
    ];
    let (code, _, error) = run(&[&SMALL[..], &asked].concat());
    assert_eq!(code, 0, "{error}");
    let page = std::fs::read_to_string(pages.join("index.html")).unwrap();
    assert_eq!(page.matches("<svg").count(), 3);
    for text in [
        "limit of the machine",
        "elements a chunk",
        "worker 0",
        "worker 1",
        "GB/s in and out",
    ] {
        assert!(page.contains(text), "{text} is missing");
    }
    // The name of the SVG language looks like an address, and is none.
    let page = page.replace("http://www.w3.org/2000/svg", "");
    for reference in ["http:", "https:", "<script", "<link", "src=", "url(", "@import"] {
        assert!(
            !page.contains(reference),
            "the page refers to something by {reference}"
        );
    }
    // The bars of the timeline: at least as many as there are chunks.
    let timeline = page.split("Timeline of the workers").nth(1).unwrap();
    assert!(timeline.matches("<rect").count() > 250);
}

/// What others have put where a file is to be is not written to, nor is what it leads to.
#[test]
fn files_are_written_where_they_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let victim = at("victim");
    std::fs::write(&victim, "precious").unwrap();
    let small = ["bench", "--processes", "1", "--rounds", "1", "--len", "10"];
    for name in ["a.json", "a.csv", "index.html"] {
        symlink(&victim, at(name)).unwrap();
    }
    symlink(at("nowhere"), at("b.csv")).unwrap();
    let name = |path: &str| at(path).to_str().unwrap().to_owned();
    for asked in [
        [String::from("--json"), name("a.json")],
        ["--csv".into(), name("a.csv")],
        ["--csv".into(), name("b.csv")],
        ["--report".into(), name("")],
    ] {
        let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
        refused(
            &[&small[..], &asked].concat(),
            1,
            "cannot be written: it is a symbolic link",
        );
    }
    assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
    assert!(!at("nowhere").exists());
    // One's own is written anew.
    std::fs::write(at("c.csv"), "x".repeat(10_000)).unwrap();
    let (code, _, error) = run(&[&small[..], &["--csv", &name("c.csv")]].concat());
    assert_eq!(code, 0, "{error}");
    let table = std::fs::read_to_string(at("c.csv")).unwrap();
    assert!(table.starts_with("kernel,") && !table.contains("xx"), "{table}");
}

#[test]
fn verbose_tells_where_the_time_went() {
    let (code, out, error) = run(&[&SMALL[..], &["--len", "50000", "--verbose"]].concat());
    assert_eq!(code, 0);
    assert!(out.contains("swathe"));
    assert!(
        error.contains("swathe with 1 worker, chunk size auto:\n"),
        "{error}"
    );
    assert!(
        error.contains("swathe with 2 workers, chunk size auto:\n"),
        "{error}"
    );
}

#[test]
fn what_makes_no_sense_is_refused_in_a_sentence() {
    refused(&["bench", "--kernel", "fast"], 64, "there is no such kernel");
    refused(
        &["bench", "--kernel", "there/is/none.npy"],
        1,
        "there/is/none.npy",
    );
    refused(&["bench", "--processes", "0"], 64, "a whole number of at least 1");
    refused(&["bench", "--processes", "100000", "--len", "10"], 1, "100000");
    refused(
        &["bench", "--chunk-size", "0"],
        64,
        "a chunk size is auto, pool, or a whole number",
    );
    refused(&["bench", "--len", "99999999999999"], 1, "use a smaller --len");
    refused(
        &[
            "bench",
            "--len",
            "10",
            "--rounds",
            "1",
            "--csv",
            "no/such/folder.csv",
        ],
        1,
        "no/such/folder.csv",
    );
    refused(&["top", "4194305"], 1, "there is no process 4194305");
    refused(&["top", &std::process::id().to_string()], 1, "has no pool");
    refused(&["top", "me"], 64, "invalid value 'me'");
    refused(&["top", "0"], 1, "process 0");
    let (code, out, _) = run(&["bench", "--help"]);
    assert!(code == 0 && out.contains("Exit codes: 0 measured; 1"), "{out}");
}

#[test]
fn doctor_tries_everything_and_its_exit_code_tells() {
    let (code, out, error) = run(&["doctor", "--json"]);
    assert_eq!(error, "");
    let all: Value = serde_json::from_str(&out).unwrap();
    let findings = all["findings"].as_array().unwrap();
    for section in ["cores", "memory", "limits", "host", "job", "system", "pool"] {
        assert!(
            findings.iter().any(|finding| finding["section"] == section),
            "{section}"
        );
    }
    let rank = |severity: &Value| match severity.as_str().unwrap() {
        "ok" | "note" => 0,
        "warning" => 1,
        _ => 2,
    };
    let worst = findings.iter().map(|finding| rank(&finding["severity"])).max();
    assert_eq!(worst, Some(code), "{out}");
    for finding in findings {
        let has_remedy = finding["remedy"].is_string();
        assert_eq!(
            has_remedy,
            finding["severity"] != "ok",
            "what is bad can be cured: {finding}"
        );
    }
}

#[test]
fn doctor_warns_of_a_job_that_does_not_say_its_cores() {
    let _watch = watch();
    let output = swathe(&["doctor"])
        .env("SLURM_JOB_ID", "7")
        .env_remove("SLURM_CPUS_PER_TASK")
        .output();
    let (code, out, _) = ended(output.unwrap());
    assert_eq!(code, 1, "{out}");
    assert!(
        out.contains("warning") && out.contains("--cpus-per-task"),
        "{out}"
    );
}

/// What the doctor finds in a process that is started by this shell command line, in which `$0` is the program.
fn found(by: &str) -> Vec<Value> {
    let _watch = watch();
    let output = Command::new("sh")
        .args(["-c", by, env!("CARGO_BIN_EXE_swathe")])
        .output();
    let (_, out, _) = ended(output.unwrap());
    let all: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}"));
    all["findings"].as_array().unwrap().clone()
}

#[test]
fn doctor_sees_what_the_host_has_left() {
    let table = [
        (
            "exec env --ignore-signal=CHLD $0 doctor --json",
            "ignored signals",
            "SIGCHLD",
            "note",
        ),
        (
            "exec env --block-signal=USR1 $0 doctor --json",
            "blocked signals",
            "SIGUSR1",
            "note",
        ),
        (
            "exec $0 doctor --json 0<&- 2>&-",
            "descriptors 0 to 2",
            "0, 2 closed",
            "note",
        ),
        (
            "PMI_RANK=0 PMI_SIZE=1 exec $0 doctor --json",
            "MPI launcher",
            "PMI_RANK to PMI_SIZE",
            "ok",
        ),
        (
            "SWATHE_CORES=two exec $0 doctor --json",
            "SWATHE_CORES",
            "is \"two\"",
            "failure",
        ),
        (
            "SWATHE_CORES=1 exec $0 doctor --json",
            "for this job",
            "1",
            "note",
        ),
        (
            "SWATHE_ARENA=128M exec $0 doctor --json",
            "address space of a process",
            "128 MiB",
            "ok",
        ),
        (
            "ulimit -c 0; ulimit -s 512; exec $0 doctor --json",
            "stack of a task (RLIMIT_STACK)",
            "512 KiB",
            "warning",
        ),
    ];
    for (by, what, value, severity) in table {
        let findings = found(by);
        let finding = findings.iter().find(|finding| finding["what"] == what);
        let finding = finding.unwrap_or_else(|| panic!("{by}: nothing about {what}"));
        assert!(
            finding["value"].as_str().unwrap().contains(value),
            "{by}: {finding}"
        );
        assert_eq!(finding["severity"], severity, "{by}: {finding}");
    }
}

#[test]
fn doctor_says_when_no_pool_can_be_run() {
    let _watch = watch();
    let command = format!("ulimit -v 60000; exec {} doctor", env!("CARGO_BIN_EXE_swathe"));
    let output = Command::new("sh").args(["-c", &command]).output();
    let (code, out, error) = ended(output.unwrap());
    assert_eq!(code, 2, "{out}{error}");
    assert!(
        out.contains("failure") && out.contains("A pool cannot be run"),
        "{out}"
    );
    assert!(out.contains("ulimit -v unlimited"), "{out}");
}

/// A program with a pool that works until it is killed: `swathe bench` over very many rounds.
struct Busy(Child);

impl Busy {
    fn start() -> Self {
        let args = [
            "bench",
            "--kernel",
            "compute",
            "--len",
            "200000",
            "--processes",
            "2",
            "--against",
            "none",
            "--rounds",
            "1000000",
        ];
        let child = swathe(&args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let busy = Self(child);
        until("it has a pool that works", || {
            let seen = look(&busy.pid());
            seen.is_some_and(|seen| seen["pools"][0]["elements_per_second"].as_f64() > Some(0.0))
        });
        busy
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn look(pid: &str) -> Option<Value> {
    let (code, out, _) = run(&["top", pid, "--once", "--json", "--interval", "100"]);
    (code == 0).then(|| serde_json::from_str(&out).unwrap())
}

#[test]
fn top_sees_a_pool_at_work() {
    let busy = Busy::start();
    let seen = look(&busy.pid()).unwrap();
    let pool = &seen["pools"][0];
    let workers = pool["workers"].as_array().unwrap();
    assert_eq!(workers.len(), 2, "{seen}");
    for (index, worker) in workers.iter().enumerate() {
        assert_eq!(worker["index"], index);
        let pid = worker["pid"].as_u64().unwrap();
        assert!(Path::new("/proc").join(pid.to_string()).exists());
        assert!(worker["private_bytes"].as_u64() > Some(0), "{worker}");
        assert_eq!(worker["incarnation"], 1);
    }
    let done = |pool: &Value| -> u64 {
        let workers = pool["workers"].as_array().unwrap();
        workers
            .iter()
            .map(|worker| worker["elements"].as_u64().unwrap())
            .sum()
    };
    let later = look(&busy.pid()).unwrap();
    assert!(
        done(&later["pools"][0]) > done(pool),
        "they go on: {seen} {later}"
    );

    let (code, out, _) = run(&["top", &busy.pid(), "--once"]);
    assert_eq!(code, 0);
    assert!(
        out.contains("pool 1 of 1: 2 workers, 0 replaced") && out.contains("in hand"),
        "{out}"
    );
}

#[test]
fn top_goes_on_until_the_program_ends() {
    let _watch = watch();
    let mut busy = Busy::start();
    let mut top = swathe(&["top", &busy.pid(), "--json", "--interval", "20"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(top.stdout.take().unwrap());
    for _ in 0..3 {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        let seen: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(seen["pid"].to_string(), busy.pid());
    }
    busy.0.kill().unwrap();
    busy.0.wait().unwrap();
    lines.read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(top.wait().unwrap().code(), Some(0));
}
