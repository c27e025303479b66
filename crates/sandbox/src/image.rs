//! Files as bytes: kind, path, content, one after the other. Templates are given to a sandbox and
//! changed files come back in this form; reading checks every length and every name.

/// Bytes of a path.
const PATH_BYTES_MAX: usize = 4096;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Executable,
    /// The content is the target.
    Link,
    Folder,
}

/// One entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) kind: Kind,
    pub(crate) path: &'a str,
    pub(crate) content: &'a [u8],
}

/// An image is cut short or holds a name that it may not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bad image: {0}")]
pub(crate) struct BadImage(&'static str);

/// Appends an entry.
pub(crate) fn push(
    image: &mut Vec<u8>,
    kind: Kind,
    path: &str,
    content: &[u8],
) -> Result<(), BadImage> {
    if !is_plain(path) {
        return Err(BadImage("a path that is not plain"));
    }
    let path_bytes = u32::try_from(path.len()).map_err(|_| BadImage("a path too long"))?;
    let bytes = u32::try_from(content.len()).map_err(|_| BadImage("a file too large"))?;
    image.push(match kind {
        Kind::File => 0,
        Kind::Executable => 1,
        Kind::Link => 2,
        Kind::Folder => 3,
    });
    image.extend_from_slice(&path_bytes.to_le_bytes());
    image.extend_from_slice(&bytes.to_le_bytes());
    image.extend_from_slice(path.as_bytes());
    image.extend_from_slice(content);
    Ok(())
}

/// The entries of an image, in their order.
pub(crate) fn entries(mut image: &[u8]) -> Result<Vec<Entry<'_>>, BadImage> {
    let mut entries = Vec::new();
    while !image.is_empty() {
        let kind = match take(&mut image, 1)?[0] {
            0 => Kind::File,
            1 => Kind::Executable,
            2 => Kind::Link,
            3 => Kind::Folder,
            _ => return Err(BadImage("an unknown kind")),
        };
        let path_bytes = length(&mut image)?;
        let bytes = length(&mut image)?;
        let path = std::str::from_utf8(take(&mut image, path_bytes)?)
            .map_err(|_| BadImage("a path that is not text"))?;
        if !is_plain(path) {
            return Err(BadImage("a path that is not plain"));
        }
        entries.push(Entry { kind, path, content: take(&mut image, bytes)? });
    }
    Ok(entries)
}

/// Whether a path is relative, goes down only, and can be printed.
pub(crate) fn is_plain(path: &str) -> bool {
    !path.is_empty()
        && path.len() <= PATH_BYTES_MAX
        && !path.contains(|c: char| c.is_control())
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// Whether any part of a path is git's folder, on any file system.
pub(crate) fn is_git(path: &str) -> bool {
    path.split('/').any(|part| part.eq_ignore_ascii_case(".git"))
}

fn length(image: &mut &[u8]) -> Result<usize, BadImage> {
    let bytes = take(image, 4)?;
    Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize)
}

fn take<'a>(image: &mut &'a [u8], bytes: usize) -> Result<&'a [u8], BadImage> {
    let (taken, rest) = image.split_at_checked(bytes).ok_or(BadImage("cut short"))?;
    *image = rest;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pushed_comes_back_and_a_cut_is_noticed() {
        let mut image = Vec::new();
        push(&mut image, Kind::Folder, "a", b"").expect("plain");
        push(&mut image, Kind::Executable, "a/b", b"text").expect("plain");
        let read = entries(&image).expect("whole");
        assert_eq!(read[1], Entry { kind: Kind::Executable, path: "a/b", content: b"text" });
        for cut in 1..image.len() {
            // A cut between entries is a shorter image; anywhere else it is an error.
            assert!(entries(&image[..cut]).map_or(true, |read| read.len() == 1), "{cut}");
        }
    }

    #[test]
    fn names_that_climb_are_not_plain() {
        for name in ["", "/a", "a//b", "..", "a/../b", "./a", "a/", "a\nb", "a\0b"] {
            assert!(!is_plain(name), "{name:?}");
        }
        assert!(is_plain("a b/ü.py"));
        assert!(is_git("a/.GIT/hooks") && !is_git(".gitignore"));
    }
}
