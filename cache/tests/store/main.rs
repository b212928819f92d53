//! The store on disk, from outside.

mod chunks;
mod collect;
mod common;
mod damage;
mod files;
mod full;
mod nodes;
mod open;
mod place;
mod power;
mod stress;
mod twin;
