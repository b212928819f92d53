//! Cache mounts (`RUN --mount=type=cache`) that steps on several machines use at the same time.
//!
//! A *generation* is one immutable tree of a mount; the *head* is the newest one. A step begins
//! with the head's files, and works on a copy of its own. When it ends, what it left goes through
//!
//! 1. [`admit()`], where it ran: what must not be in a cache is taken out, what only looks like a
//!    change is undone;
//! 2. [`History::commit`], at the coordinator: when no other step was faster, it is the new head;
//!    else the mount's [`Policy`] decides, which [`Rules`] knows;
//! 3. [`union()`], when both are to be kept: file by file, so that it does not matter who was
//!    faster;
//! 4. [`trim()`], before any tree becomes a generation: it may be over the mount's cap.
//!
//! The files that a mount begins with (`from=`) are admitted too, as if a step had added them.
//!
//! Everything here is pure, and about trees: nodes are asked for, and the nodes that were made are
//! given back. Directories that two trees have in common are never read. What users see of it is in
//! `docs/cache-mounts.md`.
//!
//! Any content of a cache is legal, the empty one too. So whatever goes wrong with a mount (a node
//! that is gone, a directory with more entries than one can have) costs time at most: the step that
//! used it has succeeded, and its changes to the cache may be dropped.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod admit;
mod generation;
mod history;
mod lines;
mod order;
mod policy;
mod rules;
mod secrets;
#[cfg(test)]
pub(crate) mod tests;
mod told;
mod trim;
mod union;
mod walk;

pub use admit::{Admitted, Refused, Why, admit, group};
pub use generation::{Generation, How, measure};
pub use history::{History, KEPT_MAX, Locked, NoGeneration};
pub use lines::LINES_BYTES_MAX;
pub use policy::{Action, Deletes, Trim};
pub use proto::mount::{
    Decision, Dropped, Ended, Measured, Merge, Policy, PolicyError, Start, Use,
};
pub use rules::{Place, Row, Rules, TABLE};
pub use secrets::SECRETS;
pub use told::{TOLD_MAX, Told};
pub use trim::{Trimmed, trim};
pub use union::{United, union};
