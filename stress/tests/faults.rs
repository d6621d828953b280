//! The faults that other pools get, given to Swathe: those of the cases that take no waiting.

use std::process::Command;

#[test]
fn a_death_costs_nothing_and_a_culprit_costs_itself() {
    let cases = ["kill_running", "exit_0", "segfault", "bad_exception", "storm"];
    let output = Command::new(env!("CARGO_BIN_EXE_stress"))
        .arg("faults")
        .args(cases.iter().flat_map(|case| ["--case", case]))
        .output()
        .expect("the program can be started");
    let table = String::from_utf8(output.stdout).expect("the table is text");
    let errors = String::from_utf8_lossy(&output.stderr);
    let expected = [
        "| `kill_running` | 8 of 8, ",
        "| `exit_0` | 7 of 8, Lost 3, ",
        "| `segfault` | 7 of 8, Lost 3, ",
        "| `bad_exception` | 7 of 8, Panicked 3, ",
        "| `storm` | 0 of 0, 8 Lost, ",
    ];
    for (row, start) in table.lines().skip(2).zip(expected) {
        assert!(
            row.starts_with(start),
            "{row}\nshould start with {start}\n{errors}"
        );
        assert!(!row.contains("then") && !row.contains("left"), "{row}\n{errors}");
    }
    assert_eq!(table.lines().count(), 2 + cases.len(), "{table}\n{errors}");
}
