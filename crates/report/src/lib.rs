//! What a run came to, as one HTML file that needs nothing else: no script, no network, no asset.
//!
//! ```text
//! RUN/ -> facts -> model -> plot, page -> report.html
//! ```
//!
//! - [`facts`]: what the run's folder holds; the only place that opens files
//! - [`model`]: facts to numbers: curves, tables, choices. Pure
//! - [`plot`]: numbers to SVG: scales, lines, stacks. Pure
//! - [`page`]: all of it to HTML. Pure
//! - [`text`]: text of models and tools, made harmless and visible
//! - [`number`]: numbers, as people read them
//!
//! This crate changes nothing in a run, reads no clock, and states no number that it, or the run,
//! did not compute.

pub mod facts;
pub mod model;
pub mod number;
pub mod page;
pub mod plot;
pub mod text;

use std::path::{Path, PathBuf};

pub use facts::{Facts, ReadError, read, read_ledger, read_watched};
pub use model::{Model, Report};

/// Runs one report compares at most: more lines than this in one plot tell nobody anything.
pub const RUNS_MAX: usize = 8;

/// Name of a report's file in a run's folder.
pub const REPORT_FILE: &str = "report.html";

/// Name of the file that compares several runs, in the first one's folder.
pub const COMPARISON_FILE: &str = "comparison.html";

/// A report that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}: {source}; -o FILE writes it elsewhere", path = .path.display())]
pub struct WriteError {
    /// Where to.
    pub path: PathBuf,
    /// What the system said.
    pub source: std::io::Error,
}

/// Writes a page: whole, or not at all.
///
/// # Errors
/// Names the file.
pub fn write(path: &Path, page: &str) -> Result<(), WriteError> {
    use std::io::Write as _;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let written = || -> std::io::Result<()> {
        let mut builder = tempfile::Builder::new();
        // A page is for whoever may read the folder; temporary files are for their owner only.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let mut file = builder.prefix(".report-").tempfile_in(folder.unwrap_or(Path::new(".")))?;
        file.write_all(page.as_bytes())?;
        file.persist(path)?;
        Ok(())
    };
    written().map_err(|source| WriteError { path: path.to_owned(), source })
}
