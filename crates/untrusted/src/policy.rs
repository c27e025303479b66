//! What the policy writes: tool calls and, through them, patches.

use std::collections::BTreeMap;

use crrl_agent::tool_call::{self, BLOCKS_MAX, Parsed};
use crrl_agent::tools;
use crrl_rl::diff;

/// Parts a patch and the files it is tried on.
const PART: char = '\0';

/// Tool calls in a turn. Every call that is read can be written and read again.
#[must_use]
pub fn tool_call(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let found = tool_call::parse(&text);
    assert!(found.len() <= BLOCKS_MAX);
    let mut any = false;
    for parsed in found {
        let Parsed::Call { name, arguments } = &parsed else { continue };
        any = true;
        let written = tool_call::write(name, arguments);
        // An end inside a text ends the block: such a call cannot be written.
        if written.matches("</tool_call>").count() == 1 {
            assert_eq!(tool_call::parse(&written), std::slice::from_ref(&parsed));
        }
        if let Err(why) = tools::invocation(name, arguments) {
            assert!(!why.is_empty() && why.len() < 1024, "{why}");
        }
        if let Ok(crrl_agent::Invocation::Shell { cmd }) = tools::invocation(name, arguments) {
            let _ = crrl_agent::command::refusal(&cmd);
        }
    }
    any
}

/// A patch, and a text it is tried on (behind a NUL). No path of it leaves the tree. The diff of two
/// texts leads from one to the other.
#[must_use]
pub fn patch(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let (patch, base) = text.split_once(PART).unwrap_or((&text, ""));
    leads_from_one_to_the_other(patch, base);
    let Ok(patch) = diff::parse(patch) else { return false };
    let mut tree = BTreeMap::new();
    for file in &patch.files {
        for path in [&file.old_path, &file.new_path].into_iter().flatten() {
            assert!(!leaves_the_tree(path), "{path:?} leaves the tree");
        }
        if let Some(old) = &file.old_path {
            tree.insert(old.clone(), base.to_owned());
        }
    }
    if let Ok(changed) = diff::apply_all(&tree, &patch) {
        for (path, content) in &changed {
            assert!(!leaves_the_tree(path), "{path:?} leaves the tree");
            assert_ne!(content.as_ref(), tree.get(path), "{path:?} is said to have changed");
        }
    }
    true
}

fn leads_from_one_to_the_other(old: &str, new: &str) {
    // Lines compared are quadratic at worst: short texts will do.
    if old == new || old.len() + new.len() > 4096 {
        return;
    }
    let written = diff::write("a.py", Some(old), Some(new), 3);
    let read = diff::parse(&written).unwrap_or_else(|error| panic!("{error}\n{written}"));
    let [file] = &read.files[..] else { panic!("one file\n{written}") };
    assert_eq!(diff::apply(old, file).as_deref(), Ok(new), "{written}");
}

fn leaves_the_tree(path: &str) -> bool {
    path.is_empty() || path.starts_with('/') || path.split('/').any(|part| part == "..")
}
