#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| swathe_memory::untrusted::array_ref(data));
