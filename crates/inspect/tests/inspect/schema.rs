//! What scripts read keeps its shape: a change of it is a change of `schema.json`, and seen.
//!
//! `cargo test -p crrl-inspect --test inspect -- --ignored write_the_schema` writes that file anew.

use std::path::PathBuf;

use crrl_inspect::scripts::query::{Query, print};
use crrl_inspect::scripts::schema::schema;
use serde_json::Value;

use crate::healthy;

fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/inspect/schema.json")
}

fn text() -> String {
    let mut text = serde_json::to_string_pretty(&schema()).expect("plain data");
    text.push('\n');
    text
}

#[test]
fn what_is_printed_has_the_shape_it_had() {
    let golden = std::fs::read_to_string(golden()).expect("ships with the tests");
    assert!(
        golden == text(),
        "the shape of what is printed has changed: if that is meant, write schema.json anew and say so \
         in CHANGELOG.md"
    );
}

#[test]
#[ignore = "writes schema.json anew"]
fn write_the_schema() {
    std::fs::write(golden(), text()).expect("writable");
}

/// Fields that an object must have, and may have, by its definition.
fn fields<'s>(schema: &'s Value, of: &'s Value) -> (&'s Value, &'s Value) {
    let mut of = of;
    while let Some(reference) = of["$ref"].as_str() {
        of = &schema["$defs"][reference.rsplit('/').next().expect("a name")];
    }
    (&of["required"], &of["properties"])
}

#[test]
fn what_is_printed_is_what_the_schema_says() {
    let schema = schema();
    let all = || String::new();
    let queries = [
        ("nodes --json", Query::Nodes),
        ("tree --json", Query::Tree),
        ("actors --json", Query::Actors { sort: "name".into(), limit: 9, filter: all() }),
        ("episodes --json", Query::Episodes { limit: 9, filter: all() }),
    ];
    for (command, query) in queries {
        let mut out = Vec::new();
        print(&healthy(), &query, true, &mut out).expect("it answers");
        let printed: Vec<Value> = serde_json::from_slice(&out).expect("a list");
        assert!(!printed.is_empty(), "{command}");
        let (required, properties) = fields(&schema, &schema["commands"][command]["items"]);
        for row in &printed {
            let names: Vec<&str> =
                row.as_object().expect("an object").keys().map(|k| &**k).collect();
            assert!(
                names.iter().all(|name| properties.get(name).is_some()),
                "{command}: {names:?}"
            );
            let required = required.as_array().expect("a list");
            assert!(required.iter().all(|r| names.contains(&r.as_str().expect("a name"))));
        }
    }
}
