//! What a node measures of itself and of its machine, for people to watch.
//!
//! What cannot be measured is absent, never 0.

use serde::{Deserialize, Serialize};

/// GPUs one node tells of.
pub const GPUS_MAX: usize = 16;
/// Characters of a GPU's name, or of a build's version, that are kept.
pub const NAME_CHARS_MAX: usize = 48;

/// What a node measures of itself and of its machine, once a second.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Vitals {
    /// Version of the build that runs.
    pub build: String,
    /// CPU time of its process since the measurement before, percent of one core: 250 is two cores and
    /// a half. What runs in sandboxes is not in it.
    pub cpu_percent: Option<f64>,
    /// GPUs it can see, at most [`GPUS_MAX`]; none where its tensors live in main memory, or where the
    /// driver does not answer.
    pub gpus: Vec<Gpu>,
    /// To the coordinator and back; none in the coordinator itself.
    pub round_trip: Option<RoundTrip>,
}

/// A GPU, as its driver has it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Gpu {
    /// Its number, in the driver's order.
    pub index: u32,
    /// What it is called.
    pub name: String,
    /// Memory in use, by whoever.
    pub used_bytes: Option<u64>,
    /// Memory there is.
    pub memory_bytes: Option<u64>,
    /// Share of the last moments in which something ran on it, percent.
    pub busy_percent: Option<u32>,
}

/// How long packets take to a peer and back: quantiles of the transport's own estimates, one a second.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema,
)]
pub struct RoundTrip {
    /// Half of them were no longer, microseconds.
    pub p50_us: u64,
    /// 99 of 100 were no longer, microseconds.
    pub p99_us: u64,
    /// How many there are.
    pub samples: u32,
}

impl Vitals {
    /// The same within its bounds, whoever sent it.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        let short = |text: &mut String| {
            if let Some((end, _)) = text.char_indices().nth(NAME_CHARS_MAX) {
                text.truncate(end);
            }
        };
        short(&mut self.build);
        self.gpus.truncate(GPUS_MAX);
        self.gpus.iter_mut().for_each(|gpu| short(&mut gpu.name));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_says_of_itself_is_cut_to_its_bounds() {
        let gpu = Gpu { name: "é".repeat(500), ..Gpu::default() };
        let vitals =
            Vitals { build: "0.1.0".into(), gpus: vec![gpu; 100], ..Vitals::default() }.bounded();
        assert_eq!((vitals.build.as_str(), vitals.gpus.len()), ("0.1.0", GPUS_MAX));
        assert_eq!(vitals.gpus[0].name.chars().count(), NAME_CHARS_MAX);
    }
}
