//! Conversations with tools, rendered as transformers renders them
//! (`tests/parity/make_template_fixtures.py` writes the fixture).

use crrl_model::chat_template::ChatTemplate;
use crrl_types::{Message, ToolCall};
use serde_json::Value;

/// A message as transformers takes it, as ours.
fn message(value: &Value) -> Message {
    let role = serde_json::from_value(value["role"].clone()).expect("a role");
    let mut message = Message::new(role, value["content"].as_str().expect("text"));
    for call in value["tool_calls"].as_array().into_iter().flatten() {
        let function = &call["function"];
        message.tool_calls.push(ToolCall {
            name: function["name"].as_str().expect("a name").to_owned(),
            arguments: function["arguments"].clone(),
        });
    }
    message
}

#[test]
fn conversations_render_as_in_transformers() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/templates.json");
    let text = std::fs::read_to_string(path).expect("a fixture");
    let fixture: Value = serde_json::from_str(&text).expect("JSON");
    let features = fixture["features"].as_str().expect("a template");
    let own = ChatTemplate::new(Some(features), "<s>", "</s>").expect("compiles");
    let built_in = ChatTemplate::new(None, "<s>", "</s>").expect("compiles");
    assert!(!own.is_built_in() && built_in.is_built_in());
    let cases = fixture["cases"].as_array().expect("cases");
    assert!(cases.len() >= 40);
    for case in cases {
        let template = if case["template"] == "hermes" { &built_in } else { &own };
        let messages: Vec<_> =
            case["messages"].as_array().expect("messages").iter().map(message).collect();
        let tools = case["tools"].as_array().expect("tools");
        let prompt = case["add_generation_prompt"].as_bool().expect("a flag");
        let got = template.render(&messages, tools, prompt).expect("renders");
        let what =
            format!("{} {} tools {} prompt {prompt}", case["template"], case["name"], tools.len());
        assert_eq!(got, case["expected"].as_str().expect("text"), "{what}");
    }
}
