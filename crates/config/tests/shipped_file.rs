//! The shipped `cluster.toml` lists every option, and at its default.

use std::path::Path;

use crrl_config::{ClusterConfig, Overrides, parse};

fn shipped() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cluster.toml");
    std::fs::read_to_string(path).expect("the file ships with the project")
}

/// The options without their `#`, leaving out the introduction (before the first section).
fn uncommented() -> String {
    let text = shipped();
    let body = &text[text.find("[run]").expect("has a run section")..];
    body.lines()
        .map(|line| {
            line.strip_prefix("# ")
                .filter(|l| !l.starts_with("One ") && !l.starts_with("Shares "))
                .unwrap_or(line)
        })
        .filter(|line| !line.starts_with('#'))
        .map(|line| format!("{line}\n"))
        .collect()
}

#[test]
fn as_it_stands_it_changes_nothing() {
    let config = parse(&shipped(), Path::new("cluster.toml"), &Overrides::default());
    assert_eq!(config.expect("the shipped file is valid"), ClusterConfig::default());
}

#[test]
fn without_its_comment_marks_it_still_says_the_defaults() {
    let mut config = parse(&uncommented(), Path::new("cluster.toml"), &Overrides::default())
        .expect("every commented option is a real one");
    assert_eq!(config.node, ClusterConfig::default_nodes());
    // These two have no default value; the file shows an example.
    config.model.adapter = None;
    config.tasks.held_out = None;
    config.node.clear();
    assert_eq!(config, ClusterConfig::default());
}

#[test]
fn it_lists_every_option() {
    let shown: toml::Table = uncommented().parse().expect("valid TOML");
    let all = toml::Table::try_from(ClusterConfig::default()).expect("serializes");
    for (section, keys) in &all {
        for key in keys.as_table().into_iter().flatten().map(|(key, _)| key) {
            assert!(shown[section].get(key).is_some(), "{section}.{key} is not in cluster.toml");
        }
    }
}
