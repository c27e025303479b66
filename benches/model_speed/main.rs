//! Speed and memory of the engine and the learner on a model folder.
//!
//!     cargo bench --bench model_speed -- decode --model DIR --json
//!
//! The product's own [`Engine`](crrl_engine::Engine) and [`Learner`](crrl_learner::Learner) run,
//! nothing private to the benchmark. `scripts/bench/peer.py` does the same work in torch,
//! transformers and PEFT.
//!
//! - [`options`]: what is asked for
//! - [`decode`], [`prefill`], [`lora_step`], [`hand_over`]: one kind of work each
//! - [`prompts`]: token ids to work on; [`result`]: what is printed; [`memory`]: peak of the process
#![expect(clippy::print_stdout, reason = "its output is the point")]

mod decode;
mod hand_over;
mod lora_step;
mod memory;
mod options;
mod prefill;
mod prompts;
mod result;

use std::process::ExitCode;

use clap::Parser as _;

use options::{Options, Work};

fn main() -> ExitCode {
    let options = Options::parse();
    let done = options.check().and_then(|()| match options.work {
        Work::Decode => decode::run(&options),
        Work::Prefill => prefill::run(&options),
        Work::LoraStep => lora_step::run(&options),
        Work::HandOver => hand_over::run(&options),
    });
    match done {
        Ok(result) => {
            println!("{}", result.text(options.json));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("model_speed: {error}");
            ExitCode::FAILURE
        }
    }
}
