//! A plain HTTP client: what is sent is seen here byte by byte.

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::DEADLINE;

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) port: u16,
    pub(crate) token: String,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }
}

impl Client {
    pub(crate) fn new(port: u16, token: &str) -> Self {
        Self { port, token: token.to_owned() }
    }

    /// Sends these lines as the head of a request, and waits for the whole answer.
    pub(crate) async fn send(&self, lines: &[String]) -> Response {
        let asked = async {
            let stream = self.open(lines).await;
            read(stream).await
        };
        timeout(DEADLINE, asked).await.expect("it answers in time")
    }

    /// Sends these lines, and leaves the answer to be read.
    pub(crate) async fn open(&self, lines: &[String]) -> BufReader<TcpStream> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.expect("it listens");
        let head = format!("{}\r\n\r\n", lines.join("\r\n"));
        stream.write_all(head.as_bytes()).await.expect("it reads");
        BufReader::new(stream)
    }

    /// A look with the token.
    pub(crate) fn look(&self, path: &str) -> Vec<String> {
        vec![
            format!("GET {path} HTTP/1.1"),
            format!("Host: 127.0.0.1:{}", self.port),
            format!("Authorization: Bearer {}", self.token),
            "Connection: close".to_owned(),
        ]
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.send(&self.look(path)).await
    }

    /// The status of an answer that may have no end.
    pub(crate) async fn get_head(&self, path: &str) -> u16 {
        let mut stream = self.open(&self.look(path)).await;
        timeout(DEADLINE, head(&mut stream)).await.expect("in time").0
    }

    /// The JSON of an answer that has to be one.
    pub(crate) async fn json(&self, path: &str) -> Value {
        let response = self.get(path).await;
        assert_eq!(response.status, 200, "{path}: {}", String::from_utf8_lossy(&response.body));
        response.json()
    }

    /// What is said in an answer that refuses.
    pub(crate) async fn refusal(&self, path: &str) -> (u16, String) {
        let response = self.get(path).await;
        (response.status, response.json()["error"].as_str().expect("words").to_owned())
    }
}

/// The head of an answer.
pub(crate) async fn head(stream: &mut BufReader<TcpStream>) -> (u16, Vec<(String, String)>) {
    let mut line = String::new();
    stream.read_line(&mut line).await.expect("a line");
    let status = line.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status");
    let mut headers = Vec::new();
    loop {
        line.clear();
        stream.read_line(&mut line).await.expect("a line");
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.push((name.to_lowercase(), value.to_owned()));
    }
    (status, headers)
}

async fn read(mut stream: BufReader<TcpStream>) -> Response {
    let (status, headers) = head(&mut stream).await;
    let mut body = Vec::new();
    stream.read_to_end(&mut body).await.expect("a body");
    let chunked = headers.iter().any(|(name, _)| name == "transfer-encoding");
    Response { status, headers, body: if chunked { joined(&body) } else { body } }
}

/// A chunked body, put together.
fn joined(mut body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(end) = body.windows(2).position(|two| two == b"\r\n") {
        let size = std::str::from_utf8(&body[..end]).expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a size");
        out.extend_from_slice(&body[end + 2..end + 2 + size]);
        body = &body[end + 2 + size + 2..];
    }
    out
}
