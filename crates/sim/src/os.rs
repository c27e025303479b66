//! The calls of the operating system that a simulated thread finds replaced: the clock, random
//! bytes, waiting for events, and what is written to files.
//!
//! The functions below have the names of the C library's; in a program that links this crate they
//! are found first, by Rust's standard library, by tokio, quinn and ring, and by SQLite. On a thread
//! that has not called [`enter`] they do what the C library's do.
//!
//! Time stands still while code runs, but for [`TICK_NS`] with every look at the clock, and moves on
//! in [`advance_to`] alone. Waiting never waits: it ends the step of [`crate::machine`] it is in.

#![expect(unsafe_code, reason = "functions of the C library are replaced here, and only here")]

use std::cell::{Cell, RefCell};
use std::ffi::{c_char, c_int, c_long, c_uint, c_void};
use std::task::Waker;
use std::time::Duration;

use libc::{clockid_t, epoll_event, off64_t, pid_t, size_t, ssize_t, timespec};

/// The clock goes on by this much with every look at it: no two looks see the same time, and a loop
/// that waits for time to pass ends.
const TICK_NS: u64 = 50;
/// What monotonic clocks begin with: an instant an hour ago must exist.
const UP_NS: u64 = 100_000_000_000_000;
/// What the wall clock begins with: the first day of 2026.
const EPOCH_NS: u64 = 1_767_225_600_000_000_000;
/// The process every simulated machine believes to be.
const PID: pid_t = 4242;

thread_local! {
    static SIMULATED: Cell<bool> = const { Cell::new(false) };
    static NOW_NS: Cell<u64> = const { Cell::new(0) };
    static RANDOM: Cell<u64> = const { Cell::new(0) };
    static PARKED: Cell<Option<Parked>> = const { Cell::new(None) };
    static STEP: RefCell<Option<Waker>> = const { RefCell::new(None) };
    static WRITES: RefCell<Option<Watch>> = const { RefCell::new(None) };
}

/// What a thread would wait for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parked {
    pub(crate) epoll: c_int,
    /// Milliseconds; negative: for ever.
    pub(crate) timeout: c_int,
}

/// A call that changes a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// This many bytes are about to be written to a file of this number.
    Bytes {
        /// The file's number (inode).
        file: u64,
        /// Its length before.
        len: u64,
        /// How many.
        bytes: usize,
    },
    /// A file is about to be cut to a length.
    Cut {
        /// The file's number.
        file: u64,
        /// The new length.
        len: u64,
    },
    /// A file is about to be brought to the disk.
    Sync {
        /// The file's number.
        file: u64,
        /// Its length.
        len: u64,
    },
    /// A file is about to get another name.
    Rename,
}

/// What becomes of such a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done,
    /// Of the bytes, this many are written; then [`Watcher::torn`] is told.
    Torn(usize),
    /// It fails with this error number.
    Fails(c_int),
}

/// Looks at every call of a simulated thread that changes a file.
pub trait Watcher {
    /// Before it is done.
    fn about_to(&mut self, write: Write) -> Outcome;
    /// After a part of it was done.
    fn torn(&mut self);
}

type Watch = Box<dyn Watcher>;

/// From now on the calling thread is simulated. `seed` is all its randomness.
pub fn enter(seed: u64) {
    NOW_NS.set(0);
    RANDOM.set(seed);
    SIMULATED.set(true);
}

/// Time since [`enter`].
#[must_use]
pub fn now() -> Duration {
    Duration::from_nanos(NOW_NS.get())
}

/// Lets time pass; never goes back.
pub fn advance_to(time: Duration) {
    let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    NOW_NS.set(NOW_NS.get().max(ns));
}

/// Until the returned watcher is taken back with [`unwatch`], it sees what the thread writes.
pub fn watch(watcher: Watch) {
    WRITES.with_borrow_mut(|watch| *watch = Some(watcher));
}

/// Takes the watcher back.
pub fn unwatch() -> Option<Watch> {
    WRITES.with_borrow_mut(Option::take)
}

/// The step that runs now ends when the thread would wait.
pub(crate) fn step_begins() {
    PARKED.set(None);
}

pub(crate) fn step_waits(waker: &Waker) {
    STEP.with_borrow_mut(|step| match step {
        Some(held) => held.clone_from(waker),
        None => *step = Some(waker.clone()),
    });
}

pub(crate) fn parked() -> Option<Parked> {
    PARKED.get()
}

/// Which of these have events that nobody has heard of.
pub(crate) fn ready(epolls: &[c_int]) -> Vec<bool> {
    let mut polled: Vec<libc::pollfd> = epolls
        .iter()
        .map(|fd| libc::pollfd { fd: *fd, events: libc::POLLIN, revents: 0 })
        .collect();
    // SAFETY: the pointer and the length are of one vector.
    let n = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, 0) };
    polled.iter().map(|p| n > 0 && p.revents != 0).collect()
}

/// A step of splitmix64.
fn next_random() -> u64 {
    let state = RANDOM.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    RANDOM.set(state);
    let mut z = state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The system call itself.
///
/// # Safety
/// As of the call with these arguments.
#[cfg(target_arch = "x86_64")]
unsafe fn kernel(number: c_long, [a, b, c, d, e, f]: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the registers are those of the kernel's calling convention; the kernel changes rcx
    // and r11 and nothing else.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// The system call itself.
///
/// # Safety
/// As of the call with these arguments.
#[cfg(target_arch = "aarch64")]
unsafe fn kernel(number: c_long, [a, b, c, d, e, f]: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the registers are those of the kernel's calling convention.
    unsafe {
        core::arch::asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a => result,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e, in("x5") f,
            options(nostack),
        );
    }
    result
}

/// What the C library makes of the kernel's answer.
fn answer(result: isize) -> isize {
    if (-4095..0).contains(&result) { fail(-result as c_int) } else { result }
}

fn fail(error: c_int) -> isize {
    // SAFETY: the C library gives every thread a place for its error number.
    unsafe { *libc::__errno_location() = error };
    -1
}

/// # Safety
/// As of `syscall(2)`. A variadic call passes its integers where this function takes them; of
/// arguments that were not passed, what is read means nothing to the kernel.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn syscall(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    if number == libc::SYS_getrandom && SIMULATED.get() {
        // SAFETY: the caller's buffer and its length.
        return unsafe { getrandom(a as *mut c_void, b, c as c_uint) } as c_long;
    }
    // SAFETY: the caller's own call.
    answer(unsafe { kernel(number, [a, b, c, d, e, f]) }) as c_long
}

/// # Safety
/// As of `getrandom(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut c_void, len: size_t, flags: c_uint) -> ssize_t {
    if !SIMULATED.get() {
        let args = [buffer as usize, len, flags as usize, 0, 0, 0];
        // SAFETY: the caller's own call.
        return answer(unsafe { kernel(libc::SYS_getrandom, args) });
    }
    let mut at = 0;
    while at < len {
        let bytes = next_random().to_le_bytes();
        let n = bytes.len().min(len - at);
        // SAFETY: within the caller's buffer of `len` bytes.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), buffer.cast::<u8>().add(at), n);
        }
        at += n;
    }
    len as ssize_t
}

/// # Safety
/// As of `clock_gettime(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int {
    let begin = match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => EPOCH_NS,
        _ => UP_NS,
    };
    let of_cpu = matches!(clock, libc::CLOCK_PROCESS_CPUTIME_ID | libc::CLOCK_THREAD_CPUTIME_ID);
    if !SIMULATED.get() || of_cpu || time.is_null() {
        let args = [clock as usize, time as usize, 0, 0, 0, 0];
        // SAFETY: the caller's own call.
        return answer(unsafe { kernel(libc::SYS_clock_gettime, args) }) as c_int;
    }
    let now = NOW_NS.get() + TICK_NS;
    NOW_NS.set(now);
    let ns = begin + now;
    // SAFETY: not null, and the caller's to be written.
    unsafe {
        (*time).tv_sec = (ns / 1_000_000_000) as libc::time_t;
        (*time).tv_nsec = (ns % 1_000_000_000) as c_long;
    }
    0
}

/// # Safety
/// As of `getpid(2)`, which has no conditions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getpid() -> pid_t {
    if SIMULATED.get() {
        return PID;
    }
    // SAFETY: the call takes nothing and changes nothing.
    unsafe { kernel(libc::SYS_getpid, [0; 6]) as pid_t }
}

/// # Safety
/// As of `epoll_wait(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn epoll_wait(
    epoll: c_int,
    events: *mut epoll_event,
    max: c_int,
    timeout: c_int,
) -> c_int {
    // No signal mask: eight bytes of it are what the kernel wants to be told.
    let args =
        |timeout: c_int| [epoll as usize, events as usize, max as usize, timeout as usize, 0, 8];
    if !SIMULATED.get() {
        // SAFETY: the caller's own call.
        return answer(unsafe { kernel(libc::SYS_epoll_pwait, args(timeout)) }) as c_int;
    }
    // SAFETY: the caller's own call, without the wait.
    let found = answer(unsafe { kernel(libc::SYS_epoll_pwait, args(0)) }) as c_int;
    if found != 0 || timeout == 0 {
        return found;
    }
    PARKED.set(Some(Parked { epoll, timeout }));
    let step = STEP.with_borrow_mut(Option::take);
    if let Some(step) = step {
        step.wake();
        // Waking it has rung the runtime's own bell, which nobody has to hear.
        let mut unheard = [epoll_event { events: 0, u64: 0 }; 4];
        let args = [epoll as usize, unheard.as_mut_ptr() as usize, unheard.len(), 0, 0, 8];
        // SAFETY: the array holds as many events as is said.
        unsafe { kernel(libc::SYS_epoll_pwait, args) };
    }
    0
}

/// Number and length of a regular file. What a program prints is no file of a machine.
fn file(fd: c_int) -> Option<(u64, u64)> {
    if fd <= libc::STDERR_FILENO {
        return None;
    }
    // SAFETY: all zeros are a `stat`, and the pointer is to one.
    let (ok, stat) = unsafe {
        let mut stat: libc::stat64 = std::mem::zeroed();
        (libc::fstat64(fd, &raw mut stat) == 0, stat)
    };
    let regular = ok && stat.st_mode & libc::S_IFMT == libc::S_IFREG;
    regular.then_some((stat.st_ino, stat.st_size as u64))
}

/// Asks whoever watches. What the watcher itself writes is not watched.
fn about_to(write: impl FnOnce() -> Option<Write>) -> Outcome {
    if !SIMULATED.get() {
        return Outcome::Done;
    }
    let Ok(Some(mut watcher)) = WRITES.try_with(|watch| watch.borrow_mut().take()) else {
        return Outcome::Done;
    };
    let outcome = write().map_or(Outcome::Done, |write| watcher.about_to(write));
    watch(watcher);
    outcome
}

fn torn() {
    if let Some(mut watcher) = unwatch() {
        watcher.torn();
        watch(watcher);
    }
}

/// # Safety
/// As of `write(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(fd: c_int, buffer: *const c_void, bytes: size_t) -> ssize_t {
    let outcome = about_to(|| {
        let (file, len) = file(fd)?;
        Some(Write::Bytes { file, len, bytes })
    });
    // SAFETY: the caller's own call, or one with fewer bytes.
    let done = |bytes: usize| unsafe {
        answer(kernel(libc::SYS_write, [fd as usize, buffer as usize, bytes, 0, 0, 0]))
    };
    match outcome {
        Outcome::Done => done(bytes),
        Outcome::Fails(error) => fail(error),
        Outcome::Torn(part) => {
            let written = done(part.min(bytes));
            torn();
            let left = bytes - part.min(bytes);
            let rest = [fd as usize, buffer as usize + part.min(bytes), left, 0, 0, 0];
            // SAFETY: what is left of the caller's own call.
            unsafe { kernel(libc::SYS_write, rest) };
            if written < 0 { written } else { bytes as ssize_t }
        }
    }
}

/// # Safety
/// As of `pwrite(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwrite64(
    fd: c_int,
    buffer: *const c_void,
    bytes: size_t,
    offset: off64_t,
) -> ssize_t {
    let outcome = about_to(|| {
        let (file, len) = file(fd)?;
        Some(Write::Bytes { file, len, bytes })
    });
    // SAFETY: the caller's own call, or one with fewer bytes.
    let done = |bytes: usize| unsafe {
        let args = [fd as usize, buffer as usize, bytes, offset as usize, 0, 0];
        answer(kernel(libc::SYS_pwrite64, args))
    };
    match outcome {
        Outcome::Done => done(bytes),
        Outcome::Fails(error) => fail(error),
        Outcome::Torn(part) => {
            done(part.min(bytes));
            torn();
            done(bytes)
        }
    }
}

/// # Safety
/// As of `ftruncate(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ftruncate64(fd: c_int, len: off64_t) -> c_int {
    let cut = || file(fd).map(|(file, _)| Write::Cut { file, len: len as u64 });
    // SAFETY: the caller's own call.
    changed(about_to(cut), || unsafe {
        kernel(libc::SYS_ftruncate, [fd as usize, len as usize, 0, 0, 0, 0])
    })
}

/// # Safety
/// As of `fsync(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fsync(fd: c_int) -> c_int {
    let sync = || file(fd).map(|(file, len)| Write::Sync { file, len });
    let outcome = about_to(sync);
    if SIMULATED.get() {
        // The simulated disk is what the watcher makes of it; the real one may take its time.
        return changed(outcome, || 0);
    }
    // SAFETY: the caller's own call.
    changed(outcome, || unsafe { kernel(libc::SYS_fsync, [fd as usize, 0, 0, 0, 0, 0]) })
}

/// # Safety
/// As of `fdatasync(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdatasync(fd: c_int) -> c_int {
    if SIMULATED.get() {
        // SAFETY: as of this call.
        return unsafe { fsync(fd) };
    }
    // SAFETY: the caller's own call.
    answer(unsafe { kernel(libc::SYS_fdatasync, [fd as usize, 0, 0, 0, 0, 0]) }) as c_int
}

/// # Safety
/// As of `rename(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    let here = libc::AT_FDCWD as usize;
    // SAFETY: the caller's own call.
    changed(about_to(|| Some(Write::Rename)), || unsafe {
        kernel(libc::SYS_renameat2, [here, from as usize, here, to as usize, 0, 0])
    })
}

/// A call that is done whole or not at all.
fn changed(outcome: Outcome, call: impl Fn() -> isize) -> c_int {
    match outcome {
        Outcome::Done => answer(call()) as c_int,
        Outcome::Fails(error) => fail(error) as c_int,
        Outcome::Torn(_) => {
            torn();
            answer(call()) as c_int
        }
    }
}
