//! An episode under way, turn by turn as it becomes durable; and how tokens are coloured.

use std::time::{Duration, Instant};

use crossterm::event::KeyCode;
use crrl_cluster::RunDir;
use crrl_inspect::archive::{Answer, Ask, Page, Store};
use crrl_inspect::frame::Link;
use crrl_inspect::pieces::{Piece, Pieces};
use crrl_inspect::state::app::Opened;
use crrl_inspect::state::transcript::{Entry, Paint};
use crrl_inspect::state::{App, Screen, World};
use crrl_store::{Op, Options, Writer};
use crrl_types::{AdapterVersion, Digest, EpisodeId, JournalEntry, Sampled, Stop};
use ratatui::style::Color;

use crate::healthy;
use crate::keys::{press, tap};
use crate::screens::{at, seen, shows, terminal, text};
use crate::until::until;

const DEADLINE: Duration = Duration::from_secs(60);

fn wrote(said: &str) -> Entry {
    let tokens = said.split_inclusive(' ').map(|word| Piece {
        id: 1,
        text: word.to_owned(),
        logprob: Some(-0.1),
        version: Some(19),
    });
    let tokens = Pieces { pieces: tokens.collect(), left_out: 0, note: None };
    Entry::Wrote { text: said.to_owned(), tokens, stop: Stop::EndOfTurn }
}

fn shell(cmd: &str) -> String {
    let call = serde_json::json!({ "name": "shell", "arguments": { "cmd": cmd } });
    format!("<tool_call> {call} </tool_call>")
}

/// The episode of the made-up cluster that is opened first.
fn opened(world: &World) -> App {
    let mut app = App::new("test");
    press(&mut app, world, "6");
    tap(&mut app, world, KeyCode::Enter);
    assert_eq!(app.screen, Screen::Episode);
    app
}

fn journal(app: &mut App) -> &mut crrl_inspect::state::transcript::Journal {
    &mut app.opened.as_mut().expect("an episode is opened").journal
}

#[test]
fn its_turns_are_seen_as_they_come_and_the_newest_is_followed() {
    let world = healthy();
    let mut app = opened(&world);
    shows(&seen(&mut app, &world, (120, 40)), &["turn 6", "Nothing of it is durable yet"]);
    journal(&mut app).add(1, 0, vec![wrote(&format!("I look. {}", shell("cat decoder.py")))]);
    let screen = seen(&mut app, &world, (120, 40));
    shows(&screen, &["TURN 1", "I look.", "◌ shell", "cat decoder.py", "it is being carried out"]);
    let output = "if not end:\n".repeat(60);
    journal(&mut app).add(1, 1, vec![Entry::Answered { output, ok: true, wall_ms: 41 }]);
    journal(&mut app).add(1, 2, vec![wrote("That is the bug.")]);
    // The head is out of sight: the newest turn is followed.
    let screen = seen(&mut app, &world, (120, 40));
    shows(&screen, &["TURN 2", "That is the bug.", "log-probability -0.100 a token"]);
    assert!(!screen.contains("TURN 1"), "{screen}");
    press(&mut app, &world, "g");
    let screen = seen(&mut app, &world, (120, 40));
    shows(&screen, &["TURN 1", "▸ shell", "41 ms", "if not end:"]);
    journal(&mut app).add(1, 3, vec![wrote("More.")]);
    assert_eq!(screen, seen(&mut app, &world, (120, 40)), "it stays where it was put");
    press(&mut app, &world, "f");
    shows(&seen(&mut app, &world, (120, 40)), &["TURN 3", "More."]);
}

#[test]
fn a_call_that_is_not_carried_out_says_why() {
    let world = healthy();
    let mut app = opened(&world);
    let said = "<tool_call> {\"name\": \"rm\", \"arguments\": {}} </tool_call>";
    journal(&mut app).add(1, 0, vec![wrote(said)]);
    shows(&seen(&mut app, &world, (120, 40)), &["✕ rm", "not carried out: no tool is called `rm`"]);
}

#[test]
fn one_that_ends_while_it_is_looked_at_is_told_whole() {
    let world = healthy();
    let mut app = opened(&world);
    journal(&mut app).add(1, 0, vec![wrote("So far.")]);
    shows(&seen(&mut app, &world, (120, 40)), &["So far."]);
    let left = Box::new(crate::leftovers::left());
    app.opened.as_mut().expect("opened").left = Some(Ok(Some(left)));
    press(&mut app, &world, "g");
    let screen = seen(&mut app, &world, (120, 40));
    shows(
        &screen,
        &["reward 0.875", "advantage +1.250 among 8 attempts", "trained on by v14: staleness 2"],
    );
    assert!(!screen.contains("So far."), "{screen}");
}

#[test]
fn c_goes_through_what_tokens_are_coloured_by() {
    let world = healthy();
    let mut app = at(Screen::Episode, &world);
    let colours = |app: &mut App| {
        let drawn = terminal(app, &world, &Link::Live, true, (120, 40));
        let screen = text(&drawn);
        let y = screen.lines().position(|line| line.contains("I look at whoami")).expect("seen");
        let of = |x: u16| drawn.backend().buffer()[(x, y as u16)].fg;
        // "   I look" and "ami", which is the least likely token and of a later version.
        (screen, of(3), of(16))
    };
    let (screen, sure, wild) = colours(&mut app);
    shows(&screen, &["tokens by log-probability", "1/100 or more"]);
    assert_eq!((sure, wild), (Color::Reset, Color::Red));
    press(&mut app, &world, "c");
    assert_eq!(app.paint, Paint::Version);
    let (screen, old, new) = colours(&mut app);
    shows(&screen, &["tokens by adapter version", "v12  v13"]);
    assert_ne!(old, new);
    press(&mut app, &world, "c");
    let (screen, first, last) = colours(&mut app);
    shows(&screen, &["tokens by advantage", "+1.250, to be done more"]);
    assert_eq!((first, last), (Color::Green, Color::Green));
    press(&mut app, &world, "c");
    assert_eq!(app.paint, Paint::Logprob);
}

#[test]
fn text_of_every_hostile_kind_is_harmless() {
    let world = healthy();
    let mut app = opened(&world);
    let hostile = [
        "\u{1b}[2J\u{1b}]0;owned\u{7}",
        "\u{9b}31m\u{90}q\u{9c}",
        "\u{202e}\u{2066}\u{200f}\u{61c}",
        "\u{200b}\u{feff}\u{ad}\u{2060}e\u{301}",
        "\r\u{8}\u{7f}\u{0}",
    ];
    for (at, text) in hostile.into_iter().enumerate() {
        let output = format!("{text}{}", "x".repeat(10 << 20));
        journal(&mut app).add(
            1,
            2 * at as u32,
            vec![wrote(&format!("a{text}b")), Entry::Answered { output, ok: false, wall_ms: 1 }],
        );
    }
    let began = Instant::now();
    for size in [(120, 40), (20, 5), (200, 50)] {
        press(&mut app, &world, "g");
        for _ in 0..40 {
            let screen = seen(&mut app, &world, size);
            for c in screen.chars().filter(|c| *c != '\n') {
                let is_hidden = matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
                    | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{61c}' | '\u{ad}' | '\u{301}');
                assert!(!c.is_control() && !is_hidden, "{:x}", c as u32);
            }
            assert!(!screen.contains("owned"));
            tap(&mut app, &world, KeyCode::PageDown);
        }
    }
    assert!(app.len < 2_000, "fifty megabytes are cut: {}", app.len);
    assert!(began.elapsed() < DEADLINE, "{:?}", began.elapsed());
}

fn sampled(id: u32) -> Sampled {
    Sampled { id, logprob: -0.5, version: AdapterVersion(3), digest: Digest::default() }
}

fn page(store: &Store, attempt: u32, entries: u32) -> Page {
    assert!(store.ask(Ask::Journal { episode: 9, attempt, entries }));
    until("a page of the journal", || match store.answer()? {
        Answer::Journal(9, Ok(page)) => Some(page),
        other => panic!("{other:?}"),
    })
}

#[test]
fn a_journal_is_read_from_where_it_was_known_and_anew_if_another_lease_began_anew() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (say, said) = std::sync::mpsc::channel();
    let path = folder.path().join("run.sqlite");
    let writer = Writer::<u64>::start(&path, Options::default(), move |words| {
        let _ = say.send(words);
    })
    .expect("a new store");
    let write = |ops: Vec<Op>| {
        writer.submit(ops, 1).expect("open");
        assert!(said.recv_timeout(DEADLINE).expect("durable").is_ok());
    };
    let turns =
        |attempt, first, entries| Op::Turns { episode: EpisodeId(9), attempt, first, entries };
    let generated =
        |id| JournalEntry::Generated { tokens: vec![sampled(id)], stop: Stop::EndOfTurn };
    let tool = || JournalEntry::Tool { output: "a.py".into(), ok: true, wall_ms: 3 };
    let store = Store::open(&RunDir::new(folder.path())).expect("a thread");
    write(vec![turns(1, 0, vec![generated(1), tool()])]);
    let first = page(&store, 0, 0);
    assert_eq!((first.attempt, first.first, first.entries.len()), (1, 0, 2));
    assert!(matches!(&first.entries[0], Entry::Wrote { tokens, .. } if tokens.pieces.len() == 1));
    write(vec![turns(1, 2, vec![generated(2)])]);
    let second = page(&store, 1, 2);
    assert_eq!((second.first, second.entries.len()), (2, 1));
    assert_eq!(page(&store, 1, 3).entries.len(), 0, "nothing is told twice");
    write(vec![Op::ForgetTurns(EpisodeId(9)), turns(2, 0, vec![generated(3)])]);
    let anew = page(&store, 1, 3);
    assert_eq!((anew.attempt, anew.first, anew.entries.len()), (2, 0, 1));
    write(vec![Op::ForgetTurns(EpisodeId(9))]);
    assert_eq!(page(&store, 2, 1), Page::default());
}

#[test]
fn tokens_without_a_tokenizer_say_why_they_have_no_text() {
    let world = healthy();
    let mut app = opened(&world);
    let note = "tokens have no text here: tokenizer.json cannot be read".to_owned();
    let pieces = vec![Piece { id: 5, text: String::new(), logprob: None, version: None }];
    let tokens = Pieces { pieces, left_out: 0, note: Some(note) };
    let entry = Entry::Wrote { text: String::new(), tokens, stop: Stop::Length };
    journal(&mut app).add(1, 0, vec![entry]);
    shows(
        &seen(&mut app, &world, (120, 40)),
        &["TURN 1   1 tokens", "cut: it used up its tokens", "tokens have no text here"],
    );
}

#[test]
fn an_episode_that_cannot_be_read_says_so() {
    let world = healthy();
    let mut app = at(Screen::Episode, &world);
    let unreadable = Some("run.sqlite is locked".to_owned());
    app.opened = Some(Opened { episode: 40 * 190 + 3, unreadable, ..Opened::default() });
    shows(
        &seen(&mut app, &world, (120, 40)),
        &["turn 4", "at edit json/decoder.py", "cannot be read: run.sqlite is locked"],
    );
}
