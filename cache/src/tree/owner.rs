//! `--chown` and USER: names and numbers of users and groups, looked up in a tree.

use super::edit::Editor;
use super::nodes::TreeError;

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

/// The owner that `user[:group]` names. A user's number is its group's number too, unless a group
/// is given; a name that the tree's `/etc/passwd` does not know stands for 0, as in BuildKit. A tree
/// without such a file cannot have a name.
pub fn lookup(editor: &mut Editor<'_>, text: &str) -> Result<Owner, TreeError> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let mut owner = Owner { uid: 0, gid: 0 };
    if let Ok(number) = user.parse() {
        owner = Owner { uid: number, gid: number };
    } else if !user.is_empty()
        && let Some([uid, gid]) = find(editor, "/etc/passwd", user, [2, 3])?
    {
        owner = Owner { uid, gid };
    }
    match group {
        None | Some("") => {}
        Some(group) => {
            owner.gid = match group.parse() {
                Ok(number) => number,
                Err(_) => find(editor, "/etc/group", group, [2, 2])?.map_or(owner.gid, |g| g[0]),
            };
        }
    }
    Ok(owner)
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
        Ok(None) | Err(TreeError::NotADirectory(_)) => {
            return Err(TreeError::NoNames { name: name.to_owned(), file });
        }
        Err(e) => return Err(e),
    };
    let text = String::from_utf8_lossy(&text[..text.len().min(USER_FILE_BYTES_MAX)]);
    for line in text.lines() {
        let fields: Vec<&str> = line.trim().split(':').collect();
        let number = |at: usize| fields.get(at).and_then(|f| f.parse().ok());
        if fields[0] == name
            && let (Some(a), Some(b)) = (number(columns[0]), number(columns[1]))
        {
            return Ok(Some([a, b]));
        }
    }
    Ok(None)
}
