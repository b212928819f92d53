//! Images at their real boundary: a real registry, a server that misbehaves, and other people's
//! tools.

mod faults;
mod pull;
mod push;
mod sample;
mod secure;
mod server;
mod setup;
mod tools;
