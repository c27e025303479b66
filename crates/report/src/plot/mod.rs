//! From numbers to SVG. Colours are the page's: everything here has a class and no colour of its
//! own, so that one drawing serves light, dark and paper. Pure.
//!
//! - [`scale`]: from values to places, and round numbers between
//! - [`svg`]: elements of a drawing
//! - [`frame`]: axes and grid
//! - [`lines`]: curves with dots and bands
//! - [`stack`]: parts on top of each other
//! - [`timeline`]: a stack over wall time with marks of faults
//! - [`dumbbell`]: before and after, a row each
//!
//! Lines differ in dashes and not in colour alone; every drawing has a title and a description.

pub mod dumbbell;
pub mod frame;
pub mod lines;
pub mod scale;
pub mod stack;
pub mod svg;
pub mod timeline;

/// Colours of the page; further series begin again.
pub const COLOURS: usize = 8;

/// The class that gives a series its colour.
#[must_use]
pub fn colour(series: usize) -> usize {
    series % COLOURS + 1
}
