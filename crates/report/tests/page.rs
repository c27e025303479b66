//! Whole reports of whole run folders: what a reader gets, whatever state the run is in.

mod world;

use std::path::Path;

use crrl_report::model::summary::State;
use crrl_report::{Facts, ReadError, Report, read};
use world::World;

fn facts(world: &World) -> (tempfile::TempDir, Facts) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    world.write(folder.path());
    let facts = read(folder.path()).expect("a run");
    (folder, facts)
}

fn page(world: &World) -> String {
    Report::of(&[facts(world).1]).html()
}

/// Elements that are opened are closed, in order; what needs no end is left out.
fn assert_nested(html: &str) {
    let mut open: Vec<&str> = Vec::new();
    let html = &html[html.find("<body>").expect("a body")..];
    for tag in html.split('<').skip(1) {
        let tag = &tag[..tag.find('>').expect("every < begins an element")];
        let name = tag.trim_start_matches('/').split([' ', '\n']).next().expect("a name");
        if tag.starts_with('/') {
            if name != "html" {
                assert_eq!(open.pop(), Some(name), "near <{tag}>");
            }
        } else if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?} are never closed");
}

#[test]
fn a_whole_run_has_every_section_and_needs_nothing_else() {
    let html = page(&World::default());
    for part in [
        "“before” and “after”: 12 tasks measured in both",
        "Reward of all attempts",
        "Attempts that repaired their task",
        "Clipped tokens",
        "Where the learner&#39;s time went, seconds a step",
        "How episodes ended",
        "Programs in shell commands",
        "Where an episode&#39;s time went, seconds",
        "Environment of the machine the run was started on",
        "0123456789ab",
        "off by one",
        "Highest reward",
        "Lowest reward",
        "Gold patch",
        "Turns (",
        "node lost",
        "coordinator restarted",
        "learner rolled back",
        "lease lost (3 times)",
        "Injected faults and orders",
        "<td>stands still</td><td>rollout-0</td><td>anna</td><td>done</td>",
        "<td>drain</td><td>rollout-0</td><td>anna</td><td>denied</td>",
        "Faults injected and orders given: 1.",
        "class=\"injected\"",
        "12 steps of 4 groups of 4",
        "kl_beta = 0.0",
        "signal 9",
        "0 at every step: KL divergence",
    ] {
        assert!(html.contains(part), "{part:?} is not on the page");
    }
    for outside in ["http://", "https://", "<script", "<link", "<img", "url(", "@import"] {
        assert!(!html.contains(outside), "{outside:?} is on the page");
    }
    assert!(html.contains("default-src 'none'"));
    assert_nested(&html);
}

#[test]
fn hostile_text_stays_text() {
    let text = "</pre></details><script>alert(1)</script>\u{202e}\u{200b}\u{1b}[2J<!--\0";
    let html = page(&World { text: text.into(), ..World::default() });
    assert!(!html.contains("<script") && !html.contains("<!--"));
    for hidden in ['\u{202e}', '\u{200b}', '\u{1b}', '\0'] {
        assert!(!html.contains(hidden), "{hidden:?} came through");
    }
    assert!(html.contains("U+202E") && html.contains("U+200B"));
    assert_nested(&html);
}

#[test]
fn long_texts_are_cut_and_the_page_stays_small() {
    let huge = "x\n".repeat(300_000);
    let html = page(&World { text: huge, held_out: 2, steps: 2, groups: 1, ..World::default() });
    assert!(html.len() < 1_000_000, "{} bytes", html.len());
    assert!(html.contains("more characters are not shown"));
}

#[test]
fn ids_are_unique_and_figures_have_words() {
    let html = page(&World::default());
    let ids: Vec<&str> =
        html.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!(ids.len(), distinct.len());
    let drawings = html.matches("<svg viewBox").count();
    assert!(drawings > 15 && html.matches("<desc id=").count() == drawings);
    assert_eq!(html.matches("role=\"img\"").count(), drawings);
}

#[test]
fn a_run_that_goes_on_or_was_interrupted_is_reported_as_far_as_it_got() {
    let world = World { complete: false, ..World::default() };
    let (folder, _) = facts(&world);
    let history = folder.path().join("events.jsonl");
    let whole = std::fs::read_to_string(&history).expect("history");
    std::fs::write(&history, format!("{whole}{{\"at_ms\":17")).expect("a torn line");
    std::fs::remove_file(folder.path().join("results.json")).expect("no phase has ended");
    let report = Report::of(&[read(folder.path()).expect("a run")]);
    assert_eq!(report.runs[0].summary.state, State::NotOver);
    assert!(report.runs[0].notes.is_empty(), "{:?}", report.runs[0].notes);
    let html = report.html();
    assert!(html.contains("Not over.") && html.contains("No evaluation has ended"));
    assert_nested(&html);
}

#[test]
fn what_cannot_be_read_is_said() {
    let (folder, _) = facts(&World::default());
    for file in ["events.jsonl", "held-out.jsonl"] {
        let path = folder.path().join(file);
        let mut bytes = std::fs::read(&path).expect("written");
        bytes.extend(b"{\"no\": \xff\n");
        std::fs::write(&path, bytes).expect("writable");
    }
    std::fs::write(folder.path().join("orders.1.jsonl"), "{}\n").expect("writable");
    std::fs::write(folder.path().join("host.json"), "[").expect("writable");
    std::fs::remove_file(folder.path().join("train.jsonl")).expect("it was there");
    let notes = read(folder.path()).expect("a run").notes.join("; ");
    for part in [
        "events.jsonl that cannot be read: 1",
        "orders.jsonl that cannot be read: 1",
        "held-out.jsonl that are no tasks: 1",
        "host.json",
        "(train.jsonl) are not in",
    ] {
        assert!(notes.contains(part), "{part:?} is not in {notes}");
    }
}

#[test]
fn of_a_long_log_of_orders_all_are_told() {
    let (folder, _) = facts(&World::default());
    let lines = |ids: std::ops::Range<u64>| -> String {
        let line = |id: u64, outcome: &str| {
            format!(
                "{{\"id\":{id},\"at_ms\":{id},\"who\":\"a\",\"roles\":[],\"operation\":\"drain\",\
                 \"target\":\"r\",\"detail\":\"\",\"outcome\":{outcome},\"says\":\"\"}}\n"
            )
        };
        ids.map(|id| line(id, "null") + &line(id, "\"done\"")).collect()
    };
    for (file, ids) in [("orders.1.jsonl", 0..5_100), ("orders.jsonl", 5_100..10_200)] {
        let text = lines(ids);
        assert!((1 << 20..2 << 20).contains(&text.len()), "{} bytes", text.len());
        std::fs::write(folder.path().join(file), text).expect("writable");
    }
    let deeds = read(folder.path()).expect("a run").deeds;
    assert_eq!((deeds.len(), deeds.last().map(|deed| deed.at_ms)), (10_200, Some(10_199)));
}

#[test]
fn a_run_without_evaluation_claims_nothing_about_it() {
    let html = page(&World { held_out: 0, ..World::default() });
    assert!(html.contains("No evaluation has ended"));
    assert!(!html.contains("permutation") && !html.contains("bootstrap"));
    let world = World { held_out: 0, ..World::default() };
    let (_a, one) = facts(&world);
    let (_b, other) = facts(&world);
    let html = Report::of(&[one, other]).html();
    assert!(html.contains("no evaluation of both"));
    assert!(!html.contains("permutation") && !html.contains("bootstrap"));
}

#[test]
fn an_empty_run_is_a_page_too() {
    let world = World { steps: 0, held_out: 0, complete: false, faults: false, ..World::default() };
    let (folder, _) = facts(&world);
    for file in ["events.jsonl", "results.json", "host.json", "cluster.toml", "train.jsonl"] {
        std::fs::remove_file(folder.path().join(file)).expect("it was there");
    }
    let html = Report::of(&[read(folder.path()).expect("a run")]).html();
    for part in ["No optimizer step has been made", "No episode of the training", "events.jsonl is"]
    {
        assert!(html.contains(part), "{part:?} is not on the page");
    }
    assert_nested(&html);
}

#[test]
fn what_is_no_run_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let refused = |path: &Path| read(path).expect_err("no run");
    assert!(matches!(refused(&folder.path().join("nowhere")), ReadError::NoFolder { .. }));
    let error = refused(folder.path());
    assert!(error.to_string().contains("plan.json is missing"), "{error}");
    World::default().write(folder.path());
    std::fs::remove_file(folder.path().join("run.sqlite")).expect("it was there");
    let error = refused(folder.path());
    assert!(error.to_string().contains("run.sqlite is missing"), "{error}");
    std::fs::write(folder.path().join("run.sqlite"), "no database, but long enough to look at")
        .expect("written");
    assert!(matches!(refused(folder.path()), ReadError::Store(_)));
    std::fs::write(folder.path().join("plan.json"), "{").expect("written");
    assert!(matches!(refused(folder.path()), ReadError::Plan { .. }));
}

#[test]
fn several_runs_are_overlaid_and_compared_on_the_tasks_they_share() {
    let (_a, slow) = facts(&World { held_out: 24, slope: 0.0, ..World::default() });
    let (_b, fast) = facts(&World { held_out: 24, slope: 0.07, ..World::default() });
    let (_c, bare) = facts(&World { held_out: 0, ..World::default() });
    let mut runs = [slow, fast, bare];
    runs[0].name = "slow".into();
    runs[1].name = "fast <b>".into();
    runs[2].name = "slow".into();
    let report = Report::of(&runs);
    let json = serde_json::to_value(&report).expect("numbers");
    let rows = json["comparison"]["rows"].as_array().expect("rows");
    assert_eq!(rows[0]["against_first"], "first");
    let change = &rows[1]["against_first"]["compared"];
    assert_eq!(change["n"], 24);
    assert!(change["rows"][0]["change"]["low"].as_f64().expect("an end") > 0.0, "{change}");
    assert_eq!(rows[2]["name"], "slow (2)", "runs of one name are told apart");
    assert_eq!(rows[2]["against_first"]["nothing"], "no evaluation of both");
    let chart = &json["comparison"]["charts"][0];
    assert_eq!(chart["series"].as_array().expect("lines").len(), 3);
    let html = report.html();
    assert!(html.contains("fast &lt;b&gt;") && html.contains("line s3 d3"));
    assert_nested(&html);
}

#[test]
fn curves_tell_what_was_stored() {
    let (_folder, facts) = facts(&World { slope: 0.05, ..World::default() });
    let json = serde_json::to_value(Report::of(&[facts])).expect("numbers");
    let run = &json["runs"][0];
    assert_eq!(
        (&run["summary"]["steps"], &run["summary"]["state"]),
        (&12.into(), &"complete".into())
    );
    let reward = &run["steps"][0];
    assert_eq!(
        (&reward["id"], reward["series"][0]["raw"].as_array().expect("dots").len()),
        (&"reward".into(), 12)
    );
    let band = &reward["series"][0]["band"][11];
    let end = reward["series"][0]["line"][11]["y"].as_f64().expect("a value");
    assert!(band["low"].as_f64().expect("low") < end && end < band["high"].as_f64().expect("high"));
    let habits = run["habits"].as_array().expect("stacks");
    let programs = habits.iter().find(|stack| stack["id"] == "programs").expect("programs");
    assert_eq!(programs["names"][0], "grep");
    for bar in programs["bars"].as_array().expect("bars") {
        let sum: f64 =
            bar["parts"].as_array().expect("parts").iter().filter_map(|p| p.as_f64()).sum();
        assert!((sum - 1.0).abs() < 1e-9, "shares add up to {sum}");
    }
    let spent = habits.iter().find(|stack| stack["id"] == "episode-time").expect("time");
    assert_eq!((&spent["names"][0], &spent["names"][1]), (&"generating".into(), &"tools".into()));
    let first = &spent["bars"][0]["parts"];
    let (generating, tools) = (first[0].as_f64().expect("s"), first[1].as_f64().expect("s"));
    assert!((0.47..0.58).contains(&generating) && (tools - 0.065).abs() < 1e-9, "{first}");
    let deed = &run["timeline"]["deeds"][0][1];
    assert_eq!((&deed["lasts_ms"], &deed["what"]), (&7_000.into(), &"stands still".into()));
    assert_eq!(run["kinds"]["compared"].as_array().expect("kinds").len(), 4);
    let change = &run["summary"]["compared"][0]["comparison"]["rows"][1]["change"];
    assert!(change["low"].as_f64() <= change["value"].as_f64());
}
