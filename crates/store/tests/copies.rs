//! Copies of a store that is written to: whole, bounded in number, checked before they are used; and going
//! back to one puts the damaged file aside.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crrl_store::{
    BatchRow, Copier, Copies, EpisodeRow, GoodCopy, Hand, Op, Options, Reader, Stop, StoreError,
    Writer, copies,
};
use crrl_types::{AdapterVersion, EpisodeId, GroupId, Step};

struct World {
    folder: tempfile::TempDir,
    writer: Option<Writer<u64>>,
    said: Receiver<Result<u64, StoreError>>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (say, said) = channel();
        let path = folder.path().join("run.sqlite");
        let writer = Writer::start(&path, Options::default(), move |words| drop(say.send(words)));
        Self { folder, writer: Some(writer.expect("a new store")), said }
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("run.sqlite")
    }

    fn copies(&self, keep: usize) -> Copies {
        Copies::new(self.folder.path().join("ledger-copies"), keep)
    }

    /// A step is durable.
    fn step(&self, step: u64) {
        let row = BatchRow {
            step: Step(step),
            phase: 0,
            version: AdapterVersion(step - 1),
            committed: true,
            episodes: vec![EpisodeId(step)],
        };
        let ops = vec![Op::Batch(row), Op::Meta("note".into(), "x".repeat(50_000))];
        self.writer.as_ref().expect("is open").submit(ops, step).expect("open");
        let said = self.said.recv_timeout(Duration::from_secs(30)).expect("an answer");
        assert_eq!(said.expect("durable"), step);
    }

    /// Episodes are entered, as many as fill pages of their own.
    fn episodes(&self, count: u64) {
        let row = |id| EpisodeRow {
            episode: EpisodeId(id),
            group: GroupId(id),
            task: "t".into(),
            phase: 0,
            ordinal: id,
            sample: 0,
            evaluation: false,
            attempt: 0,
            node: None,
            state: "queued".into(),
            reason: None,
            reward: None,
            success: None,
            oldest: None,
            generated: None,
            step: None,
        };
        let ops = (0..count).map(|id| Op::Episode(Box::new(row(id)))).collect();
        self.writer.as_ref().expect("is open").submit(ops, count).expect("open");
        let said = self.said.recv_timeout(Duration::from_secs(30)).expect("an answer");
        assert_eq!(said.expect("durable"), count);
    }

    /// Nobody writes any more, and most of the store is noise.
    fn damaged(&mut self) {
        self.writer = None;
        let mut bytes = std::fs::read(self.store()).expect("a store");
        bytes[4096..].fill(0xa5);
        std::fs::write(self.store(), bytes).expect("writable");
    }

    fn folders(&self) -> Vec<PathBuf> {
        let list = std::fs::read_dir(self.folder.path().join("ledger-copies")).expect("copies");
        let mut list: Vec<PathBuf> = list.map(|entry| entry.expect("readable").path()).collect();
        list.sort_unstable();
        list
    }
}

fn committed(path: &Path) -> Option<Step> {
    Reader::open(path).expect("a store").last_committed().expect("readable")
}

#[test]
fn a_copy_is_made_while_the_store_is_open_and_only_the_newest_ones_stay() {
    let world = World::new();
    let copies = world.copies(2);
    assert!(!copies.holds_any());
    for step in 1..=4 {
        world.step(step);
        let made = copies.make(&world.store(), &Stop::default()).expect("a copy");
        assert_eq!(made.step, Step(step));
    }
    assert_eq!(world.folders().len(), 2, "{:?}", world.folders());
    world.step(5);
    let found = copies.newest().expect("readable");
    let copy = found.copy.expect("is whole");
    assert_eq!((copy.manifest.step, committed(&copy.path)), (Step(4), Some(Step(4))));
    assert!(found.damaged.is_empty(), "{:?}", found.damaged);
}

#[test]
fn a_damaged_copy_is_passed_over_and_named() {
    let world = World::new();
    let copies = world.copies(3);
    for step in 1..=2 {
        world.step(step);
        copies.make(&world.store(), &Stop::default()).expect("a copy");
    }
    let newest = world.folders().pop().expect("two").join("run.sqlite");
    let mut bytes = std::fs::read(&newest).expect("a copy");
    // Within the text of a row: SQLite sees nothing wrong with it.
    let at = bytes.windows(64).position(|part| part == [b'x'; 64]).expect("the text");
    bytes[at] = b'y';
    std::fs::write(&newest, bytes).expect("writable");
    let found = copies.newest().expect("readable");
    assert_eq!(found.copy.expect("the one before").manifest.step, Step(1));
    assert!(found.damaged[0].contains("is not the file that was written"), "{:?}", found.damaged);
}

#[test]
fn what_a_life_left_that_ended_while_it_copied_is_no_copy_and_goes() {
    let world = World::new();
    let copies = world.copies(2);
    world.step(1);
    let left = world.folder.path().join("ledger-copies/.copy-00000001.part");
    std::fs::create_dir_all(&left).expect("writable");
    std::fs::write(left.join("run.sqlite"), b"half").expect("writable");
    assert!(!copies.holds_any());
    assert_eq!(copies.newest().expect("readable").copy, None);
    copies.make(&world.store(), &Stop::default()).expect("a copy");
    assert!(!left.exists());
    assert_eq!(world.folders().len(), 1);
}

#[test]
fn copiers_that_work_at_the_same_time_do_not_get_into_each_others_way() {
    let world = World::new();
    world.step(1);
    let (store, copies) = (world.store(), world.copies(64));
    let make = move || {
        for _ in 0..8 {
            copies.make(&store, &Stop::default()).expect("a copy");
        }
    };
    let other = std::thread::spawn(make.clone());
    make();
    other.join().expect("no copy was taken away");
    assert_eq!(world.folders().len(), 16, "{:?}", world.folders());
    assert!(world.copies(64).newest().expect("readable").damaged.is_empty());
}

#[test]
fn a_damaged_store_is_not_copied_and_named_and_earlier_copies_stay() {
    let mut world = World::new();
    let copies = world.copies(1);
    world.step(1);
    copies.make(&world.store(), &Stop::default()).expect("a copy");
    world.damaged();
    let error = copies.make(&world.store(), &Stop::default()).expect_err("noise");
    assert!(
        matches!(&error, StoreError::Corrupt { path, .. } if *path == world.store()),
        "{error}"
    );
    assert!(error.to_string().contains("--resume --ledger last-good"), "{error}");
    let copy = copies.newest().expect("readable").copy.expect("is whole");
    assert_eq!(copy.manifest.step, Step(1));
    assert_eq!(world.folders().len(), 1, "{:?}", world.folders());
}

#[test]
fn damage_where_writing_the_store_out_would_not_look_is_found_before_a_good_copy_goes() {
    let mut world = World::new();
    let copies = world.copies(1);
    world.step(1);
    copies.make(&world.store(), &Stop::default()).expect("a copy");
    world.episodes(2_000);
    world.writer = None;
    let store = rusqlite::Connection::open(world.store()).expect("a store");
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'episodes_by_phase'";
    let root: u32 = store.query_row(sql, [], |row| row.get(0)).expect("an index");
    let page: u32 = store.pragma_query_value(None, "page_size", |row| row.get(0)).expect("a size");
    drop(store);
    let (root, page) = (root as usize, page as usize);
    let mut bytes = std::fs::read(world.store()).expect("a store");
    bytes[(root - 1) * page..root * page].fill(0xa5);
    std::fs::write(world.store(), bytes).expect("writable");
    let error = copies.make(&world.store(), &Stop::default()).expect_err("its index is noise");
    assert!(
        matches!(&error, StoreError::Corrupt { path, .. } if *path == world.store()),
        "{error}"
    );
    let copy = copies.newest().expect("readable").copy.expect("is whole");
    assert_eq!(copy.manifest.step, Step(1));
}

#[test]
fn a_copy_that_is_to_stop_comes_to_nothing_and_leaves_nothing() {
    let world = World::new();
    let copies = world.copies(2);
    world.step(1);
    let stop = Stop::default();
    stop.want();
    let error = copies.make(&world.store(), &stop).expect_err("it is to stop");
    assert!(!matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert_eq!(world.folders(), Vec::<PathBuf>::new());
}

#[test]
fn a_store_that_is_looked_at_stays_as_it_is_and_so_does_its_log() {
    let world = World::new();
    world.step(1);
    let found = world.folder.path().join("found");
    std::fs::create_dir(&found).expect("writable");
    let (store, log) = (found.join("run.sqlite"), found.join("run.sqlite-wal"));
    // As a crash leaves them: the log is not in the store yet.
    let open = world.folder.path().join("run.sqlite-wal");
    for (from, to) in [(&world.store(), &store), (&open, &log)] {
        std::fs::copy(from, to).expect("is there");
    }
    let read = || (std::fs::read(&store).expect("a store"), std::fs::read(&log).expect("its log"));
    let before = read();
    assert!(!before.1.is_empty());
    let reader = Reader::look(&store).expect("a store");
    reader.whole().expect("it is");
    assert_eq!(reader.last_committed().expect("readable"), Some(Step(1)));
    drop(reader);
    assert!(read() == before, "it was changed");
}

#[test]
fn copies_of_a_store_that_is_gone_or_empty_outlive_it() {
    let mut world = World::new();
    let copies = world.copies(1);
    world.step(1);
    assert!(!copies.outlive(&world.folder.path().join("other.sqlite")), "there is no copy yet");
    copies.make(&world.store(), &Stop::default()).expect("a copy");
    assert!(!copies.outlive(&world.store()));
    world.writer = None;
    std::fs::write(world.store(), b"").expect("writable");
    assert!(copies.outlive(&world.store()));
    std::fs::remove_file(world.store()).expect("is there");
    assert!(copies.outlive(&world.store()));
}

#[test]
fn a_crash_while_a_store_is_replaced_leaves_none_and_the_next_try_keeps_its_files_together() {
    let mut world = World::new();
    let copies = world.copies(1);
    world.step(1);
    copies.make(&world.store(), &Stop::default()).expect("a copy");
    world.writer = None;
    let copy = copies.newest().expect("readable").copy.expect("is whole");
    copies::draft(&copy, &world.store(), &[]).expect("a draft");
    assert_eq!(copies::put_aside(&world.store()), None, "it is where it was");
    // The crash: of store, log and draft only the first has been moved.
    let (log, aside) = (
        world.folder.path().join("run.sqlite-wal"),
        copies::aside(&world.store()).expect("a place"),
    );
    std::fs::write(&log, b"of the damaged one").expect("writable");
    std::fs::rename(world.store(), &aside).expect("is there");
    assert!(copies.outlive(&world.store()), "another would be begun");
    assert_eq!(copies::put_aside(&world.store()), Some(aside.clone()));
    let draft = copies::draft(&copy, &world.store(), &[]).expect("a draft");
    copies::install(&draft, &world.store(), &aside).expect("in its place");
    let log_aside = world.folder.path().join("run.sqlite.damaged-1-wal");
    assert_eq!(std::fs::read(log_aside).expect("put aside"), b"of the damaged one");
    assert!(aside.exists() && !log.exists());
    assert_eq!(committed(&world.store()), Some(Step(1)));
    assert_eq!(copies::put_aside(&world.store()), None, "it is done");
}

#[test]
fn a_draft_that_does_not_come_about_leaves_nothing_behind_and_one_of_before_as_it_was() {
    let world = World::new();
    let copies = world.copies(1);
    world.step(1);
    copies.make(&world.store(), &Stop::default()).expect("a copy");
    let copy = copies.newest().expect("readable").copy.expect("is whole");
    let beside = || {
        let list = std::fs::read_dir(world.folder.path()).expect("a folder");
        let names = list.map(|entry| entry.expect("readable").file_name());
        names.filter(|name| name.to_string_lossy().contains(".restored")).collect::<Vec<_>>()
    };
    let noise = world.folder.path().join("noise");
    std::fs::write(&noise, [0xa5; 8192]).expect("writable");
    let torn = GoodCopy { path: noise, ..copy.clone() };
    copies::draft(&torn, &world.store(), &[]).expect_err("it is noise");
    assert!(beside().is_empty(), "{:?}", beside());
    let mut huge = copy.clone();
    huge.manifest.bytes = u64::MAX;
    let error = copies::draft(&huge, &world.store(), &[]).expect_err("no disk is as large");
    assert!(error.to_string().contains("no space left for the restored ledger"), "{error}");
    assert!(beside().is_empty(), "{:?}", beside());
    let draft = copies::draft(&copy, &world.store(), &[]).expect("a draft");
    copies::draft(&torn, &world.store(), &[]).expect_err("it is noise");
    assert_eq!(committed(&draft), Some(Step(1)));
    copies::discard(&draft).expect("is there");
    copies::discard(&draft).expect("it has gone");
    assert!(beside().is_empty(), "{:?}", beside());
}

#[test]
fn a_store_that_cannot_be_moved_keeps_its_log() {
    let mut world = World::new();
    let copies = world.copies(1);
    world.step(1);
    copies.make(&world.store(), &Stop::default()).expect("a copy");
    world.writer = None;
    let copy = copies.newest().expect("readable").copy.expect("is whole");
    let log = world.folder.path().join("run.sqlite-wal");
    std::fs::write(&log, b"of the damaged one").expect("writable");
    let draft = copies::draft(&copy, &world.store(), &[]).expect("a draft");
    // The place is taken by what a file cannot replace.
    let aside = world.folder.path().join("run.sqlite.damaged-1");
    std::fs::create_dir(&aside).expect("writable");
    copies::install(&draft, &world.store(), &aside).expect_err("a folder is in the way");
    assert!(world.store().exists() && log.exists(), "torn apart");
}

#[test]
fn going_back_changes_the_copy_and_puts_the_damaged_file_and_its_log_aside() {
    let mut world = World::new();
    let copies = world.copies(1);
    world.step(1);
    copies.make(&world.store(), &Stop::default()).expect("a copy");
    world.step(2);
    world.damaged();
    let damaged = std::fs::read(world.store()).expect("a file");
    let log = world.folder.path().join("run.sqlite-wal");
    std::fs::write(&log, b"of the damaged one").expect("writable");
    let copy = copies.newest().expect("readable").copy.expect("is whole");
    let change = Op::Meta("restored".into(), "[]".into());
    let draft = copies::draft(&copy, &world.store(), &[change]).expect("a draft");
    assert_eq!(std::fs::read(world.store()).expect("a file"), damaged, "changed too early");
    let aside = copies::aside(&world.store()).expect("a place");
    copies::install(&draft, &world.store(), &aside).expect("in its place");
    assert_eq!(std::fs::read(&aside).expect("put aside"), damaged);
    let log_aside = world.folder.path().join("run.sqlite.damaged-1-wal");
    assert_eq!(std::fs::read(log_aside).expect("put aside"), b"of the damaged one");
    assert!(!log.exists() && !draft.exists());
    assert_eq!(committed(&world.store()), Some(Step(1)));
    let reader = Reader::open(&world.store()).expect("a store");
    assert_eq!(reader.meta("restored").expect("readable").as_deref(), Some("[]"));
    let next = copies::aside(&world.store()).expect("a place");
    assert!(next.ends_with("run.sqlite.damaged-2"), "{}", next.display());
    // The copy is as it was, for another time.
    assert_eq!(copies.newest().expect("readable").copy, Some(copy));
    let writer = Writer::start(&world.store(), Options::default(), |_: Result<u64, StoreError>| ());
    drop(writer.expect("a store like any other"));
}

#[test]
fn a_copier_makes_a_copy_when_asked_and_none_where_none_are_kept() {
    let world = World::new();
    let folder = world.folder.path().join("ledger-copies");
    let none = |options: Options| {
        let copier = Copier::start(world.store(), folder.clone(), &options, |_| ());
        copier.expect("no thread").is_none()
    };
    assert!(none(Options { copies_kept: 0, ..Options::default() }));
    let hand = Hand::Lent(std::sync::Arc::new(|work: crrl_store::Work| work()));
    assert!(none(Options { hand, ..Options::default() }));

    world.step(1);
    let (say, made) = channel();
    let said = move |copy: Result<copies::Manifest, StoreError>| drop(say.send(copy));
    let copier = Copier::start(world.store(), folder.clone(), &Options::default(), said)
        .expect("a thread")
        .expect("two are kept");
    copier.wish();
    let copy = made.recv_timeout(Duration::from_secs(30)).expect("an answer").expect("a copy");
    assert_eq!(copy.step, Step(1));
    // It rests for a while: a wish right after the copy costs nothing.
    copier.wish();
    let began = Instant::now();
    drop(copier);
    assert_eq!(made.recv_timeout(Duration::ZERO).err(), Some(RecvTimeoutError::Disconnected));
    assert!(began.elapsed() < Duration::from_secs(30), "it held somebody up");
    assert_eq!(world.folders().len(), 1);
}
