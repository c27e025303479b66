//! The newest adapter on disk: `RUN/adapters/VERSION.safetensors` and `newest.json`, its manifest.
//! After a crash it is the previous adapter or the new one, whole.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use crrl_cluster::run_dir::{RunDirError, write_atomic};
use crrl_control::parameter_server::Found;
use crrl_control::wire::Serving;
use crrl_learner::checkpoint::all_finite;
use crrl_machine::disk;
use crrl_types::{AdapterManifest, AdapterVersion, Digest};

/// Adapters kept on disk: the newest, and one a reader may have open.
const KEPT: usize = 2;
const MANIFEST: &str = "newest.json";

/// What `newest.json` says.
#[derive(serde::Serialize, serde::Deserialize)]
struct Newest {
    #[serde(flatten)]
    manifest: AdapterManifest,
    /// What was published before it, oldest first.
    #[serde(default)]
    before: Vec<Serving>,
}

/// An adapter that cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    /// The disk.
    #[error("cannot {what} {path}: {source}; free some space and resume", path = .path.display())]
    Disk {
        /// `read` or `write`.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// What is on disk is not what was put there.
    #[error("{path} is damaged: it is not the adapter that was published; engines keep theirs until the learner publishes again", path = .path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
    },
}

impl From<RunDirError> for ShelfError {
    fn from(error: RunDirError) -> Self {
        Self::Disk { what: error.what, path: error.path, source: error.source }
    }
}

/// The folder adapters are kept in.
#[derive(Debug, Clone)]
pub struct AdapterShelf(PathBuf);

impl AdapterShelf {
    /// A shelf in the folder of a run.
    #[must_use]
    pub fn new(run: &Path) -> Self {
        Self(run.join("adapters"))
    }

    fn file(&self, version: AdapterVersion) -> PathBuf {
        self.0.join(format!("{version}.safetensors"))
    }

    /// The newest adapter; `None` before the first.
    ///
    /// # Errors
    /// [`ShelfError`].
    pub fn newest(&self) -> Result<Option<(AdapterManifest, Vec<u8>)>, ShelfError> {
        let path = self.0.join(MANIFEST);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(ShelfError::Disk { what: "read", path, source }),
        };
        let Ok(Newest { manifest, .. }) = serde_json::from_slice(&text) else {
            return Err(ShelfError::Damaged { path });
        };
        let path = self.file(manifest.version);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(ShelfError::Damaged { path });
            }
            Err(source) => return Err(ShelfError::Disk { what: "read", path, source }),
        };
        if Digest::of(&bytes) != manifest.digest {
            return Err(ShelfError::Damaged { path });
        }
        Ok(Some((manifest, bytes)))
    }

    /// What was published last, whatever has become of its bytes; `None` where that cannot be read.
    #[must_use]
    pub fn manifest(&self) -> Option<AdapterManifest> {
        serde_json::from_slice(&std::fs::read(self.0.join(MANIFEST)).ok()?).ok()
    }

    /// What was published last, oldest first, the newest included.
    #[must_use]
    pub fn recent(&self) -> Vec<Serving> {
        let text = std::fs::read(self.0.join(MANIFEST)).ok();
        let newest: Option<Newest> = text.and_then(|text| serde_json::from_slice(&text).ok());
        let Some(Newest { manifest, mut before }) = newest else { return Vec::new() };
        before.push(Serving { version: manifest.version, digest: manifest.digest });
        before
    }

    /// Every adapter on the shelf, by version, and what its bytes are. Nothing is changed.
    ///
    /// # Errors
    /// [`ShelfError::Disk`].
    pub fn examine(&self) -> Result<Vec<(AdapterVersion, Found)>, ShelfError> {
        let mut found = Vec::new();
        for (version, path) in self.versions() {
            match std::fs::read(&path) {
                Ok(bytes) => found.push((AdapterVersion(version), inspect(&bytes))),
                // A newer one came meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(ShelfError::Disk { what: "read", path, source }),
            }
        }
        Ok(found)
    }

    /// Brings bytes to the disk beside the newest; [`AdapterShelf::publish`] makes them it.
    ///
    /// # Errors
    /// [`ShelfError::Disk`].
    pub fn put(&self, manifest: &AdapterManifest, bytes: &[u8]) -> Result<(), ShelfError> {
        let path = self.candidate(manifest);
        let write = || {
            disk::before_write()?;
            std::fs::create_dir_all(&self.0)?;
            let mut file = File::create(&path)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        let write = || {
            write().map_err(|source| ShelfError::Disk { what: "write", path: path.clone(), source })
        };
        disk::until_room(&path, write)
    }

    /// Makes bytes that were put the newest adapter, durably, and lets old ones go. `before` is what
    /// was published last, oldest first.
    ///
    /// # Errors
    /// [`ShelfError::Disk`].
    pub fn publish(
        &self,
        manifest: &AdapterManifest,
        mut before: Vec<Serving>,
    ) -> Result<(), ShelfError> {
        let (from, path) = (self.candidate(manifest), self.file(manifest.version));
        std::fs::rename(from, &path).map_err(|source| ShelfError::Disk {
            what: "write",
            path,
            source,
        })?;
        before.retain(|serving| serving.version < manifest.version);
        let newest = Newest { manifest: manifest.clone(), before };
        let text = serde_json::to_vec(&newest).expect("a manifest has string keys only");
        // Syncs the folder too, and with it the renamed file.
        let newest = self.0.join(MANIFEST);
        // The few who wait for an adapter wait for its manifest as well.
        disk::until_room(&newest, || write_atomic(&newest, &text))?;
        self.clear(manifest.version);
        Ok(())
    }

    /// Its name has the digest: of one version several may be put before one of them is published.
    fn candidate(&self, manifest: &AdapterManifest) -> PathBuf {
        let AdapterManifest { version, digest, .. } = manifest;
        self.0.join(format!("{version}-{digest}.candidate"))
    }

    /// Files of candidates that were never published, of this version or an earlier one.
    fn left_over(&self, published: AdapterVersion) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(&self.0) else { return Vec::new() };
        let version = |path: &Path| -> Option<u64> {
            path.file_stem()?.to_str()?.split('-').next()?.parse().ok()
        };
        entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|e| e == "candidate"))
            .filter(|path| version(path).is_none_or(|version| version <= published.0))
            .collect()
    }

    /// Files of adapters, by version.
    fn versions(&self) -> Vec<(u64, PathBuf)> {
        let Ok(entries) = std::fs::read_dir(&self.0) else { return Vec::new() };
        let mut versions: Vec<(u64, PathBuf)> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|e| e == "safetensors"))
            .filter_map(|path| Some((path.file_stem()?.to_str()?.parse().ok()?, path)))
            .collect();
        versions.sort_unstable();
        versions
    }

    /// Removes all but the last adapters. What cannot be removed is tried again next time.
    fn clear(&self, published: AdapterVersion) {
        let mut versions = self.versions();
        let old = versions.len().saturating_sub(KEPT);
        let old = versions.drain(..old).map(|(_, path)| path);
        for path in old.chain(self.left_over(published)) {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// What the bytes of an adapter are, whatever their manifest says: a safetensors file of finite
/// numbers, or not.
#[must_use]
pub fn inspect(bytes: &[u8]) -> Found {
    let finite = all_finite(bytes).unwrap_or(false);
    Found { digest: Digest::of(bytes), bytes: bytes.len() as u64, finite }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(values: &[f32]) -> Vec<u8> {
        let header = format!(
            r#"{{"a":{{"dtype":"F32","shape":[{}],"data_offsets":[0,{}]}}}}"#,
            values.len(),
            4 * values.len()
        );
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        bytes
    }

    #[test]
    fn what_was_published_before_is_known_after_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let bytes = adapter(&[1.0]);
        let mut recent = Vec::new();
        for version in 1..=5 {
            let manifest = AdapterManifest {
                version: AdapterVersion(version),
                digest: Digest::of(&bytes),
                base_digest: Digest::of(b"base"),
                bytes: bytes.len() as u64,
                rank: 1,
                alpha_milli: 1000,
                tensors: Vec::new(),
                finite: true,
            };
            let shelf = AdapterShelf::new(folder.path());
            shelf.put(&manifest, &bytes).expect("writable");
            shelf.publish(&manifest, shelf.recent()).expect("writable");
            recent.push(Serving { version: manifest.version, digest: manifest.digest });
            assert_eq!(AdapterShelf::new(folder.path()).recent(), recent);
            let (newest, _) = shelf.newest().expect("whole").expect("is there");
            assert_eq!(newest, manifest);
        }
    }

    #[test]
    fn a_value_that_is_not_finite_is_found() {
        assert!(inspect(&adapter(&[1.0, -2.0])).finite);
        assert!(!inspect(&adapter(&[1.0, f32::NAN])).finite);
        assert!(!inspect(&adapter(&[f32::NEG_INFINITY])).finite);
        assert!(!inspect(b"no safetensors file").finite);
    }
}
