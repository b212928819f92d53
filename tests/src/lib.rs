//! What the scenarios and the benchmarks share: the builders that they drive, the registries,
//! engines and web servers around them, hosts and the networks between them, images and trees as
//! values, and the images that stand in for those of the internet.
//!
//! Everything starts real processes, needs root, and cleans up after itself, also after a panic or
//! when the process is killed. It panics with a message that says what to do: that is what a test
//! wants.

pub mod afar;
pub mod builder;
pub mod cluster;
pub mod command;
pub mod corpus;
pub mod differential;
pub mod emulator;
pub mod engine;
pub mod faulty;
pub mod forge;
pub mod hosts;
pub mod http;
pub mod image;
pub mod layout;
pub mod mirror;
pub mod program;
pub mod registry;
pub mod roles;
pub mod scratch;
pub mod service;
pub mod site;
pub mod slipway;
pub mod soak;
pub mod standin;
pub mod tool;
pub mod tree;
