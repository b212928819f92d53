//! RocksDB's own check of all its files, which its Rust API does not have.
//!
//! A checkpoint of the index (hard links of its tables, copies of its log and manifest) is opened
//! by a second RocksDB, read-only and with nothing cached: so what is on disk is read, and the log
//! is replayed with no tolerance for bad records. Then `VerifyChecksum` reads every block of every
//! table, filters and properties too.

use super::rocks::{Cf, Index};
use librocksdb_sys as ffi;
use std::ffi::{CStr, CString, c_char};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

/// Checks all files of the index; `at` is a name for the checkpoint, on the same file system.
/// Answers what RocksDB found, in its words.
pub(super) fn verify(index: &Index, at: &Path) -> Result<(), String> {
    check_current(index)?;
    let _cleanup = Cleanup(at);
    // Any size but zero: do not flush, so that the log itself is checked.
    rocksdb::checkpoint::Checkpoint::new(&index.db)
        .and_then(|checkpoint| checkpoint.create_checkpoint_with_log_size(at, u64::MAX))
        .map_err(|error| error.into_string())?;
    let open = Open::new(at)?;
    let mut error = ptr::null_mut();
    // SAFETY: the database is open until `open` is dropped; the error is taken over below.
    unsafe { ffi::rocksdb_verify_checksum(open.db, &raw mut error) };
    take_error(error)
}

/// The checkpoint has a `CURRENT` of its own: the real one names the manifest of the next start.
fn check_current(index: &Index) -> Result<(), String> {
    let path = index.path.join("CURRENT");
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let name = text.strip_suffix('\n').filter(|name| name.starts_with("MANIFEST-"));
    match name.filter(|name| index.path.join(name).is_file()) {
        Some(_) => Ok(()),
        None => Err(format!("{} does not name a manifest", path.display())),
    }
}

struct Cleanup<'a>(&'a Path);

impl Drop for Cleanup<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.0);
    }
}

/// A database that is open for reading, in RocksDB's C API.
struct Open {
    db: *mut ffi::rocksdb_t,
    families: Vec<*mut ffi::rocksdb_column_family_handle_t>,
    options: *mut ffi::rocksdb_options_t,
}

impl Open {
    fn new(path: &Path) -> Result<Self, String> {
        let path = CString::new(path.as_os_str().as_bytes()).map_err(|e| e.to_string())?;
        let names = Cf::ALL.map(|cf| CString::new(cf.name()).expect("names have no NUL"));
        let names: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        let mut families = vec![ptr::null_mut(); names.len()];
        let mut error = ptr::null_mut();
        // SAFETY: plain constructor and setters on the options that it made.
        let options = unsafe {
            let options = ffi::rocksdb_options_create();
            ffi::rocksdb_options_set_paranoid_checks(options, 1);
            let absolute = ffi::rocksdb_absolute_consistency_recovery as i32;
            ffi::rocksdb_options_set_wal_recovery_mode(options, absolute);
            // Any will do: counters are carried along, not added up.
            ffi::rocksdb_options_set_uint64add_merge_operator(options);
            options
        };
        let all_options = vec![options.cast_const(); names.len()];
        // SAFETY: names, options and handles are arrays of the length given, and the strings end
        // with NUL and outlive the call. RocksDB copies the options.
        let db = unsafe {
            ffi::rocksdb_open_for_read_only_column_families(
                options,
                path.as_ptr(),
                names.len() as i32,
                names.as_ptr(),
                all_options.as_ptr(),
                families.as_mut_ptr(),
                0,
                &raw mut error,
            )
        };
        if db.is_null() {
            families.clear();
        }
        let open = Self { db, families, options };
        take_error(error)?;
        Ok(open)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // SAFETY: each was made by RocksDB, is not null and is destroyed once; handles go before
        // the database that they belong to.
        unsafe {
            for family in self.families.drain(..) {
                ffi::rocksdb_column_family_handle_destroy(family);
            }
            if !self.db.is_null() {
                ffi::rocksdb_close(self.db);
            }
            ffi::rocksdb_options_destroy(self.options);
        }
    }
}

/// What RocksDB wrote into an error pointer.
fn take_error(error: *mut c_char) -> Result<(), String> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: RocksDB hands out a string that ends with NUL and was allocated with malloc, and
    // leaves it to us.
    unsafe {
        let text = CStr::from_ptr(error).to_string_lossy().into_owned();
        ffi::rocksdb_free(error.cast());
        Err(text)
    }
}
