//! Who a container's process is: `USER`'s text, looked up in the root's own `/etc/passwd` and
//! `/etc/group` as BuildKit and runc do it.
//!
//! - `number:number` needs no file, and has no further groups.
//! - Anything else is looked up. A name must be there; a number need not, and then its group is 0.
//! - Without a group, the user's further groups are those that list the user's *name*.
//! - An empty text is `0`, looked up if it can be.
//! - Every line of `/etc/passwd` counts, one that is meant as a remark too; of `/etc/group` those do not.
//!   A number that is missing, or none, is 0.

use cache::tree::owner::lenient_number;

/// The user, its groups and its home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// All groups, that one first.
    pub groups: Vec<u32>,
    /// Where `HOME` points to when it is not set.
    pub home: String,
}

/// Why there is no such user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// No line of the file has the name.
    #[error("There is no {what} `{name}` in the image's {file}")]
    Unknown {
        /// `user` or `group`.
        what: &'static str,
        /// The name.
        name: String,
        /// The file that was looked into.
        file: &'static str,
    },
    /// A number that the kernel does not take.
    #[error("`{0}` is not a user's or group's number: those go from 0 to 2147483647")]
    Range(String),
}

/// Bytes of `/etc/passwd` and `/etc/group` that are read. BuildKit's own bound.
pub(crate) const FILE_BYTES_MAX: u64 = 10 << 20;

const NUMBER_MAX: i64 = (1 << 31) - 1;

/// Looks the text up. The files' contents, where the root has them.
pub fn lookup(
    text: &str,
    passwd: Option<&[u8]>,
    group: Option<&[u8]>,
) -> Result<Identity, UserError> {
    let passwd: Vec<Line<'_>> = passwd.map(lines).unwrap_or_default();
    let found = match (text.is_empty(), numbers(text)) {
        (true, _) => named("0", &passwd, group).unwrap_or((0, 0, Vec::new())),
        (false, Some((uid, gid))) => (uid, gid, Vec::new()),
        (false, None) => named(text, &passwd, group)?,
    };
    let (uid, gid, further) = found;
    let mut groups = vec![gid];
    groups.extend(further.into_iter().filter(|group| *group != gid));
    let own = passwd.iter().find(|line| line.number(2) == i64::from(uid));
    let home = own.map_or_else(|| "/".to_owned(), |line| line.text(5));
    Ok(Identity { uid, gid, groups, home })
}

/// Both numbers, if both are given.
fn numbers(text: &str) -> Option<(u32, u32)> {
    let number = |text: &str| match text {
        "root" => Some(0),
        _ => text.parse::<u32>().ok().filter(|n| i64::from(*n) <= NUMBER_MAX),
    };
    let (user, group) = text.split_once(':')?;
    Some((number(user)?, number(group)?))
}

fn numeric(text: &str) -> Result<Option<u32>, UserError> {
    match text.parse::<i64>() {
        Ok(n) if (0..=NUMBER_MAX).contains(&n) => Ok(Some(n as u32)),
        Ok(_) => Err(UserError::Range(text.to_owned())),
        Err(_) => Ok(None),
    }
}

fn named(
    text: &str,
    passwd: &[Line<'_>],
    group: Option<&[u8]>,
) -> Result<(u32, u32, Vec<u32>), UserError> {
    let mut parts = text.split(':');
    let user = parts.next().unwrap_or_default();
    let group_name = parts.next().unwrap_or_default();
    let number = numeric(user)?;
    let group_number = numeric(group_name)?;
    let line = passwd.iter().find(|line| match number {
        _ if user.is_empty() => line.number(2) == 0,
        Some(number) => line.number(2) == i64::from(number),
        None => line.is(0, user),
    });
    let (uid, mut gid, name) = match (line, number) {
        // One below zero is the kernel's name for it.
        (Some(line), _) => (line.number(2) as u32, line.number(3) as u32, line.text(0)),
        (None, Some(number)) => (number, 0, String::new()),
        (None, None) if user.is_empty() => (0, 0, String::new()),
        (None, None) => {
            let (name, file) = (user.to_owned(), "/etc/passwd");
            return Err(UserError::Unknown { what: "user", name, file });
        }
    };
    let mut groups: Vec<Line<'_>> = group.map(lines).unwrap_or_default();
    groups.retain(|line| !line.0[0].starts_with(b"#"));
    if group_name.is_empty() {
        let member = |line: &&Line<'_>| !name.is_empty() && line.lists(3, &name);
        let further = groups.iter().filter(member).map(|line| line.number(2) as u32);
        return Ok((uid, gid, further.collect()));
    }
    let found = groups.iter().find(|line| match group_number {
        Some(number) => line.number(2) == i64::from(number),
        None => line.is(0, group_name),
    });
    gid = match (found.map(|line| line.number(2) as u32), group_number) {
        (Some(gid), _) | (None, Some(gid)) => gid,
        (None, None) => {
            let (name, file) = (group_name.to_owned(), "/etc/group");
            return Err(UserError::Unknown { what: "group", name, file });
        }
    };
    Ok((uid, gid, Vec::new()))
}

/// A line's fields.
struct Line<'a>(Vec<&'a [u8]>);

fn lines(file: &[u8]) -> Vec<Line<'_>> {
    file.split(|b| *b == b'\n')
        .map(|line| line.trim_ascii())
        .filter(|line| !line.is_empty())
        .map(|line| Line(line.split(|b| *b == b':').collect()))
        .collect()
}

impl Line<'_> {
    fn is(&self, field: usize, want: &str) -> bool {
        self.0.get(field) == Some(&want.as_bytes())
    }

    fn text(&self, field: usize) -> String {
        String::from_utf8_lossy(self.0.get(field).copied().unwrap_or_default()).into_owned()
    }

    fn number(&self, field: usize) -> i64 {
        let text = self.0.get(field).and_then(|bytes| std::str::from_utf8(bytes).ok());
        text.map_or(0, lenient_number)
    }

    fn lists(&self, field: usize, name: &str) -> bool {
        let list = self.0.get(field).copied().unwrap_or_default();
        list.split(|b| *b == b',').any(|member| member == name.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n\
        # a remark\n\
        broken:x:abc:0::/x:/x\n\
        app:x:1000:1000:app:/home/app:/bin/sh\n\
        twin:x:1000:7::/home/twin:/bin/sh\n\
        svc:x:1500:2000:svc:/home/svc:/bin/sh\n\
        short:x:1600\n\
        homeless:x:1700:1::::\n\
        below:x:-5:-6::/below:\n\
        huge:x:99999999999999999999:0::/huge:\n\
        4242:x:9:9::/nine:/bin/sh\n";
    const GROUP: &[u8] = b"root:x:0:\nwheel:x:10:root,app, svc\napp:x:1000:\nstaff:x:2000:app\n\
        bad:x:none:\n#docker:x:999:app\n";

    fn id(text: &str) -> Result<(u32, u32, Vec<u32>, String), UserError> {
        let found = lookup(text, Some(PASSWD), Some(GROUP))?;
        Ok((found.uid, found.gid, found.groups, found.home))
    }

    #[test]
    fn users_as_buildkit_finds_them() {
        for (text, uid, gid, groups, home) in [
            ("", 0, 0, vec![0, 10], "/root"),
            ("root", 0, 0, vec![0, 10], "/root"),
            ("0", 0, 0, vec![0, 10], "/root"),
            ("0:0", 0, 0, vec![0], "/root"),
            ("root:0", 0, 0, vec![0], "/root"),
            ("app", 1000, 1000, vec![1000, 10, 2000], "/home/app"),
            ("1000", 1000, 1000, vec![1000, 10, 2000], "/home/app"),
            ("twin", 1000, 7, vec![7], "/home/app"),
            ("app:staff", 1000, 2000, vec![2000], "/home/app"),
            ("app:77", 1000, 77, vec![77], "/home/app"),
            ("1234:5678", 1234, 5678, vec![5678], "/"),
            ("1234", 1234, 0, vec![0], "/"),
            ("1234:staff", 1234, 2000, vec![2000], "/"),
            ("svc", 1500, 2000, vec![2000], "/home/svc"),
            ("broken", 0, 0, vec![0], "/root"),
            ("short", 1600, 0, vec![0], ""),
            ("homeless", 1700, 1, vec![1], ""),
            ("below", 4_294_967_291, 4_294_967_290, vec![4_294_967_290], "/"),
            ("huge", u32::MAX, 0, vec![0], "/"),
            ("app:bad", 1000, 0, vec![0], "/home/app"),
            // A number is a number, whatever names there are.
            ("4242", 4242, 0, vec![0], "/"),
            (":staff", 0, 2000, vec![2000], "/root"),
        ] {
            assert_eq!(id(text), Ok((uid, gid, groups, home.to_owned())), "{text}");
        }
    }

    #[test]
    fn unknown_names_are_told() {
        assert_eq!(
            id("ghost").unwrap_err().to_string(),
            "There is no user `ghost` in the image's /etc/passwd"
        );
        assert_eq!(
            id("app:ghosts").unwrap_err().to_string(),
            "There is no group `ghosts` in the image's /etc/group"
        );
        assert!(lookup("app", None, None).is_err());
        assert!(matches!(id("-1"), Err(UserError::Range(_))));
        assert!(matches!(id("4294967296"), Err(UserError::Range(_))));
    }

    #[test]
    fn a_remark_is_a_line_of_roots() {
        let root = b"# of Debian\nroot:x:0:0:root:/root:/bin/sh\n";
        let found = lookup("", Some(root), Some(GROUP)).unwrap();
        assert_eq!((found.groups, found.home.as_str()), (vec![0], ""));
    }

    #[test]
    fn a_root_without_files_has_numbers() {
        for text in ["", "0", "5:6"] {
            assert_eq!(lookup(text, None, None).unwrap().home, "/", "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_files_are_survived(text in ".{0,20}", passwd in any::<Vec<u8>>(), group in any::<Vec<u8>>()) {
            let _ = lookup(&text, Some(&passwd), Some(&group));
        }
    }
}
