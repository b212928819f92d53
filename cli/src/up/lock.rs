//! One farm for each state directory: whoever holds the lock file is it.

use rustix::fs::FlockOperation;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;

/// The lock of a state directory. It is given up when the process ends, however it ends.
pub struct Lock {
    _file: File,
}

fn open(home: &Path) -> io::Result<File> {
    let path = home.join("farm.lock");
    File::options().read(true).write(true).create(true).truncate(false).open(path)
}

impl Lock {
    /// Takes the lock; none when another process holds it. That of a process that has gone is waited
    /// for.
    pub fn take(home: &Path) -> io::Result<Option<Self>> {
        let mut file = open(home)?;
        let is_free = match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) if lives(&mut file) => false,
            Err(rustix::io::Errno::WOULDBLOCK) => cache::store::lock(&file)?,
            other => other.map(|()| true)?,
        };
        if !is_free {
            return Ok(None);
        }
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Some(Self { _file: file }))
    }
}

/// The process that holds the lock; none when nobody does, or when it is just about to write down
/// who it is.
pub fn holder(home: &Path) -> Option<i32> {
    let mut file = File::open(home.join("farm.lock")).ok()?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Err(rustix::io::Errno::WOULDBLOCK) => {}
        _ => return None,
    }
    read_pid(&mut file)
}

fn read_pid(file: &mut File) -> Option<i32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Whether the process that took the lock last is there, or has not written down yet who it is.
fn lives(file: &mut File) -> bool {
    let pid = read_pid(file).and_then(rustix::process::Pid::from_raw);
    pid.is_none_or(|pid| rustix::process::test_kill_process(pid).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_has_it() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(holder(home.path()), None);
        let lock = Lock::take(home.path()).unwrap().unwrap();
        assert!(Lock::take(home.path()).unwrap().is_none());
        assert_eq!(holder(home.path()), Some(std::process::id() as i32));
        drop(lock);
        assert_eq!(holder(home.path()), None);
        assert!(Lock::take(home.path()).unwrap().is_some());
    }
}
