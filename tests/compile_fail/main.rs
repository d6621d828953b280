//! What must not compile, and that the compiler says what to do.
//!
//! The programs of the folder `ui` are compiled with the very libraries that this test was compiled with; the compiler's
//! messages are compared with the `.stderr` files beside them. `GOLDENS=overwrite` writes those anew.

mod message;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// The compiler and the arguments that Cargo gave it for this test.
const COMPILED_BY: &[&str] = swathe_test_compiled_by::compiled_by!();
const PROGRAMS: &str = "tests/ui";

/// Cargo compiles the crates from here, so messages call their files by paths from here.
fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("this crate has a folder of the workspace")
}

/// Where and how this test has found the library, the linker included. The other arguments say how this test is built.
fn as_this_test() -> Vec<&'static str> {
    let library: Vec<_> = COMPILED_BY
        .iter()
        .filter(|argument| argument.starts_with("swathe="))
        .collect();
    assert_eq!(library.len(), 1, "one library is named in {COMPILED_BY:?}");
    let pairs = COMPILED_BY.windows(2).filter(|pair| match pair[0] {
        "--extern" => pair[1] == *library[0],
        "-C" => pair[1].starts_with("link"),
        option => ["-L", "--target", "--sysroot"].contains(&option),
    });
    pairs.flatten().copied().collect()
}

/// Compiles to the end: what a closure captures is known only when machine code is made.
fn compile(program: &Path, executable: &Path) -> Output {
    Command::new(COMPILED_BY[0])
        .current_dir(workspace())
        .args([
            "--edition=2024",
            "--color=never",
            "--crate-type=bin",
            "--emit=link",
            // In a narrow message long types are not written out.
            "--diagnostic-width=1000",
        ])
        // They hardly run: compiling them quickly is what counts.
        .args(["-Copt-level=0", "-Cdebuginfo=0"])
        .args(as_this_test())
        .arg("-o")
        .args([executable, program])
        .output()
        .expect("the compiler runs")
}

/// The programs whose names begin so, relative to the workspace.
fn programs(prefix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(workspace().join(PROGRAMS)).expect("the folder is there") {
        let name = entry.expect("it can be listed").file_name();
        let name = name.to_str().expect("it is UTF-8");
        let known = name.starts_with("right") || name.starts_with("wrong_");
        assert!(
            known,
            "{name} is neither right nor wrong: nothing would compile it"
        );
        if name.starts_with(prefix) && name.ends_with(".rs") {
            found.push(Path::new(PROGRAMS).join(name));
        }
    }
    found.sort();
    assert!(
        !found.is_empty(),
        "no program has a name that begins with {prefix}"
    );
    found
}

#[test]
fn what_is_right_compiles_and_runs() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    for program in programs("right") {
        let executable = folder.path().join("right");
        let output = compile(&program, &executable);
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{} does not compile:\n{message}",
            program.display()
        );
        assert!(message.is_empty(), "{}:\n{message}", program.display());
        let output = Command::new(&executable).output().expect("it starts");
        assert!(output.status.success(), "{}: {output:?}", program.display());
    }
}

#[test]
fn what_is_wrong_is_refused_and_the_message_says_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let mut differences = String::new();
    for program in programs("wrong_") {
        let name = program.display();
        let output = compile(&program, &folder.path().join("wrong"));
        assert!(!output.status.success(), "{name} compiles");
        let told = message::normal(&String::from_utf8_lossy(&output.stderr));
        let golden = workspace().join(&program).with_extension("stderr");
        if env::var_os("GOLDENS").is_some_and(|value| value == "overwrite") {
            fs::write(&golden, &told).expect("it can be written");
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        if told != expected {
            differences += &format!("{name}, expected:\n{expected}\n{name}, told:\n{told}\n");
        }
    }
    assert!(
        differences.is_empty(),
        "{differences}If that is as good, GOLDENS=overwrite writes the files anew."
    );
}
