//! The GPUs a node can see, as their driver has them: asked now and then beside everything else, never
//! waited for. Where the driver's tool does not answer, what the driver's files say.

use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crrl_types::Gpu;
use crrl_types::vitals::GPUS_MAX;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Time between two questions: the tool takes a good part of a second of a core.
const EVERY: Duration = Duration::from_secs(10);
/// A driver that has not answered by then hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Most that is read of an answer, bytes.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// What is asked, in the order of the columns.
const QUERY: &str = "--query-gpu=index,name,memory.used,memory.total,utilization.gpu";
/// Where the driver tells of its devices.
const FILES: &str = "/proc/driver/nvidia/gpus";
/// Which of them a process may see, as CUDA reads it.
const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

/// GPUs, looked at until this is dropped.
#[derive(Debug)]
pub struct Gpus {
    seen: Arc<Mutex<Vec<Gpu>>>,
    task: AbortHandle,
}

impl Gpus {
    /// Begins to look at those that this process may see.
    #[must_use]
    pub fn watch() -> Self {
        let seen: Arc<Mutex<Vec<Gpu>>> = Arc::default();
        let put = Arc::clone(&seen);
        let visible = std::env::var(VISIBLE).ok().filter(|visible| !visible.trim().is_empty());
        let task = tokio::spawn(async move {
            let mut tool = Tool { patience: ANSWER_TIMEOUT, hung: None };
            let mut tick = interval(EVERY);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                let gpus = look(&mut tool, visible.clone()).await;
                *put.lock().unwrap_or_else(PoisonError::into_inner) = gpus;
            }
        });
        Self { seen, task: task.abort_handle() }
    }

    /// What was seen last; nothing where the driver does not answer.
    #[must_use]
    pub fn seen(&self) -> Vec<Gpu> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Gpus {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn look(tool: &mut Tool, visible: Option<String>) -> Vec<Gpu> {
    match tool.ask(&mut question(visible.as_deref())).await {
        Ok(text) => of_table(&text),
        Err(error) => {
            tracing::debug!(error, "nvidia-smi does not answer");
            let files = move || of_files(Path::new(FILES), visible.as_deref());
            tokio::task::spawn_blocking(files).await.unwrap_or_default()
        }
    }
}

/// The driver's tool, asked what there is to know.
fn question(visible: Option<&str>) -> Command {
    let mut command = Command::new("nvidia-smi");
    command.args([QUERY, "--format=csv,noheader,nounits"]);
    if let Some(visible) = visible {
        command.arg(format!("--id={visible}"));
    }
    command
}

/// The driver's tool, of which there is one process at most: in a driver that hangs it cannot even be
/// killed.
struct Tool {
    /// How long an answer is waited for.
    patience: Duration,
    /// The process that gave no answer, until it has ended.
    hung: Option<Child>,
}

impl Tool {
    /// What the tool prints.
    async fn ask(&mut self, command: &mut Command) -> Result<String, String> {
        if let Some(hung) = &mut self.hung
            && matches!(hung.try_wait(), Ok(None))
        {
            return Err("the one that was asked before gave no answer and cannot be ended".into());
        }
        self.hung = None;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.kill_on_drop(true).spawn().map_err(|error| error.to_string())?;
        let printed = child.stdout.take();
        let answer = async {
            let mut text = Vec::new();
            if let Some(printed) = printed {
                printed.take(ANSWER_BYTES_MAX).read_to_end(&mut text).await?;
            }
            std::io::Result::Ok((child.wait().await?, text))
        };
        let why = match timeout(self.patience, answer).await {
            Ok(Ok((status, text))) if status.success() => {
                return Ok(String::from_utf8_lossy(&text).into_owned());
            }
            Ok(Ok((status, _))) => return Err(status.to_string()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", self.patience.as_secs()),
        };
        // One that has ended by now needs no killing.
        let _ = child.start_kill();
        self.hung = Some(child);
        Err(why)
    }
}

/// One GPU a line: `0, NVIDIA H100 80GB HBM3, 41234, 81559, 93`, memory in MiB. What a GPU does not
/// measure is `[N/A]`.
fn of_table(text: &str) -> Vec<Gpu> {
    let gpu = |line: &str| {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let [index, name @ .., used, memory, busy] = fields.as_slice() else { return None };
        let bytes = |mib: &str| mib.parse::<u64>().ok()?.checked_mul(1 << 20);
        Some(Gpu {
            index: index.parse().ok()?,
            name: name.join(", "),
            used_bytes: bytes(used),
            memory_bytes: bytes(memory),
            busy_percent: busy.parse().ok(),
        })
    };
    text.lines().filter_map(gpu).take(GPUS_MAX).collect()
}

/// What the driver's files say: which there are, and nothing of what they are at. They are in the order of
/// the PCI bus, as are the numbers in `visible`.
fn of_files(folder: &Path, visible: Option<&str>) -> Vec<Gpu> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let is_visible = |index: u32| {
        visible.is_none_or(|list| list.split(',').any(|one| one.trim() == index.to_string()))
    };
    let gpus =
        paths.iter().zip(0..).filter(|(_, index)| is_visible(*index)).map(|(path, index)| {
            let text = std::fs::read_to_string(path.join("information")).unwrap_or_default();
            let model = text.lines().find_map(|line| line.strip_prefix("Model:"));
            Gpu { index, name: model.unwrap_or_default().trim().to_owned(), ..Gpu::default() }
        });
    gpus.take(GPUS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_tool_prints_is_read_and_what_is_not_measured_is_absent() {
        let text = "0, NVIDIA H100 80GB HBM3, 41234, 81559, 93\n\
                    3, Tesla T4, rev. A, [N/A], 15360, [Not Supported]\n\
                    no GPU at all\n";
        let mib = |mib: u64| Some(mib << 20);
        assert_eq!(
            of_table(text),
            [
                Gpu {
                    index: 0,
                    name: "NVIDIA H100 80GB HBM3".into(),
                    used_bytes: mib(41_234),
                    memory_bytes: mib(81_559),
                    busy_percent: Some(93),
                },
                Gpu {
                    index: 3,
                    name: "Tesla T4, rev. A".into(),
                    used_bytes: None,
                    memory_bytes: mib(15_360),
                    busy_percent: None,
                },
            ]
        );
        assert!(of_table("NVIDIA-SMI has failed because it couldn't communicate\n").is_empty());
    }

    #[tokio::test]
    async fn a_tool_that_hangs_is_not_started_once_more_before_it_has_ended() {
        let mut tool = Tool { patience: Duration::from_millis(20), hung: None };
        let hangs = || {
            let mut command = Command::new("sleep");
            command.arg("600").kill_on_drop(true);
            command
        };
        let prints = || {
            let mut command = Command::new("echo");
            command.arg("0, NVIDIA L4, 1, 2, 3");
            command
        };
        tool.ask(&mut hangs()).await.expect_err("no answer");
        let killed = tool.hung.as_mut().expect("it is kept").wait().await.expect("its own");
        assert!(!killed.success(), "{killed}");
        // One that cannot be killed.
        let hung = hangs().spawn().expect("there is `sleep`");
        let mut tool = Tool { patience: ANSWER_TIMEOUT, hung: Some(hung) };
        let says = tool.ask(&mut prints()).await.expect_err("the other has not ended");
        assert!(says.contains("cannot be ended"), "{says}");
        tool.hung.as_mut().expect("it is kept").kill().await.expect("its own");
        let text = tool.ask(&mut prints()).await.expect("it has ended");
        assert_eq!(of_table(&text).len(), 1, "{text}");
        assert!(tool.hung.is_none());
    }

    #[test]
    fn without_the_tool_the_drivers_files_say_which_there_are() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (bus, model) in [("0000:17:00.0", "NVIDIA A100"), ("0000:65:00.0", "NVIDIA L4")] {
            let path = folder.path().join(bus);
            std::fs::create_dir(&path).expect("writable");
            let text = format!("Model: \t\t {model}\nIRQ:   \t\t 172\n");
            std::fs::write(path.join("information"), text).expect("writable");
        }
        let named = |visible| {
            let gpus = of_files(folder.path(), visible);
            gpus.into_iter().map(|gpu| (gpu.index, gpu.name, gpu.used_bytes)).collect::<Vec<_>>()
        };
        let all: [(u32, String, Option<u64>); 2] =
            [(0, "NVIDIA A100".to_owned(), None), (1, "NVIDIA L4".to_owned(), None)];
        assert_eq!(named(None), all);
        assert_eq!(named(Some("1")), all[1..]);
        assert!(of_files(&folder.path().join("none"), None).is_empty());
    }
}
