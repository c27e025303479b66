//! To an OpenTelemetry collector: OTLP over HTTP, in JSON.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value as Json;
use tokio::net::TcpStream;

/// A collector answers within this.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Characters of an answer that an error repeats.
const SAID_CHARS_MAX: usize = 200;
/// Port of OTLP over HTTP, where the address names none.
const PORT: u16 = 4318;
/// Path of traces, where the address names none.
const PATH: &str = "/v1/traces";

/// A collector's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collector {
    host: String,
    port: u16,
    path: String,
}

/// An address that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{address:?} is no collector's address: {why}; say http://host:4318")]
pub struct AddressError {
    address: String,
    why: &'static str,
}

/// Traces that did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// Nobody is there.
    #[error("no collector at {0}: {1}; is it running, with an OTLP receiver for HTTP?")]
    Unreachable(String, std::io::Error),
    /// It says nothing.
    #[error("the collector at {0} did not answer within {within} s", within = TIMEOUT.as_secs())]
    Silent(String),
    /// What is there does not speak HTTP, or hung up.
    #[error("what is at {0} is no OTLP receiver for HTTP: {1}")]
    Foreign(String, String),
    /// It does not want them.
    #[error("the collector at {address} answered {status}: {said}")]
    Refused {
        /// Where.
        address: String,
        /// What it answered.
        status: StatusCode,
        /// In what words.
        said: String,
    },
}

impl PostError {
    /// Whether the same may be taken later: it is not the spans that are wrong.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable(..) | Self::Silent(_) => true,
            Self::Foreign(..) => false,
            Self::Refused { status, .. } => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
        }
    }
}

impl std::str::FromStr for Collector {
    type Err = AddressError;

    fn from_str(address: &str) -> Result<Self, AddressError> {
        let bad = |why| AddressError { address: address.to_owned(), why };
        let uri: Uri = address.parse().map_err(|_| bad("it is no URL"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(bad(
                    "TLS is not spoken here, run a collector on this machine that forwards",
                ));
            }
            _ => return Err(bad("it does not begin with http://")),
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| bad("no host"))?;
        let path = uri.path_and_query().map_or("", |path| path.as_str());
        let path = if path.trim_end_matches('/').is_empty() { PATH } else { path };
        let port = uri.port_u16().unwrap_or(PORT);
        Ok(Self { host: host.to_owned(), port, path: path.to_owned() })
    }
}

impl std::fmt::Display for Collector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "http://{}:{}{}", self.host, self.port, self.path)
    }
}

impl Collector {
    /// Posts one request. Gives how many spans the collector says it left out.
    ///
    /// # Errors
    /// [`PostError`].
    pub async fn post(&self, request: &Json) -> Result<u64, PostError> {
        let sent = tokio::time::timeout(TIMEOUT, self.exchange(request.to_string().into()));
        sent.await.unwrap_or_else(|_| Err(PostError::Silent(self.to_string())))
    }

    async fn exchange(&self, body: Bytes) -> Result<u64, PostError> {
        let foreign =
            |error: &dyn std::fmt::Display| PostError::Foreign(self.to_string(), error.to_string());
        // An address of IPv6 is written in brackets, and dialled without.
        let host = self.host.trim_matches(['[', ']']);
        let stream = TcpStream::connect((host, self.port)).await;
        let stream = stream.map_err(|error| PostError::Unreachable(self.to_string(), error))?;
        let shaken = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = shaken.map_err(|error| foreign(&error))?;
        // Ends with the sender; what goes wrong is told by the request.
        let driver = tokio::spawn(connection);
        let request = Request::post(&self.path)
            .header(HOST, format!("{}:{}", self.host, self.port))
            .header(USER_AGENT, concat!("crrl/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| foreign(&error))?;
        let answer = sender.send_request(request).await.map_err(|error| foreign(&error))?;
        let status = answer.status();
        let said = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        driver.abort();
        let said = said.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        if !status.is_success() {
            let said = words(&said);
            return Err(PostError::Refused { address: self.to_string(), status, said });
        }
        Ok(left_out(&said))
    }
}

/// `partialSuccess.rejectedSpans`, which is text as every 64-bit number, or a number.
fn left_out(answer: &[u8]) -> u64 {
    let answer: Json = serde_json::from_slice(answer).unwrap_or_default();
    let count = &answer["partialSuccess"]["rejectedSpans"];
    count.as_u64().or_else(|| count.as_str()?.parse().ok()).unwrap_or(0)
}

/// What it said, in one line.
fn words(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let told: Option<String> = serde_json::from_slice::<Json>(answer)
        .ok()
        .and_then(|json| json["message"].as_str().map(str::to_owned));
    let text = told.unwrap_or_else(|| text.into_owned());
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let text: String = text.chars().map(plain).take(SAID_CHARS_MAX).collect();
    if text.trim().is_empty() { "no reason given".to_owned() } else { text.trim().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_gets_the_port_and_path_of_the_specification() {
        let read = |text: &str| text.parse::<Collector>().map(|c| c.to_string());
        let at = |text: &str| Ok(text.to_owned());
        assert_eq!(read("http://host"), at("http://host:4318/v1/traces"));
        assert_eq!(read("http://host:9/"), at("http://host:9/v1/traces"));
        assert_eq!(read("http://[::1]:9/x/v1/traces"), at("http://[::1]:9/x/v1/traces"));
        for bad in ["host:4318", "https://host", "ftp://host", "http://", "", "a b"] {
            assert!(read(bad).expect_err(bad).to_string().contains("http://host:4318"));
        }
    }

    #[test]
    fn what_a_collector_left_out_is_read_either_way() {
        assert_eq!(left_out(br#"{"partialSuccess":{"rejectedSpans":"3"}}"#), 3);
        assert_eq!(left_out(br#"{"partialSuccess":{"rejectedSpans":3}}"#), 3);
        assert_eq!(left_out(b"{}"), 0);
        assert_eq!(left_out(b""), 0);
        assert_eq!(words(b"{\"code\":3,\"message\":\"no such\\nfield\"}"), "no such field");
    }
}
