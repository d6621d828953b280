//! Starting workers in programs that have no `main` of their own; structs in files.

/// Calls [`init`](crate::init) before `main`: for test and benchmark harnesses, which have no `main` of yours. Write it
/// once, at the top of the file.
///
/// In ordinary programs call [`init`](crate::init) instead: the standard library promises nothing about code that runs
/// before `main`. Workers find the program as after `init()`: constructors of its dependencies (of the executable, or of the
/// library that this is written in) have run, a write to a closed pipe is an error. Two things they do not find: their
/// thread has no name, and where the stack of a thread overflows that a task has started, the worker ends without a word.
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

/// Lets a plain struct be the element of an [output file](crate::Batch::output_file): one of NumPy's structured arrays, with a
/// field for each of the struct's. All fields are named, in their order, with their types: numbers, arrays of them, or structs
/// that are described likewise.
///
/// ```
/// # use swathe::Pool;
/// #[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
/// #[repr(C)]
/// struct Fit {
///     slope: f64,
///     residuals: [f32; 2],
/// }
/// swathe::npy_fields!(Fit { slope: f64, residuals: [f32; 2] });
///
/// fn fit(x: u32) -> Fit {
///     Fit { slope: f64::from(x), residuals: [0.0; 2] }
/// }
///
/// fn main() -> swathe::Result<()> {
///     swathe::init();
///     # let directory = tempfile::tempdir().unwrap();
///     # let path = directory.path().join("fits.npy");
///     let pool = Pool::builder().processes(2).build()?;
///     let fits = pool.batch().output_file(&path).map(fit, 0..100)?;
///     assert_eq!(fits[7].slope, 7.0); // numpy.load(path)["slope"][7]
///     Ok(())
/// }
/// ```
#[macro_export]
macro_rules! npy_fields {
    ($Struct:ident { $($field:ident: $Type:ty),+ $(,)? }) => {
        impl $crate::OutputElement for $Struct {
            fn dtype() -> $crate::__private::Dtype {
                // A reader of the file finds the fields one behind the other.
                const {
                    let mut at = 0;
                    $(
                        let _: fn(&$Struct) -> $Type = |value| value.$field;
                        assert!(
                            ::core::mem::offset_of!($Struct, $field) == at,
                            "npy_fields! names the fields of a #[repr(C)] struct in their order"
                        );
                        at += ::core::mem::size_of::<$Type>();
                    )+
                    assert!(
                        at == ::core::mem::size_of::<$Struct>(),
                        "npy_fields! names all fields of a struct"
                    );
                }
                $crate::__private::Dtype::of_fields(::std::vec![
                    $((::core::stringify!($field), <$Type as $crate::OutputElement>::dtype())),+
                ])
            }
        }
    };
}
