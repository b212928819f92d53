//! How a store is opened.

use proto::id::Millis;
use std::fs::File;
use std::io;
use std::time::{Duration, SystemTime};

/// How a store is opened. The default collects only when asked to.
#[derive(Debug, Clone)]
pub struct Options {
    pub(super) budget: Option<u64>,
    pub(super) limit: Option<u64>,
    pub(super) keep_free: u64,
    pub(super) automatic: bool,
    pub(super) segment_bytes: u64,
    pub(super) node_cache_bytes: u64,
    pub(super) hooks: Hooks,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            budget: None,
            limit: None,
            keep_free: 64 << 20,
            automatic: false,
            segment_bytes: 256 << 20,
            node_cache_bytes: 64 << 20,
            hooks: Hooks::default(),
        }
    }
}

impl Options {
    /// Above this many bytes the store is to be collected, down to nine tenths of it. A soft bound:
    /// what is pinned or rooted stays.
    pub fn budget(mut self, bytes: u64) -> Self {
        self.budget = Some(bytes);
        self
    }

    /// Above this many bytes nothing more is taken: [`StoreError::Full`](super::StoreError::Full).
    pub fn limit(mut self, bytes: u64) -> Self {
        self.limit = Some(bytes);
        self
    }

    /// How many bytes of the disk to leave free, so that the index can always write: 64 MiB if not
    /// said.
    pub fn keep_free(mut self, bytes: u64) -> Self {
        self.keep_free = bytes;
        self
    }

    /// Collects in the background, in a thread of the store's own, when the budget is exceeded or
    /// the disk is nearly full.
    pub fn collect_automatically(mut self) -> Self {
        self.automatic = true;
        self
    }

    /// How large a file of packed blobs grows: 256 MiB if not said, at least 1 MiB, at most 2 GiB.
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes.clamp(1 << 20, 2 << 30);
        self
    }

    /// How many bytes of decoded tree nodes to remember: 64 MiB if not said.
    pub fn node_cache_bytes(mut self, bytes: u64) -> Self {
        self.node_cache_bytes = bytes;
        self
    }

    /// For tests: takes the place of the clock and of the disk's promises.
    #[doc(hidden)]
    pub fn hooks(mut self, hooks: Hooks) -> Self {
        self.hooks = hooks;
        self
    }
}

/// What a test can take the place of.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct Hooks {
    /// The time.
    pub now: fn() -> Millis,
    /// `fdatasync`.
    pub sync: fn(&File) -> io::Result<()>,
    /// Called before each named step that a crash could come between.
    pub step: fn(&'static str),
}

impl Default for Hooks {
    fn default() -> Self {
        Self { now, sync: File::sync_data, step: |_| {} }
    }
}

fn now() -> Millis {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Millis(since.unwrap_or(Duration::ZERO).as_millis() as u64)
}
