//! The progress display of `slipway build`, as people know it from BuildKit.
//!
//! [`Display`] is the shell: a thread that takes the events of a build and writes to standard
//! error. All decisions are in pure modules, from the outside inwards: [`session`] (events in,
//! text out), the four forms ([`tty`] with [`screen`], [`plain`], [`rawjson`], and quiet, which
//! has nothing), [`report`] (what is said at the end), [`model`] (what is known of the build, with
//! the [`tail`] of each log), and [`text`] (which makes what others wrote harmless).
//!
//! Results, such as an image's id, are not the display's: they go to standard output.

mod backlog;
mod display;
mod format;
mod model;
mod palette;
mod plain;
mod rawjson;
pub mod report;
mod screen;
mod session;
mod settings;
mod tail;
#[cfg(test)]
mod testing;
pub mod text;
mod tty;

pub use display::Display;
pub use settings::{Mode, Settings, StartError};
