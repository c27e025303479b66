//! The mutation operators: for each node of a function's syntax tree, the bugs it can carry.
//!
//! A site never reaches outside its function's body, never touches a docstring, and never leaves
//! the code as it was. Whether the broken code still parses is for the caller to check.

use std::collections::BTreeSet;

use crrl_types::BugKind;
use tree_sitter::Node;

use crate::function::Site;

pub(crate) use call::is_paired;

mod call;
mod statement;

/// Every operator.
pub const ALL: [BugKind; 17] = [
    BugKind::Comparison,
    BugKind::Equality,
    BugKind::Boolean,
    BugKind::Negation,
    BugKind::NoneCheck,
    BugKind::Membership,
    BugKind::Arithmetic,
    BugKind::OffByOne,
    BugKind::Constant,
    BugKind::Flag,
    BugKind::ArgumentSwap,
    BugKind::RemovedGuard,
    BugKind::WrongVariable,
    BugKind::WrongReturn,
    BugKind::WrongCall,
    BugKind::Assignment,
    BugKind::LoopControl,
];

/// Nodes nested deeper than this are not looked at.
const DEPTH_MAX: usize = 200;

/// What an operator needs to know beyond its node.
pub(crate) struct Scope<'t> {
    text: &'t str,
    /// Parameters and names assigned in the function, sorted.
    variables: Vec<&'t str>,
    /// String literals of the function, sorted.
    strings: Vec<&'t str>,
    sites: Vec<Site>,
}

impl<'t> Scope<'t> {
    fn of(&self, node: Node<'_>) -> &'t str {
        &self.text[node.byte_range()]
    }

    fn put(&mut self, kind: BugKind, node: Node<'_>, replacement: impl Into<String>) {
        self.put_range(kind, node.start_byte(), node.end_byte(), replacement.into());
    }

    fn put_range(&mut self, kind: BugKind, start: usize, end: usize, replacement: String) {
        if self.text[start..end] != replacement {
            self.sites.push(Site { kind, start, end, replacement });
        }
    }
}

/// Every bug the function can carry.
pub(crate) fn sites(text: &str, function: Node<'_>) -> Vec<Site> {
    let Some(body) = function.child_by_field_name("body") else { return Vec::new() };
    let mut names = Names::default();
    if let Some(parameters) = function.child_by_field_name("parameters") {
        names.parameters(text, parameters);
    }
    names.collect(text, body, 0);
    let mut scope = Scope {
        text,
        variables: names.variables.into_iter().collect(),
        strings: names.strings.into_iter().collect(),
        sites: Vec::new(),
    };
    walk(&mut scope, body, 0);
    scope.sites
}

#[derive(Default)]
struct Names<'t> {
    variables: BTreeSet<&'t str>,
    strings: BTreeSet<&'t str>,
}

impl<'t> Names<'t> {
    fn parameters(&mut self, text: &'t str, node: Node<'_>) {
        let mut cursor = node.walk();
        for parameter in node.named_children(&mut cursor) {
            let name = match parameter.kind() {
                "identifier" => Some(parameter),
                "default_parameter" | "typed_default_parameter" => {
                    parameter.child_by_field_name("name")
                }
                "typed_parameter" | "list_splat_pattern" | "dictionary_splat_pattern" => {
                    parameter.named_child(0)
                }
                _ => None,
            };
            self.variable(text, name);
        }
    }

    fn variable(&mut self, text: &'t str, node: Option<Node<'_>>) {
        if let Some(node) = node.filter(|node| node.kind() == "identifier") {
            let name = &text[node.byte_range()];
            if !matches!(name, "self" | "cls" | "_") {
                self.variables.insert(name);
            }
        }
    }

    fn collect(&mut self, text: &'t str, node: Node<'_>, depth: usize) {
        if depth > DEPTH_MAX || is_inner_definition(node) {
            return;
        }
        match node.kind() {
            "assignment" | "for_statement" => {
                if let Some(left) = node.child_by_field_name("left") {
                    self.variable(text, Some(left));
                    if left.kind() == "pattern_list" {
                        let mut cursor = left.walk();
                        for part in left.named_children(&mut cursor) {
                            self.variable(text, Some(part));
                        }
                    }
                }
            }
            "string" if !is_docstring(node) && is_plain_string(&text[node.byte_range()]) => {
                self.strings.insert(&text[node.byte_range()]);
            }
            _ => {}
        }
        let mut cursor = node.walk();
        for child in node.named_children(&mut cursor) {
            self.collect(text, child, depth + 1);
        }
    }
}

fn is_inner_definition(node: Node<'_>) -> bool {
    matches!(node.kind(), "function_definition" | "class_definition" | "decorated_definition")
}

fn is_docstring(node: Node<'_>) -> bool {
    node.parent().is_some_and(|parent| parent.kind() == "expression_statement")
}

/// A short string on one line, without prefix or escape.
fn is_plain_string(text: &str) -> bool {
    let quoted = text.starts_with(['"', '\'']) && !text.starts_with("\"\"\"");
    quoted && text.len() <= 40 && !text.contains(['\\', '\n'])
}

fn walk(scope: &mut Scope<'_>, node: Node<'_>, depth: usize) {
    if depth > DEPTH_MAX || is_inner_definition(node) {
        return;
    }
    match node.kind() {
        "comparison_operator" => comparison(scope, node),
        "boolean_operator" => boolean(scope, node),
        "not_operator" => {
            if let Some(argument) = node.child_by_field_name("argument") {
                scope.put(BugKind::Negation, node, scope.of(argument));
            }
        }
        "if_statement" | "elif_clause" | "while_statement" | "conditional_expression" => {
            added_not(scope, node);
            if node.kind() == "if_statement" {
                statement::removed_guard(scope, node);
            }
        }
        "binary_operator" => arithmetic(scope, node),
        "integer" => integer(scope, node),
        "float" => {
            let text = scope.of(node);
            let other = if text == "0.0" { "1.0" } else { "0.0" };
            scope.put(BugKind::Constant, node, other);
        }
        "string" => string(scope, node),
        "true" => scope.put(BugKind::Flag, node, "False"),
        "false" => scope.put(BugKind::Flag, node, "True"),
        "call" => call::call(scope, node),
        "identifier" => variable(scope, node),
        "return_statement" => statement::wrong_return(scope, node),
        "augmented_assignment" => statement::assignment(scope, node),
        "break_statement" => scope.put(BugKind::LoopControl, node, "continue"),
        "continue_statement" => scope.put(BugKind::LoopControl, node, "break"),
        _ => {}
    }
    let mut cursor = node.walk();
    for child in node.named_children(&mut cursor) {
        walk(scope, child, depth + 1);
    }
}

fn comparison(scope: &mut Scope<'_>, node: Node<'_>) {
    let mut cursor = node.walk();
    let children: Vec<Node<'_>> = node.children(&mut cursor).collect();
    for (index, child) in children.iter().enumerate() {
        let right_is_none = children.get(index + 1).is_some_and(|right| right.kind() == "none");
        let (kind, others): (_, &[&str]) = match child.kind() {
            "<" => (BugKind::Comparison, &["<=", ">"]),
            "<=" => (BugKind::Comparison, &["<", ">="]),
            ">" => (BugKind::Comparison, &[">=", "<"]),
            ">=" => (BugKind::Comparison, &[">", "<="]),
            "==" => (BugKind::Equality, &["!="]),
            "!=" => (BugKind::Equality, &["=="]),
            "in" => (BugKind::Membership, &["not in"]),
            "not in" => (BugKind::Membership, &["in"]),
            "is" if right_is_none => (BugKind::NoneCheck, &["is not"]),
            "is not" if right_is_none => (BugKind::NoneCheck, &["is"]),
            "is" => (BugKind::Equality, &["is not"]),
            "is not" => (BugKind::Equality, &["is"]),
            _ => continue,
        };
        for other in others {
            scope.put(kind, *child, *other);
        }
    }
}

fn boolean(scope: &mut Scope<'_>, node: Node<'_>) {
    if let Some(operator) = node.child_by_field_name("operator") {
        let other = if operator.kind() == "and" { "or" } else { "and" };
        scope.put(BugKind::Boolean, operator, other);
    }
}

/// `if ready:` becomes `if not ready:`.
fn added_not(scope: &mut Scope<'_>, node: Node<'_>) {
    let condition = match node.kind() {
        "conditional_expression" => node.named_child(1),
        _ => node.child_by_field_name("condition"),
    };
    if let Some(condition) = condition
        && matches!(condition.kind(), "identifier" | "attribute" | "call" | "subscript")
    {
        let text = scope.of(condition);
        scope.put(BugKind::Negation, condition, format!("not {text}"));
    }
}

fn arithmetic(scope: &mut Scope<'_>, node: Node<'_>) {
    let side = |name| node.child_by_field_name(name);
    let (Some(left), Some(operator), Some(right)) = (side("left"), side("operator"), side("right"))
    else {
        return;
    };
    let is_text = |node: Node<'_>| matches!(node.kind(), "string" | "concatenated_string");
    if is_text(left) || is_text(right) {
        return; // joining and formatting, not arithmetic
    }
    let others: &[&str] = match operator.kind() {
        "+" => &["-"],
        "-" => &["+"],
        "*" => &["+", "//"],
        "/" => &["*", "//"],
        "//" => &["*", "%"],
        "%" => &["//"],
        "<<" => &[">>"],
        ">>" => &["<<"],
        "&" => &["|"],
        "|" => &["&"],
        "^" => &["&"],
        "**" => &["*"],
        _ => return,
    };
    for other in others {
        scope.put(BugKind::Arithmetic, operator, *other);
    }
    // `len(items) - 1` becomes `len(items)`.
    if matches!(operator.kind(), "+" | "-") && scope.of(right) == "1" {
        let text = scope.of(left);
        scope.put(BugKind::OffByOne, node, text);
    }
}

fn integer(scope: &mut Scope<'_>, node: Node<'_>) {
    let Ok(value) = scope.of(node).parse::<i64>() else { return };
    if !(0..1_000_000_000).contains(&value) {
        return;
    }
    if counts_positions(scope, node) {
        scope.put(BugKind::OffByOne, node, (value + 1).to_string());
        if value > 0 {
            scope.put(BugKind::OffByOne, node, (value - 1).to_string());
        }
        return;
    }
    let others: &[i64] = match value {
        0 => &[1],
        1 => &[0, 2],
        2 => &[1, 3],
        n if n % 2 == 0 => &[value / 2, value + 1],
        _ => &[value - 1, value * 2],
    };
    for other in others {
        scope.put(BugKind::Constant, node, other.to_string());
    }
}

/// Whether a number is an index, a bound of a slice, or an argument of `range`.
fn counts_positions(scope: &Scope<'_>, node: Node<'_>) -> bool {
    let mut at = node;
    for _ in 0..4 {
        let Some(parent) = at.parent() else { return false };
        match parent.kind() {
            "slice" => return true,
            "subscript" => {
                return parent.child_by_field_name("value").is_none_or(|v| v.id() != at.id());
            }
            "argument_list" => {
                let function = parent.parent().and_then(|call| {
                    call.child_by_field_name("function").map(|function| scope.of(function))
                });
                return matches!(function, Some("range" | "islice" | "xrange"));
            }
            "binary_operator" | "unary_operator" | "parenthesized_expression" => at = parent,
            _ => return false,
        }
    }
    false
}

fn string(scope: &mut Scope<'_>, node: Node<'_>) {
    let text = scope.of(node);
    if is_docstring(node) || !is_plain_string(text) {
        return;
    }
    if let Some(at) = scope.strings.iter().position(|string| *string == text)
        && scope.strings.len() > 1
    {
        let other = scope.strings[(at + 1) % scope.strings.len()];
        scope.put(BugKind::Constant, node, other);
    }
}

/// A variable read, replaced by its neighbours in the sorted list of names.
fn variable(scope: &mut Scope<'_>, node: Node<'_>) {
    let text = scope.of(node);
    let Ok(at) = scope.variables.binary_search(&text) else { return };
    if !is_read(node) || scope.variables.len() < 2 {
        return;
    }
    let count = scope.variables.len();
    for step in [1, count - 1] {
        let other = scope.variables[(at + step) % count];
        if other != text {
            scope.put(BugKind::WrongVariable, node, other);
        }
    }
}

/// Whether an identifier is a value read, not a target, an attribute's or an argument's name.
fn is_read(node: Node<'_>) -> bool {
    let Some(parent) = node.parent() else { return false };
    let is_field = |name| parent.child_by_field_name(name).is_some_and(|n| n.id() == node.id());
    match parent.kind() {
        "attribute" => is_field("object"),
        "keyword_argument" => is_field("value"),
        "assignment" | "augmented_assignment" => is_field("right"),
        "for_statement" | "for_in_clause" => is_field("right"),
        "call" => false,
        "named_expression" => is_field("value"),
        "pattern_list" | "tuple_pattern" | "list_pattern" | "as_pattern_target" => false,
        "parameters" | "lambda_parameters" | "default_parameter" | "typed_parameter" => false,
        "global_statement" | "nonlocal_statement" | "delete_statement" | "type" => false,
        "case_pattern" | "dotted_name" | "aliased_import" | "import_statement" => false,
        _ => true,
    }
}
