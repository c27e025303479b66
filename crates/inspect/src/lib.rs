//! `crrl inspect`: a running cluster, watched from outside.
//!
//! It attaches with the operator's certificate, shows what the coordinator's board, the run's history
//! and the run store say, and leaves no trace. What it can change in a run it changes by orders, which the
//! coordinator allows or refuses and writes down.
//!
//! - [`text`]: what other programs wrote, made safe for a terminal
//! - [`units`]: durations, sizes and rates, for people
//! - [`frame`]: what is seen at one moment: the unit of feed and recording
//! - [`filter`]: `node:rollout waiting>100 !idle`
//! - [`state`]: pure: what is shown, folded from frames and events; time is passed in
//! - [`diagnose`]: pure: what is wrong, in plain words
//! - [`view`]: draws the state, one file a screen
//! - [`feed`]: frames of a running cluster, newest only
//! - [`desk`]: orders and a trace, asked without waiting
//! - [`tail`]: the end of the run's history
//! - [`archive`]: episodes and steps, from the run store
//! - [`past`]: what a run that is not up came to
//! - [`pieces`]: tokens as text
//! - [`recording`]: frames in a file, and back
//! - [`kept`]: what a recording keeps beside them
//! - [`collector`]: gathers that while a recording is made
//! - [`player`]: a recording as time goes by
//! - [`terminal`]: the terminal while it is ours
//! - [`source`]: where what is shown comes from
//! - [`tui`]: the loop that ties these together
//! - [`scripts`]: the same facts as data on stdout

pub mod archive;
pub mod collector;
pub mod desk;
pub mod diagnose;
pub mod error;
pub mod feed;
pub mod filter;
pub mod frame;
pub mod kept;
pub mod past;
pub mod pieces;
pub mod player;
pub mod recording;
pub mod scripts;
pub mod source;
pub mod state;
pub mod tail;
pub mod terminal;
pub mod text;
pub mod tui;
pub mod units;
pub mod view;

pub use error::InspectError;
