//! What models and tools may write, and what becomes of it.

use crate::{made_up, world};

/// Bytes of an answer that any page can take.
const ANSWER_BYTES_MAX: usize = 1 << 20;

#[tokio::test]
async fn hostile_text_is_data_and_long_text_is_cut_and_given_piece_by_piece() {
    let nasty = "</script><img src=x onerror=alert(1)>\u{202e}\u{200b}\u{1b}[31m\0\u{fffe}\n";
    let text = format!("{nasty}{}", "x".repeat(150_000));
    let world = world::World {
        steps: 1,
        groups: 1,
        held_out: 0,
        text: text.clone(),
        ..world::World::default()
    };
    let (_folder, served) = made_up(&world).await;
    let client = &served.client;
    let response = client.get("/api/runs/0/episodes/0").await;
    assert!(response.body.len() < ANSWER_BYTES_MAX, "{} bytes", response.body.len());
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
    let episode = response.json();
    let turn = &episode["left"]["turns"][0]["text"];
    assert!(turn["text"].as_str().is_some_and(|shown| shown.starts_with(nasty)), "as it is: data");
    let mut whole = turn["text"].as_str().expect("a text").to_owned();
    let mut next = turn["next"].as_u64();
    while let Some(from) = next {
        let path = format!("/api/runs/0/episodes/0/text?of=turn&turn=0&from={from}");
        let piece = client.json(&path).await;
        whole += piece["text"].as_str().expect("a text");
        next = piece["next"].as_u64();
    }
    assert!(whole.len() > text.len() && whole.starts_with(&text), "pieces follow each other");
    for path in ["episodes", "faults", "history", "now", ""] {
        let response = client.get(format!("/api/runs/0/{path}").trim_end_matches('/')).await;
        assert_eq!(response.status, 200, "{path}");
        assert!(response.body.len() < ANSWER_BYTES_MAX, "{path}: {} bytes", response.body.len());
    }
}
