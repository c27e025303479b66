//! Reading `<tool_call>` blocks (Hermes, Qwen) out of whatever the policy wrote.
//!
//! Never fails: what cannot be read becomes [`Parsed::Malformed`], which the policy is told about.

use std::io;

use serde::Serialize as _;
use serde_json::{Map, Value};

/// Blocks of one turn that are looked at; a turn that holds more is repeating itself.
pub const BLOCKS_MAX: usize = 16;

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";

/// One block.
#[derive(Debug, Clone, PartialEq)]
pub enum Parsed {
    /// A name and an object of arguments.
    Call {
        /// The tool's name.
        name: String,
        /// Its arguments.
        arguments: Map<String, Value>,
    },
    /// Not that; why, in words for the policy.
    Malformed(String),
}

/// The call as the policy is meant to write it.
#[must_use]
pub fn write(name: &str, arguments: &Map<String, Value>) -> String {
    let call = serde_json::json!({ "name": name, "arguments": arguments });
    let mut json = Vec::new();
    call.serialize(&mut serde_json::Serializer::with_formatter(&mut json, Spaced))
        .expect("a JSON value with text keys can be written to memory");
    format!("{OPEN}\n{}\n{CLOSE}", String::from_utf8_lossy(&json))
}

/// JSON with a blank after `,` and `:`, as chat templates write it and models have read it.
struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}

/// Every block of a turn, in order. The last may lack its end: a turn can be cut, or stopped at it.
#[must_use]
pub fn parse(text: &str) -> Vec<Parsed> {
    let mut rest = text;
    let mut found = Vec::new();
    while found.len() < BLOCKS_MAX
        && let Some(start) = rest.find(OPEN)
    {
        rest = &rest[start + OPEN.len()..];
        let (body, after) = match rest.find(CLOSE) {
            Some(end) => (&rest[..end], &rest[end + CLOSE.len()..]),
            None => (rest, ""),
        };
        found.push(parse_body(body));
        rest = after;
    }
    found
}

fn parse_body(body: &str) -> Parsed {
    let body = body.trim();
    let malformed = |why: String| Parsed::Malformed(why);
    let value = match read_json(body) {
        Ok(value) => value,
        Err(why) => return malformed(format!("not valid JSON: {why}")),
    };
    let Value::Object(mut object) = value else {
        return malformed("not a JSON object".to_owned());
    };
    let name = match object.remove("name") {
        Some(Value::String(name)) if !name.is_empty() => name,
        Some(_) => return malformed("`name` is not a text".to_owned()),
        None => return malformed("`name` is missing".to_owned()),
    };
    let arguments = match object.remove("arguments").or_else(|| object.remove("parameters")) {
        Some(Value::Object(arguments)) => arguments,
        // Some models write the arguments as JSON inside a string.
        Some(Value::String(text)) => match read_json(text.trim()) {
            Ok(Value::Object(arguments)) => arguments,
            _ => return malformed("`arguments` is not an object".to_owned()),
        },
        Some(_) => return malformed("`arguments` is not an object".to_owned()),
        None => return malformed("`arguments` is missing".to_owned()),
    };
    Parsed::Call { name, arguments }
}

/// JSON, also where a string holds line breaks and tabs as they are: the commonest slip of a model
/// that quotes code.
fn read_json(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str(text)
        .or_else(|strict| serde_json::from_str(&escape_controls(text)).map_err(|_| strict))
}

fn escape_controls(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let (mut in_string, mut escaped) = (false, false);
    for c in text.chars() {
        if in_string && c.is_control() {
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
            escaped = false;
            continue;
        }
        match c {
            '"' if !escaped => in_string = !in_string,
            _ => {}
        }
        escaped = in_string && c == '\\' && !escaped;
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn call(text: &str) -> (String, Value) {
        match &parse(text)[..] {
            [Parsed::Call { name, arguments }] => (name.clone(), Value::Object(arguments.clone())),
            other => panic!("one call expected in {text:?}, got {other:?}"),
        }
    }

    fn why(text: &str) -> String {
        match &parse(text)[..] {
            [Parsed::Malformed(why)] => why.clone(),
            other => panic!("one malformed call expected in {text:?}, got {other:?}"),
        }
    }

    #[test]
    fn the_written_form_reads_back() {
        let arguments = json!({"path": "a \"b\".py", "old": "x\n\ty</tool_call", "new": "é\u{1}"});
        let Value::Object(map) = arguments.clone() else { unreachable!() };
        assert_eq!(call(&write("apply_patch", &map)), ("apply_patch".to_owned(), arguments));
    }

    #[test]
    fn it_is_written_as_chat_templates_write_it() {
        let Value::Object(map) = json!({"cmd": "ls", "n": [1, 2]}) else { unreachable!() };
        let line = r#"{"name": "shell", "arguments": {"cmd": "ls", "n": [1, 2]}}"#;
        assert_eq!(write("shell", &map), format!("<tool_call>\n{line}\n</tool_call>"));
    }

    #[test]
    fn words_around_and_several_calls_are_fine() {
        let one = r#"<tool_call>{"name":"shell","arguments":{"cmd":"ls"}}</tool_call>"#;
        assert_eq!(parse(&format!("I look.\n{one} and {one}<tool_call>oops")).len(), 3);
        assert_eq!(parse("no call at all"), []);
    }

    #[test]
    fn a_block_cut_at_its_stop_text_still_counts() {
        let text = "<tool_call>\n{\"name\": \"shell\", \"arguments\": {\"cmd\": \"ls\"}}\n";
        assert_eq!(call(text), ("shell".to_owned(), json!({"cmd": "ls"})));
    }

    #[test]
    fn raw_line_breaks_in_strings_are_forgiven() {
        let text = "<tool_call>{\"name\": \"apply_patch\",\n \"arguments\": {\"old\": \"a \\\"q\\\"\n\tb\"}}</tool_call>";
        assert_eq!(call(text).1, json!({"old": "a \"q\"\n\tb"}));
    }

    #[test]
    fn arguments_given_as_text_are_forgiven() {
        let text = r#"<tool_call>{"name":"shell","arguments":"{\"cmd\": \"ls\"}"}</tool_call>"#;
        assert_eq!(call(text).1, json!({"cmd": "ls"}));
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert!(why("<tool_call>{\"name\": \"shell\"").contains("not valid JSON"));
        assert_eq!(why("<tool_call>[1]</tool_call>"), "not a JSON object");
        assert_eq!(why("<tool_call>{\"arguments\":{}}</tool_call>"), "`name` is missing");
        assert_eq!(why("<tool_call>{\"name\":3}</tool_call>"), "`name` is not a text");
        assert_eq!(why("<tool_call>{\"name\":\"shell\"}</tool_call>"), "`arguments` is missing");
        let list = "<tool_call>{\"name\":\"shell\",\"arguments\":[\"ls\"]}</tool_call>";
        assert_eq!(why(list), "`arguments` is not an object");
        assert!(why("<tool_call>").contains("not valid JSON"));
    }

    #[test]
    fn a_turn_of_nothing_but_calls_is_bounded() {
        assert_eq!(parse(&OPEN.repeat(10_000)).len(), 1, "an unclosed block takes the rest");
        let closed = format!("{OPEN}{CLOSE}");
        assert_eq!(parse(&closed.repeat(10_000)).len(), BLOCKS_MAX);
    }

    #[test]
    fn deep_nesting_is_malformed_not_a_crash() {
        let text = format!("<tool_call>{}</tool_call>", "[".repeat(200_000));
        assert!(why(&text).contains("not valid JSON"));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in ".{0,200}", pieces in prop::collection::vec(
            prop::sample::select(vec![
                OPEN, CLOSE, "{", "}", "\"", "\\", "\n", "\"name\"", ":", "\"shell\"", ",",
                "\"arguments\"", "[", "]", "null", "1e999", "\\ud800", "\u{0}", "é", " ",
            ]), 0..40)) {
            let _ = parse(&text);
            let _ = parse(&format!("{OPEN}{text}{CLOSE}"));
            let _ = parse(&pieces.concat());
        }

        #[test]
        fn every_call_reads_back(name in "[a-z_]{1,12}", key in ".{0,8}", value in ".{0,60}") {
            prop_assume!(!value.contains(CLOSE) && !key.contains(CLOSE));
            let mut arguments = Map::new();
            arguments.insert(key, Value::String(value));
            prop_assert_eq!(parse(&write(&name, &arguments)), vec![Parsed::Call { name, arguments }]);
        }
    }
}
