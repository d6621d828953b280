#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| swathe_memory::hostile::array_ref(data));
