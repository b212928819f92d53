//! What an operator of Slipway touches: configuration and telemetry. The environment is read here
//! and in the command line, nowhere else.

pub mod config;
pub mod telemetry;
