//! All scenarios: one binary, one module each.

mod cache;
mod conformance;
mod farm;
mod images;
mod lifetime;
mod network;
mod outputs;
mod registries;
mod secrets;
mod tools;
