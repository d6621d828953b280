//! Starting workers in programs that have no `main` of their own.

/// Calls [`init`](crate::init) before `main`: for test and benchmark harnesses, which have no `main` of yours. Write it
/// once, at the top of the file.
///
/// In ordinary programs call [`init`](crate::init) instead: the standard library promises nothing about code that runs
/// before `main`.
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
        $crate::__private::ctor::declarative::ctor! {
            #[ctor(unsafe, anonymous)]
            fn start_swathe_workers() {
                $crate::init();
            }
        }
    };
}
