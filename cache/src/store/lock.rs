//! Files that are locked for as long as a process works in a directory.

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// How long a lock is waited for. A child of a process that was killed has the lock, too, until it
/// has become the program that it was made for.
const WITHIN: Duration = Duration::from_secs(1);

/// Locks the file, for as long as it is open; answers whether it could, or somebody else has it.
/// May block for a second.
pub fn lock(file: impl AsFd) -> io::Result<bool> {
    let deadline = Instant::now() + WITHIN;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(e) => return Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn a_lock_that_is_about_to_go_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let open = || File::create(dir.path().join("lock")).unwrap();
        let (first, second, third) = (open(), open(), open());
        assert!(lock(&first).unwrap());
        assert!(!lock(&second).unwrap());
        let going = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(first);
        });
        assert!(lock(&third).unwrap());
        going.join().unwrap();
    }
}
