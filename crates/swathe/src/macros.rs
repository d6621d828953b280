//! Starting workers in programs that have no `main` of their own.

/// Calls [`init`](crate::init) before `main`: for test and benchmark harnesses, which have no `main` of yours. Write it
/// once, at the top of the file.
///
/// In ordinary programs call [`init`](crate::init) instead: the standard library promises nothing about code that runs
/// before `main`. Workers find the program as after `init()`: constructors of its dependencies (of the executable, or of the
/// library that this is written in) have run, a write to a closed pipe is an error. Two things they do not find: their
/// thread has no name, and a stack that overflows ends them without a word (SIGSEGV).
///
/// ```standalone_crate
/// swathe::init_before_main!();
///
/// fn main() -> swathe::Result<()> {
///     // As in the `main` of a test harness, there is no `swathe::init()` here.
///     let pool = swathe::Pool::builder().processes(1).build()?;
///     assert_eq!(pool.apply(|x: u32| x + 1, 41)?, 42);
///     Ok(())
/// }
/// ```
#[macro_export]
macro_rules! init_before_main {
    () => {
        const _: () = {
            extern "C" fn start(
                count: ::core::ffi::c_int,
                arguments: $crate::__private::Strings,
                environment: $crate::__private::Strings,
            ) {
                // SAFETY: the loader has called this by the entry below.
                unsafe {
                    $crate::__private::call_before_main(
                        &ENTRY,
                        (count, arguments, environment),
                        $crate::init,
                    );
                }
            }
            // In the list of functions that the loader calls before `main`, with these arguments.
            #[used]
            #[unsafe(link_section = ".init_array")]
            static ENTRY: $crate::__private::Constructor = start;
        };
    };
}
