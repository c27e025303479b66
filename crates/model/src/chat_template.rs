//! Conversations to text: the model's own Jinja template, run as transformers runs it, or a
//! built-in ChatML template in the Hermes tool format where the model's own has no tools.

use crrl_types::{Message, Role};
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, context};
use serde_json::json;

/// Name of the one template in the environment.
const NAME: &str = "chat";

/// ChatML with tools: calls as JSON between `<tool_call>` tags, results between
/// `<tool_response>` tags in a user turn, consecutive results in one turn.
const BUILT_IN: &str = include_str!("chat_template/hermes.jinja");

/// A template that does not compile, or a conversation it refuses.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The template's syntax.
    #[error("chat template does not compile: {0}")]
    Compile(String),
    /// What the template raised, or what it asked for and was not given.
    #[error("chat template refuses the conversation: {0}")]
    Render(String),
}

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    built_in: bool,
    bos: String,
    eos: String,
}

impl ChatTemplate {
    /// Compiles a model's template; the built-in one when there is none or it has no tools.
    ///
    /// # Errors
    /// When the template does not compile.
    pub fn new(own: Option<&str>, bos: &str, eos: &str) -> Result<Self, TemplateError> {
        let own = own.filter(|source| source.contains("tools"));
        let source = own.unwrap_or(BUILT_IN).to_owned();
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", to_json);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        // Jinja counts text and mappings among sequences; templates rely on it.
        environment.add_test("sequence", |value: &Value| {
            matches!(value.kind(), ValueKind::String | ValueKind::Seq | ValueKind::Map)
        });
        // A date would make the same conversation render differently tomorrow.
        environment.add_function("strftime_now", |_: String| "");
        // transformers marks assistant text with a block of its own; it prints nothing itself.
        let plain = strip_generation(&source);
        environment
            .add_template_owned(NAME, plain)
            .map_err(|e| TemplateError::Compile(format!("{e:#}")))?;
        Ok(Self {
            environment,
            source,
            built_in: own.is_none(),
            bos: bos.to_owned(),
            eos: eos.to_owned(),
        })
    }

    /// The template's text.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it is the built-in one.
    #[must_use]
    pub fn is_built_in(&self) -> bool {
        self.built_in
    }

    /// The conversation as text. `tools` holds one JSON schema a tool.
    ///
    /// # Errors
    /// When the template raises.
    pub fn render(
        &self,
        messages: &[Message],
        tools: &[serde_json::Value],
        add_generation_prompt: bool,
    ) -> Result<String, TemplateError> {
        let messages: Vec<_> = messages.iter().map(message).collect();
        let tools = (!tools.is_empty()).then_some(tools);
        let template = self.environment.get_template(NAME).expect("added when made");
        template
            .render(context! {
                messages => Value::from_serialize(&messages),
                tools => Value::from_serialize(tools),
                add_generation_prompt,
                bos_token => self.bos,
                eos_token => self.eos,
            })
            .map_err(|e| TemplateError::Render(format!("{e:#}")))
    }
}

/// A message as templates expect it.
fn message(message: &Message) -> serde_json::Value {
    let role = match message.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    let mut out = json!({ "role": role, "content": message.content });
    if !message.tool_calls.is_empty() {
        let calls = message.tool_calls.iter().map(|call| {
            json!({
                "type": "function",
                "function": { "name": call.name, "arguments": call.arguments }
            })
        });
        out["tool_calls"] = calls.collect();
    }
    out
}

/// Removes `{% generation %}` and `{% endgeneration %}`, which only transformers knows, keeping
/// their whitespace control.
fn strip_generation(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(begin) = rest.find("{%") {
        let Some(length) = rest[begin..].find("%}") else { break };
        let end = begin + length + 2;
        let inner = rest[begin + 2..end - 2].trim_matches(['-', '+']).trim();
        out.push_str(&rest[..begin]);
        if matches!(inner, "generation" | "endgeneration") {
            let left = if rest[begin..].starts_with("{%-") { "{%-" } else { "{%" };
            let right = if rest[..end].ends_with("-%}") { "-%}" } else { "%}" };
            out.push_str(&format!("{left} if true {right}{left} endif {right}"));
        } else {
            out.push_str(&rest[begin..end]);
        }
        rest = &rest[end..];
    }
    out + rest
}

/// `tojson` as transformers overrides it: Python's `json.dumps` with `ensure_ascii=False`.
#[expect(clippy::needless_pass_by_value, reason = "minijinja hands arguments over")]
fn to_json(value: &Value, kwargs: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    let ascii: Option<bool> = kwargs.get("ensure_ascii")?;
    kwargs.assert_all_used()?;
    let json = serde_json::to_value(value)
        .map_err(|e| Error::new(ErrorKind::InvalidOperation, e.to_string()))?;
    let mut out = String::new();
    write_json(&json, indent, 0, ascii == Some(true), &mut out);
    Ok(Value::from_safe_string(out))
}

fn write_json(
    value: &serde_json::Value,
    indent: Option<usize>,
    depth: usize,
    ascii: bool,
    out: &mut String,
) {
    use serde_json::Value as Json;
    let line = |depth: usize, out: &mut String| {
        if let Some(indent) = indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    };
    let comma = if indent.is_some() { "," } else { ", " };
    let text = |text: &str, out: &mut String| {
        for c in Json::from(text).to_string().chars() {
            if ascii && !c.is_ascii() {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            } else {
                out.push(c);
            }
        }
    };
    match value {
        Json::Array(list) if !list.is_empty() => {
            out.push('[');
            for (i, item) in list.iter().enumerate() {
                out.push_str(if i > 0 { comma } else { "" });
                line(depth + 1, out);
                write_json(item, indent, depth + 1, ascii, out);
            }
            line(depth, out);
            out.push(']');
        }
        Json::Object(map) if !map.is_empty() => {
            out.push('{');
            for (i, (key, item)) in map.iter().enumerate() {
                out.push_str(if i > 0 { comma } else { "" });
                line(depth + 1, out);
                text(key, out);
                out.push_str(": ");
                write_json(item, indent, depth + 1, ascii, out);
            }
            line(depth, out);
            out.push('}');
        }
        Json::String(string) => text(string, out),
        other => out.push_str(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_written_as_python_writes_it() {
        let value = json!({ "b": [1, 2.5, null, true], "a": "é\n\"<", "e": {} });
        let mut out = String::new();
        write_json(&value, None, 0, false, &mut out);
        assert_eq!(out, r#"{"b": [1, 2.5, null, true], "a": "é\n\"<", "e": {}}"#);
    }

    #[test]
    fn a_template_without_tools_gives_way_to_the_built_in_one() {
        let own = "{% for m in messages %}{{ m.content }}{% endfor %}";
        let template = ChatTemplate::new(Some(own), "", "").expect("compiles");
        assert!(template.is_built_in());
    }

    #[test]
    fn the_built_in_template_writes_calls_and_results_in_the_hermes_form() {
        let template = ChatTemplate::new(None, "", "").expect("compiles");
        let mut assistant = Message::new(Role::Assistant, "Looking.");
        assistant.tool_calls.push(crrl_types::ToolCall {
            name: "shell".into(),
            arguments: json!({ "cmd": "ls <x>" }),
        });
        let messages = [
            Message::new(Role::System, "Repair."),
            Message::new(Role::User, "It breaks."),
            assistant,
            Message::new(Role::Tool, "a.py"),
            Message::new(Role::Tool, "b.py"),
        ];
        let text = template.render(&messages, &[], true).expect("renders");
        assert_eq!(
            text,
            "<|im_start|>system\nRepair.<|im_end|>\n<|im_start|>user\nIt breaks.<|im_end|>\n\
             <|im_start|>assistant\nLooking.\n<tool_call>\n\
             {\"name\": \"shell\", \"arguments\": {\"cmd\": \"ls <x>\"}}\n</tool_call><|im_end|>\n\
             <|im_start|>user\n<tool_response>\na.py\n</tool_response>\n<tool_response>\nb.py\n\
             </tool_response><|im_end|>\n<|im_start|>assistant\n"
        );
        let tools = [json!({ "type": "function", "function": { "name": "shell" } })];
        let text = template.render(&messages, &tools, false).expect("renders");
        assert!(text.contains("\n{\"type\": \"function\", \"function\": {\"name\": \"shell\"}}\n"));
    }

    #[test]
    fn what_a_template_raises_reaches_the_caller() {
        let own = "{# tools #}{{ raise_exception('no system role') }}";
        let template = ChatTemplate::new(Some(own), "", "").expect("compiles");
        let message = template.render(&[], &[], false).expect_err("raises").to_string();
        assert!(message.contains("no system role"), "{message}");
    }

    #[test]
    fn generation_blocks_are_transparent() {
        let source = "{# tools #}a {%- generation %} b {% endgeneration -%} c";
        let template = ChatTemplate::new(Some(source), "", "").expect("compiles");
        assert_eq!(template.render(&[], &[], false).expect("renders"), "a b c");
    }
}
