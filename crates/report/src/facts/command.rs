//! Which programs a shell command line calls: the first word of each simple command in it. An
//! account of habits, not a shell: quotes, pipes and the usual keywords are understood, the rest is
//! not.

/// Characters of a command line that are looked at; what comes later is rarely a program.
const CHARS_MAX: usize = 4_096;

/// Programs one command line may count for.
const WORDS_MAX: usize = 16;

/// Characters of a program's name; a longer word is none.
const NAME_CHARS_MAX: usize = 24;

/// What a word that cannot be a program's name counts as.
pub const NOT_A_PROGRAM: &str = "(not a program)";

/// Words a simple command may begin with before its program.
const BEFORE: &[&str] =
    &["do", "then", "else", "elif", "if", "while", "until", "!", "time", "exec", "command", "env"];

/// Words that begin something that calls no program.
const INSTEAD: &[&str] = &["for", "case", "select", "done", "fi", "esac", "function", "in"];

/// The programs, in order.
#[must_use]
pub fn programs(line: &str) -> Vec<String> {
    simple_commands(line).iter().filter_map(|words| program(words)).take(WORDS_MAX).collect()
}

fn program(words: &[String]) -> Option<String> {
    let word = words.iter().find(|word| !BEFORE.contains(&word.as_str()) && !assigns(word))?;
    if INSTEAD.contains(&word.as_str()) {
        return None;
    }
    let name = word.rsplit('/').next().unwrap_or(word);
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.+[".contains(c);
    let is_name = !name.is_empty()
        && name.len() <= NAME_CHARS_MAX
        && name.chars().all(plain)
        && !name.starts_with('-');
    Some(if is_name { name.to_owned() } else { NOT_A_PROGRAM.to_owned() })
}

fn assigns(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}

/// Words of each simple command, their quotes taken off.
fn simple_commands(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut heredoc = false;
    let mut before = ' ';
    let mut rest = line.chars().take(CHARS_MAX).peekable();
    while let Some(c) = rest.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('"') | None, '\\') => {
                if let Some(escaped) = rest.next().filter(|c| *c != '\n') {
                    word.get_or_insert_default().push(escaped);
                }
            }
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            // The body of a here-document is data.
            (None, '\n') if heredoc => break,
            // `2>&1` and `&>file` end nothing.
            (None, '&') if before == '>' || rest.peek() == Some(&'>') => {}
            (None, '\n' | ';' | '|' | '&' | '(' | ')' | '{' | '}' | '`') => {
                commands.last_mut().expect("never empty").extend(word.take());
                commands.push(Vec::new());
            }
            (None, '<') => {
                heredoc |= before == '<';
                commands.last_mut().expect("never empty").extend(word.take());
            }
            (None, c) if c.is_whitespace() => {
                commands.last_mut().expect("never empty").extend(word.take());
            }
            (None, c) => word.get_or_insert_default().push(c),
        }
        before = c;
    }
    commands.last_mut().expect("never empty").extend(word);
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_usual_command_lines() {
        for (line, expected) in [
            ("grep -n 'a|b; c' f.py | head -3", vec!["grep", "head"]),
            ("cd src && /usr/bin/sed -n 1,5p x 2>&1", vec!["cd", "sed"]),
            ("X=1 Y='a b' python3 -c \"import os; os.x()\"", vec!["python3"]),
            ("for f in *.py; do wc -l $f; done", vec!["wc"]),
            ("if ! test -e x; then cat y; fi", vec!["test", "cat"]),
            ("python - <<EOF\nrm -rf /\nEOF", vec!["python"]),
            ("(ls; pwd)", vec!["ls", "pwd"]),
            ("echo a \\| b", vec!["echo"]),
            ("make &> log", vec!["make"]),
            ("", vec![]),
            ("   \n ;; ", vec![]),
        ] {
            assert_eq!(programs(line), expected, "{line}");
        }
    }

    #[test]
    fn words_of_a_confused_model_are_no_programs_and_are_bounded() {
        assert_eq!(programs("$(\u{202e}x)"), vec![NOT_A_PROGRAM, NOT_A_PROGRAM]);
        assert_eq!(programs(&"a".repeat(99)), vec![NOT_A_PROGRAM]);
        assert_eq!(programs(&"ls;".repeat(10_000)).len(), WORDS_MAX);
        assert_eq!(programs("'unclosed | rm"), vec![NOT_A_PROGRAM]);
    }
}
