//! What a process that was killed left behind, taken away by the next one.
//!
//! Everything of one state directory can be told from everything else: control groups lie in one
//! that is named by a hash of the directory, root file systems are mounted under that name, and
//! helpers have the directory in their command.

use super::SandboxError;
use super::cgroup::{self, Cgroups, Layout};
use rustix::process::{Pid, Signal};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long killed processes may take to go.
const GONE_WITHIN: Duration = Duration::from_secs(30);

/// Kills every process that an earlier worker on the same directories left, and removes their
/// control groups and scratch directories. Their mounts and networks are gone with them: those hang
/// on the processes, not on names.
pub(crate) fn sweep(tag: &str, dir: &Path) -> Result<(), SandboxError> {
    let layout = Layout::parse(&super::read_host("/proc/self/mountinfo"));
    for top in &layout.all {
        for group in groups_named(top, tag) {
            let freezer = layout.split.get("freezer").filter(|f| group.starts_with(f));
            let freezer = freezer.map(|_| group.as_path());
            cgroup::kill_all(&[&group], freezer).map_err(SandboxError::Limits)?;
        }
    }
    kill_strays(tag)?;
    for top in &layout.all {
        for group in groups_named(top, tag) {
            if let Err(e) = cgroup::remove_group(&group) {
                tracing::warn!(group = %group.display(), error = %e, "a control group stays");
            }
        }
    }
    let run = dir.join("run");
    let entries = fs::read_dir(&run).into_iter().flatten().flatten();
    for entry in entries {
        let path = entry.path();
        fs::remove_dir(&path).map_err(SandboxError::io("Removing", &path))?;
    }
    Ok(())
}

/// Removes the groups that were made for all, if nothing is in them any more.
pub(crate) fn remove_groups(groups: &Cgroups) {
    for top in &groups.layout().all {
        let dir = top.join(groups.parent().trim_start_matches('/'));
        if let Err(e) = fs::remove_dir(&dir)
            && e.kind() != std::io::ErrorKind::NotFound
        {
            tracing::debug!(group = %dir.display(), error = %e, "a control group stays");
        }
    }
}

/// Our group, wherever it is: at the top, or in a group of somebody's choice.
fn groups_named(top: &Path, tag: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut next = vec![(top.to_owned(), 0)];
    while let Some((dir, depth)) = next.pop() {
        let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
        for entry in entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
            if entry.file_name() == tag {
                found.push(entry.path());
            } else if depth < 4 {
                next.push((entry.path(), depth + 1));
            }
        }
    }
    found
}

/// Kills processes that see one of our root file systems, which no control group named.
fn kill_strays(tag: &str) -> Result<(), SandboxError> {
    let deadline = Instant::now() + GONE_WITHIN;
    loop {
        let strays = strays(tag);
        if strays.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            let why = format!("processes of an earlier worker do not die: {strays:?}");
            return Err(SandboxError::Helper(why));
        }
        for pid in strays {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn strays(tag: &str) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    let sees = |pid: &i32| {
        let mounts = super::read_host(format!("/proc/{pid}/mountinfo"));
        mounts.lines().any(|line| is_ours(line, tag))
    };
    let own = std::process::id() as i32;
    pids.filter(|pid| *pid != own).filter(sees).filter_map(Pid::from_raw).collect()
}

/// Whether a line of a `mountinfo` is an overlay of ours: its source is our name.
fn is_ours(line: &str, tag: &str) -> bool {
    let Some((_, after)) = line.split_once(" - ") else { return false };
    let mut fields = after.split(' ');
    fields.next() == Some("overlay") && fields.next() == Some(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_mounts_are_told_from_others() {
        let line = "99 1 0:50 / / rw - overlay slipway-abc rw,lowerdir=x";
        assert!(is_ours(line, "slipway-abc"));
        assert!(!is_ours(line, "slipway-ab"));
        assert!(!is_ours("99 1 0:50 / / rw - tmpfs slipway-abc rw", "slipway-abc"));
        assert!(!is_ours("slipway-abc", "slipway-abc"));
    }
}
