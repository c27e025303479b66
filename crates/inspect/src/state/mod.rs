//! What is shown, folded from frames and events. Pure: time is passed in.
//!
//! - [`world`]: the cluster as seen, with what only time tells: rates, ages, since when
//! - [`window`]: counters of an actor over the last minute
//! - [`nodes`], [`actors`], [`tree`], [`episodes`], [`history`]: the rows of each table
//! - [`list`]: where a person is in a table
//! - [`screens`]: what can be looked at
//! - [`transcript`]: one episode, turn by turn
//! - [`trace`]: messages of one actor
//! - [`snapshot`]: what one actor has published of its state
//! - [`app`]: where the person is: screens, cursors, filters
//! - [`command`], [`actions`], [`aim`]: what can be asked for, of what, and what that does
//! - [`keys`], [`mouse`]: which key, which click does what
//! - [`asking`], [`orders`]: what is typed at the bottom: filters, commands, names
//! - [`fuzzy`]: names by a few of their letters

pub mod actions;
pub mod actors;
pub mod aim;
pub mod app;
pub mod asking;
pub mod command;
pub mod episodes;
pub mod fuzzy;
pub mod history;
pub mod keys;
pub mod list;
pub mod mouse;
pub mod nodes;
pub mod orders;
pub mod screens;
pub mod snapshot;
pub mod trace;
pub mod transcript;
pub mod tree;
pub mod window;
pub mod world;

pub use app::App;
pub use screens::Screen;
pub use world::World;
