//! `GET /metrics` of a node, for Prometheus.

use std::net::SocketAddr;

use metrics_exporter_prometheus::{BuildError, PrometheusBuilder};

use crate::names;

/// An endpoint that could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is somebody else's, or not ours to take.
    #[error(
        "cannot serve metrics at {address}: {message}; set telemetry.prometheus to another address, or to \"\" for none"
    )]
    Address {
        /// Where.
        address: SocketAddr,
        /// Why.
        message: String,
    },
    /// Metrics are recorded by something else in this process.
    #[error("metrics are recorded already: {0}")]
    Taken(String),
}

/// Records metrics from now on and serves them until the process ends. Must be called within tokio.
///
/// # Errors
/// [`ServeError`].
pub fn serve(address: SocketAddr) -> Result<(), ServeError> {
    // The exporter would only say so in its own log.
    let free = std::net::TcpListener::bind(address);
    free.map_err(|error| ServeError::Address { address, message: error.to_string() })?;
    let installed = PrometheusBuilder::new().with_http_listener(address).install();
    installed.map_err(|error| match error {
        BuildError::FailedToCreateHTTPListener(message) => ServeError::Address { address, message },
        other => ServeError::Taken(other.to_string()),
    })?;
    names::describe();
    Ok(())
}
