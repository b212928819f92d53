//! Large blobs that move between stores, over streams whose bytes are counted and disturbed.
//!
//! Time is paused in these tests: it goes on only when nobody has anything to do but to wait.

#[path = "../store/common.rs"]
#[allow(dead_code)]
mod common;
mod fetch;
mod harness;
mod hostile;
mod put;
