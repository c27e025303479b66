//! What a simulated thread sees: a clock that stands still, packets that come when they are due, a
//! disk that forgets.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fs::{self, File};
use std::future::poll_fn;
use std::hash::BuildHasher;
use std::io::{IoSliceMut, Write};
use std::net::SocketAddr;
use std::sync::mpsc::channel;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use crrl_sim::disk::{Crash, Disk};
use crrl_sim::{Machine, Network, Record, machine, os, rules};
use crrl_transport::HostName;
use quinn::udp::{RecvMeta, Transmit};

/// Runs machines until none has anything to do before `until`.
fn run(network: &Network, machines: &mut [Machine], until: Duration) {
    while os::now() < until {
        network.deliver();
        let due = machine::are_due(&machines.iter().collect::<Vec<_>>());
        machines.iter_mut().zip(&due).filter(|(_, due)| **due).for_each(|(m, _)| m.step());
        if !due.contains(&true) {
            let deadlines = machines.iter().filter_map(Machine::deadline).chain(network.next());
            os::advance_to(deadlines.min().unwrap_or(until).min(until));
        }
    }
}

fn in_a_thread<T: Send>(seed: u64, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            os::enter(seed);
            work()
        });
        thread.join().expect("no panic")
    })
}

fn network(latency_ms: u64) -> Network {
    let latency = Duration::from_millis(latency_ms);
    Network::new(1, (latency, latency), Record::default())
}

#[test]
fn an_hour_passes_at_once_and_the_same_way_twice() {
    let day = |seed| {
        in_a_thread(seed, || {
            let (sender, seen) = channel();
            let mut machine = Machine::new().expect("a runtime");
            machine.spawn(async move {
                let (begin, wall) = (Instant::now(), SystemTime::now());
                tokio::time::sleep(Duration::from_secs(3600)).await;
                let order: Vec<u32> =
                    (0..50).map(|n| (n, ())).collect::<HashMap<_, _>>().into_keys().collect();
                let times = (begin.elapsed(), wall.elapsed().expect("goes on"), SystemTime::now());
                sender.send((times, order, RandomState::new().hash_one(0_u8))).expect("is heard");
            });
            run(&network(1), std::slice::from_mut(&mut machine), Duration::from_secs(4000));
            seen.try_recv().expect("the hour has passed")
        })
    };
    let began = Instant::now();
    let (first, second, other) = (day(7), day(7), day(8));
    assert!(began.elapsed() < Duration::from_secs(60), "it waited");
    assert!(first.0.0 >= Duration::from_secs(3600) && first.0.0 < Duration::from_secs(3601));
    assert_eq!(first, second);
    assert_ne!(first.2, other.2);
    assert_ne!(first.1, other.1);
}

#[test]
fn packets_come_when_they_are_due_unless_a_rule_says_otherwise() {
    in_a_thread(1, || {
        let network = network(30);
        let at = |last| SocketAddr::from(([10, 0, 0, last], 7000));
        let mut machines = [Machine::new().expect("a runtime")];
        let (here, there) = (at(1), at(2));
        let sender = network.machine(here.ip()).bind(here).expect("free");
        let reader = network.machine(there.ip()).bind(there).expect("free");
        assert!(network.machine(there.ip()).bind(there).is_err(), "taken twice");
        let (said, heard) = channel();
        machines[0].spawn(async move {
            loop {
                let (mut buffer, mut meta) = ([0; 100], [RecvMeta::default()]);
                let received = poll_fn(|context| {
                    reader.poll_recv(context, &mut [IoSliceMut::new(&mut buffer)], &mut meta)
                });
                assert_eq!(received.await.expect("a packet"), 1);
                let text = String::from_utf8_lossy(&buffer[..meta[0].len]).into_owned();
                said.send((os::now(), meta[0].addr, text)).expect("is heard");
            }
        });
        let send = |contents: &[u8]| {
            let packet = Transmit {
                destination: there,
                ecn: None,
                contents,
                segment_size: None,
                src_ip: None,
            };
            sender.try_send(&packet).expect("always room");
        };
        let second = Duration::from_secs(1);
        send(b"first");
        run(&network, &mut machines, second);
        let (when, from, text) = heard.try_recv().expect("came");
        assert_eq!((from, text.as_str()), (here, "first"));
        assert!(when >= Duration::from_millis(30) && when < Duration::from_millis(32), "{when:?}");
        let cut_off = network.rule(rules::one_way(here.ip(), there.ip()));
        send(b"second");
        run(&network, &mut machines, 2 * second);
        assert!(heard.try_recv().is_err(), "a partition let it through");
        drop(cut_off);
        let _cut = network.rule(rules::twice(1.0, second));
        send(b"third");
        run(&network, &mut machines, 4 * second);
        let texts: Vec<String> = heard.try_iter().map(|(_, _, text)| text).collect();
        assert_eq!(texts, ["third", "third"]);
        network.unplug(there.ip());
        send(b"fourth");
        run(&network, &mut machines, 5 * second);
        assert!(heard.try_recv().is_err(), "off the network");
    });
}

#[test]
fn after_a_crash_the_disk_is_what_it_was_and_what_was_not_synced_may_be_lost() {
    in_a_thread(3, || {
        let base = tempfile::tempdir().expect("a temporary folder");
        let folder = base.path().join("machine");
        fs::create_dir(&folder).expect("writable");
        let disk = Disk::new(folder.clone(), 5, || {});
        let (kept, lost) = (folder.join("kept"), folder.join("lost"));
        os::watch(disk.watcher());
        let mut file = File::create(&kept).expect("writable");
        file.write_all(b"synced").and_then(|()| file.sync_all()).expect("writable");
        let mut end = File::create(&lost).expect("writable");
        end.write_all(&[1; 100_000]).expect("writable");
        disk.set_full(true);
        let full = end.write_all(b"more").expect_err("full");
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        disk.set_full(false);
        disk.crash(Crash::Power);
        assert!(file.write_all(b" and more").is_err(), "the machine is off");
        drop(os::unwatch());
        fs::write(&kept, b"by a dead machine").expect("its old folder");
        disk.restart().expect("a copy");
        assert_eq!(fs::read(&kept).expect("kept"), b"synced");
        assert!(fs::metadata(&lost).expect("its beginning").len() < 100_000);
    });
}

#[test]
fn a_crash_in_the_middle_of_a_write_leaves_a_part_of_it() {
    let parts: Vec<u64> = (0..8)
        .map(|seed| {
            in_a_thread(seed, || {
                let base = tempfile::tempdir().expect("a temporary folder");
                let folder = base.path().join("machine");
                fs::create_dir(&folder).expect("writable");
                let disk = Disk::new(folder.clone(), seed, || {});
                os::watch(disk.watcher());
                let mut file = File::create(folder.join("file")).expect("writable");
                disk.crash_at(1, Crash::Kill);
                file.write_all(&[1; 1000]).expect("the first is whole");
                file.write_all(&[2; 1000]).expect("it does not hear of it");
                assert!(disk.has_crashed() && file.write_all(&[3]).is_err());
                drop(os::unwatch());
                disk.restart().expect("a copy");
                fs::metadata(folder.join("file")).expect("there").len()
            })
        })
        .collect();
    assert!(parts.iter().all(|len| (1000..=2000).contains(len)), "{parts:?}");
    assert!(parts.iter().any(|len| (1001..2000).contains(len)), "never torn: {parts:?}");
}

#[test]
fn hosts_have_the_names_they_are_given_and_no_others() {
    let network = network(1);
    let machine = network.machine([10, 0, 0, 1].into());
    let look_up = |name: &str| {
        let host: HostName = name.parse().expect("a name");
        let mut looking = machine.look_up(&host, 7411);
        match looking.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(found) => found.ok(),
            Poll::Pending => panic!("somebody else was asked"),
        }
    };
    let trainer: HostName = "trainer.lan".parse().expect("a name");
    assert_eq!(look_up("trainer.lan"), None);
    network.name(trainer.clone(), &[[10, 0, 0, 7].into()]);
    assert_eq!(look_up("trainer.lan"), Some(vec![([10, 0, 0, 7], 7411).into()]));
    network.name(trainer.clone(), &[[10, 0, 0, 8].into()]);
    assert_eq!(look_up("trainer.lan"), Some(vec![([10, 0, 0, 8], 7411).into()]));
    network.name(trainer, &[]);
    assert_eq!(look_up("trainer.lan"), None);
    // The system's own names are not known there.
    assert_eq!(look_up("localhost"), None);
}
