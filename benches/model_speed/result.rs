//! What is printed: the settings and the numbers of one benchmark.

use serde_json::{Map, Value, json};

use crate::memory;
use crate::options::Options;

/// Settings and numbers, in the order in which they are printed.
#[derive(Debug)]
pub(crate) struct Outcome {
    fields: Map<String, Value>,
}

impl Outcome {
    /// Begins with what every benchmark says.
    pub(crate) fn new(work: &str, options: &Options) -> Self {
        // A number of torch's is the same only on as many threads.
        let threads = std::env::var("RAYON_NUM_THREADS").ok().and_then(|n| n.parse().ok());
        let threads: usize = threads.unwrap_or_else(|| {
            std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
        });
        let model = options.model.file_name().map(|name| name.to_string_lossy().into_owned());
        let mut fields = Map::new();
        for (name, value) in [
            ("bench", json!(work)),
            ("side", json!("crrl")),
            ("model", json!(model)),
            ("device", json!(options.device.name())),
            ("dtype", json!(options.precision().name())),
            ("threads", json!(threads)),
            ("repeats", json!(options.repeats)),
        ] {
            fields.insert(name.to_owned(), value);
        }
        Self { fields }
    }

    /// Adds a setting or a number.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }

    /// One JSON object, or a line a field; the memory used so far comes last.
    pub(crate) fn text(mut self, json: bool) -> String {
        self.fields.insert("rss_peak_mib".to_owned(), json!(memory::peak_mib()));
        if json {
            return Value::Object(self.fields).to_string();
        }
        let lines: Vec<String> =
            self.fields.iter().map(|(name, value)| format!("{name:<24} {value}")).collect();
        lines.join("\n")
    }
}

/// The middle of some numbers; of an even count, the upper of the two.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
