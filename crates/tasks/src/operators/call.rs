//! Bugs of a call: its arguments exchanged, or another function called.

use crrl_types::BugKind;
use tree_sitter::Node;

use super::Scope;

/// Functions and methods that are easily taken for each other.
const PAIRS: &[(&str, &str)] = &[
    ("min", "max"),
    ("append", "extend"),
    ("startswith", "endswith"),
    ("any", "all"),
    ("lower", "upper"),
    ("lstrip", "rstrip"),
    ("find", "rfind"),
    ("index", "rindex"),
    ("split", "rsplit"),
    ("partition", "rpartition"),
    ("keys", "values"),
    ("add", "discard"),
    ("int", "float"),
    ("sorted", "reversed"),
    ("isdigit", "isalpha"),
    ("encode", "decode"),
    ("pop", "popleft"),
    ("get", "pop"),
    ("read", "readline"),
    ("ceil", "floor"),
    ("ljust", "rjust"),
    ("union", "intersection"),
    ("acquire", "release"),
    ("getattr", "hasattr"),
    ("isinstance", "issubclass"),
    ("list", "tuple"),
    ("set", "list"),
    ("str", "repr"),
    ("strip", "lstrip"),
    ("abs", "int"),
    ("sum", "len"),
    ("copy", "clear"),
    ("remove", "append"),
    ("items", "keys"),
    ("setdefault", "get"),
    ("insert", "append"),
    ("isfile", "isdir"),
    ("basename", "dirname"),
    ("debug", "error"),
    ("search", "match"),
];

/// Names of [`PAIRS`]; renaming them in a trace would hide what the bug is.
pub(crate) fn is_paired(name: &str) -> bool {
    PAIRS.iter().any(|(a, b)| *a == name || *b == name)
}

pub(super) fn call(scope: &mut Scope<'_>, node: Node<'_>) {
    if let Some(function) = node.child_by_field_name("function") {
        let name = match function.kind() {
            "identifier" => Some(function),
            "attribute" => function.child_by_field_name("attribute"),
            _ => None,
        };
        if let Some(name) = name {
            let text = scope.of(name);
            // The first pair only: one likely mix-up for each name.
            let other = PAIRS.iter().find_map(|(a, b)| match text {
                _ if text == *a => Some(*b),
                _ if text == *b => Some(*a),
                _ => None,
            });
            if let Some(other) = other {
                scope.put(BugKind::WrongCall, name, other);
            }
        }
    }
    if let Some(arguments) = node.child_by_field_name("arguments")
        && arguments.kind() == "argument_list"
    {
        swap(scope, arguments);
    }
}

fn swap(scope: &mut Scope<'_>, arguments: Node<'_>) {
    let mut cursor = arguments.walk();
    let all: Vec<Node<'_>> = arguments.named_children(&mut cursor).collect();
    for pair in all.windows(2) {
        let (first, second) = (pair[0], pair[1]);
        let simple = |node: Node<'_>| {
            matches!(
                node.kind(),
                "identifier" | "attribute" | "subscript" | "call" | "integer" | "string"
            )
        };
        // Arguments on different lines carry their indentation along.
        let one_line = first.start_position().row == second.end_position().row;
        if simple(first) && simple(second) && one_line {
            let between = &scope.text[first.end_byte()..second.start_byte()];
            let swapped = format!("{}{between}{}", scope.of(second), scope.of(first));
            scope.put_range(BugKind::ArgumentSwap, first.start_byte(), second.end_byte(), swapped);
        }
    }
}
