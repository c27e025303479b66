//! Bugs of whole statements: a guard lost, another value returned, another assignment.

use crrl_types::BugKind;
use tree_sitter::Node;

use super::Scope;

/// `if missing: return None` disappears, where other statements follow it in its block.
pub(super) fn removed_guard(scope: &mut Scope<'_>, node: Node<'_>) {
    let leaves = node.child_by_field_name("consequence").is_some_and(|block| {
        block.named_child_count() == 1
            && block.named_child(0).is_some_and(|only| {
                matches!(
                    only.kind(),
                    "return_statement"
                        | "raise_statement"
                        | "continue_statement"
                        | "break_statement"
                )
            })
    });
    let has_else = node.child_by_field_name("alternative").is_some();
    let Some(next) = node.next_named_sibling() else { return };
    if !leaves || has_else || next.kind() == "comment" {
        return;
    }
    let start = line_start(scope.text, node.start_byte());
    let end = line_start(scope.text, next.start_byte());
    let whole_lines = scope.text[start..node.start_byte()].trim().is_empty()
        && scope.text[node.end_byte()..end].trim().is_empty()
        && end > node.end_byte();
    if whole_lines && node.end_position().row - node.start_position().row <= 2 {
        scope.put_range(BugKind::RemovedGuard, start, end, String::new());
    }
}

fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |newline| newline + 1)
}

/// `return found` becomes `return None`, `return a, b` becomes `return b, a`, or another of the
/// function's variables is returned.
pub(super) fn wrong_return(scope: &mut Scope<'_>, node: Node<'_>) {
    let Some(value) = node.named_child(0) else { return };
    match value.kind() {
        "none" | "true" | "false" | "comment" => return,
        "expression_list" if value.named_child_count() == 2 => {
            if let (Some(first), Some(second)) = (value.named_child(0), value.named_child(1)) {
                let swapped = format!("{}, {}", scope.of(second), scope.of(first));
                scope.put(BugKind::WrongReturn, value, swapped);
            }
        }
        _ => {}
    }
    if value.start_position().row != value.end_position().row {
        return;
    }
    scope.put(BugKind::WrongReturn, value, "None");
    let text = scope.of(value);
    let other = scope.variables.iter().find(|name| **name != text).map(|name| (*name).to_owned());
    if let Some(other) = other
        && value.kind() != "identifier"
    {
        scope.put(BugKind::WrongReturn, value, other);
    }
}

pub(super) fn assignment(scope: &mut Scope<'_>, node: Node<'_>) {
    let Some(operator) = node.child_by_field_name("operator") else { return };
    let others: &[&str] = match operator.kind() {
        "+=" => &["-=", "="],
        "-=" => &["+=", "="],
        "*=" => &["/=", "="],
        "/=" | "//=" => &["*=", "="],
        "|=" => &["&=", "="],
        "&=" => &["|=", "="],
        "<<=" => &[">>="],
        ">>=" => &["<<="],
        "%=" | "**=" | "^=" => &["="],
        _ => return,
    };
    for other in others {
        scope.put(BugKind::Assignment, operator, *other);
    }
}
