//! What a program says of itself and of the machine it runs on.

use std::io::Read as _;
use std::net::{SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use crrl_transport::Protocols;
use crrl_types::HostPort;
use serde::{Deserialize, Serialize};

/// Bytes of a file that are hashed at once.
const CHUNK_BYTES: usize = 1 << 20;
/// Packets that are sent to see whether one comes back, and how long each is waited for.
const PACKETS: u32 = 3;
/// See above.
const PACKET_TIMEOUT: Duration = Duration::from_millis(700);
/// Bytes of such a packet.
const PACKET_BYTES: usize = 16;

/// What a program says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// The program's version.
    pub version: String,
    /// Versions of the protocol it speaks.
    pub protocols: Protocols,
    /// BLAKE3 of the program's file.
    pub digest: String,
    /// The machine's clock, in milliseconds since the Unix epoch.
    pub clock_ms: u64,
    /// `SSH_CONNECTION`: who came over ssh, by address and port, and where it came in.
    pub ssh_connection: Option<String>,
    /// NVIDIA's driver, if it was asked for: what it says, or why it does not.
    pub gpu: Option<Result<String, String>>,
    /// Whether a packet went to an address and back, if that was asked for: in how many
    /// milliseconds, or why it did not.
    pub reached: Option<Result<f64, String>>,
}

impl About {
    /// Of this very program.
    ///
    /// # Errors
    /// Its own file cannot be read.
    pub fn this(gpu: bool, reach: Option<&HostPort>) -> std::io::Result<Self> {
        // Also where the file was replaced since.
        let digest = digest(Path::new("/proc/self/exe"))?;
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocols: Protocols::default(),
            digest,
            clock_ms: clock_ms(),
            ssh_connection: std::env::var("SSH_CONNECTION").ok(),
            gpu: gpu.then(driver),
            reached: reach.map(|at| reached(at).map_err(|error| error.to_string())),
        })
    }

    /// The address of whoever came over ssh, as this machine saw it, and where it came in.
    #[must_use]
    pub fn ssh_ends(&self) -> Option<(std::net::IpAddr, std::net::IpAddr)> {
        let words: Vec<&str> = self.ssh_connection.as_deref()?.split_whitespace().collect();
        Some((words.first()?.parse().ok()?, words.get(2)?.parse().ok()?))
    }
}

/// Milliseconds since the Unix epoch.
#[must_use]
pub fn clock_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// BLAKE3 of a file.
///
/// # Errors
/// It cannot be read.
pub fn digest(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let (mut hasher, mut chunk) = (blake3::Hasher::new(), vec![0; CHUNK_BYTES]);
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hasher.finalize().to_string()),
            len => hasher.update(&chunk[..len]),
        };
    }
}

/// What NVIDIA's driver says of its devices.
fn driver() -> Result<String, String> {
    let query = ["--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"];
    match std::process::Command::new("nvidia-smi").args(query).output() {
        Ok(output) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).trim().replace('\n', "; "))
        }
        Ok(output) => Err(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        Err(error) => Err(format!("nvidia-smi: {error}")),
    }
}

/// As [`bounce`], at the first of a host's addresses from which one comes back.
fn reached(at: &HostPort) -> std::io::Result<f64> {
    let addresses: Vec<SocketAddr> = match at {
        HostPort::Ip(address) => vec![*address],
        HostPort::Name { host, port } => (host.as_str(), *port).to_socket_addrs()?.collect(),
    };
    let mut last = std::io::Error::other("its name stands for no address");
    for address in addresses {
        match bounce(address) {
            Ok(ms) => return Ok(ms),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Sends packets to an address until one comes back as it was; the milliseconds it took.
fn bounce(address: SocketAddr) -> std::io::Result<f64> {
    let any: SocketAddr =
        if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(PACKET_TIMEOUT))?;
    let sent: [u8; PACKET_BYTES] = crrl_transport::random_bytes().map_err(std::io::Error::other)?;
    let mut last = std::io::Error::from(std::io::ErrorKind::TimedOut);
    for _ in 0..PACKETS {
        let start = Instant::now();
        socket.send(&sent)?;
        let mut came = [0; 2 * PACKET_BYTES];
        match socket.recv(&mut came) {
            Ok(len) if came[..len] == sent => return Ok(start.elapsed().as_secs_f64() * 1e3),
            Ok(_) => last = std::io::Error::other("another packet came back than was sent"),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Sends back what comes, on a thread of its own, until it is dropped.
#[derive(Debug)]
pub struct Echo {
    address: SocketAddr,
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

/// How long the thread of an [`Echo`] may take to see that it is of no use any more.
const ECHO_LOOK: Duration = Duration::from_millis(200);

impl Echo {
    /// Opens the socket.
    ///
    /// # Errors
    /// The address cannot be had.
    pub fn open(address: SocketAddr) -> std::io::Result<Self> {
        let socket = UdpSocket::bind(address)?;
        socket.set_read_timeout(Some(ECHO_LOOK))?;
        let address = socket.local_addr()?;
        let stop = std::sync::Arc::<std::sync::atomic::AtomicBool>::default();
        let stopped = std::sync::Arc::clone(&stop);
        std::thread::Builder::new().name("echo".into()).spawn(move || {
            let mut packet = [0; PACKET_BYTES];
            while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                // No more goes back than came.
                if let Ok((len, from)) = socket.recv_from(&mut packet) {
                    let _ = socket.send_to(&packet[..len], from);
                }
            }
        })?;
        Ok(Self { address, stop })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_goes_there_and_back_or_it_is_said_that_it_does_not() {
        let echo = Echo::open(([127, 0, 0, 1], 0).into()).expect("a free port");
        assert!(bounce(echo.address()).expect("comes back") >= 0.0);
        let silent = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        bounce(silent.local_addr().expect("is bound")).expect_err("nobody answers");
        // By name: whichever of its addresses it is that the other side listens at.
        let host: crrl_types::Host = "localhost".parse().expect("a name");
        assert!(reached(&host.with_port(echo.address().port())).expect("comes back") >= 0.0);
    }

    #[test]
    fn both_ends_of_an_ssh_connection_are_read() {
        let mut about = About::this(false, None).expect("has a file");
        about.ssh_connection = Some("10.0.0.5 50022 10.0.0.9 22".into());
        let (client, server) = about.ssh_ends().expect("both");
        assert_eq!(
            (client.to_string().as_str(), server.to_string().as_str()),
            ("10.0.0.5", "10.0.0.9")
        );
        about.ssh_connection = Some("UNKNOWN 65535 UNKNOWN 65535".into());
        assert_eq!(about.ssh_ends(), None);
    }
}
