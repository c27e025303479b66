//! What a run that is over is said to be.

use serde_json::json;

use crate::{made_up, serve, world};

#[tokio::test]
async fn a_finished_run_is_told_in_numbers() {
    let (_folder, served) = made_up(&world::World::default()).await;
    let client = &served.client;
    assert_eq!(client.json("/api/runs").await["runs"][0]["name"], "run");
    let run = client.json("/api/runs/0").await;
    assert_eq!(run["summary"]["state"], "complete");
    assert_eq!(run["summary"]["steps"], 12);
    let change = &run["summary"]["compared"][0]["comparison"]["rows"][0]["change"];
    assert!(change["low"].as_f64() <= change["value"].as_f64(), "{change}");
    assert_eq!(run["nodes"][0]["last_exit"], "signal 9");
    let now = client.json("/api/runs/0/now").await;
    assert_eq!(now["link"]["state"], "off");
    let faults = client.json("/api/runs/0/faults").await;
    let names: Vec<&str> = faults["marks"]
        .as_array()
        .expect("marks")
        .iter()
        .filter_map(|m| m["name"].as_str())
        .collect();
    assert!(names.contains(&"node lost") && names.contains(&"learner rolled back"), "{names:?}");
    let curves = client.json("/api/runs/0/curves").await;
    assert_eq!(curves["deeds"], faults["deeds"]);
    let (pause, drain) = (&faults["deeds"][0], &faults["deeds"][1]);
    assert_eq!(
        (&pause["what"], &pause["who"], &pause["lasts_s"], &pause["is_done"]),
        (&json!("stands still"), &json!("anna"), &json!(7.0), &json!(true))
    );
    assert!(pause["at_s"].as_f64().is_some_and(|at_s| at_s > 0.0), "{pause}");
    assert_eq!((&drain["outcome"], &drain["is_done"]), (&json!("denied"), &json!(false)));
    assert_eq!(client.refusal("/api/runs/1").await.0, 404);
    assert_eq!(client.refusal("/api/nothing").await.0, 404);
    assert_eq!(client.refusal("/api/compare").await.0, 404, "there is only one");
}

#[tokio::test]
async fn curves_are_smoothed_as_asked_and_carry_their_intervals() {
    let (_folder, served) = made_up(&world::World::default()).await;
    let curves = served.client.json("/api/runs/0/curves?smooth=5").await;
    let reward = &curves["charts"][0];
    assert_eq!(reward["id"], "reward");
    let (raw, line) = (&reward["series"][0]["raw"], &reward["series"][0]["line"]);
    assert_eq!((raw.as_array().map(Vec::len), line.as_array().map(Vec::len)), (Some(12), Some(12)));
    let mean: f64 = (7..12).filter_map(|at| raw[at]["y"].as_f64()).sum::<f64>() / 5.0;
    assert!((line[11]["y"].as_f64().expect("a number") - mean).abs() < 1e-9, "{line}");
    let band = reward["series"][0]["band"].as_array().expect("bands");
    assert!(band.last().expect("a band")["high"].as_f64() > line[11]["y"].as_f64());
    assert_eq!(curves["times"].as_array().map(Vec::len), Some(12), "every step has its time");
    let bare = served.client.json("/api/runs/0/curves?smooth=1").await;
    let bare = &bare["charts"][0]["series"][0]["line"];
    for at in 0..12 {
        let (line, raw) = (bare[at]["y"].as_f64(), raw[at]["y"].as_f64());
        let apart = line.expect("a number") - raw.expect("a number");
        assert!(apart.abs() < 1e-9, "no smoothing: as measured");
    }
    for id in ["reward-std", "entropy", "clip", "staleness", "length", "tokens"] {
        let charts = curves["charts"].as_array().expect("charts");
        assert!(charts.iter().any(|chart| chart["id"] == id), "{id} is not drawn");
    }
}

#[tokio::test]
async fn episodes_are_leafed_through_filtered_and_opened() {
    let (_folder, served) = made_up(&world::World::default()).await;
    let client = &served.client;
    let page = client.json("/api/runs/0/episodes?limit=10").await;
    let rows = page["rows"].as_array().expect("rows");
    assert_eq!((page["total"].as_u64(), rows.len()), (Some(2 * 24 + 240), 10));
    let newest = page["newest"].as_u64().expect("a number");
    assert_eq!(rows[0]["episode"], newest);
    let held = client.json("/api/runs/0/episodes?until=99&limit=1").await;
    assert_eq!(
        (held["rows"][0]["episode"].as_u64(), held["newer"].as_u64()),
        (Some(99), Some(188))
    );
    let solved = client
        .json("/api/runs/0/episodes?outcome=solved&task=COMPARISON&reward_min=0.9&sort=-reward")
        .await;
    let rows = solved["rows"].as_array().expect("rows");
    assert!(!rows.is_empty());
    for row in rows {
        assert!(row["success"] == true && row["reward"].as_f64() >= Some(0.9), "{row}");
        assert!(row["task"].as_str().expect("a task").contains("comparison"));
    }
    let id = rows[0]["episode"].as_u64().expect("a number");
    let episode = client.json(&format!("/api/runs/0/episodes/{id}")).await;
    assert_eq!(
        episode["left"]["patch"]["shared"], 2,
        "a solved one changes what the reference does"
    );
    assert_eq!(episode["reference"]["shared"], 2);
    assert!(episode["group"].as_array().expect("a group").len() >= 2);
    assert_eq!(episode["left"]["reward"]["components"][0]["name"], "line");
    assert_eq!(episode["left"]["turns"][0]["calls"][0]["name"], "shell");
    let after = episode["after"].as_u64().map_or(id, |after| after - 1);
    assert_eq!((episode["before"].as_u64(), after), (id.checked_sub(1), id));
    let facets = client.json("/api/runs/0/facets").await;
    assert_eq!(facets["nodes"], json!([["rollout-0", 288]]));
    let tokens = client.refusal(&format!("/api/runs/0/episodes/{id}/tokens?turn=0")).await;
    assert!(tokens.1.contains("do not add up"), "{tokens:?}");
}

#[tokio::test]
async fn every_list_is_bounded_and_every_mistake_is_told() {
    let (_folder, served) = made_up(&world::World { groups: 40, ..world::World::default() }).await;
    let client = &served.client;
    let all = client.json("/api/runs/0/episodes?limit=99999999").await;
    assert_eq!(all["rows"].as_array().map(Vec::len), Some(500), "of {}", all["total"]);
    let history = client.json("/api/runs/0/history?limit=99999999").await;
    assert!(history["rows"].as_array().expect("rows").len() <= 500);
    for (path, says) in [
        ("episodes?limitt=1", "unknown field `limitt`"),
        ("episodes?sort=size", "there are episode, reward, tokens, step, task"),
        ("episodes?outcome=maybe", "neither solved nor unsolved"),
        ("actors?sort=size", "there is no column"),
        ("actors?filter=size:3", "there is no field"),
        ("history?filter=[", "is not a regular expression"),
        ("curves?smooth=x", "smooth"),
        ("episodes/1/text?of=secret", "unknown variant"),
    ] {
        let (status, told) = client.refusal(&format!("/api/runs/0/{path}")).await;
        assert!(status == 400 && told.contains(says), "{path}: {status} {told}");
    }
    for path in ["episodes/99999999", "episodes/1/text?of=turn&turn=99", "actor?node=a&name=b"] {
        assert_eq!(client.refusal(&format!("/api/runs/0/{path}")).await.0, 404, "{path}");
    }
    let huge = client.json("/api/runs/0/episodes/1/text?of=turn&from=18446744073709551615").await;
    assert_eq!(huge["text"], "");
}

#[tokio::test]
async fn runs_are_compared_as_the_report_compares_them() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folders = ["a", "b"].map(|name| folder.path().join(name).join("run"));
    world::World::default().write(&folders[0]);
    world::World { steps: 14, slope: 0.05, ..world::World::default() }.write(&folders[1]);
    let served = serve(&folders).await.expect("two runs");
    let told = served.client.json("/api/compare").await;
    assert_eq!(told["names"], json!(["run", "run (2)"]), "twins are told apart");
    assert_eq!(told["rows"][0]["against_first"], "first");
    let change = &told["rows"][1]["against_first"]["compared"]["rows"][0]["change"];
    assert!(change["value"].as_f64().is_some_and(|value| value > 0.0), "{change}");
    let steps = told["settings"].as_array().expect("settings");
    assert!(steps.iter().any(|s| s["name"] == "run.steps" && s["values"] == json!(["12", "14"])));
}

#[tokio::test]
async fn a_run_that_has_not_begun_is_said_to_have_no_store() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("cluster.toml"), "[run]\n").expect("written");
    let served = serve(&[folder.path().to_owned()]).await.expect("a run");
    for path in ["", "/curves", "/episodes", "/facets"] {
        let (status, says) = served.client.refusal(&format!("/api/runs/0{path}")).await;
        assert_eq!(status, 404, "{path}: {says}");
        assert!(says.contains(folder.path().to_str().expect("UTF-8")), "{path}: {says}");
    }
    assert_eq!(served.client.get("/").await.status, 200);
    let faults = served.client.json("/api/runs/0/faults").await;
    assert!(faults["problem"].as_str().is_some_and(|says| says.contains("plan.json")));
}
