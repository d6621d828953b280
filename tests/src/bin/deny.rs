//! Runs a program in a sandbox that answers some system calls with an error: `deny CALL=ERRNO... -- PROGRAM ARGUMENT...`,
//! as `deny pidfd_open=EPERM -- neighbour sandbox`. The filter holds for the program and for all that it starts.

use std::{
    env, io,
    os::unix::process::CommandExt,
    process::{Command, exit},
};

use libc::{c_long, sock_filter};

/// Which calls of its number are meant.
#[derive(Clone, Copy)]
enum When {
    Always,
    /// The argument of this number has this value.
    Is(u32, i32),
    /// The argument of this number has one of these bits.
    Has(u32, i32),
}

/// What can be denied, by name.
const CALLS: [(&str, c_long, When); 17] = [
    ("memfd_create", libc::SYS_memfd_create, When::Always),
    (
        "memfd_noexec_seal",
        libc::SYS_memfd_create,
        When::Has(1, libc::MFD_NOEXEC_SEAL as i32),
    ),
    ("add_seals", libc::SYS_fcntl, When::Is(1, libc::F_ADD_SEALS)),
    ("get_seals", libc::SYS_fcntl, When::Is(1, libc::F_GET_SEALS)),
    (
        "punch_hole",
        libc::SYS_fallocate,
        When::Has(1, libc::FALLOC_FL_PUNCH_HOLE),
    ),
    ("fallocate", libc::SYS_fallocate, When::Always),
    (
        "populate_write",
        libc::SYS_madvise,
        When::Is(2, libc::MADV_POPULATE_WRITE),
    ),
    ("collapse", libc::SYS_madvise, When::Is(2, libc::MADV_COLLAPSE)),
    ("madvise", libc::SYS_madvise, When::Always),
    ("mbind", libc::SYS_mbind, When::Always),
    ("pidfd_open", libc::SYS_pidfd_open, When::Always),
    ("pidfd_send_signal", libc::SYS_pidfd_send_signal, When::Always),
    ("close_range", libc::SYS_close_range, When::Always),
    ("set_affinity", libc::SYS_sched_setaffinity, When::Always),
    ("get_affinity", libc::SYS_sched_getaffinity, When::Always),
    ("prctl", libc::SYS_prctl, When::Always),
    ("flock", libc::SYS_flock, When::Always),
];

const ERRORS: [(&str, i32); 8] = [
    ("EPERM", libc::EPERM),
    ("EACCES", libc::EACCES),
    ("EINVAL", libc::EINVAL),
    ("ENOSYS", libc::ENOSYS),
    ("ENOMEM", libc::ENOMEM),
    ("EAGAIN", libc::EAGAIN),
    ("ENOLCK", libc::ENOLCK),
    ("EOPNOTSUPP", libc::EOPNOTSUPP),
];

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let program = arguments
        .iter()
        .position(|argument| argument == "--")
        .expect("a program follows --");
    let mut filter = Vec::new();
    for denial in &arguments[..program] {
        let (call, error) = denial.split_once('=').expect("CALL=ERRNO");
        let (_, number, when) = CALLS
            .into_iter()
            .find(|(name, ..)| *name == call)
            .unwrap_or_else(|| panic!("no call is called {call:?}"));
        let (_, error) = ERRORS
            .into_iter()
            .find(|(name, _)| *name == error)
            .unwrap_or_else(|| panic!("no error is called {error:?}"));
        filter.extend(rule(number, when, error));
    }
    filter.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0));
    if let Err(e) = install(&filter) {
        println!("skipped: no filter can be installed here: {e}");
        exit(0);
    }
    let [program, arguments @ ..] = &arguments[program + 1..] else {
        panic!("a program follows --")
    };
    panic!("{program}: {}", Command::new(program).args(arguments).exec());
}

/// A jump goes on with the next statement if it holds, else leaves so many out.
fn statement(code: u32, value: u32, left_out_else: u8) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt: 0,
        jf: left_out_else,
        k: value,
    }
}

/// Statements of the kernel's filter language that answer with this error. They begin with loading the call's number: the
/// rule before may have loaded an argument.
fn rule(number: c_long, when: When, error: i32) -> Vec<sock_filter> {
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const IS: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const HAS: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
    // `struct seccomp_data`: number, architecture, instruction pointer, then six arguments of 8 bytes, low word first.
    let load_argument = |index: u32| statement(LOAD, 16 + 8 * index, 0);
    let load_number = statement(LOAD, 0, 0);
    let refuse = statement(
        libc::BPF_RET | libc::BPF_K,
        libc::SECCOMP_RET_ERRNO | error as u32,
        0,
    );
    let is_call = |left_out| statement(IS, number as u32, left_out);
    match when {
        When::Always => vec![load_number, is_call(1), refuse],
        When::Is(index, value) => vec![
            load_number,
            is_call(3),
            load_argument(index),
            statement(IS, value as u32, 1),
            refuse,
        ],
        When::Has(index, bits) => vec![
            load_number,
            is_call(3),
            load_argument(index),
            statement(HAS, bits as u32, 1),
            refuse,
        ],
    }
}

#[expect(unsafe_code, reason = "no wrapper of these calls is among the dependencies")]
fn install(filter: &[sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: it only takes from this process the right to gain privileges, without which everybody may install a filter.
    let alone = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    // SAFETY: the program is as long as is said, and the kernel copies it.
    let filtered = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        )
    };
    match (alone, filtered) {
        (0, 0) => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
