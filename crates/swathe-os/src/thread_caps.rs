//! Environment caps for the thread pools inside numeric libraries.
//!
//! OpenMP, the BLAS libraries, NumExpr and rayon start one thread a core of the machine. In each of n workers that
//! makes n x n threads for n cores. They all read an environment variable when they start, so the cure is to set
//! those variables for the worker before it is spawned. A variable that the user has set is the user's decision
//! and stays as it is.

use std::ffi::OsString;

/// The variables, in the order in which [`caps`] returns them, with the library that reads each.
const VARIABLES: [&str; 7] = [
    "OMP_NUM_THREADS",        // OpenMP runtimes
    "OPENBLAS_NUM_THREADS",   // OpenBLAS
    "MKL_NUM_THREADS",        // Intel MKL
    "BLIS_NUM_THREADS",       // BLIS
    "VECLIB_MAXIMUM_THREADS", // Accelerate
    "NUMEXPR_NUM_THREADS",    // NumExpr
    "RAYON_NUM_THREADS",      // rayon's global pool
];

/// The variables to set in a worker's environment, with their values, so that its inner thread pools use
/// `cores_per_worker` threads (0 counts as 1).
///
/// `get` looks a variable up in the environment that the worker will inherit, `std::env::var_os` as a rule. A
/// variable that it finds is left out of the result, whatever its value, the empty one included.
pub fn caps(cores_per_worker: usize, get: impl Fn(&str) -> Option<OsString>) -> Vec<(&'static str, String)> {
    let threads = cores_per_worker.max(1).to_string();
    VARIABLES
        .into_iter()
        .filter(|name| get(name).is_none())
        .map(|name| (name, threads.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unset_variable_gets_the_share() {
        let set = caps(3, |_| None);
        assert_eq!(set.iter().map(|(name, _)| *name).collect::<Vec<_>>(), VARIABLES);
        assert!(set.iter().all(|(_, threads)| threads == "3"), "{set:?}");
    }

    #[test]
    fn what_the_user_set_stays_even_when_empty() {
        let user = |name: &str| match name {
            "OMP_NUM_THREADS" => Some(OsString::from("8")),
            "RAYON_NUM_THREADS" => Some(OsString::new()),
            _ => None,
        };
        let names: Vec<_> = caps(2, user).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, VARIABLES[1..6]);
    }

    #[test]
    fn no_share_is_one_thread() {
        assert!(caps(0, |_| None).iter().all(|(_, threads)| threads == "1"));
    }
}
