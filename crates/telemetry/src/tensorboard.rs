//! Curves as TensorBoard event files.
//!
//! An event file is a sequence of records: length (u64, little-endian), masked CRC-32C of those
//! eight bytes, the bytes, masked CRC-32C of the bytes. Each is a `tensorflow.Event` in protocol
//! buffers; scalars are `Summary.Value`s with `tag` and `simple_value`. Source: TensorFlow's
//! `event.proto`, `summary.proto` and `record_writer.cc`.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Added to a rotated CRC, so that a CRC of data that holds CRCs is no trap.
const MASK: u32 = 0xa282_ead8;

/// Field numbers of `tensorflow.Event`.
mod event {
    pub(super) const WALL_TIME: u32 = 1;
    pub(super) const STEP: u32 = 2;
    pub(super) const FILE_VERSION: u32 = 3;
    pub(super) const SUMMARY: u32 = 5;
}

/// Field numbers of `tensorflow.Summary` and its `Value`.
mod summary {
    pub(super) const VALUE: u32 = 1;
    pub(super) const TAG: u32 = 1;
    pub(super) const SIMPLE_VALUE: u32 = 2;
}

/// Writes one event file.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    out: BufWriter<File>,
}

impl EventFile {
    /// Begins a file in a folder, which is made where it is missing. `began_s` is in seconds since
    /// the Unix epoch and goes into the name, by which TensorBoard orders files.
    ///
    /// # Errors
    /// The folder or file cannot be written.
    pub fn create(folder: &Path, began_s: u64) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let path = folder.join(format!("events.out.tfevents.{began_s:010}.crrl"));
        let mut file = Self { out: BufWriter::new(File::create(&path)?), path };
        let mut head = Vec::new();
        double(&mut head, event::WALL_TIME, began_s as f64);
        bytes(&mut head, event::FILE_VERSION, b"brain.Event:2");
        file.record(&head)?;
        Ok(file)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The scalars of one step. `at_s` is in seconds since the Unix epoch. What is not finite is
    /// left out.
    ///
    /// # Errors
    /// The disk refuses.
    #[expect(clippy::cast_possible_truncation, reason = "TensorBoard's scalars are f32")]
    pub fn scalars(&mut self, step: u64, at_s: f64, values: &[(String, f64)]) -> io::Result<()> {
        let mut of_step = Vec::new();
        for (tag, value) in values.iter().filter(|(_, value)| value.is_finite()) {
            let mut one = Vec::new();
            bytes(&mut one, summary::TAG, tag.as_bytes());
            float(&mut one, summary::SIMPLE_VALUE, *value as f32);
            bytes(&mut of_step, summary::VALUE, &one);
        }
        let mut whole = Vec::new();
        double(&mut whole, event::WALL_TIME, at_s);
        varint_field(&mut whole, event::STEP, step);
        bytes(&mut whole, event::SUMMARY, &of_step);
        self.record(&whole)
    }

    /// Brings everything to the file.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn record(&mut self, data: &[u8]) -> io::Result<()> {
        let length = (data.len() as u64).to_le_bytes();
        self.out.write_all(&length)?;
        self.out.write_all(&masked(&length).to_le_bytes())?;
        self.out.write_all(data)?;
        self.out.write_all(&masked(data).to_le_bytes())
    }
}

fn masked(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(MASK)
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Wire types of protocol buffers: 0 varint, 1 eight bytes, 2 length-delimited, 5 four bytes.
fn key(out: &mut Vec<u8>, field: u32, wire_type: u32) {
    varint(out, u64::from(field << 3 | wire_type));
}

fn varint_field(out: &mut Vec<u8>, field: u32, value: u64) {
    key(out, field, 0);
    varint(out, value);
}

fn double(out: &mut Vec<u8>, field: u32, value: f64) {
    key(out, field, 1);
    out.extend_from_slice(&value.to_le_bytes());
}

fn float(out: &mut Vec<u8>, field: u32, value: f32) {
    key(out, field, 5);
    out.extend_from_slice(&value.to_le_bytes());
}

fn bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    key(out, field, 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What TensorBoard's own reader checks of a file: every record whole, every CRC right.
    fn records(data: &[u8]) -> Vec<&[u8]> {
        let (mut at, mut out) = (0, Vec::new());
        while at < data.len() {
            let length = &data[at..at + 8];
            let crc = |at: usize| u32::from_le_bytes(data[at..at + 4].try_into().expect("four"));
            assert_eq!(crc(at + 8), masked(length));
            let len = u64::from_le_bytes(length.try_into().expect("eight")) as usize;
            let body = &data[at + 12..at + 12 + len];
            assert_eq!(crc(at + 12 + len), masked(body));
            out.push(body);
            at += 16 + len;
        }
        out
    }

    #[test]
    fn a_file_is_records_with_right_sums() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut file = EventFile::create(folder.path(), 7).expect("writable");
        let values = [("reward_mean".to_owned(), 0.25), ("kl".to_owned(), f64::INFINITY)];
        file.scalars(300, 8.5, &values).expect("writable");
        file.flush().expect("writable");
        let data = std::fs::read(file.path()).expect("was written");
        let records = records(&data);
        assert_eq!(records.len(), 2);
        assert!(records[0].windows(13).any(|w| w == b"brain.Event:2"));
        let mut wanted = vec![9]; // wall_time, a double
        wanted.extend(8.5_f64.to_le_bytes());
        wanted.extend([0x10, 0xac, 0x02]); // step 300
        wanted.extend([0x2a, 20, 0x0a, 18, 0x0a, 11]);
        wanted.extend(b"reward_mean");
        wanted.push(0x15);
        wanted.extend(0.25_f32.to_le_bytes());
        assert_eq!(records[1], wanted);
    }

    #[test]
    fn the_mask_is_tensorflows() {
        // CRC-32C of 32 zero bytes is 8a9136aa (RFC 3720, B.4).
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(masked(&[0; 32]), 0x8a91_36aa_u32.rotate_right(15).wrapping_add(MASK));
    }
}
