//! Functions of other libraries, as they cross to workers.

use bytemuck::{Pod, Zeroable};
use swathe_os::image::{self, CodeRef};

use crate::Error;

/// The address of a function in any loaded library, as it crosses to workers: for tasks that call what was found at run
/// time, a plugin's kernel, say. Give it to the task as a parameter; the task asks for the [`address`](Self::address).
///
/// An address means nothing in another process. What crosses is the library's build and the function's place in it. A
/// worker that has not loaded the library opens the file that this process has loaded, and makes sure that it is the same
/// build.
///
/// ```
/// use swathe::{Code, Pool};
///
/// unsafe extern "C" {
///     safe fn labs(x: std::ffi::c_long) -> std::ffi::c_long;
/// }
///
/// fn call(code: &Code, x: i64) -> Result<i64, String> {
///     let address = code.address()?;
///     // SAFETY: the parent made the reference from a function of this type.
///     let function: extern "C" fn(i64) -> i64 = unsafe { std::mem::transmute(address) };
///     Ok(function(x))
/// }
///
/// fn main() -> swathe::Result<()> {
///     swathe::init();
///     let pool = Pool::builder().processes(2).build()?;
///     let code = Code::of(labs as *const ())?;
///     let values = pool.batch().with(&code)?.try_map(call, [-3, 4, -5])?;
///     assert_eq!(&values[..], [3, 4, 5]);
///     Ok(())
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct Code {
    object: u64,
    offset: u64,
}

impl Code {
    /// Refers to the function at this address.
    ///
    /// # Errors
    /// If no executable or library that is loaded has code there.
    pub fn of(address: *const ()) -> Result<Self, Error> {
        let code = image::code_ref(address.expose_provenance()).ok_or(Error::NoCode)?;
        Ok(Self {
            object: code.object,
            offset: code.offset,
        })
    }

    /// Where the function is in this process. It stays there.
    ///
    /// # Errors
    /// A sentence that says why the function cannot be had: its library was unloaded, deleted or replaced since, say.
    pub fn address(&self) -> Result<*const (), String> {
        let (object, offset) = (self.object, self.offset);
        let address = image::find(CodeRef { object, offset });
        let address = address.map_err(|why| format!("the code of the function cannot be had: {why}"))?;
        Ok(std::ptr::with_exposed_provenance(address))
    }
}
