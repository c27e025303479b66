//! How much memory a thread takes while it does something: an allocator that counts. A program that
//! wants to know makes [`Counting`] its global allocator; elsewhere everything seems to take nothing.
#![expect(unsafe_code, reason = "an allocator cannot be written without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Bytes any decoder may take, however short its input: buffers, tables, error texts, a file's buffer.
const ALWAYS: usize = 4 << 20;
/// Bytes it may take for each byte of input: two bytes of JSON may be a value of 72, kept in lists that
/// double, written and read again.
const PER_BYTE: usize = 1024;

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, counted by thread.
#[derive(Debug)]
pub struct Counting;

fn more(bytes: usize) {
    // A thread that is ending counts no more.
    let _ = LIVE.try_with(|live| {
        live.set(live.get().saturating_add(bytes));
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

fn less(bytes: usize) {
    let _ = LIVE.try_with(|live| live.set(live.get().saturating_sub(bytes)));
}

// SAFETY: every call is passed on to the system's allocator as it is; counting touches two cells of the
// thread and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        more(layout.size());
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        less(layout.size());
        // SAFETY: the caller keeps `dealloc`'s contract, and `at` came from `System`.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        more(layout.size());
        // SAFETY: the caller keeps `alloc_zeroed`'s contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        more(size.saturating_sub(layout.size()));
        less(layout.size().saturating_sub(size));
        // SAFETY: the caller keeps `realloc`'s contract, and `at` came from `System`.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// Does something; also the most memory it held at once, beyond what was held before.
pub fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.get();
    PEAK.set(before);
    let done = work();
    (done, PEAK.get().saturating_sub(before))
}

/// Memory a decoder may take for so many bytes.
#[must_use]
pub fn room_for(bytes: usize) -> usize {
    ALWAYS + PER_BYTE * bytes
}
