//! What must not compile, and that the compiler says what to do.
//!
//! The messages are compared with the `.stderr` files of the folder `ui`; `TRYBUILD=overwrite` writes them anew.

#[test]
fn misuse_does_not_compile() {
    let cases = trybuild::TestCases::new();
    // Also makes the others be built to the end: what a closure captures is known only then.
    cases.pass("ui/right.rs");
    cases.compile_fail("ui/wrong_*.rs");
}
