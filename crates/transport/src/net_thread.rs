//! The one thread QUIC runs on. A runtime whose workers are busy starves keep-alives, and the
//! connection dies of it; here nothing else runs.
//!
//! A simulation has no thread to spare, and a network and names of its own: [`NetThread::here`].

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use crrl_types::HostName;
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::faults::{Faults, FaultySocket};

/// The addresses of a host, once they are known.
pub type Lookup<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>>;

/// Where sockets come from, and what the names of hosts stand for.
pub trait Sockets: fmt::Debug + Send + Sync {
    /// Opens a UDP socket. Called on the runtime QUIC runs on.
    ///
    /// # Errors
    /// What the system says, as of a UDP socket.
    fn bind(&self, address: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>>;

    /// Looks a name up: the addresses of the host right now, with this port, those to be tried first
    /// first. Called on any runtime, and never blocks it.
    ///
    /// # Errors
    /// What the system says of a name that it does not know, or cannot look up now.
    fn look_up<'a>(&'a self, host: &'a HostName, port: u16) -> Lookup<'a>;
}

/// The system's own sockets and names.
#[derive(Debug)]
struct System;

impl Sockets for System {
    fn bind(&self, address: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(std::net::UdpSocket::bind(address)?)
    }

    fn look_up<'a>(&'a self, host: &'a HostName, port: u16) -> Lookup<'a> {
        // tokio asks the system on a thread that may block.
        Box::pin(async move {
            let found = tokio::net::lookup_host((host.as_str(), port)).await;
            found.map(|addresses| addresses.collect::<Vec<_>>())
        })
    }
}

/// Handle to the thread; it ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct NetThread {
    handle: Handle,
    sockets: Arc<dyn Sockets>,
    _end: Arc<End>,
}

#[derive(Debug)]
struct End(Option<oneshot::Sender<()>>);

impl Drop for End {
    fn drop(&mut self) {
        if let Some(end) = self.0.take() {
            let _ = end.send(());
        }
    }
}

impl NetThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system gives no thread or no event queue.
    pub fn start(name: &str) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        std::thread::Builder::new().name(format!("net-{name}")).spawn(move || {
            let _ = runtime.block_on(ended);
        })?;
        Ok(Self { handle, sockets: Arc::new(System), _end: Arc::new(End(Some(end))) })
    }

    /// No thread: QUIC runs on the calling runtime, and its packets go through these sockets.
    #[must_use]
    pub fn here(sockets: Arc<dyn Sockets>) -> Self {
        Self { handle: Handle::current(), sockets, _end: Arc::new(End(None)) }
    }

    /// Handle of the runtime on the thread.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Opens a socket whose packets meet `faults`.
    pub(crate) fn bind(
        &self,
        address: SocketAddr,
        faults: &Faults,
    ) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let _entered = self.handle.enter();
        let socket = self.sockets.bind(address)?;
        Ok(FaultySocket::new(socket, faults.clone(), self.handle.clone()))
    }

    /// See [`Sockets::look_up`].
    pub(crate) fn look_up<'a>(&'a self, host: &'a HostName, port: u16) -> Lookup<'a> {
        self.sockets.look_up(host, port)
    }

    /// quinn's runtime on this thread.
    pub(crate) fn quic(&self) -> Arc<dyn Runtime> {
        Arc::new(OnThread(self.handle.clone()))
    }
}

/// quinn's tokio runtime, entered wherever quinn happens to be called from. Holds no [`End`]: the
/// drivers it spawns must not keep their own thread alive.
#[derive(Debug)]
struct OnThread(Handle);

impl Runtime for OnThread {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        let _entered = self.0.enter();
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.0.spawn(future);
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let _entered = self.0.enter();
        TokioRuntime.wrap_udp_socket(socket)
    }
}
