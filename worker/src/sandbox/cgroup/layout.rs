//! Where this machine has its control groups: the first version's hierarchies, the second's one,
//! or both ("hybrid").

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What is mounted where.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Layout {
    /// The second version's hierarchy.
    pub unified: Option<PathBuf>,
    /// The first version's, by controller; several controllers may share one.
    pub split: BTreeMap<String, PathBuf>,
    /// The first version's hierarchy of processors and memory nodes: groups are made in it for
    /// containers that are limited to some of them, and for no others.
    pub cpuset: Option<PathBuf>,
    /// All hierarchies, also those that we make no groups in; other runtimes do.
    pub all: Vec<PathBuf>,
}

/// The controllers that we know what to do with.
const CONTROLLERS: [&str; 5] = ["memory", "cpu", "cpuacct", "pids", "devices"];

impl Layout {
    /// Reads a `mountinfo` (proc_pid_mountinfo(5)).
    pub(crate) fn parse(mountinfo: &str) -> Self {
        let mut layout = Self::default();
        for line in mountinfo.lines() {
            let Some((before, after)) = line.split_once(" - ") else { continue };
            let (Some(place), Some(kind)) = (before.split(' ').nth(4), after.split(' ').next())
            else {
                continue;
            };
            let place = PathBuf::from(unescape(place));
            let options = after.split(' ').nth(2).unwrap_or_default();
            if matches!(kind, "cgroup" | "cgroup2") && !layout.all.contains(&place) {
                layout.all.push(place.clone());
            }
            match kind {
                "cgroup2" => {
                    layout.unified.get_or_insert(place);
                }
                "cgroup" => {
                    for option in options.split(',').filter(|o| CONTROLLERS.contains(o)) {
                        layout.split.entry(option.to_owned()).or_insert_with(|| place.clone());
                    }
                    let has = |name| options.split(',').any(|option| option == name);
                    if has("cpuset") {
                        layout.cpuset.get_or_insert_with(|| place.clone());
                    }
                    if has("freezer") {
                        layout.split.entry("freezer".to_owned()).or_insert(place);
                    }
                }
                _ => {}
            }
        }
        layout
    }

    /// Where memory is limited: in the first version's hierarchy, if it has that.
    pub(crate) fn memory(&self) -> Option<&Path> {
        self.split.get("memory").or(self.unified.as_ref()).map(PathBuf::as_path)
    }

    /// Each hierarchy that we make groups in, once.
    pub(crate) fn hierarchies(&self) -> Vec<&Path> {
        let mut all: Vec<&Path> = self.split.values().map(PathBuf::as_path).collect();
        all.extend(self.unified.as_deref());
        all.sort();
        all.dedup();
        all
    }
}

/// Undoes the octal escapes of spaces and the like.
pub(crate) fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let code = (first == b'\\')
            .then(|| tail.get(..3).and_then(|d| std::str::from_utf8(d).ok()))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(byte) => {
                out.push(byte);
                rest = &tail[3..];
            }
            None => {
                out.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid() {
        let layout = Layout::parse(
            "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
             35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:3 - cgroup cgroup rw,memory\n\
             37 31 0:34 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n\
             39 31 0:36 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n\
             40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
        );
        let path = |name: &str| PathBuf::from(format!("/sys/fs/cgroup/{name}"));
        assert_eq!(layout.unified, Some(path("unified")));
        assert_eq!(layout.all.len(), 6);
        assert_eq!(layout.cpuset, Some(path("cpuset")));
        assert_eq!(layout.split["cpu"], layout.split["cpuacct"]);
        assert_eq!(layout.split["memory"], path("memory"));
        assert_eq!(
            layout.hierarchies(),
            [path("cpu,cpuacct"), path("freezer"), path("memory"), path("unified")]
        );
    }

    #[test]
    fn unified_or_nothing() {
        let layout =
            Layout::parse("31 23 0:28 / /sys/fs/c\\040g rw - cgroup2 none rw,nsdelegate\n");
        assert_eq!(layout.unified, Some("/sys/fs/c g".into()));
        assert!(layout.split.is_empty());
        assert_eq!(Layout::parse("garbage\n - \nx - cgroup2"), Layout::default());
    }
}
