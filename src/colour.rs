//! Whether colours are wanted: by the person, and by what shows them.

use std::ffi::OsString;
use std::io::IsTerminal as _;

/// What the environment says: `NO_COLOR` (<https://no-color.org>), then `CLICOLOR_FORCE`, then
/// `CLICOLOR` (<https://bixense.com/clicolors>), then `TERM`. `variable` looks one up.
pub(crate) fn wanted(terminal: bool, variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let set = |name| variable(name).is_some_and(|value| !value.is_empty());
    let is = |name, what: &str| variable(name).is_some_and(|value| value == what);
    if set("NO_COLOR") {
        return false;
    }
    if set("CLICOLOR_FORCE") && !is("CLICOLOR_FORCE", "0") {
        return true;
    }
    terminal && !is("CLICOLOR", "0") && !is("TERM", "dumb")
}

/// Whether colours are wanted on stderr, where everything goes that is no data.
pub(crate) fn on_stderr() -> bool {
    wanted(std::io::stderr().is_terminal(), |name| std::env::var_os(name))
}

/// Whether stderr is a terminal that a line can be drawn over on.
pub(crate) fn draws_on_stderr() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_person_has_the_last_word() {
        let with = |set: &[(&str, &str)], terminal| {
            wanted(terminal, |name| {
                set.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
            })
        };
        assert!(with(&[], true));
        assert!(!with(&[], false));
        assert!(!with(&[("NO_COLOR", "1")], true));
        assert!(with(&[("NO_COLOR", "")], true), "an empty one says nothing");
        assert!(!with(&[("CLICOLOR", "0")], true));
        assert!(!with(&[("TERM", "dumb")], true));
        assert!(with(&[("CLICOLOR_FORCE", "1")], false));
        assert!(!with(&[("CLICOLOR_FORCE", "0")], false));
        assert!(!with(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], true));
    }
}
