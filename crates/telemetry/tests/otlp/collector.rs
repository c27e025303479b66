//! A collector of a few lines: takes requests one after the other and answers each as it is told.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

pub(crate) struct Served {
    pub(crate) address: String,
    requests: Receiver<(String, serde_json::Value)>,
}

impl Served {
    /// Answers in this order, each a status line and a body, and hangs up after the last.
    pub(crate) fn answering(answers: Vec<(&'static str, &'static str)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("bound"));
        let (taken, requests) = channel();
        std::thread::spawn(move || {
            for (status, body) in answers {
                let (stream, _) = listener.accept().expect("somebody comes");
                let mut reader = BufReader::new(stream);
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    assert!(reader.read_line(&mut head).expect("a head") > 0, "{head}");
                }
                let length = head.lines().find_map(|line| {
                    line.to_lowercase().strip_prefix("content-length: ")?.parse().ok()
                });
                let mut content = vec![0; length.expect("a length")];
                reader.read_exact(&mut content).expect("a body");
                let request = serde_json::from_slice(&content).expect("JSON");
                let _ = taken.send((head, request));
                let length = body.len();
                let mut stream = reader.into_inner();
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status}\r\nContent-Type: application/json\r\n\
                     Content-Length: {length}\r\n\r\n{body}"
                );
            }
        });
        Self { address, requests }
    }

    pub(crate) fn next(&self) -> (String, serde_json::Value) {
        self.requests.recv_timeout(Duration::from_secs(20)).expect("a request within 20 s")
    }
}
