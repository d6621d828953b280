#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| swathe_runtime::untrusted::failure_records(data));
