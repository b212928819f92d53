//! Small private files that are whole at every moment.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Bytes of a file that is read: settings, keys and certificates are far smaller.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Makes a directory, and those above it, that only its owner enters.
pub fn make_dir(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    fs::set_permissions(dir, Permissions::from_mode(0o700))
}

/// Writes a file that only its owner reads. Whoever looks meets the old one or the new one, also
/// after a power cut.
pub fn write(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    // Its mode is 0600 from the first moment on.
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(dir)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(dir.join(name)).map_err(|e| e.error)?;
    sync(dir)
}

/// Makes durable which names a directory has.
pub fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Reads a text that is not larger than anything that is written here.
pub fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        let detail = format!("it has more than {FILE_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, detail));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn files_are_private_and_replaced_whole() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a/b");
        make_dir(&dir).unwrap();
        write(&dir, "x", b"one").unwrap();
        write(&dir, "x", b"two").unwrap();
        assert_eq!(read(&dir.join("x")).unwrap(), "two");
        assert_eq!((mode(&dir), mode(&dir.join("x"))), (0o700, 0o600));
        // Nothing else is left.
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_write_leaves_what_was_there() {
        let root = tempfile::tempdir().unwrap();
        // A directory is in the file's place.
        fs::create_dir(root.path().join("x")).unwrap();
        fs::write(root.path().join("x/inside"), "").unwrap();
        assert!(write(root.path(), "x", b"new").is_err());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
        assert!(root.path().join("x/inside").exists());
    }

    #[test]
    fn large_files_are_not_read() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("x");
        fs::write(&path, vec![b'a'; FILE_BYTES_MAX as usize]).unwrap();
        assert!(read(&path).is_ok());
        fs::write(&path, vec![b'a'; FILE_BYTES_MAX as usize + 1]).unwrap();
        assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
