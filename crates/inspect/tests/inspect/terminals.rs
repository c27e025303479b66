//! The viewer in a terminal: what it leaves behind, whatever happens to it.

use std::fmt::Write as _;

use crossterm::event;
use crrl_cluster::RunDir;
use crrl_inspect::terminal::Screen;
use crrl_inspect::tui;

use crate::tmux::Pane;
use crate::{live, past};

/// Name of the run folder for a viewer that is started in a terminal.
const RUN: &str = "CRRL_TEST_RUN";

/// The command that runs one of the tests below in a terminal.
fn this(test: &str, run: Option<&RunDir>) -> String {
    let program = std::env::current_exe().expect("a program");
    let mut command = String::new();
    if let Some(run) = run {
        write!(command, "{RUN}='{}' ", run.path().display()).expect("in memory");
    }
    write!(command, "'{}' --exact terminals::{test} --ignored --nocapture", program.display())
        .expect("in memory");
    command
}

#[test]
#[ignore = "is run by others of these tests, in a terminal"]
fn the_viewer() {
    let run = std::env::var_os(RUN).expect("is told");
    tui::watch(&RunDir::new(run), None, true).expect("it can be shown");
}

#[test]
#[ignore = "is run by others of these tests, in a terminal"]
fn one_that_panics() {
    let mut screen = Screen::open().expect("a terminal");
    screen.point(true).expect("a terminal");
    screen.tty.draw(|frame| frame.render_widget("TAKEN OVER", frame.area())).expect("drawn");
    event::read().expect("a key");
    panic!("this was to be expected");
}

#[test]
fn a_panic_gives_the_terminal_back_and_its_words_are_seen() {
    let command = format!("{}; stty -a", this("one_that_panics", None));
    let Some(pane) = Pane::open((100, 40), &std::env::temp_dir(), &command) else { return };
    pane.until(&["TAKEN OVER"]);
    assert_eq!(pane.knows("#{alternate_on}#{cursor_flag}#{mouse_any_flag}"), "101");
    pane.keys(&["x"]);
    let text = pane.until(&["this was to be expected", "ENDED"]);
    assert_eq!(pane.knows("#{alternate_on}#{cursor_flag}#{mouse_any_flag}"), "010", "{text}");
    assert!(text.contains(" icanon") && text.contains(" echo "), "still raw:\n{text}");
    assert!(!text.contains("TAKEN OVER"), "{text}");
}

#[test]
fn a_run_that_is_over_is_read_in_a_terminal_and_left() {
    let (_folder, run) = past::folder();
    let command = this("the_viewer", Some(&run));
    let Some(pane) = Pane::open((120, 40), run.path(), &command) else { return };
    pane.until(&["the run is over: 3 steps", "read from its folder", "2 trained"]);
    pane.keys(&["6"]);
    pane.until(&["json-decoder-negation-13", "0.875"]);
    pane.keys(&["G", "Enter"]);
    pane.until(&["TURN 1", "I look at whoami", "trained on by v2"]);
    pane.types("S");
    let deaf = "the run is not up: nothing of it can be traced or changed";
    pane.until(&[deaf]);
    // What is shown stands still, and what is said goes all the same.
    pane.types(" ");
    pane.until(&["‖ paused"]);
    pane.until_that("the notice to go", |text| !text.contains(deaf));
    pane.keys(&["q"]);
    pane.until(&["ENDED 0"]);
}

#[test]
fn a_storm_of_resizes_is_survived_and_the_cluster_never_hears_of_it() {
    let live = live::live();
    let command = this("the_viewer", Some(&live.run));
    let Some(pane) = Pane::open((120, 40), live.run.path(), &command) else { return };
    pane.until(&["● live", "rollout-1"]);
    pane.keys(&["2"]);
    for turn in 0..60_u16 {
        pane.resize(20 + turn * 7 % 180, 5 + turn * 3 % 45);
    }
    pane.resize(20, 5);
    pane.until_that("a small screen", |text| text.contains("NA") && text.contains("MB"));
    pane.resize(120, 40);
    pane.until(&["HANDLER(age)", "parameter-serv", "● live"]);
    pane.types("m");
    pane.until_that("the mouse", |_| pane.knows("#{mouse_any_flag}") == "1");
    pane.types("m");
    pane.until_that("no mouse", |_| pane.knows("#{mouse_any_flag}") == "0");
    pane.keys(&["q"]);
    pane.until(&["ENDED 0"]);
    assert_eq!(pane.knows("#{alternate_on}#{cursor_flag}"), "01");
}
