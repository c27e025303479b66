//! Screen 5: a trace, from its beginning to what ended it.

use crossterm::event::KeyCode;
use crrl_inspect::state::keys::Effect;
use crrl_inspect::state::{App, Screen, World};
use crrl_types::{
    OrderAnswer, Outcome, Target, TraceEnd, TraceEvent, TraceRequest, TraceStop, Traced,
};

use crate::keys::{press, tap};
use crate::screens::{seen, shows};
use crate::{healthy, scene};

fn event(n: u64) -> TraceEvent {
    TraceEvent {
        at_ms: scene::BEGIN_MS + n * 7,
        node: "rollout-0".into(),
        actor: "engine".into(),
        message: format!("Generate{n}"),
        from: n.is_multiple_of(2).then(|| "coordinator".into()),
        handled_us: (!n.is_multiple_of(3)).then_some(n * 1_250),
    }
}

fn begin(app: &mut App, world: &World) -> TraceRequest {
    press(app, world, "2/node:rollout-0 engine");
    tap(app, world, KeyCode::Enter);
    match press(app, world, "t") {
        Effect::Trace(request) => request,
        other => panic!("no trace was begun: {other:?}"),
    }
}

fn running(app: &mut App, world: &World) -> TraceRequest {
    let request = begin(app, world);
    app.trace_answered(&request, Ok(OrderAnswer::new(Outcome::Done, "begun")), world.now_ms());
    request
}

#[test]
fn t_traces_the_actor_under_the_cursor_and_events_stream_in() {
    let (mut app, world) = (App::new("test"), healthy());
    let request = begin(&mut app, &world);
    assert_eq!(request, TraceRequest::of(Target::actor("rollout-0", "engine")));
    assert_eq!(app.screen, Screen::Trace);
    shows(
        &seen(&mut app, &world, (80, 24)),
        &["rollout-0/engine", "asked for", "No message has come"],
    );
    app.trace_answered(&request, Ok(OrderAnswer::new(Outcome::Done, "begun")), world.now_ms());
    app.traced(Traced::Events((0..50).map(event).collect()), world.now_ms());
    let screen = seen(&mut app, &world, (80, 24));
    shows(
        &screen,
        &["● rollout-0/engine", "50 of 1000 messages", "50 a second, at most 100", "of 1m00s"],
    );
    shows(&screen, &["ACTOR", "MESSAGE", "TOOK", "Generate49", "handled", "received", "61.25 ms"]);
    assert!(!screen.contains("Generate10 "), "the newest are seen:\n{screen}");
    press(&mut app, &world, "g");
    app.traced(Traced::Events((50..60).map(event).collect()), world.now_ms());
    shows(&seen(&mut app, &world, (80, 24)), &["Generate0 "]);
    press(&mut app, &world, "G");
    shows(&seen(&mut app, &world, (80, 24)), &["Generate59"]);
}

#[test]
fn what_trips_it_off_is_seen_and_t_begins_anew() {
    for (why, says) in [
        (TraceStop::Rate, "tripped off: more events a second than the trace may have"),
        (TraceStop::Count, "tripped off: as many events as the trace may have"),
        (TraceStop::Time, "tripped off: its time is over"),
        (TraceStop::Gone, "tripped off: the node has left or was lost"),
    ] {
        let (mut app, world) = (App::new("test"), healthy());
        let request = running(&mut app, &world);
        app.traced(Traced::Events((0..5).map(event).collect()), world.now_ms());
        app.traced(Traced::End(TraceEnd { why, events: 5 }), world.now_ms());
        shows(
            &seen(&mut app, &world, (80, 24)),
            &[&format!("■ rollout-0/engine  {says}"), "Generate4"],
        );
        assert_eq!(press(&mut app, &world, "t"), Effect::Trace(request));
        shows(&seen(&mut app, &world, (80, 24)), &["asked for", "0 of 1000"]);
    }
}

#[test]
fn esc_stops_it_and_only_then_leads_back() {
    let (mut app, world) = (App::new("test"), healthy());
    running(&mut app, &world);
    assert_eq!(tap(&mut app, &world, KeyCode::Esc), Effect::EndTrace);
    shows(&seen(&mut app, &world, (80, 24)), &["■ rollout-0/engine  stopped"]);
    assert_eq!(tap(&mut app, &world, KeyCode::Esc), Effect::None);
    assert_eq!(app.screen, Screen::Actors);
    assert_eq!(press(&mut app, &world, "5"), Effect::None);
    assert_eq!(app.screen, Screen::Trace, "what was traced stays");
}

#[test]
fn a_refusal_is_told_plainly() {
    let (mut app, world) = (App::new("test"), healthy());
    let request = begin(&mut app, &world);
    let answer = OrderAnswer::new(Outcome::Denied, "this certificate is for nothing");
    app.trace_answered(&request, Ok(answer), world.now_ms());
    let says = "✕ rollout-0/engine  refused: denied: this certificate is for nothing";
    shows(&seen(&mut app, &world, (80, 24)), &[says]);
}

#[test]
fn events_of_the_trace_before_are_not_taken_for_those_of_this_one() {
    let (mut app, world) = (App::new("test"), healthy());
    running(&mut app, &world);
    press(&mut app, &world, "t");
    app.traced(Traced::Events((0..5).map(event).collect()), world.now_ms());
    shows(&seen(&mut app, &world, (80, 24)), &["0 of 1000 messages"]);
}

#[test]
fn hostile_names_do_not_reach_the_terminal() {
    let (mut app, world) = (App::new("test"), healthy());
    running(&mut app, &world);
    let hostile = TraceEvent { message: "a\u{1b}]0;owned\u{7}\u{202e}b".into(), ..event(4) };
    app.traced(Traced::Events(vec![hostile]), world.now_ms());
    let screen = seen(&mut app, &world, (80, 24));
    assert!(!screen.contains("owned") && !screen.contains('\u{202e}') && screen.contains("ab"));
}
