//! `--chown` and USER: names and numbers of users and groups, looked up in a tree.

use super::edit::Editor;
use super::nodes::TreeError;
use std::num::{IntErrorKind, ParseIntError};

/// The owner of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
}

/// Bytes of `/etc/passwd` or `/etc/group` that are looked at.
const USER_FILE_BYTES_MAX: usize = 10 << 20;

/// The owner that `user[:group]` names. A user's number is its group's number too, unless there is a
/// colon; `root` is 0 everywhere, and so is a name that the tree does not know, as in BuildKit. In an
/// empty tree, such as `FROM scratch` and `--link` begin with, no other name can be looked up.
pub fn lookup(editor: &mut Editor<'_>, text: &str) -> Result<Owner, TreeError> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let mut owner = Owner { uid: 0, gid: 0 };
    if let Some(number) = number(user) {
        owner = Owner { uid: number, gid: number };
    } else if let Some([uid, gid]) = find(editor, "/etc/passwd", user, [2, 3])? {
        owner = Owner { uid, gid };
    }
    if let Some(group) = group {
        owner.gid = match number(group) {
            Some(number) => number,
            None => find(editor, "/etc/group", group, [2, 2])?.map_or(owner.gid, |g| g[0]),
        };
    }
    Ok(owner)
}

/// A number of `/etc/passwd` or `/etc/group`, as Go's `strconv.Atoi` gives it whose error nobody looks
/// at: 0 for what is none, and the nearest that there is for what is too large.
pub fn lenient_number(text: &str) -> i64 {
    text.parse().unwrap_or_else(|e: ParseIntError| match e.kind() {
        IntErrorKind::PosOverflow => i64::MAX,
        IntErrorKind::NegOverflow => i64::MIN,
        _ => 0,
    })
}

/// What needs no file. Numbers are those of an `int32`; nothing at all is root's.
fn number(text: &str) -> Option<u32> {
    match text {
        "" | "root" => Some(0),
        text => text.parse::<i32>().ok().and_then(|number| number.try_into().ok()),
    }
}

/// The two numbers in the line that begins with `name`.
fn find(
    editor: &mut Editor<'_>,
    file: &'static str,
    name: &str,
    columns: [usize; 2],
) -> Result<Option<[u32; 2]>, TreeError> {
    let text = match editor.read(file.as_bytes()) {
        Ok(Some(text)) => text,
        Ok(None) | Err(TreeError::NotADirectory(_)) if !editor.is_empty() => return Ok(None),
        Ok(None) | Err(TreeError::NotADirectory(_)) => {
            return Err(TreeError::NoNames { name: name.to_owned(), file });
        }
        Err(e) => return Err(e),
    };
    let text = String::from_utf8_lossy(&text[..text.len().min(USER_FILE_BYTES_MAX)]);
    for line in text.lines() {
        let fields: Vec<&str> = line.trim().split(':').collect();
        // What is below zero is the kernel's name for it.
        let number = |at: usize| fields.get(at).map_or(0, |field| lenient_number(field)) as u32;
        if fields[0] == name {
            return Ok(Some(columns.map(number)));
        }
    }
    Ok(None)
}
