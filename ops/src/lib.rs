//! What an operator of Slipway touches: configuration, identity and telemetry. The environment is
//! read here and in the command line, nowhere else.

pub mod address;
pub mod config;
pub mod context;
mod files;
pub mod http;
pub mod identity;
pub mod names;
pub mod telemetry;
