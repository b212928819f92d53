//! Files that hold whole images: OCI layouts and what `docker save` writes.
//!
//! An archive is first a *plan*: what stands in it, in order, with small documents inline and large
//! blobs by name. In the farm the coordinator plans, and the client writes the file while it fetches
//! the blobs ([`write_tar`], [`write_dir`]).

mod files;
mod load;
mod plan;
#[cfg(test)]
mod tests;
mod write;

pub(super) use files::open_inside;
pub(super) use load::{Layout, REF_NAME};
pub use load::{LoadError, Loaded, Source, load};
pub use plan::{PlanError, artifact, plan, plan_all};
pub use write::{WriteError, head, write_dir, write_tar};
