//! What a run needs before anything of it is written or started: a model, tasks whose patches apply, a
//! held-out side that is not trained on, and room behind the prompt an episode opens with. Shared by
//! `train`, `cluster up` and `doctor`; reads files and changes none.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crrl_actors::chat_codec::ModelCodec;
use crrl_actors::settings;
use crrl_agent::episode::TURN_TOKENS_MIN;
use crrl_agent::{Action, ChatCodec, Episode, Input, Options, Style};
use crrl_config::{ClusterConfig, Role};
use crrl_control::plan::Phase;
use crrl_model::ModelDir;
use crrl_tasks::TaskSet;
use crrl_tasks::mutate::FIX_DIGEST;
use crrl_types::{Base, Origin, Split, Task, TaskId};

use crate::commands::failure::{Coded, say};
use crate::meter::{Meter, Quiet};
use crate::run::Run;

/// What to do about a model that is not there.
const MODEL_FIX: &str = "model.path names a Hugging Face folder: config.json, *.safetensors, tokenizer.json; the \
                         project's small policy is --set model.path=models/small --set agent.prompt=brief";
/// What to do about tasks that are not there.
const TASKS_FIX: &str =
    "`crrl tasks mutate PATH -o FILE` or `crrl tasks mine REPO -o FILE` makes a task file";

/// Something a person has to mend, or to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// What was found.
    pub(crate) found: String,
    /// What to do.
    pub(crate) fix: String,
}

impl Problem {
    fn new(found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { found: found.into(), fix: fix.into() }
    }

    /// The error of a command that does not go on with it.
    pub(crate) fn refusal(self) -> anyhow::Error {
        Coded::usage(format!("{}\n  {}", self.found, self.fix))
    }
}

/// Looks at what a run is about to be started on. What is no obstacle and a person should know is said
/// on stderr: of a run that has begun that is also what is wrong with its tasks, which it keeps.
///
/// # Errors
/// The first thing that a run could not do with, and what to do about it.
pub(crate) fn check(run: &Run, quiet: Quiet) -> anyhow::Result<()> {
    let (train, held_out) = task_files(run);
    // The quickest first.
    for (key, file) in [("tasks.train", &train), ("tasks.held_out", &held_out)] {
        file.as_deref().map_or(Ok(()), |file| named(key, file)).map_err(Problem::refusal)?;
    }
    let prompts = if needs_model(&run.config) {
        let model = model(&run.config.model.path).map_err(Problem::refusal)?;
        Some(Prompts::of(&run.config, &model).map_err(Problem::refusal)?)
    } else {
        None
    };
    let checking = Meter::start(quiet, "checking tasks", "tasks", 0);
    let count = checking.count();
    let read = |key, file: Option<PathBuf>| {
        file.map(|file| tasks(key, &file).map(|set| (file, set))).transpose()
    };
    let train = read("tasks.train", train).map_err(Problem::refusal)?;
    let held_out = read("tasks.held_out", held_out).map_err(Problem::refusal)?;
    let both = train.iter().chain(&held_out);
    let mut known: Vec<Problem> =
        both.filter_map(|(file, set)| patches(file, set, &|| count.one()).err()).collect();
    drop(checking);
    if let (Some((_, train)), Some((_, held_out))) = (&train, &held_out) {
        known.extend(apart(train, held_out).err());
    }
    if !run.has_begun() && !known.is_empty() {
        return Err(known.swap_remove(0).refusal());
    }
    known.extend(train.iter().filter_map(|(file, set)| strays(file, set)));
    if let Some(prompts) = &prompts {
        for (_, set) in train.iter().chain(&held_out) {
            known.extend(prompts.opening(set).map_err(Problem::refusal)?.tight);
        }
    }
    for Problem { found, fix } in known {
        say(&format!("warning: {found}\n  {fix}"));
    }
    Ok(())
}

/// The task files of a run's plan: to train on, and held out.
fn task_files(run: &Run) -> (Option<PathBuf>, Option<PathBuf>) {
    let file = |is: fn(&Phase) -> bool| {
        let path = run.plan.phases.iter().find(|phase| is(phase))?.tasks();
        // A file that is not named is not one of the run's folder either.
        Some(if path.as_os_str().is_empty() { PathBuf::new() } else { run.dir.join(path) })
    };
    (
        file(|phase| matches!(phase, Phase::Train(_))),
        file(|phase| matches!(phase, Phase::Evaluate(_))),
    )
}

/// Whether a node of this machine loads the model. Those of others have their own.
fn needs_model(config: &ClusterConfig) -> bool {
    let loads = |role: &Role| matches!(role, Role::Learner | Role::Rollout);
    config.nodes().iter().any(|node| node.is_local() && node.roles.iter().any(loads))
}

/// Whether `model.path` names a model at all.
pub(crate) fn model_is_named(path: &Path) -> Result<(), Problem> {
    if path.as_os_str().is_empty() {
        return Err(Problem::new("model.path names no model", MODEL_FIX));
    }
    Ok(())
}

/// The model's folder.
pub(crate) fn model(path: &Path) -> Result<ModelDir, Problem> {
    model_is_named(path)?;
    ModelDir::open(path).map_err(|error| Problem::new(error.to_string(), MODEL_FIX))
}

/// Whether an option names a task file at all.
fn named(key: &str, file: &Path) -> Result<(), Problem> {
    if file.as_os_str().is_empty() {
        return Err(Problem::new(format!("{key} names no task file"), TASKS_FIX));
    }
    Ok(())
}

/// The tasks of a file.
pub(crate) fn tasks(key: &str, file: &Path) -> Result<TaskSet, Problem> {
    named(key, file)?;
    TaskSet::load(file).map_err(|error| Problem::new(format!("{key}: {error}"), TASKS_FIX))
}

/// Whether the patch of every task applies. One whose patch does not earns nothing whatever the policy does:
/// better said before anything is trained. Neither repositories nor whole trees are read for it. `one` is
/// called at each task.
pub(crate) fn patches(file: &Path, set: &TaskSet, one: &dyn Fn()) -> Result<(), Problem> {
    for task in &set.tasks {
        one();
        let at_hand = match &task.base {
            Base::Files { .. } => true,
            Base::Tree { include, .. } => !include.is_empty(),
            Base::Commit => false,
        };
        if at_hand && let Err(reason) = crrl_tasks::patch_applies(task) {
            return Err(Problem::new(
                format!("{}: task {}: {reason}", file.display(), task.instance_id),
                format!("`crrl tasks verify {}` checks every task", file.display()),
            ));
        }
    }
    Ok(())
}

/// Whether what is held out is: no task and no source file of it is trained on. A file is known by what is
/// in it: where it lies says little.
pub(crate) fn apart(train: &TaskSet, held_out: &TaskSet) -> Result<(), Problem> {
    let names: BTreeSet<&TaskId> = train.tasks.iter().map(|task| &task.instance_id).collect();
    let files: BTreeSet<&str> =
        train.tasks.iter().filter_map(source_file).map(|(digest, _)| digest).collect();
    let both = held_out.tasks.iter().find_map(|task| {
        if names.contains(&task.instance_id) {
            return Some(format!("task {}", task.instance_id));
        }
        let (_, path) = source_file(task).filter(|(digest, _)| files.contains(digest))?;
        Some(format!("{path} (task {})", task.instance_id))
    });
    match both {
        None => Ok(()),
        Some(what) => Err(Problem::new(
            format!(
                "{what} is in tasks.train and in tasks.held_out: what is measured would be trained on"
            ),
            "make them from one tree: `crrl tasks mutate PATH --split train -o TRAIN` and \
             `crrl tasks mutate PATH --split held-out -o HELD_OUT`",
        )),
    }
}

/// The source file a bug was put into: the digest of what was in it before, and its path in its tree.
fn source_file(task: &Task) -> Option<(&str, &str)> {
    let Origin::Mutated { path, .. } = &task.origin else { return None };
    Some((task.extra.get(FIX_DIGEST)?.as_str()?, path.as_str()))
}

/// Tasks to train on that are marked as held out, if there are any.
pub(crate) fn strays(file: &Path, train: &TaskSet) -> Option<Problem> {
    let strays: Vec<&Task> =
        train.tasks.iter().filter(|task| task.split == Split::HeldOut).collect();
    // The tasks of a history are all on one side.
    let fix = match strays.first()?.origin {
        Origin::Mined { .. } => {
            "to have none of them: `crrl tasks mine REPO --held-out-share 0 -o FILE`"
        }
        _ => "to leave them out: `crrl tasks mutate PATH --split train -o FILE`",
    };
    let found = format!(
        "{} of the {} tasks to train on in {} are held out, as their `split` says",
        strays.len(),
        train.tasks.len(),
        file.display()
    );
    Some(Problem::new(found, fix))
}

/// What the prompts episodes open with are made from, and the room there is for them.
pub(crate) struct Prompts {
    codec: Arc<dyn ChatCodec>,
    options: Options,
    /// Tokens of the model's context.
    context: usize,
    model: PathBuf,
}

/// The opening prompts of a task file.
pub(crate) struct Opening {
    /// Tokens of the longest.
    pub(crate) tokens: usize,
    /// Where the longest leaves no room for an answer, and the shortest does.
    pub(crate) tight: Option<Problem>,
}

impl Prompts {
    /// With the tokenizer and the chat template of a model.
    pub(crate) fn of(config: &ClusterConfig, model: &ModelDir) -> Result<Self, Problem> {
        let codec = ModelCodec::open(model.path())
            .map_err(|error| Problem::new(error.to_string(), MODEL_FIX))?;
        let options = settings::agent(&config.agent);
        let context = model.config().max_positions;
        Ok(Self { codec, options, context, model: model.path().to_owned() })
    }

    /// Tokens an episode's transcript has room for.
    pub(crate) fn room(&self) -> usize {
        self.context.min(self.options.tokens_max as usize)
    }

    /// Measures the longest opening prompt of a task file. How long one is goes with its problem
    /// statement: the rest is the same for all.
    ///
    /// # Errors
    /// Not even the shortest leaves room for an answer, or none can be made.
    pub(crate) fn opening(&self, set: &TaskSet) -> Result<Opening, Problem> {
        let length = |task: &&Task| task.problem_statement.len();
        let (shortest, longest) =
            (set.tasks.iter().min_by_key(length), set.tasks.iter().max_by_key(length));
        let (Some(shortest), Some(longest)) = (shortest, longest) else {
            return Ok(Opening { tokens: 0, tight: None });
        };
        if let Some(problem) = self.lack(shortest, self.tokens(shortest)?) {
            return Err(problem);
        }
        let tokens = self.tokens(longest)?;
        Ok(Opening { tokens, tight: self.lack(longest, tokens) })
    }

    /// Tokens of the prompt an episode of this task opens with.
    fn tokens(&self, task: &Task) -> Result<usize, Problem> {
        // Whether it fits is asked here.
        let options = Options { tokens_max: u32::MAX, ..self.options.clone() };
        let refused = |why: String| {
            let found = format!("no prompt can be made for task {}: {why}", task.instance_id);
            Problem::new(found, "mend [agent] of the configuration, or the model's chat template")
        };
        let mut episode = Episode::new(Arc::clone(&self.codec), options, &task.problem_statement)
            .map_err(|error| refused(error.to_string()))?;
        match episode.step(Input::Start) {
            Action::Generate { append, .. } => Ok(append.len()),
            Action::Finish(record) => Err(refused(record.failure)),
            Action::Call(_) | Action::CollectDiff => Err(refused("it begins with no turn".into())),
        }
    }

    /// What is wrong with a prompt of so many tokens, if it leaves no room for an answer.
    fn lack(&self, task: &Task, tokens: usize) -> Option<Problem> {
        let room = self.room();
        if tokens + TURN_TOKENS_MIN as usize <= room {
            return None;
        }
        let (bound, longer) = if self.context == room {
            let bound = format!("the context of {} is {room}", self.model.display());
            (bound, "a model with a longer context")
        } else {
            (format!("agent.tokens_max is {room}"), "a higher agent.tokens_max")
        };
        let shorter = match self.options.style {
            Style::Full => "agent.prompt = \"brief\"",
            Style::Brief => "tasks with a shorter problem statement",
        };
        Some(Problem::new(
            format!(
                "the prompt of task {} takes {tokens} tokens and {bound}: there is no room for an answer",
                task.instance_id
            ),
            format!("take {longer}, or {shorter}"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use crrl_agent::RenderError;
    use crrl_cluster::RunDir;
    use crrl_types::{BugKind, Message};

    use super::*;
    use crate::run::plan_of;

    /// A word is a token.
    struct Words;

    impl ChatCodec for Words {
        fn encode(&self, text: &str) -> Vec<u32> {
            text.split_whitespace().map(|_| 1).collect()
        }

        fn decode(&self, _ids: &[u32]) -> String {
            String::new()
        }

        fn render(
            &self,
            messages: &[Message],
            _tools: &[serde_json::Value],
            _add_generation_prompt: bool,
        ) -> Result<String, RenderError> {
            Ok(messages.iter().map(|message| format!("{} ", message.content)).collect())
        }

        fn is_end(&self, _id: u32) -> bool {
            false
        }

        fn special_texts(&self) -> &[String] {
            &[]
        }
    }

    /// Of a file that holds its own name.
    fn task(name: &str, file: &str, words: usize) -> Task {
        let origin = Origin::Mutated {
            bug: BugKind::Comparison,
            path: file.to_owned(),
            function: "f".to_owned(),
            line: 1,
        };
        Task {
            instance_id: name.into(),
            repo: "tree".to_owned(),
            base_commit: String::new(),
            problem_statement: "word ".repeat(words),
            patch: String::new(),
            test_patch: String::new(),
            base: Base::Commit,
            origin,
            difficulty: Default::default(),
            split: Split::Train,
            extra: [(FIX_DIGEST.to_owned(), file.into())].into(),
        }
    }

    /// The same, of a file that holds something else.
    fn holding(content: &str, task: Task) -> Task {
        Task { extra: [(FIX_DIGEST.to_owned(), content.into())].into(), ..task }
    }

    fn set(tasks: Vec<Task>) -> TaskSet {
        TaskSet { tasks }
    }

    /// Prompts of a model with this context, under this bound.
    fn prompts(context: usize, tokens_max: u32) -> Prompts {
        let options = Options { tokens_max, ..Options::default() };
        Prompts { codec: Arc::new(Words), options, context, model: "models/small".into() }
    }

    #[test]
    fn a_task_or_a_source_file_on_both_sides_is_named() {
        let train = set(vec![task("a", "x.py", 1), task("b", "y.py", 1)]);
        assert_eq!(apart(&train, &set(vec![task("c", "z.py", 1)])), Ok(()));
        let same_task = apart(&train, &set(vec![task("b", "z.py", 1)])).expect_err("b is in both");
        assert!(same_task.found.starts_with("task b is in tasks.train"), "{same_task:?}");
        let same_file =
            apart(&train, &set(vec![task("c", "x.py", 1)])).expect_err("x.py is in both");
        assert!(same_file.found.starts_with("x.py (task c)"), "{same_file:?}");
        // The same file in another place is the same, and another of its name is another.
        let moved = holding("x.py", task("c", "lib/z.py", 1));
        let moved = apart(&train, &set(vec![moved])).expect_err("it is x.py");
        assert!(moved.found.starts_with("lib/z.py (task c)"), "{moved:?}");
        let namesake = holding("something else", task("c", "x.py", 1));
        assert_eq!(apart(&train, &set(vec![namesake])), Ok(()));
    }

    #[test]
    fn a_run_that_has_begun_goes_on_with_the_tasks_it_has() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = |name: &str, task: Task| {
            let path = folder.path().join(name);
            set(vec![task]).save(&path).expect("writable");
            path
        };
        let of = |train: PathBuf, held_out: PathBuf| {
            let node = ClusterConfig::default_nodes();
            let mut config = ClusterConfig { node, ..ClusterConfig::default() };
            // Nothing here loads a model.
            config.node.iter_mut().skip(1).for_each(|node| node.external = true);
            (config.tasks.train, config.tasks.held_out) = (train, Some(held_out));
            let (title, plan, resume) = (String::new(), plan_of(&config, 0), String::new());
            Run { title, dir: folder.path().to_owned(), config, plan, resume }
        };
        let good = file("good.jsonl", task("a", "x.py", 1));
        let base = Base::Files { files: [("y.py".to_owned(), String::new())].into() };
        let broken = file("broken.jsonl", Task { base, ..task("b", "y.py", 1) });
        let cases = [
            (of(good.clone(), good.clone()), "task a is in tasks.train and in tasks.held_out"),
            (of(broken, good), "task b: its patch"),
        ];
        let quiet = Quiet { quiet: true };
        for (run, why) in &cases {
            let refused = check(run, quiet).expect_err("nothing has begun").to_string();
            assert!(refused.contains(why), "{refused}");
        }
        std::fs::write(RunDir::new(folder.path()).events(), "").expect("writable");
        for (run, why) in &cases {
            check(run, quiet).unwrap_or_else(|error| panic!("{why}: {error}"));
        }
    }

    #[test]
    fn tasks_that_are_held_out_are_counted_among_those_to_train_on() {
        let mut train = set(vec![task("a", "x.py", 1), task("b", "y.py", 1)]);
        assert_eq!(strays(Path::new("t.jsonl"), &train), None);
        train.tasks[1].split = Split::HeldOut;
        let told = strays(Path::new("t.jsonl"), &train).expect("one is");
        assert!(told.found.starts_with("1 of the 2 tasks to train on in t.jsonl"), "{told:?}");
        assert!(told.fix.contains("--split train"), "{told:?}");
    }

    #[test]
    fn a_prompt_without_room_for_an_answer_is_told_of_the_bound_that_applies() {
        let both = set(vec![task("short", "x.py", 1), task("long", "x.py", 5_000)]);
        let free = prompts(100_000, 50_000).opening(&both).expect("fits");
        assert!(free.tokens > 5_000 && free.tight.is_none());
        // The longest does not fit: it is named, and the others are worked on.
        let tight = prompts(4_000, 50_000).opening(&both).expect("the short one fits").tight;
        let tight = tight.expect("the long one does not");
        assert!(tight.found.contains("task long takes"), "{tight:?}");
        assert!(tight.found.contains("the context of models/small is 4000"), "{tight:?}");
        let fix = "take a model with a longer context, or agent.prompt = \"brief\"";
        assert_eq!(tight.fix, fix);
        // None does.
        let none = prompts(100_000, 64).opening(&both).err().expect("nothing fits");
        assert!(none.found.contains("task short takes"), "{none:?}");
        assert!(none.found.contains("agent.tokens_max is 64"), "{none:?}");
        assert!(none.fix.starts_with("take a higher agent.tokens_max"), "{none:?}");
    }
}
