//! Certificates and addresses, before anything starts.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};

use crrl_config::{ClusterConfig, Node, Role};
use crrl_control::wire::NodeRole;
use crrl_transport::{Authority, AuthorityError, Validity};
use crrl_types::{HostPort, NodeName};

use crate::mesh::{role_of, role_text};
use crate::run_dir::{OPERATOR, RunDir, RunDirError, write_atomic};

/// Why a run folder could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The authority or a certificate.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// A file.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    /// The port that was asked for is taken.
    #[error(
        "UDP port {port} of {ip}, where {node} should listen, is in use; end the program that holds it (ss -lunp shows it) or set cluster.listen to another port (0 takes a free one)",
        port = .address.port(), ip = .address.ip()
    )]
    PortInUse {
        /// Which node.
        node: NodeName,
        /// Where.
        address: SocketAddr,
    },
    /// The address cannot be listened on at all.
    #[error("{node} cannot listen on {address}: {source}")]
    Address {
        /// Which node.
        node: NodeName,
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// `cluster.listen` is no address.
    #[error("cluster.listen is {0:?}: it is an address and a port, such as 127.0.0.1:0")]
    Listen(String),
}

/// Makes sure that every node and the operator have certificates, and that every node that listens
/// has an address nobody else holds.
///
/// # Errors
/// [`PrepareError`].
pub fn prepare(run: &RunDir, config: &ClusterConfig) -> Result<(), PrepareError> {
    issue(run, config, |_| true)?;
    let nodes = config.nodes();
    let addresses = choose(config, &nodes, &run.addresses()?)?;
    let json = serde_json::to_vec_pretty(&addresses).map_err(|error| RunDirError {
        what: "write",
        path: run.addresses_path(),
        source: std::io::Error::other(error),
    })?;
    Ok(write_atomic(&run.addresses_path(), &json)?)
}

/// Makes sure that the nodes this machine starts that are `wanted`, and the operator, have
/// certificates. A node that runs renews its own.
///
/// # Errors
/// [`PrepareError`].
pub fn issue(
    run: &RunDir,
    config: &ClusterConfig,
    wanted: impl Fn(&Node) -> bool,
) -> Result<(), PrepareError> {
    let authority = Authority::open_or_create(&run.tls())?;
    let validity = Validity::hours(config.cluster.certificate_hours);
    for node in config.nodes().iter().filter(|node| node.is_local() && wanted(node)) {
        authority.issue_for(&node.name.as_str().into(), &role_texts(node), validity)?;
    }
    // Whoever may read the operator's key may read the authority's: it is as good for as long.
    authority.issue(&OPERATOR.into(), &[role_text(NodeRole::Operator).to_owned()])?;
    Ok(())
}

/// The roles of a node as a certificate writes them.
pub(crate) fn role_texts(node: &Node) -> Vec<String> {
    node.roles.iter().map(|role| role_text(role_of(*role)).to_owned()).collect()
}

/// Where the nodes that are dialled listen. The coordinator takes the configured port; a parameter
/// server that stands apart takes a free one. A port that was free to choose stays what it was in
/// the run's last life, so that peers notice a restart at once.
fn choose(
    config: &ClusterConfig,
    nodes: &[Node],
    held: &BTreeMap<NodeName, HostPort>,
) -> Result<BTreeMap<NodeName, HostPort>, PrepareError> {
    let listen: SocketAddr = config
        .cluster
        .listen
        .parse()
        .map_err(|_| PrepareError::Listen(config.cluster.listen.clone()))?;
    let mut chosen = BTreeMap::new();
    // Kept open until all are chosen, so that two nodes do not get one port.
    let mut sockets = Vec::new();
    for node in nodes {
        let coordinator = node.roles.contains(&Role::Coordinator);
        if !coordinator && !node.roles.contains(&Role::ParameterServer) {
            continue;
        }
        let name = NodeName::from(node.name.as_str());
        let wanted = if coordinator { listen } else { SocketAddr::new(listen.ip(), 0) };
        let last = held.get(&name).and_then(HostPort::socket_addr);
        let last = last.filter(|last| wanted.port() == 0 && last.ip() == wanted.ip());
        let socket = match last.and_then(|last| UdpSocket::bind(last).ok()) {
            Some(socket) => socket,
            None => bind(&name, wanted)?,
        };
        let address = socket.local_addr().map_err(|source| PrepareError::Address {
            node: name.clone(),
            address: wanted,
            source,
        })?;
        chosen.insert(name, address.into());
        sockets.push(socket);
    }
    Ok(chosen)
}

fn bind(node: &NodeName, address: SocketAddr) -> Result<UdpSocket, PrepareError> {
    UdpSocket::bind(address).map_err(|source| {
        let node = node.clone();
        match source.kind() {
            std::io::ErrorKind::AddrInUse => PrepareError::PortInUse { node, address },
            _ => PrepareError::Address { node, address, source },
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_stays_from_one_life_to_the_next_and_a_taken_one_is_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let run = RunDir::new(folder.path());
        let mut config = ClusterConfig::default();
        prepare(&run, &config).expect("a free port");
        let first = run.addresses().expect("written");
        prepare(&run, &config).expect("the same port");
        assert_eq!(run.addresses().expect("written"), first);
        let taken = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let address = taken.local_addr().expect("is bound");
        config.cluster.listen = address.to_string();
        let error = prepare(&run, &config).expect_err("is taken").to_string();
        assert!(error.contains(&format!("UDP port {}", address.port())), "{error}");
        assert!(error.contains("coordinator"), "{error}");
    }
}
