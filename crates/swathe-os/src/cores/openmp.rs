//! The CPUs that GCC's OpenMP runtime found when it started, before it bound the main thread to one of them.
//!
//! With `OMP_PROC_BIND` or `GOMP_CPU_AFFINITY` set, libgomp binds the thread that loads it, before `main` and before there
//! is any other thread, so no mask of this process tells any more what the job was given. Its list of places does.

use std::ffi::{CStr, c_int, c_void};

/// All CPUs of all places; empty without libgomp, or without places.
pub(super) fn places() -> Vec<usize> {
    // LLVM's runtime binds no thread before its first parallel region, and being asked would start it.
    if symbol(c"__kmpc_fork_call").is_some() {
        return Vec::new();
    }
    let (Some(count), Some(size), Some(cpus)) = (
        symbol(c"omp_get_num_places"),
        symbol(c"omp_get_place_num_procs"),
        symbol(c"omp_get_place_proc_ids"),
    ) else {
        return Vec::new();
    };
    // SAFETY: a function of that name has this type in every OpenMP runtime since version 4.5 of the standard.
    let count: extern "C" fn() -> c_int = unsafe { std::mem::transmute(count) };
    // SAFETY: as above.
    let size: extern "C" fn(c_int) -> c_int = unsafe { std::mem::transmute(size) };
    // SAFETY: as above; it writes as many numbers as `size` says.
    let cpus: unsafe extern "C" fn(c_int, *mut c_int) = unsafe { std::mem::transmute(cpus) };
    let mut all = Vec::new();
    for place in 0..count() {
        let mut ids = vec![0; usize::try_from(size(place)).unwrap_or(0)];
        // SAFETY: there is room for as many numbers as this place has.
        unsafe { cpus(place, ids.as_mut_ptr()) };
        all.extend(ids.into_iter().filter_map(|id: c_int| usize::try_from(id).ok()));
    }
    all
}

fn symbol(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: the name ends with a zero; looking it up runs no code of the object.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!address.is_null()).then_some(address)
}
