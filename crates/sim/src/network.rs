//! UDP between machines: packets take a while, and whatever the rules say happens to them. Hosts have
//! the names they were given here, and no other.
//!
//! Packets of one pair of machines keep their order unless a rule delays one. Decides with its own
//! random numbers; delivers nothing by itself: [`Network::deliver`] does, when time has come.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crrl_transport::{HostName, Lookup, Sockets};
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use rand::{Rng as _, SeedableRng};

use crate::rules::{Packet, Rule, Verdict};
use crate::{Record, Rng, os};

/// Packets one socket holds that were not read yet; more are lost.
const UNREAD_MAX: usize = 1024;
/// First of the ports a machine picks where it was not told one.
const PORTS: u16 = 40_000;

/// The network. Cloning gives another handle to the same.
#[derive(Clone)]
pub struct Network(Arc<Mutex<Net>>);

struct Net {
    rng: Rng,
    record: Record,
    latency: (Duration, Duration),
    sockets: BTreeMap<SocketAddr, Port>,
    names: BTreeMap<HostName, Vec<IpAddr>>,
    /// Sockets so far: each has a number.
    opened: u64,
    flying: BinaryHeap<Reverse<Flight>>,
    sent: u64,
    /// When the last packet of a pair arrives: the next does not come before it.
    last: BTreeMap<(SocketAddr, SocketAddr), Duration>,
    rules: BTreeMap<u64, Rule>,
    rules_so_far: u64,
    next_port: u16,
}

#[derive(Default)]
struct Port {
    number: u64,
    unread: VecDeque<(SocketAddr, Vec<u8>)>,
    reader: Option<Waker>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Flight {
    arrives: Duration,
    number: u64,
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

/// A rule in force; dropping it lifts the rule.
#[derive(Debug)]
#[must_use = "a rule is lifted when this is dropped"]
pub struct InForce {
    network: Network,
    number: u64,
}

impl Drop for InForce {
    fn drop(&mut self) {
        self.network.lock().rules.remove(&self.number);
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Network")
    }
}

impl Network {
    /// A network on which a packet takes a time between the two.
    #[must_use]
    pub fn new(seed: u64, latency: (Duration, Duration), record: Record) -> Self {
        Self(Arc::new(Mutex::new(Net {
            rng: Rng::seed_from_u64(seed),
            record,
            latency,
            sockets: BTreeMap::new(),
            names: BTreeMap::new(),
            opened: 0,
            flying: BinaryHeap::new(),
            sent: 0,
            last: BTreeMap::new(),
            rules: BTreeMap::new(),
            rules_so_far: 0,
            next_port: PORTS,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Net> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sockets of a machine.
    #[must_use]
    pub fn machine(&self, ip: IpAddr) -> Arc<dyn Sockets> {
        Arc::new(Lan { network: self.clone(), ip })
    }

    /// Lets a name stand for these machines from now on; for none, it is unknown again.
    pub fn name(&self, host: HostName, machines: &[IpAddr]) {
        let mut net = self.lock();
        match machines {
            [] => net.names.remove(&host),
            some => net.names.insert(host, some.to_vec()),
        };
    }

    /// A rule, until what is returned is dropped.
    pub fn rule(&self, rule: Rule) -> InForce {
        let mut net = self.lock();
        net.rules_so_far += 1;
        let number = net.rules_so_far;
        net.rules.insert(number, rule);
        InForce { network: self.clone(), number }
    }

    /// Takes a machine off the network: its sockets are gone, and what it still sends is lost.
    pub fn unplug(&self, ip: IpAddr) {
        self.lock().sockets.retain(|address, _| address.ip() != ip);
    }

    /// When the next packet arrives.
    #[must_use]
    pub fn next(&self) -> Option<Duration> {
        self.lock().flying.peek().map(|Reverse(flight)| flight.arrives)
    }

    /// Packets sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.lock().sent
    }

    /// Brings every packet whose time has come to its socket.
    pub fn deliver(&self) {
        let now = os::now();
        loop {
            let mut net = self.lock();
            if net.flying.peek().is_none_or(|Reverse(flight)| flight.arrives > now) {
                return;
            }
            let Some(Reverse(Flight { from, to, bytes, number, .. })) = net.flying.pop() else {
                return;
            };
            let Some(port) = net.sockets.get_mut(&to) else { continue };
            let lost = port.unread.len() >= UNREAD_MAX;
            if !lost {
                port.unread.push_back((from, bytes));
            }
            let reader = port.reader.take();
            net.record.packet(number, if lost { "unread" } else { "arrives" });
            // Whoever is woken may want the network.
            drop(net);
            if let Some(reader) = reader {
                reader.wake();
            }
        }
    }
}

impl Net {
    fn bind(&mut self, address: SocketAddr) -> io::Result<u64> {
        if self.sockets.contains_key(&address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        self.opened += 1;
        let number = self.opened;
        self.sockets.insert(address, Port { number, ..Port::default() });
        Ok(number)
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        self.sent += 1;
        let number = self.sent;
        self.record.sent(number, from, to, bytes.len());
        let Self { rules, rng, .. } = self;
        let packet = Packet { from, to, bytes };
        let (mut delay, mut again) = (None, None);
        let mut bytes = bytes.to_vec();
        for rule in rules.values_mut() {
            match rule(&packet, rng) {
                Verdict::Pass => {}
                Verdict::Lose => return self.record.packet(number, "lost"),
                Verdict::Delay(by) => delay = Some(delay.unwrap_or(Duration::ZERO) + by),
                Verdict::Twice(later) => again = Some(later),
                Verdict::Flip { bit } => {
                    if let Some(byte) = bytes.get_mut(bit / 8) {
                        *byte ^= 1 << (bit % 8);
                    }
                }
                Verdict::Cut { bytes: kept } => bytes.truncate(kept),
            }
        }
        if bytes.is_empty() {
            return self.record.packet(number, "empty");
        }
        let (least, most) = self.latency;
        let takes = least + (most - least).mul_f64(self.rng.random());
        let mut arrives = os::now() + takes;
        match delay {
            Some(delay) => arrives += delay,
            None => {
                let last = self.last.entry((from, to)).or_default();
                arrives = arrives.max(*last);
                *last = arrives;
            }
        }
        if let Some(later) = again {
            let flight =
                Flight { arrives: arrives + later, number, from, to, bytes: bytes.clone() };
            self.flying.push(Reverse(flight));
        }
        self.flying.push(Reverse(Flight { arrives, number, from, to, bytes }));
    }
}

/// The network, as one machine sees it.
#[derive(Debug)]
struct Lan {
    network: Network,
    ip: IpAddr,
}

impl Sockets for Lan {
    fn bind(&self, mut address: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let mut net = self.network.lock();
        if address.ip().is_unspecified() {
            address.set_ip(self.ip);
        }
        if address.ip() != self.ip {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        if address.port() == 0 {
            net.next_port = net.next_port.checked_add(1).unwrap_or(PORTS);
            address.set_port(net.next_port);
        }
        let number = net.bind(address)?;
        Ok(Arc::new(Socket { network: self.network.clone(), address, number }))
    }

    fn look_up<'a>(&'a self, host: &'a HostName, port: u16) -> Lookup<'a> {
        let known = self.network.lock().names.get(host).cloned();
        let found = known.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "unknown host"));
        let at = |ip: IpAddr| SocketAddr::new(ip, port);
        let found = found.map(|ips| ips.into_iter().map(at).collect::<Vec<_>>());
        Box::pin(std::future::ready(found))
    }
}

/// A socket. Off the network it sends into the void and hears nothing.
#[derive(Debug)]
struct Socket {
    network: Network,
    address: SocketAddr,
    number: u64,
}

impl Drop for Socket {
    fn drop(&mut self) {
        let mut net = self.network.lock();
        if net.sockets.get(&self.address).is_some_and(|port| port.number == self.number) {
            net.sockets.remove(&self.address);
        }
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let mut net = self.network.lock();
        if net.sockets.get(&self.address).is_some_and(|port| port.number == self.number) {
            net.send(self.address, transmit.destination, transmit.contents);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut net = self.network.lock();
        let Some(port) =
            net.sockets.get_mut(&self.address).filter(|port| port.number == self.number)
        else {
            return Poll::Pending;
        };
        let mut received = 0;
        while received < buffers.len().min(meta.len()) {
            let Some((from, bytes)) = port.unread.pop_front() else { break };
            let len = bytes.len().min(buffers[received].len());
            buffers[received][..len].copy_from_slice(&bytes[..len]);
            meta[received] = RecvMeta {
                addr: from,
                len,
                stride: len,
                ecn: None,
                dst_ip: Some(self.address.ip()),
            };
            received += 1;
        }
        if received == 0 {
            port.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(received))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

/// The network takes everything at once.
#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
