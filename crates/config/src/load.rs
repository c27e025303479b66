//! File, environment and flags into one resolved configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::sections::ClusterConfig;
use crate::validate::validate;

/// Prefix of environment variables: `CRRL_LEARNER__LEARNING_RATE=1e-4` sets
/// `learner.learning_rate`.
pub const ENVIRONMENT_PREFIX: &str = "CRRL_";

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not there or cannot be read.
    #[error("cannot read {path}: {source}; `crrl config init` writes one with every default", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A place of the file is wrong.
    #[error("{path}:{line}:{column}: {message}", path = .path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// 1-based.
        line: usize,
        /// 1-based, in characters.
        column: usize,
        /// What is wrong, with the nearest known key where there is one.
        message: String,
    },
    /// A flag or an environment variable is wrong.
    #[error("{origin}: {message}")]
    Override {
        /// The flag or variable.
        origin: String,
        /// What is wrong with it.
        message: String,
    },
    /// Values that cannot be, alone or together.
    #[error("{}: {}", .path.display(), .problems.join("\n"))]
    Invalid {
        /// The file; what overrides it may be at fault as well.
        path: PathBuf,
        /// Every problem found.
        problems: Vec<String>,
    },
}

/// What overrides the file: `section.key` to a TOML value or plain text.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    entries: Vec<(String, String, String)>,
}

impl Overrides {
    /// Reads `CRRL_SECTION__KEY` variables out of an environment.
    pub fn from_environment(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let sorted: BTreeMap<_, _> = variables.into_iter().collect();
        let entries = sorted
            .into_iter()
            .filter_map(|(name, value)| {
                let path = name.strip_prefix(ENVIRONMENT_PREFIX)?;
                let (section, key) = path.split_once("__")?;
                let key = format!("{}.{}", section.to_lowercase(), key.to_lowercase());
                Some((name, key, value))
            })
            .collect();
        Self { entries }
    }

    /// Adds a flag `--set section.key=value`; later ones win.
    ///
    /// # Errors
    /// Text that is not `section.key=value`.
    pub fn flag(&mut self, text: &str) -> Result<(), ConfigError> {
        let refuse = || ConfigError::Override {
            origin: format!("--set {text}"),
            message: "write it as section.key=value, such as run.steps=50".into(),
        };
        let (key, value) = text.split_once('=').ok_or_else(refuse)?;
        if !key.contains('.') {
            return Err(refuse());
        }
        self.set(&format!("--set {text}"), key.trim(), value.trim());
        Ok(())
    }

    /// Sets `section.key`; `origin` is named if it turns out wrong.
    pub fn set(&mut self, origin: &str, key: &str, value: &str) {
        self.entries.push((origin.to_owned(), key.to_owned(), value.to_owned()));
    }
}

/// Loads a file, applies overrides, checks the whole; not whether a person may say it, which is asked of
/// [`crate::unsayable`].
///
/// # Errors
/// [`ConfigError`], with line and column for the file's own mistakes.
pub fn load(path: &Path, overrides: &Overrides) -> Result<ClusterConfig, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    parse(&text, path, overrides)
}

/// As [`load`], from text; `path` is only named in errors. A `~/` in front of a path of this machine is the
/// home folder, as the environment's `HOME` says: no shell gets to see it in a file, or behind `--set KEY=`.
///
/// # Errors
/// [`ConfigError`].
pub fn parse(text: &str, path: &Path, overrides: &Overrides) -> Result<ClusterConfig, ConfigError> {
    let mut config: ClusterConfig =
        toml::from_str(text).map_err(|error| located(text, path, &error))?;
    if !overrides.entries.is_empty() {
        let mut table: Table = toml::from_str(text).map_err(|error| located(text, path, &error))?;
        for (origin, key, value) in &overrides.entries {
            config = apply(&mut table, key, value)
                .map_err(|message| ConfigError::Override { origin: origin.clone(), message })?;
        }
    }
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    let mut problems = expand(&mut config, home.as_deref());
    problems.extend(validate(&config));
    if problems.is_empty() {
        Ok(config)
    } else {
        Err(ConfigError::Invalid { path: path.to_owned(), problems })
    }
}

/// Puts the home folder in place of `~` wherever a path of this machine begins with it; gives what cannot
/// be. Paths of another machine (`dir` and `model` of a `[[node]]`) are left to it.
fn expand(config: &mut ClusterConfig, home: Option<&Path>) -> Vec<String> {
    let mut paths = vec![
        ("run.dir", &mut config.run.dir),
        ("model.path", &mut config.model.path),
        ("tasks.train", &mut config.tasks.train),
        ("cluster.ssh_config", &mut config.cluster.ssh_config),
    ];
    paths.extend(config.model.adapter.as_mut().map(|path| ("model.adapter", path)));
    paths.extend(config.tasks.held_out.as_mut().map(|path| ("tasks.held_out", path)));
    let binaries = config.node.iter_mut().filter_map(|node| node.binary.as_mut());
    paths.extend(binaries.map(|path| ("binary of a [[node]]", path)));
    let mut problems = Vec::new();
    for (key, path) in paths {
        match (path.strip_prefix("~").map(Path::to_owned), home) {
            (Err(_), _) => {}
            (Ok(rest), Some(home)) => *path = home.join(rest),
            (Ok(_), None) => problems.push(format!(
                "{key} is {}, and HOME is not set: write the whole path",
                path.display()
            )),
        }
    }
    problems
}

/// Sets one key and reads the whole again, so that a wrong key or type is blamed on it.
fn apply(table: &mut Table, key: &str, value: &str) -> Result<ClusterConfig, String> {
    let (section, name) = key.split_once('.').ok_or("a key is section.key")?;
    let parsed = toml::from_str::<Table>(&format!("v = {value}"))
        .ok()
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| Value::String(value.to_owned()));
    let entry = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
    let section = entry.as_table_mut().ok_or(format!("{section} is not a section"))?;
    section.insert(name.to_owned(), parsed);
    Value::Table(table.clone())
        .try_into()
        .map_err(|error: toml::de::Error| nearest(error.message()))
}

fn located(text: &str, path: &Path, error: &toml::de::Error) -> ConfigError {
    let offset = error.span().map_or(0, |span| span.start.min(text.len()));
    let before = text.get(..offset).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    ConfigError::Parse { path: path.to_owned(), line, column, message: nearest(error.message()) }
}

/// Turns serde's list of expected keys into the one that was probably meant.
fn nearest(message: &str) -> String {
    let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let kind = ["unknown field", "unknown variant"].into_iter().find(|k| message.starts_with(k));
    let (Some(kind), Some((wrong, known))) = (kind, names.split_first()) else {
        return message.to_owned();
    };
    let noun = if kind.ends_with("field") { "key" } else { "value" };
    let best = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(wrong, name), name))
        .min()
        .filter(|(distance, name)| *distance <= 2.max(name.len() / 3));
    match best {
        Some((_, name)) => format!("unknown {noun} `{wrong}`; did you mean `{name}`?"),
        None => format!("unknown {noun} `{wrong}`; known here: {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use crate::sections::AdapterDtype;

    use super::*;

    fn read(text: &str, flags: &[&str]) -> Result<ClusterConfig, ConfigError> {
        let mut overrides = Overrides::default();
        for flag in flags {
            overrides.flag(flag)?;
        }
        parse(text, Path::new("cluster.toml"), &overrides)
    }

    #[test]
    fn a_misspelt_key_is_named_with_its_place_and_its_neighbour() {
        let error = read("[run]\nsteps = 3\n\n[learner]\n  learning_rat = 1e-3\n", &[])
            .expect_err("must be refused");
        assert_eq!(
            error.to_string(),
            "cluster.toml:5:3: unknown key `learning_rat`; did you mean `learning_rate`?"
        );
    }

    #[test]
    fn a_wrong_type_is_named_with_its_place() {
        let error =
            read("[run]\nsteps = \"many\"\n", &[]).expect_err("must be refused").to_string();
        assert!(error.starts_with("cluster.toml:2:9: invalid type"), "{error}");
    }

    #[test]
    fn the_type_adapters_travel_in_is_one_of_two() {
        let of = |text: &str| read(text, &[]).map(|config| config.learner.adapter_dtype);
        assert_eq!(of("").expect("the default"), AdapterDtype::F32);
        let bf16 = of("[learner]\nadapter_dtype = \"bf16\"\n").expect("a type");
        assert_eq!(bf16, AdapterDtype::Bf16);
        let error = of("[learner]\nadapter_dtype = \"float16\"\n").expect_err("no such type");
        let error = error.to_string();
        assert!(error.starts_with("cluster.toml:2:"), "{error}");
        assert!(error.ends_with("unknown value `float16`; known here: f32, bf16"), "{error}");
    }

    #[test]
    fn a_flag_beats_the_environment_which_beats_the_file() {
        let mut overrides =
            Overrides::from_environment([("CRRL_RUN__STEPS".to_owned(), "5".to_owned())]);
        let file = "[run]\nsteps = 3\nseed = 9\n";
        let config = parse(file, Path::new("f"), &overrides).expect("fits");
        assert_eq!((config.run.steps, config.run.seed), (5, 9));
        overrides.flag("run.steps=7").expect("well formed");
        assert_eq!(parse(file, Path::new("f"), &overrides).expect("fits").run.steps, 7);
    }

    #[test]
    fn a_wrong_flag_is_blamed_on_the_flag() {
        let error = read("", &["run.stepz=7"]).expect_err("must be refused").to_string();
        assert_eq!(error, "--set run.stepz=7: unknown key `stepz`; did you mean `steps`?");
    }

    #[test]
    fn what_cannot_be_is_named_with_the_file() {
        let error = read("[lora]\nrank = 0\n", &[]).expect_err("must be refused").to_string();
        assert_eq!(error, "cluster.toml: lora.rank is 0");
    }

    #[test]
    fn a_path_may_begin_in_the_home_folder() {
        let mut config = ClusterConfig::default();
        config.model.path = "~/models/x".into();
        config.model.adapter = Some("~".into());
        config.tasks.train = "~other/tasks.jsonl".into();
        config.tasks.held_out = Some("there/~/held-out.jsonl".into());
        let written = config.clone();
        assert_eq!(expand(&mut config, Some(Path::new("/home/me"))), Vec::<String>::new());
        assert_eq!(config.model.path, Path::new("/home/me/models/x"));
        assert_eq!(config.model.adapter.as_deref(), Some(Path::new("/home/me")));
        assert_eq!(config.tasks, written.tasks);

        let mut config = written;
        let problems = expand(&mut config, None);
        let [model, _] = &problems[..] else { panic!("two keys: {problems:?}") };
        assert!(model.contains("model.path is ~/models/x, and HOME is not set"), "{model}");
    }

    #[test]
    fn a_flag_may_begin_in_the_home_folder() {
        let Some(home) = std::env::var_os("HOME").filter(|home| !home.is_empty()) else { return };
        let config = read("", &["model.path=~/models/x"]).expect("fits");
        assert_eq!(config.model.path, Path::new(&home).join("models/x"));
    }

    #[test]
    fn text_flags_need_no_quotes() {
        let config = read("", &["model.path=/models/x", "learner.objective=gspo"]).expect("fits");
        assert_eq!(config.model.path, PathBuf::from("/models/x"));
    }
}
