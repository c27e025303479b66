//! The parser.

use super::path;
use super::{FilePatch, Hunk, Line, LineKind, ParseError, Patch};

/// Reads a unified diff. Text before the first file (a commit message) is skipped, an empty text
/// is an empty patch.
///
/// # Errors
/// The first line that makes it no patch.
pub fn parse(text: &str) -> Result<Patch, ParseError> {
    let mut reader = Reader { lines: text.split('\n').collect(), at: 0 };
    // The text after the last line break is no line.
    if reader.lines.last() == Some(&"") {
        reader.lines.pop();
    }
    let mut patch = Patch::default();
    while let Some(line) = reader.peek() {
        if let Some(rest) = line.strip_prefix("diff --git ") {
            reader.at += 1;
            patch.files.push(reader.git_file(rest)?);
        } else if line.starts_with("--- ")
            && reader.lines.get(reader.at + 1).is_some_and(|l| l.starts_with("+++ "))
        {
            patch.files.push(reader.plain_file()?);
        } else if line.starts_with("@@ -") {
            return reader.refuse("a hunk without a file header before it");
        } else {
            reader.prose(line, patch.files.is_empty())?;
            reader.at += 1;
        }
    }
    if patch.files.is_empty() && !text.trim().is_empty() {
        return Err(ParseError { line: 1, reason: "no file header in it".to_owned() });
    }
    Ok(patch)
}

struct Reader<'a> {
    lines: Vec<&'a str>,
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.lines.get(self.at).copied()
    }

    fn refuse<T>(&self, reason: impl Into<String>) -> Result<T, ParseError> {
        Err(ParseError { line: self.at + 1, reason: reason.into() })
    }

    fn located<T>(&self, result: Result<T, String>) -> Result<T, ParseError> {
        result.or_else(|reason| self.refuse(reason))
    }

    /// A line between files: anything but one that looks like part of a hunk. `-- ` opens the
    /// signature of a mailed patch.
    fn prose(&self, line: &str, before_first: bool) -> Result<(), ParseError> {
        let signature = line.trim_end() == "--";
        if !before_first && !signature && line.starts_with(['+', '-']) {
            return self
                .refuse("a changed line outside of a hunk: the header before it counts wrong");
        }
        Ok(())
    }

    /// A file git describes, from the line after `diff --git`.
    fn git_file(&mut self, header: &str) -> Result<FilePatch, ParseError> {
        let named = path::git_header(header);
        let mut file = FilePatch::default();
        let (mut created, mut deleted) = (false, false);
        let (mut old_mode, mut new_mode) = (None, None);
        let mut sides = None;
        while let Some(line) = self.peek() {
            if line.starts_with("diff --git ") || line.starts_with("@@ -") {
                break;
            } else if line.starts_with("--- ") {
                sides = Some(self.sides()?);
                break;
            } else if let Some(mode) = line.strip_prefix("old mode ") {
                old_mode = Some(mode.trim().to_owned());
            } else if let Some(mode) = line.strip_prefix("new mode ") {
                new_mode = Some(mode.trim().to_owned());
            } else if line.starts_with("new file mode ") {
                created = true;
            } else if line.starts_with("deleted file mode ") {
                deleted = true;
            } else if let Some((key, value)) = moved(line) {
                let value =
                    self.located(path::read(value).and_then(|p| path::check(&p).map(|()| p)))?;
                file.copied |= key == Moved::CopyFrom;
                match key {
                    Moved::From | Moved::CopyFrom => file.old_path = Some(value),
                    Moved::To => file.new_path = Some(value),
                }
            } else if line.starts_with("Binary files ") || line.starts_with("GIT binary patch") {
                file.binary = Some(self.binary());
                break;
            } else if !["index ", "similarity index ", "dissimilarity index "]
                .iter()
                .any(|k| line.starts_with(k))
            {
                break;
            }
            self.at += 1;
        }
        file.mode_change = old_mode.zip(new_mode);
        match (sides, named) {
            (Some((old, new)), _) => {
                // Renamed files name both sides the same in either place.
                file.old_path = old;
                file.new_path = new;
            }
            (None, _) if file.old_path.is_some() && file.new_path.is_some() => {}
            (None, Some((old, new))) => {
                self.located(path::check(&old).and_then(|()| path::check(&new)))?;
                file.old_path = (!created).then_some(old);
                file.new_path = (!deleted).then_some(new);
            }
            (None, None) => return self.refuse("a git header whose paths cannot be told apart"),
        }
        self.hunks(&mut file)?;
        Ok(file)
    }

    fn plain_file(&mut self) -> Result<FilePatch, ParseError> {
        let (old_path, new_path) = self.sides()?;
        let mut file = FilePatch { old_path, new_path, ..FilePatch::default() };
        self.hunks(&mut file)?;
        if file.hunks.is_empty() {
            return self.refuse("a file header without a hunk after it");
        }
        Ok(file)
    }

    /// `---` and `+++`.
    fn sides(&mut self) -> Result<(Option<String>, Option<String>), ParseError> {
        let old = self.peek().and_then(|line| line.strip_prefix("--- ")).unwrap_or_default();
        let old = self.located(path::side(old, "a/"))?;
        self.at += 1;
        let Some(new) = self.peek().and_then(|line| line.strip_prefix("+++ ")) else {
            return self.refuse("`---` without `+++` after it");
        };
        let new = self.located(path::side(new, "b/"))?;
        if old.is_none() && new.is_none() {
            return self.refuse("both sides are /dev/null");
        }
        self.at += 1;
        Ok((old, new))
    }

    /// Everything up to the next file, as it stands.
    fn binary(&mut self) -> String {
        let from = self.at;
        while self.peek().is_some_and(|line| !line.starts_with("diff --git ")) {
            self.at += 1;
        }
        self.lines[from..self.at].join("\n")
    }

    fn hunks(&mut self, file: &mut FilePatch) -> Result<(), ParseError> {
        let mut old_end = 0;
        while let Some(line) = self.peek().filter(|line| line.starts_with("@@ -")) {
            let Some(mut hunk) = header(line) else {
                return self.refuse("a hunk header looks like `@@ -1,2 +3,4 @@`");
            };
            if !file.hunks.is_empty() && hunk.old_at() < old_end {
                return self.refuse("hunks overlap or are out of order");
            }
            old_end = hunk.old_at().saturating_add(hunk.old_len);
            self.at += 1;
            self.body(&mut hunk)?;
            file.hunks.push(hunk);
        }
        Ok(())
    }

    fn body(&mut self, hunk: &mut Hunk) -> Result<(), ParseError> {
        let (mut old, mut new) = (0, 0);
        while old < hunk.old_len || new < hunk.new_len {
            let Some(line) = self.peek() else {
                return self.refuse("the hunk ends before its header says");
            };
            // Editors strip the blank of an empty context line.
            let (sign, text) = match line.chars().next() {
                None => (' ', ""),
                Some('\r') => (' ', line),
                Some(sign @ (' ' | '+' | '-')) => (sign, &line[1..]),
                Some('\\') => {
                    self.unended(hunk)?;
                    continue;
                }
                Some(_) => return self.refuse("the hunk ends before its header says"),
            };
            let kind = match sign {
                '+' => LineKind::Added,
                '-' => LineKind::Removed,
                _ => LineKind::Context,
            };
            old += usize::from(kind != LineKind::Added);
            new += usize::from(kind != LineKind::Removed);
            if old > hunk.old_len || new > hunk.new_len {
                return self.refuse("the hunk holds more lines than its header says");
            }
            hunk.lines.push(Line { kind, text: text.to_owned(), ended: true });
            self.at += 1;
        }
        if self.peek().is_some_and(|line| line.starts_with('\\')) {
            self.unended(hunk)?;
        }
        Ok(())
    }

    /// `\ No newline at end of file`, of the line before it.
    fn unended(&mut self, hunk: &mut Hunk) -> Result<(), ParseError> {
        match hunk.lines.last_mut() {
            Some(last) => last.ended = false,
            None => return self.refuse("a no-newline mark with no line before it"),
        }
        self.at += 1;
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Moved {
    From,
    To,
    CopyFrom,
}

fn moved(line: &str) -> Option<(Moved, &str)> {
    [
        ("rename from ", Moved::From),
        ("rename to ", Moved::To),
        ("copy from ", Moved::CopyFrom),
        ("copy to ", Moved::To),
    ]
    .into_iter()
    .find_map(|(key, moved)| line.strip_prefix(key).map(|value| (moved, value)))
}

/// `@@ -old_start[,old_len] +new_start[,new_len] @@ anything`
fn header(line: &str) -> Option<Hunk> {
    let (ranges, _) = line.strip_prefix("@@ -")?.split_once(" @@")?;
    let (old, new) = ranges.split_once(" +")?;
    let range = |text: &str| match text.split_once(',') {
        Some((start, len)) => Some((number(start)?, number(len)?)),
        None => Some((number(text)?, 1)),
    };
    let ((old_start, old_len), (new_start, new_len)) = (range(old)?, range(new)?);
    Some(Hunk { old_start, old_len, new_start, new_len, lines: Vec::new() })
}

/// A line number; more than a billion is no file.
fn number(text: &str) -> Option<usize> {
    let digits = !text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests;
