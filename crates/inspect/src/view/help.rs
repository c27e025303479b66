//! Keys, columns and filters (`?`).

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::{Scene, scroll};
use crate::state::App;

const HELP: &str = "\
# Screens
1          overview: nodes, how far the run is, who waits for whom
2          actors of every node
3          supervision: who starts whom again
4          one actor: the one under the cursor, or the last one looked at
5          trace: messages of an actor, as they are received and handled
6          rollouts: episodes under way and over; Enter opens one
7          learner: curves of the training
8          faults that were injected
9          events: the run's history
d          what is wrong, in words
# Keys
j k ↓ ↑    a row down, up            PgDn PgUp ^d ^u   a screen
g G        first, last               Enter Esc         open, back
< > r      sort column, reverse      /                 filter
:          a command by a few of its letters; Tab completes, ↓ ↑ choose
f          stay with the row, or at the newest event, message, turn
c          colour tokens by log-probability, adapter version, advantage
w          count actors over the last 5 s, a second; or since they were first started
m          the mouse: click selects, twice opens, a head sorts, the wheel moves
Space      stand still, go on        + -               draw more, less often
e          write what is shown to a JSON file
q          leave; the cluster goes on as if nobody had looked
# Traces and orders: of the actor or node under the cursor
t          trace it; Esc stops; trips off at 1000 messages, 100 a second, 60 s
S K R      stop, kill, restart       P C D             suspend, resume, drain
           Nothing is sent before its name was typed. The certificate decides who may.
# Replay
Space      play, halt                ← →               a second back, forth
# Filters: terms separated by blanks, all of which must hold
engine             a regular expression, anywhere in the row
!idle              the contrary
node:rollout-1     one field: node name type state handler; task doing; event detail
waiting>100        a number: waiting growth oldest rate busy handling restarts up; turns calls age
oldest>5s          durations in ms, s, m, h
                   Actors that failed are shown whatever the filter says.
# Columns
!          ✕ failed   ! slow (over 5 s at or for a message)   ? what is known is old
MBOX       messages from elsewhere that wait; OLDEST: how long the first has waited
ΔMBOX      by how many a second they become more, or fewer, over 5 s
MSG/s      messages handled a second, mean over 5 s; BUSY%: share of the time at one
MOST       after w: most that ever waited; MSGS: all messages; BUSY: all time at them
HANDLER    the message it is at, and for how long
RST UP     how often it was started again, and since when it runs
REPORT     age of a node's last report; grey rows have not reported for 5 s
CPU%       of its process, of one core; GPU: busy, memory, name; (+7) more of them
RTT        to the coordinator and back, over two minutes
SKEW       how far a node's clock is ahead (+) of the coordinator's or behind (-)";

/// Draws it.
pub fn draw(frame: &mut Frame<'_>, area: Rect, app: &mut App, scene: &Scene<'_>) {
    let palette = scene.palette;
    let mut lines = Vec::new();
    for line in HELP.lines() {
        match line.strip_prefix("# ") {
            Some(title) => {
                if !lines.is_empty() {
                    lines.push(Line::raw(""));
                }
                lines.push(Line::styled(format!(" {title}"), palette.accent));
            }
            None => lines.push(Line::from(vec![Span::raw("   "), Span::raw(line)])),
        }
    }
    scroll(frame, area, app, &lines);
}
