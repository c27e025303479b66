//! JSON Schemas of everything that is printed with `--json` and `--jsonl`, from the types themselves.

use crrl_types::{OrderAnswer, OrderRecord};
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::actor::ActorSnapshotLine;
use super::query::TreeNode;
use super::tracing::TraceLine;
use crate::diagnose::Verdict;
use crate::frame::Frame;
use crate::state::actors::ActorRow;
use crate::state::episodes::LiveRow;
use crate::state::nodes::NodeRow;

/// One document; what a command prints, or a line of it, is under `commands` by the command's name.
#[must_use]
pub fn schema() -> Value {
    let mut types = SchemaGenerator::default();
    let mut commands = Map::new();
    let mut put = |name: &str, schema: Value| drop(commands.insert(name.to_owned(), schema));
    let list = |schema: Value| json!({ "type": "array", "items": schema });
    put("nodes --json", list(of::<NodeRow>(&mut types)));
    put("actors --json", list(of::<ActorRow>(&mut types)));
    put("tree --json", list(of::<TreeNode<'_>>(&mut types)));
    put("episodes --json", list(of::<LiveRow>(&mut types)));
    put("watch --jsonl", of::<Frame>(&mut types));
    put("diagnose --json", of::<Verdict>(&mut types));
    put("do --json", of::<OrderAnswer>(&mut types));
    put("orders --json", list(of::<OrderRecord>(&mut types)));
    put("trace --jsonl", of::<TraceLine>(&mut types));
    put("actor --json", of::<ActorSnapshotLine>(&mut types));
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "crrl inspect",
        "description": "What each command prints: the whole output with --json, each line with --jsonl.",
        "commands": commands,
        "$defs": types.take_definitions(true),
    })
}

fn of<T: JsonSchema>(types: &mut SchemaGenerator) -> Value {
    types.subschema_for::<T>().to_value()
}
