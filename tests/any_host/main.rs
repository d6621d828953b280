//! Swathe in programs that are not Rust's: C programs that open a library which holds it (`swathe-test-host`).

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use swathe_tests::watch;
// Cargo builds the shared library of what is used here.
use swathe_test_host as _;
use tempfile::TempDir;

/// The C programs, and where the library lies.
struct Hosts {
    directory: TempDir,
    library: PathBuf,
}

impl Hosts {
    fn build() -> Self {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("any_host");
        let directory = tempfile::tempdir().expect("a directory can be made");
        let hosts = Self {
            directory,
            library: library(),
        };
        for (source, options) in [
            ("host.c", &["-ldl"][..]),
            ("worker.c", &["-ldl"]),
            ("plugin.c", &["-shared", "-fPIC"]),
        ] {
            let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
            let mut command = Command::new(compiler);
            command.arg("-o").arg(hosts.file(source.trim_end_matches(".c")));
            command.arg(sources.join(source)).args(options);
            let status = command.status().expect("a C compiler is installed");
            assert!(status.success(), "{source}: {status}");
        }
        hosts
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, act: &str, worker: Option<&Path>) -> Command {
        let mut command = Command::new(self.file("host"));
        command
            .env("HOST_LIBRARY", &self.library)
            .env_remove("SWATHE_WORKER");
        command
            .arg(act)
            .arg(worker.unwrap_or(Path::new("")))
            .arg(self.file("plugin"));
        command
    }

    fn run(&self, act: &str, worker: Option<&Path>) -> Output {
        let _watch = watch();
        self.command(act, worker).output().expect("it can be started")
    }
}

/// Beside this program, where Cargo puts the libraries of what it depends on.
fn library() -> PathBuf {
    let here = env::current_exe().expect("it is known");
    let folder = here.parent().expect("it lies in a folder");
    let files = fs::read_dir(folder).expect("it can be read").flatten();
    let named = files.filter(|file| {
        let name = file.file_name().to_string_lossy().into_owned();
        name.starts_with("libswathe_test_host") && name.ends_with(".so")
    });
    // The one that was built last is the one this program was built with.
    let newest = named.max_by_key(|file| file.metadata().and_then(|file| file.modified()).ok());
    newest.expect("the library was built").path()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

#[test]
fn a_c_program_starts_its_workers_itself() {
    let hosts = Hosts::build();
    let output = hosts.run("run", None);
    assert!(output.status.success(), "{}: {}", output.status, text(&output));
}

#[test]
fn workers_may_be_another_program_that_has_loaded_the_same_library() {
    let hosts = Hosts::build();
    let output = hosts.run("run", Some(&hosts.file("worker")));
    assert!(output.status.success(), "{}: {}", output.status, text(&output));
    let mut command = hosts.command("run", None);
    let _watch = watch();
    // The variable names it, too; then a function of the program alone is no task of its workers.
    let output = command.env("SWATHE_WORKER", hosts.file("worker")).output();
    let output = output.expect("it can be started");
    assert!(
        text(&output).contains("it is in the program itself"),
        "{}",
        text(&output)
    );
}

#[test]
fn what_cannot_start_workers_is_said_at_once() {
    let hosts = Hosts::build();
    let expected = [
        ("uninitialized", None, "swathe::init()"),
        ("build", Some("/bin/true"), "ended before it was ready"),
        (
            "build",
            Some("/no/such/program"),
            "could not be started: /no/such/program: No such file",
        ),
    ];
    for (act, worker, words) in expected {
        let output = hosts.run(act, worker.map(Path::new));
        assert_eq!(
            output.status.code(),
            Some(1),
            "{act} {worker:?}: {}",
            text(&output)
        );
        assert!(
            text(&output).contains(words),
            "{act} {worker:?}: {}",
            text(&output)
        );
    }
}

#[test]
fn another_build_of_the_library_is_refused() {
    let hosts = Hosts::build();
    let id = text(&hosts.run("build-id", None));
    let digits = id.trim().as_bytes().chunks(2);
    let id: Vec<u8> = digits
        .map(|pair| u8::from_str_radix(&String::from_utf8_lossy(pair), 16).expect("hexadecimal digits"))
        .collect();
    let mut bytes = fs::read(&hosts.library).expect("it can be read");
    let Some(at) = bytes.windows(id.len()).position(|window| window == id) else {
        eprintln!("skipped: the linker wrote no build id");
        return;
    };
    bytes[at] ^= 0xff;
    let other = hosts.file("other.so");
    fs::write(&other, bytes).expect("it can be written");
    let _watch = watch();
    let output = hosts
        .command("build", Some(&hosts.file("worker")))
        .env("WORKER_LIBRARY", other)
        .output();
    let output = output.expect("it can be started");
    assert!(text(&output).contains("another build"), "{}", text(&output));
    assert_eq!(output.status.code(), Some(1));
}
