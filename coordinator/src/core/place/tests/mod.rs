//! The placer: an example for each rule here, what holds of all of them beside.

mod farm;
mod properties;
mod reasons;
mod rules;
mod turns;
