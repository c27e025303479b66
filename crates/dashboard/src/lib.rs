//! `crrl dashboard`: runs in a browser, under way or over, several side by side.
//!
//! ```text
//! cluster -> inspect::Feed -> World  \
//!                                     Run -> api (JSON), pulse (server-sent events) -> web/
//! folder  -> report::Facts -> Model  /
//! ```
//!
//! - [`server`]: binds loopback, answers requests, ends with its caller
//! - [`gate`]: who is let in, and what every answer forbids the browser. Pure
//! - [`token`]: the secret of one dashboard
//! - [`assets`]: the page, embedded
//! - [`run`]: one run: its folder, its facts, its cluster
//! - [`watch`]: the thread that follows a run
//! - [`pulse`]: what every viewer is sent once a second. Pure
//! - [`viewers`]: server-sent events, bounded for each viewer
//! - [`followers`]: the same of one episode under way
//! - [`under_way`]: what is said of such an episode. Pure
//! - [`api`]: what scripts and the page ask for, as JSON
//! - [`excerpt`]: texts of models and tools, cut to a bound. Pure
//! - [`patch`]: patches, line by line. Pure
//! - [`opener`]: shows the page in the person's browser
//!
//! It changes nothing in a run and sends nothing to a cluster. Facts, curves and judgements are those
//! of the report and of the inspector; nothing is computed twice here.

pub mod api;
pub mod assets;
pub mod excerpt;
pub mod followers;
pub mod gate;
pub mod opener;
pub mod patch;
pub mod pulse;
pub mod run;
pub mod server;
pub mod token;
pub mod under_way;
pub mod viewers;
pub mod watch;

pub use server::{Dashboard, StartError};
