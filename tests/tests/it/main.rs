//! All scenarios: one binary, one module each.

mod bad_input;
mod cache;
mod conformance;
mod crash;
mod damage;
mod farm;
mod farm_store;
mod hosts;
mod images;
mod lifetime;
mod limits;
mod network;
mod outputs;
mod programs;
mod progress;
mod registries;
mod secrets;
mod seeds;
mod tools;
