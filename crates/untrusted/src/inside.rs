//! What a sandbox and its owner say to each other. Whoever sits inside may have taken the launcher over.

use crrl_sandbox::untrusted;

/// An answer of a launcher, or a request to one.
#[must_use]
pub fn frame(bytes: &[u8]) -> bool {
    untrusted::is_answer(bytes) | untrusted::is_request(bytes)
}

/// Changed files that come back. Every path in it goes down only.
#[must_use]
pub fn image(bytes: &[u8]) -> bool {
    let Some(paths) = untrusted::paths_of_image(bytes) else { return false };
    for path in paths {
        assert!(path.split('/').all(|part| !matches!(part, "" | "." | "..")), "{path:?}");
        assert!(!path.chars().any(char::is_control), "{path:?}");
    }
    true
}
