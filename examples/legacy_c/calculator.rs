//! The C library as safe Rust: all of this program's unsafe code.

#![expect(unsafe_code, reason = "calls into a C library")]

use std::{
    ffi::{CStr, CString, c_char},
    marker::PhantomData,
    sync::atomic::{AtomicBool, Ordering},
};

#[link(name = "calc", kind = "static")]
unsafe extern "C" {
    fn calc_evaluate(text: *const c_char) -> f64;
    fn calc_error() -> *const c_char;
}

/// The right to call the library. There is one in a process, and it stays on its thread (the pointer makes it `!Send`).
pub(crate) struct Calculator(PhantomData<*const ()>);

impl Calculator {
    /// Takes the library into use.
    ///
    /// # Errors
    /// If this process uses it already.
    pub(crate) fn open() -> Result<Self, &'static str> {
        static OPEN: AtomicBool = AtomicBool::new(false);
        match OPEN.swap(true, Ordering::Relaxed) {
            false => Ok(Self(PhantomData)),
            true => Err("the calculator can be opened once in a process"),
        }
    }

    /// The value of an expression.
    ///
    /// # Errors
    /// What is wrong with the expression.
    pub(crate) fn evaluate(&mut self, text: &str) -> Result<f64, String> {
        let text = CString::new(text).map_err(|_| "the expression contains a zero byte")?;
        // SAFETY: `text` ends with a zero and outlives the call. The library's globals are ours alone: there is one
        // `Calculator` in a process, it cannot leave its thread, and `&mut self` excludes a call within a call.
        let value = unsafe { calc_evaluate(text.as_ptr()) };
        // SAFETY: the library returns its static buffer, which ends with a zero and changes only in `calc_evaluate`.
        let error = unsafe { CStr::from_ptr(calc_error()) };
        if error.is_empty() {
            Ok(value)
        } else {
            Err(error.to_string_lossy().into_owned())
        }
    }
}
