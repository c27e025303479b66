//! Adapters between nodes of one process on loopback: fan-out, time until everyone has it, the way
//! beside plain TCP, control messages beside it, f32 beside bf16. Prints medians; judges nothing.
//!
//! `cargo bench --bench weights -- [fan-out|visible|bulk|control|types]...` (all without a word);
//! `ROUNDS` in the environment is how often each is measured (5).

#![expect(clippy::print_stdout, reason = "its output is the point")]

mod bulk;
mod control;
mod fan_out;
mod nodes;
mod types;
mod visible;

/// Times each thing is measured.
fn rounds() -> usize {
    std::env::var("ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5)
}

/// The value that this share of the others is no greater than.
fn at(share: f64, values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share).round() as usize]
}

fn median(mut values: Vec<f64>) -> f64 {
    at(0.5, &mut values)
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|w| w == name);
    if wants("fan-out") {
        fan_out::run().await;
    }
    if wants("visible") {
        visible::run().await;
    }
    if wants("bulk") {
        bulk::run().await;
    }
    if wants("control") {
        control::run().await;
    }
    if wants("types") {
        types::run().await;
    }
}
