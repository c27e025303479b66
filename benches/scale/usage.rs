//! CPU time and memory of processes, as the kernel counts them.

use std::time::Duration;

/// Ticks a second in `/proc/PID/stat`: fixed on Linux.
const TICKS_PER_S: f64 = 100.0;

/// CPU time of this process so far, all threads.
pub(crate) fn cpu() -> Duration {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF);
    let Ok(usage) = usage else { return Duration::ZERO };
    [usage.user_time(), usage.system_time()]
        .into_iter()
        .map(|t| Duration::new(t.tv_sec().max(0) as u64, 1000 * t.tv_usec().max(0) as u32))
        .sum()
}

/// CPU time of the threads of this process whose names begin like this, by the kernel's ticks.
pub(crate) fn cpu_of_threads(name: &str) -> Duration {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return Duration::ZERO };
    let seconds = tasks.flatten().filter_map(|task| {
        let is_named = std::fs::read_to_string(task.path().join("comm")).ok()?.starts_with(name);
        let stat = std::fs::read_to_string(task.path().join("stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
        is_named.then_some((ticks(11)? + ticks(12)?) / TICKS_PER_S)
    });
    Duration::from_secs_f64(seconds.sum())
}

/// Resident memory of a process (`self`, or its number), KiB.
pub(crate) fn resident_kib(process: &str) -> u64 {
    field_kib(process, "VmRSS:")
}

/// The most this process ever had resident, KiB.
pub(crate) fn peak_kib() -> u64 {
    field_kib("self", "VmHWM:")
}

fn field_kib(process: &str, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or(0)
}

/// The value below which this share of the values lies.
pub(crate) fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len().saturating_sub(1) as f64 * share).round() as usize;
    values.get(at).copied().unwrap_or(f64::NAN)
}
