//! What is shown, folded from frames and events. Pure: time is passed in.
//!
//! - [`world`]: the cluster as seen, with what only time tells: rates, ages, since when
//! - [`window`]: counters of an actor over the last minute
//! - [`nodes`], [`actors`], [`tree`], [`episodes`], [`history`]: the rows of each table
//! - [`list`]: where a person is in a table
//! - [`screens`]: what can be looked at
//! - [`app`]: what the person does: screens, cursors, filters, keys
//! - [`keys`]: which key does what

pub mod actors;
pub mod app;
pub mod episodes;
pub mod history;
pub mod keys;
pub mod list;
pub mod nodes;
pub mod screens;
pub mod tree;
pub mod window;
pub mod world;

pub use app::App;
pub use screens::Screen;
pub use world::World;
