//! The one thread QUIC runs on. A runtime whose workers are busy starves keep-alives, and the
//! connection dies of it; here nothing else runs.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::faults::{Faults, FaultySocket};

/// Handle to the thread; it ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct NetThread {
    handle: Handle,
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
        Ok(Self { handle, _end: Arc::new(End(Some(end))) })
    }

    /// Handle of the runtime on the thread.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// quinn's runtime on this thread; the packets of its sockets meet `faults`.
    pub(crate) fn quic(&self, faults: &Faults) -> Arc<dyn Runtime> {
        Arc::new(OnThread(self.handle.clone(), faults.clone()))
    }
}

/// quinn's tokio runtime, entered wherever quinn happens to be called from. Holds no [`End`]: the
/// drivers it spawns must not keep their own thread alive.
#[derive(Debug)]
struct OnThread(Handle, Faults);

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
        let socket = TokioRuntime.wrap_udp_socket(socket)?;
        Ok(FaultySocket::new(socket, self.1.clone(), self.0.clone()))
    }
}
