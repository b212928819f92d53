//! Random Dockerfiles and contexts, built by Slipway and by another builder: what comes out has to
//! be the same.
//!
//! Each [`Case`] is made from its seed, is written as a case of the conformance corpus, recorded
//! from the peer and run by Slipway with the corpus' own runner. What differs is made smaller
//! ([`minimise`]) until nothing can be left out; it then belongs into `tests/conformance`, recorded
//! from the builder that the corpus is from.

mod case;
mod generate;
mod minimise;
mod pair;
mod peer;
mod words;

pub use case::{Case, Instruction, Node};
pub use generate::generate;
pub use minimise::minimise;
pub use pair::{Difference, Pair, Verdict};
pub use peer::{Language, Peer};
