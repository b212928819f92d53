//! Room for what is on its way into the store: asked for before anything is written.

use crate::store::StoreError;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of file system and index that a blob costs beside its own, about.
const OVERHEAD: u64 = 256;

/// What there is room for.
pub(super) struct Space {
    root: PathBuf,
    limit: Option<u64>,
    keep_free: u64,
    reserved: AtomicU64,
}

/// Room that was asked for; given back when dropped, which is when it was used.
pub(super) struct Reservation<'a> {
    space: &'a Space,
    bytes: u64,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.space.reserved.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// The store may not grow.
    Limit,
    /// The disk has only so many bytes free.
    Disk(u64),
}

impl Space {
    pub fn new(root: &Path, limit: Option<u64>, keep_free: u64) -> Self {
        Self { root: root.to_owned(), limit, keep_free, reserved: AtomicU64::new(0) }
    }

    /// Bytes of the disk that nobody uses, as far as the system says.
    pub fn free(&self) -> Option<u64> {
        let stat = rustix::fs::statvfs(&self.root).ok()?;
        Some(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// How many bytes must become free until the disk has twice the room that is kept.
    pub fn shortage(&self) -> u64 {
        self.free().map_or(0, |free| (2 * self.keep_free).saturating_sub(free))
    }

    /// Asks for room for `number` blobs of `bytes` bytes, in a store that has `held` bytes now.
    pub fn reserve(&self, number: usize, bytes: u64, held: u64) -> Result<Reservation<'_>, NoRoom> {
        let bytes = bytes + OVERHEAD * number as u64;
        let reserved = self.reserved.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let reservation = Reservation { space: self, bytes };
        let free = self.free();
        match fits(reserved, held, self.limit, free, self.keep_free) {
            Some(why) => Err(why),
            None => Ok(reservation),
        }
    }

    /// The error for the caller.
    pub fn full(&self, why: NoRoom, bytes: u64) -> StoreError {
        let detail = match why {
            NoRoom::Limit => format!(
                "{bytes} bytes more would go over the limit of {} bytes. \
                 Prune the cache, or raise the limit",
                self.limit.unwrap_or_default()
            ),
            NoRoom::Disk(free) => format!(
                "{bytes} bytes are to be written, the disk has {free} bytes free, and {} of them \
                 are kept for the index. Make room on the disk, or prune the cache",
                self.keep_free
            ),
        };
        StoreError::Full { path: self.root.clone(), detail }
    }
}

/// Why `reserved` bytes more do not fit, if they do not.
fn fits(
    reserved: u64,
    held: u64,
    limit: Option<u64>,
    free: Option<u64>,
    keep_free: u64,
) -> Option<NoRoom> {
    if limit.is_some_and(|limit| held.saturating_add(reserved) > limit) {
        return Some(NoRoom::Limit);
    }
    let free = free?;
    (reserved.saturating_add(keep_free) > free).then_some(NoRoom::Disk(free))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_what_limit_and_disk_leave() {
        assert_eq!(fits(10, 90, Some(100), Some(1000), 0), None);
        assert_eq!(fits(11, 90, Some(100), Some(1000), 0), Some(NoRoom::Limit));
        assert_eq!(fits(10, 90, None, Some(110), 100), None);
        assert_eq!(fits(11, 90, None, Some(110), 100), Some(NoRoom::Disk(110)));
        assert_eq!(fits(u64::MAX, 1, None, None, 0), None);
    }

    #[test]
    fn what_is_reserved_counts_until_it_is_dropped() {
        let space = Space::new(Path::new("/"), Some(3000), 0);
        let first = space.reserve(1, 2000, 0).ok();
        assert!(first.is_some());
        assert_eq!(space.reserve(1, 2000, 0).err(), Some(NoRoom::Limit));
        drop(first);
        assert!(space.reserve(1, 2000, 0).is_ok());
        let message = space.full(NoRoom::Limit, 7).to_string();
        assert!(message.contains("limit of 3000 bytes"), "{message}");
    }
}
