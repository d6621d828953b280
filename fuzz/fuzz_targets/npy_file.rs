#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| swathe_memory::untrusted::npy_file(data));
