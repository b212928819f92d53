//! The union against a plain reference, histories against all interleavings, and the rules by
//! example.

mod admit;
mod history;
pub(crate) mod model;
mod reference;
mod rules;
mod scale;
mod trim;
mod union;
