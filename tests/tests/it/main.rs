//! All scenarios: one binary, one module each.

mod afar;
mod bad_input;
mod cache;
mod caches;
mod check;
mod cluster;
mod conformance;
mod crash;
mod damage;
mod farm;
mod farm_store;
mod hosts;
mod images;
mod layouts;
mod lifetime;
mod limits;
mod network;
mod operations;
mod outputs;
mod programs;
mod progress;
mod registries;
mod secrets;
mod seeds;
mod ssh;
mod tools;
