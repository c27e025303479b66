//! Any bytes into one of the decoders of `crrl_untrusted`, which `CRRL_DECODER` names.
#![no_main]

use std::sync::OnceLock;

use crrl_untrusted::memory::Counting;
use crrl_untrusted::{DECODERS, Decoder, check, decoder};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn chosen() -> Decoder {
    static CHOSEN: OnceLock<Decoder> = OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let name = std::env::var("CRRL_DECODER").unwrap_or_default();
        decoder(&name).unwrap_or_else(|| {
            let names = DECODERS.map(|decoder| decoder.name).join(" ");
            eprintln!("CRRL_DECODER={name:?} is none of: {names}");
            std::process::exit(2)
        })
    })
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    check(chosen(), bytes);
});
