//! How a program was started, and what it was when its pool was built.

use std::{fs, process::Command};

use crate::host::{Host, program, say};

#[test]
fn workers_find_what_was_there_when_the_pool_was_built() {
    assert_eq!(say(&["surroundings"]), "1 true");
}

/// A library with a thread that is there before `main`: a preloaded tool, a BLAS.
#[test]
fn threads_that_exist_before_main_cost_a_millisecond_and_nothing_else() {
    let directory = tempfile::tempdir().expect("there is room");
    let (source, library) = (
        directory.path().join("early.c"),
        directory.path().join("early.so"),
    );
    let text = "#define _GNU_SOURCE\n#include <pthread.h>\n#include <unistd.h>\n\
                static void *rest(void *x) { pthread_setname_np(pthread_self(), \"early-bird\"); for (;;) pause(); return x; }\n\
                __attribute__((constructor)) static void early(void) { pthread_t t; pthread_create(&t, 0, rest, 0); }\n";
    fs::write(&source, text).expect("it is ours");
    let mut gcc = Command::new("gcc");
    let gcc = gcc
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(&source)
        .arg("-lpthread");
    assert!(gcc.status().expect("gcc is there").success());
    let host = Host::of(Command::new(program()).arg("threads").env("LD_PRELOAD", &library));
    // `main`'s own watchdog is one of the three.
    assert_eq!(host.end(), "3 [0, 1] true");
}

#[test]
fn a_launchers_variables_and_descriptors_are_gone_before_constructors() {
    let mut shell = Command::new("bash");
    let launcher = "exec 77</dev/null; OMPI_COMM_WORLD_RANK=1 PMIX_RANK=1 PMI_FD=77 HYDI_CONTROL_FD=77 MPI_LOCALRANKID=0 \
                    SLURM_JOB_ID=42 exec \"$0\" launched";
    let host = Host::of(shell.arg("-c").arg(launcher).arg(program()));
    assert_eq!(host.end(), "[5, 1] [[0, 0], [0, 0]] 42");
}

/// The loader of this very program.
fn loader() -> String {
    let maps = fs::read_to_string("/proc/self/maps").expect("/proc is there");
    let paths = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
    let mut loaders = paths.filter(|path| path.contains("/ld-") || path.contains("/ld."));
    loaders
        .next()
        .expect("this program is linked dynamically")
        .to_owned()
}

#[test]
fn a_program_may_be_given_to_its_loader() {
    assert_eq!(
        Host::of(Command::new(loader()).arg(program()).arg("plain")).end(),
        "works"
    );
}

#[test]
fn a_program_may_run_under_valgrind() {
    let there = Command::new("valgrind").arg("--version").output();
    if there.is_err() {
        return eprintln!("skipped: valgrind is not there");
    }
    let mut valgrind = Command::new("valgrind");
    let command = valgrind
        .args(["-q", "--tool=none"])
        .arg(program())
        .arg("many")
        .arg("2");
    assert_eq!(Host::of(command).end(), "500500");
}

#[test]
fn a_worker_executable_is_what_workers_are_started_from() {
    let copied = tempfile::tempdir().expect("there is room");
    let copy = copied.path().join("a copy");
    fs::copy(program(), &copy).expect("it can be copied");
    let host = Host::of(Command::new(program()).arg("plain").env("SWATHE_WORKER", &copy));
    assert_eq!(host.end(), "works");
    let mut other = Command::new(program());
    let host = Host::of(other.arg("many").arg("2").env("SWATHE_WORKER", "/bin/true"));
    let text = host.end();
    assert!(
        text.contains("ended before it was ready: it exited with code 0"),
        "{text}"
    );
    assert!(text.contains("Builder::worker_executable"), "{text}");
}

/// System calls that a seccomp filter answers with an error, in the program and in all of its pool.
#[test]
fn denied_system_calls_are_done_without() {
    let denied = |calls: &[&str], role: &[&str], right: &str| {
        let mut sandbox = Command::new(env!("CARGO_BIN_EXE_deny"));
        let text = Host::of(sandbox.args(calls).arg("--").arg(program()).args(role)).end();
        // Not everybody may install a filter.
        assert!(
            text == right || text.starts_with("skipped"),
            "{calls:?} {role:?}: {text}"
        );
    };
    let handles = [
        "pidfd_open=EPERM",
        "pidfd_send_signal=ENOSYS",
        "close_range=EPERM",
    ];
    for call in handles {
        denied(&[call], &["plain"], "works");
    }
    denied(&handles, &["plain"], "works");
    denied(&handles, &["closed", "closed:012"], "");
    denied(&handles, &["reaps-all"], "works");
    denied(&handles, &["adopts"], "0");
}
