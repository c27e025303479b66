//! What a node measures of itself and of its machine, as metrics. What cannot be measured is not exported; what
//! could be once and cannot any more is NaN, which Prometheus takes for no number.

use std::collections::BTreeSet;

use crrl_types::{NodeName, Vitals};
use metrics::gauge;

use crate::names;

/// A gauge: its name, and its label where it has one.
type Key = (&'static str, Option<(&'static str, String)>);

/// Sets gauges, and remembers which ones it has set.
#[derive(Debug, Default)]
pub struct Gauges(BTreeSet<Key>);

impl Gauges {
    /// What this node measures.
    #[expect(clippy::cast_precision_loss, reason = "metrics are f64 everywhere")]
    pub fn vitals(&mut self, vitals: &Vitals) {
        let mut told: Vec<(Key, f64)> = Vec::new();
        told.extend(vitals.cpu_percent.map(|percent| ((names::CPU, None), percent / 100.0)));
        for gpu in &vitals.gpus {
            let label = || Some(("gpu", gpu.index.to_string()));
            let busy = gpu.busy_percent.map(|percent| f64::from(percent) / 100.0);
            told.extend(busy.map(|busy| ((names::GPU_BUSY, label()), busy)));
            told.extend(gpu.used_bytes.map(|n| ((names::GPU_USED, label()), n as f64)));
            told.extend(gpu.memory_bytes.map(|n| ((names::GPU_MEMORY, label()), n as f64)));
        }
        if let Some(trip) = vitals.round_trip {
            for (quantile, us) in [("0.5", trip.p50_us), ("0.99", trip.p99_us)] {
                let key = (names::ROUND_TRIP, Some(("quantile", quantile.to_owned())));
                told.push((key, us as f64 / 1e6));
            }
        }
        self.set(&told, |name| name != names::CLOCK);
    }

    /// How far clocks are ahead of the coordinator's, microseconds.
    #[expect(clippy::cast_precision_loss, reason = "metrics are f64 everywhere")]
    pub fn clocks(&mut self, ahead_us: Vec<(NodeName, Option<i64>)>) {
        let told = ahead_us.into_iter().filter_map(|(node, us)| {
            Some(((names::CLOCK, Some(("node", node.to_string()))), us? as f64 / 1e6))
        });
        let told: Vec<(Key, f64)> = told.collect();
        self.set(&told, |name| name == names::CLOCK);
    }

    /// Sets what is told; of the gauges of these names what is told no more is no number.
    fn set(&mut self, told: &[(Key, f64)], is_of: impl Fn(&str) -> bool) {
        let keys: BTreeSet<Key> = told.iter().map(|(key, _)| key.clone()).collect();
        let gone = |key: &Key| is_of(key.0) && !keys.contains(key);
        self.0.iter().filter(|key| gone(key)).for_each(|key| put(key, f64::NAN));
        self.0.retain(|key| !gone(key));
        told.iter().for_each(|(key, value)| put(key, *value));
        self.0.extend(keys);
    }
}

fn put((name, label): &Key, value: f64) {
    match label {
        Some((label, of)) => gauge!(*name, *label => of.clone()).set(value),
        None => gauge!(*name).set(value),
    }
}

#[cfg(test)]
mod tests {
    use crrl_types::{Gpu, RoundTrip};
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn what_is_measured_is_exported_in_base_units_and_what_is_not_is_absent() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let exported = recorder.handle();
        let gpu = |busy_percent| Gpu { index: 1, busy_percent, ..Gpu::default() };
        let round_trip = RoundTrip { p50_us: 250, p99_us: 4_000, samples: 9 };
        let vitals = Vitals {
            build: "0.1.0".into(),
            cpu_percent: Some(250.0),
            gpus: vec![gpu(Some(50))],
            round_trip: Some(round_trip),
        };
        metrics::with_local_recorder(&recorder, || {
            let mut gauges = Gauges::default();
            gauges.vitals(&vitals);
            gauges.clocks(vec![("a".into(), Some(-2_500_000)), ("b".into(), None)]);
            let text = exported.render();
            for line in [
                "crrl_node_cpu_ratio 2.5",
                "crrl_gpu_busy_ratio{gpu=\"1\"} 0.5",
                "crrl_node_round_trip_seconds{quantile=\"0.5\"} 0.00025",
                "crrl_node_round_trip_seconds{quantile=\"0.99\"} 0.004",
                "crrl_node_clock_skew_seconds{node=\"a\"} -2.5",
            ] {
                assert!(text.contains(&format!("{line}\n")), "{line} is not in {text}");
            }
            for absent in ["crrl_gpu_used_bytes", "crrl_gpu_memory_bytes", "node=\"b\""] {
                assert!(!text.contains(absent), "{absent} is in {text}");
            }
            gauges.vitals(&Vitals { gpus: vec![gpu(None)], round_trip: None, ..vitals.clone() });
            let text = exported.render();
            for line in ["crrl_gpu_busy_ratio{gpu=\"1\"} NaN", "crrl_node_cpu_ratio 2.5", "skew"] {
                assert!(text.contains(line), "{line} is not in {text}");
            }
            assert!(!text.contains("skew_seconds{node=\"a\"} NaN"), "it was not asked: {text}");
        });
    }
}
