//! What must not compile, and that the compiler says what to do.
//!
//! The messages are compared with the `.stderr` files of the folder `ui`; `TRYBUILD=overwrite` writes them anew. Without
//! the harness, because the environment is changed while there is one thread.

fn main() {
    for (name, value) in [
        ("CARGO_PROFILE_DEV_OPT_LEVEL", "0"),
        ("CARGO_PROFILE_DEV_DEBUG", "0"),
    ] {
        #[expect(
            unsafe_code,
            reason = "these programs hardly run: compiling them quickly is what counts"
        )]
        // SAFETY: no other thread has been started.
        unsafe {
            std::env::set_var(name, value);
        }
    }
    let cases = trybuild::TestCases::new();
    // Also makes the others be built to the end: what a closure captures is known only then.
    cases.pass("ui/right.rs");
    cases.compile_fail("ui/wrong_*.rs");
}
