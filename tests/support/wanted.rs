//! What a test program with a `main` of its own is asked to run.

/// Options of `cargo test NAME -- OPTIONS` that are followed by a value.
const WITH_VALUE: [&str; 7] =
    ["--color", "--format", "--logfile", "--shuffle-seed", "--skip", "--test-threads", "-Z"];

/// Tests whose names hold this are wanted; all of them where there is none. Neither an option nor the value
/// of one is a name.
pub(crate) fn wanted(mut arguments: impl Iterator<Item = String>) -> Option<String> {
    while let Some(argument) = arguments.next() {
        if WITH_VALUE.contains(&argument.as_str()) {
            arguments.next();
        } else if !argument.starts_with('-') {
            return Some(argument);
        }
    }
    None
}
