//! Spans of an optimizer step: from the moment its batch was complete until the last engine serves
//! what it made.

use crrl_types::NodeName;

use super::RunFacts;
use super::span::{Interval, Span};
use super::story::StepStory;

/// Numbers of a step that say how long the learner was at it, in seconds.
const SECONDS: [&str; 3] = ["score_s", "pass_s", "update_s"];

/// Path of a step's root; a step that was undone is made again in the same trace.
pub(super) fn root_path(undone: u32) -> String {
    if undone == 0 { String::new() } else { format!("again {undone}") }
}

/// The spans of a step. `metrics` are its numbers, by name.
#[must_use]
pub fn spans(run: &RunFacts, story: &StepStory, metrics: &[(String, f64)]) -> Vec<Span> {
    let trace = run.id.step(story.step);
    let root = root_path(story.undone);
    let took = took(metrics);
    let from_ms = took.map_or(story.ready_ms, |ms| story.at_ms.saturating_sub(ms));
    let published_ms = story.published_ms.unwrap_or(story.at_ms);
    let served = story.activated.iter().map(|(at_ms, _)| *at_ms).max().unwrap_or(0);
    let whole = Interval::ms(
        from_ms.min(story.ready_ms).min(story.at_ms),
        story.at_ms.max(published_ms).max(served),
    );
    let span = |node: &NodeName, path: &str, name: &str, at: Interval| {
        let parent = (!path.is_empty()).then(|| run.id.span(trace, &root));
        Span {
            node: node.clone(),
            trace,
            id: run.id.span(trace, &format!("{root}{path}")),
            parent,
            name: name.to_owned(),
            at: at.within(whole),
            attributes: Vec::new(),
            links: Vec::new(),
            links_left_out: 0,
            failed: None,
        }
    };
    let mut first = span(&story.coordinator, "", "step", whole);
    first
        .say("crrl.step", story.step.0)
        .say("crrl.adapter.version", story.version.0)
        .say("crrl.episodes", story.consumed.len() as u64 + u64::from(story.consumed_more));
    if story.undone > 0 {
        first.say("crrl.step.undone", story.undone);
    }
    for (name, value) in metrics {
        first.say(format!("crrl.metric.{name}"), *value);
    }
    first.links_left_out = story.consumed_more;
    first.links = story
        .consumed
        .iter()
        .map(|episode| {
            let trace = run.id.episode(*episode);
            (trace, run.id.span(trace, ""))
        })
        .collect();
    let mut out = vec![first];
    out.push(span(&run.learner, "/optimize", "optimize", Interval::ms(from_ms, story.at_ms)));
    if let Some(at_ms) = story.published_ms {
        // The adapter leaves the learner before the coordinator hears of the step.
        let at = Interval::ms(at_ms.min(story.at_ms), at_ms);
        out.push(span(&run.parameter_server, "/publish", "publish", at));
    }
    for (nth, (at_ms, engine)) in story.activated.iter().enumerate() {
        let at = Interval::ms(published_ms.min(*at_ms), *at_ms);
        out.push(span(engine, &format!("/activate {nth}"), "activate", at));
    }
    out
}

fn took(metrics: &[(String, f64)]) -> Option<u64> {
    let of = |name: &&str| metrics.iter().find(|(known, _)| known == name).map(|(_, s)| *s);
    let seconds: f64 = SECONDS.iter().map(of).sum::<Option<f64>>()?;
    (seconds.is_finite() && seconds >= 0.0).then_some((seconds * 1e3) as u64)
}
