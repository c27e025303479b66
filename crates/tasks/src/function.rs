//! Functions of a file, and the places in them where a bug can be put.

use std::ops::RangeInclusive;

use crrl_types::BugKind;
use tree_sitter::{Node, Tree};

use crate::operators;

/// Functions nested deeper than this are left out; real code stays far below.
const DEPTH_MAX: usize = 64;

/// A function or method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Its own name.
    pub name: String,
    /// Its name with the classes and functions around it, joined by dots.
    pub qualified: String,
    /// Byte at which the line of its `def` begins (decorators are above).
    pub start: usize,
    /// Byte past its last character, line break excluded.
    pub end: usize,
    /// 0-based line of its `def`.
    pub line: usize,
    /// Lines from `def` to the end.
    pub lines: usize,
    /// Where a bug can be put, by position.
    pub sites: Vec<Site>,
}

/// One possible bug: a stretch of the file and the text that breaks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// The operator.
    pub kind: BugKind,
    /// Byte range in the file.
    pub start: usize,
    /// Past the last byte.
    pub end: usize,
    /// What stands there in the broken code.
    pub replacement: String,
}

impl Site {
    /// The file with the bug.
    #[must_use]
    pub fn apply(&self, text: &str) -> String {
        let mut broken = String::with_capacity(text.len() + self.replacement.len());
        broken.push_str(&text[..self.start]);
        broken.push_str(&self.replacement);
        broken.push_str(&text[self.end..]);
        broken
    }
}

/// Functions whose length is in `lines`, in the order of the file. Nested ones stand beside the one
/// around them; a place belongs to the innermost function only.
#[must_use]
pub fn functions(text: &str, tree: &Tree, lines: RangeInclusive<usize>) -> Vec<Function> {
    let mut found = Vec::new();
    let mut scope = Vec::new();
    visit(text, tree.root_node(), &lines, &mut scope, &mut found);
    found
}

fn visit<'t>(
    text: &'t str,
    node: Node<'_>,
    lines: &RangeInclusive<usize>,
    scope: &mut Vec<&'t str>,
    found: &mut Vec<Function>,
) {
    if scope.len() > DEPTH_MAX {
        return;
    }
    let mut cursor = node.walk();
    for child in node.named_children(&mut cursor) {
        let name = match child.kind() {
            "function_definition" | "class_definition" => child.child_by_field_name("name"),
            // Definitions stand in blocks; nothing else needs a look inside.
            kind if holds_statements(kind) => {
                visit(text, child, lines, scope, found);
                continue;
            }
            _ => continue,
        };
        let Some(name) = name.map(|name| &text[name.byte_range()]) else { continue };
        scope.push(name);
        if child.kind() == "function_definition"
            && let Some(function) = function(text, child, name, &scope.join("."), lines)
        {
            found.push(function);
        }
        visit(text, child, lines, scope, found);
        scope.pop();
    }
}

fn holds_statements(kind: &str) -> bool {
    kind.ends_with("_statement")
        || kind.ends_with("_clause")
        || matches!(kind, "block" | "decorated_definition" | "module")
}

fn function(
    text: &str,
    node: Node<'_>,
    name: &str,
    qualified: &str,
    lines: &RangeInclusive<usize>,
) -> Option<Function> {
    let span = node.end_position().row - node.start_position().row + 1;
    let start = text[..node.start_byte()].rfind('\n').map_or(0, |at| at + 1);
    // A definition behind a semicolon or a colon has no line of its own.
    let alone = text[start..node.start_byte()].trim().is_empty();
    if !lines.contains(&span) || !alone {
        return None;
    }
    let mut sites = operators::sites(text, node);
    sites.sort_by(|a, b| {
        (a.start, a.end, a.kind, &a.replacement).cmp(&(b.start, b.end, b.kind, &b.replacement))
    });
    sites.dedup();
    Some(Function {
        name: name.to_owned(),
        qualified: qualified.to_owned(),
        start,
        end: node.end_byte(),
        line: node.start_position().row,
        lines: span,
        sites,
    })
}
