//! A run that never was: an evaluation of many episodes, carried out to the end, in ledger, history
//! and transcripts.

use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use crrl_cluster::RunDir;
use crrl_control::plan::{Evaluate, PLAN_FILE, Phase, Plan};
use crrl_store::{EpisodeRow, EventLog, Op, Options, StoreError, Writer};
use crrl_types::{
    AdapterVersion, EpisodeId, Event, EventKind, GroupId, NodeName, Sampling, Trajectory,
};

use crate::made_work::{serving, task, trajectory};

/// Episodes put down together.
const AT_ONCE: u64 = 256;

/// Makes it.
pub(crate) fn make(folder: &Path, episodes: u64, tokens: usize) -> Result<RunDir, StoreError> {
    let run = RunDir::new(folder);
    let evaluate = Phase::Evaluate(Evaluate {
        label: "before".into(),
        tasks: "tasks.jsonl".into(),
        tasks_max: 0,
        samples: 1,
        sampling: Sampling::default(),
    });
    std::fs::write(folder.join(PLAN_FILE), Plan::new(1, vec![evaluate]).to_json())
        .expect("the folder was just made");
    let (failed, failures) = channel();
    let writer = Writer::start(&run.store(), Options::default(), move |said| {
        if let Err(error) = said {
            // Whoever waits for it may be gone.
            let _ = failed.send(error);
        }
    })?;
    let mut history = EventLog::open(&run.events(), Duration::from_secs(60))?;
    let adapter = serving(0);
    let mut ops = vec![Op::Published(adapter.version, adapter.digest)];
    for first in (0..episodes).step_by(AT_ONCE as usize) {
        let mut events = Vec::new();
        for id in (first..episodes).take(AT_ONCE as usize) {
            let (episode, node) = (EpisodeId(id), NodeName::from("rollout-0"));
            let trajectory = trajectory((episode, GroupId(id)), &node, tokens);
            ops.push(Op::Episode(Box::new(row(&trajectory))));
            events.extend(life(&trajectory));
            ops.push(Op::Trajectory(Box::new(trajectory)));
        }
        history.append(&events)?;
        if writer.submit(std::mem::take(&mut ops), ()).is_err() {
            break; // Why is said below.
        }
    }
    drop(writer);
    failures.try_recv().map_or(Ok(run), Err)
}

fn row(trajectory: &Trajectory) -> EpisodeRow {
    EpisodeRow {
        episode: trajectory.episode,
        group: trajectory.group,
        task: task(trajectory.episode.0 as usize),
        phase: 0,
        ordinal: trajectory.group.0,
        sample: 0,
        evaluation: true,
        attempt: 1,
        node: Some(trajectory.node.clone()),
        state: "measured".to_owned(),
        reason: None,
        reward: Some(trajectory.reward.total),
        success: Some(trajectory.reward.success),
        oldest: Some(AdapterVersion(0)),
        generated: u32::try_from(trajectory.generated_len()).ok(),
        step: None,
    }
}

fn life(trajectory: &Trajectory) -> [Event; 3] {
    let (episode, group) = (trajectory.episode, trajectory.group);
    let (to, task) = (trajectory.node.clone(), task(episode.0 as usize));
    let (reward, success) = (trajectory.reward.total, trajectory.reward.success);
    [
        EventKind::Dispatched { episode, group, task, to, attempt: 1 },
        EventKind::Finished { episode, reward, success },
        EventKind::Dropped { episode, reason: "measured, never trained on".to_owned() },
    ]
    .map(|kind| Event { at_ms: episode.0, node: "coordinator".into(), kind })
}
