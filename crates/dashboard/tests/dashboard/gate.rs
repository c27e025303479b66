//! Who is let in.

use crrl_dashboard::assets;

use crate::{made_up, serve, world};

#[tokio::test]
async fn without_the_token_nothing_is_told_and_every_answer_is_locked_down() {
    let (_folder, served) = made_up(&world::World::default()).await;
    let client = &served.client;
    let paths = assets::ALL.iter().map(|asset| asset.path).chain([
        "/api/runs",
        "/api/runs/0/pulse",
        "/api/runs/0/episodes/1",
        "/nothing",
    ]);
    for path in paths {
        let mut lines = client.look(path);
        lines.retain(|line| !line.starts_with("Authorization"));
        for cookie in [None, Some("crrl-dashboard-1=x"), Some("token=; ;=;")] {
            let mut lines = lines.clone();
            lines.extend(cookie.map(|cookie| format!("Cookie: {cookie}")));
            let response = client.send(&lines).await;
            assert_eq!(response.status, 401, "{path}");
            assert!(response.header("set-cookie").is_none());
            let policy = response.header("content-security-policy").expect("a policy");
            assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"));
            assert_eq!(response.header("cache-control"), Some("no-store"), "{path}");
        }
        let status = client.get_head(&format!("{path}?token={}", "0".repeat(64))).await;
        assert_ne!(status, 401, "the header suffices");
    }
}

#[tokio::test]
async fn the_printed_address_gives_a_cookie_and_the_cookie_opens_the_rest() {
    let (_folder, served) = made_up(&world::World::default()).await;
    let client = &served.client;
    let path = served.address.split_once(&client.port.to_string()).expect("a port").1;
    let mut lines = client.look(path);
    lines.retain(|line| !line.starts_with("Authorization"));
    let first = client.send(&lines).await;
    assert_eq!(first.status, 200);
    assert!(String::from_utf8_lossy(&first.body).starts_with("<!doctype html>"));
    let cookie = first.header("set-cookie").expect("a cookie");
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let cookie = cookie.split(';').next().expect("a pair").to_owned();
    for path in ["/", "/app.js", "/api/runs"] {
        let mut lines = client.look(path);
        lines.retain(|line| !line.starts_with("Authorization"));
        lines.push(format!("Cookie: {cookie}"));
        assert_eq!(client.send(&lines).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_rebound_name_another_site_and_other_methods_are_refused() {
    let (_folder, served) = made_up(&world::World::default()).await;
    let client = &served.client;
    let with = |change: &dyn Fn(&mut Vec<String>)| {
        let mut lines = client.look("/api/runs");
        change(&mut lines);
        lines
    };
    for (lines, status) in [
        (with(&|lines| lines[1] = "Host: evil.example".into()), 421),
        (with(&|lines| lines[1] = format!("Host: evil.example:{}", client.port)), 421),
        (with(&|lines| lines[1] = format!("Host: localhost:{}", client.port)), 200),
        (with(&|lines| lines.push("Origin: http://evil.example".into())), 403),
        (with(&|lines| lines[0] = "POST /api/runs HTTP/1.1".into()), 405),
        (with(&|lines| lines[0] = "OPTIONS /api/runs HTTP/1.1".into()), 405),
    ] {
        assert_eq!(client.send(&lines).await.status, status, "{lines:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = folder.path().join("run");
    world::World { steps: 1, ..world::World::default() }.write(&run);
    let error = serve(&[folder.path().join("none")]).await.err().expect("no run");
    assert!(error.to_string().contains("neither plan.json nor cluster.toml"), "{error}");
    let error = serve(&vec![run.clone(); 9]).await.err().expect("too many");
    assert!(error.to_string().contains("9 runs"), "{error}");
    let served = serve(std::slice::from_ref(&run)).await.expect("a run");
    let taken = crrl_dashboard::Dashboard::start(&[run], served.client.port).await;
    let error = taken.expect_err("it is taken");
    assert!(error.to_string().contains("in use on 127.0.0.1"), "{error}");
}
