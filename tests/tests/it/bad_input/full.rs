//! Full disks: the farm's, and the one that an output goes to.

use std::fs;
use std::path::{Path, PathBuf};
use tests::command::{command, run};
use tests::corpus;
use tests::scratch::{Scratch, mounts_below, remove};
use tests::slipway::Slipway;
use tests::tool::tool;

/// A file system of a few bytes; gone when it is dropped.
struct Small {
    scratch: Scratch,
}

impl Small {
    fn of(megabytes: u32) -> Self {
        let scratch = Scratch::new("small");
        let (image, at) = (scratch.join("image"), scratch.directory("disk"));
        let file = fs::File::create(&image).expect("a file");
        file.set_len(u64::from(megabytes) << 20).expect("a file with a hole");
        run(command(tool("mkfs.ext4")).args(["-q", "-F", "-m", "0"]).arg(&image)).ok();
        run(command(tool("mount")).args(["-o", "loop"]).arg(&image).arg(&at)).ok();
        Self { scratch }
    }

    fn path(&self) -> PathBuf {
        self.scratch.join("disk")
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        mounts_below(self.scratch.path()).iter().for_each(|mount| {
            let _ = rustix::mount::unmount(mount, rustix::mount::UnmountFlags::DETACH);
        });
        remove(self.scratch.path());
    }
}

fn context(lines: &str) -> Scratch {
    let context = Scratch::new("context");
    context.write("Dockerfile", format!("FROM conf/busybox:1\n{lines}\n"));
    context
}

#[test]
fn a_full_store_fails_the_build_and_no_more() {
    let (registry, disk) = (corpus::registry(), Small::of(160));
    let home = disk.path().join("home");
    tests::scratch::make(&home);
    let slipway = Slipway::at(&home);
    slipway.mirror(&[&registry.url()]);
    let small = context("RUN echo it works");
    slipway.build(&["-t", "small"], small.path()).ok();
    // In a RUN, in the context, and in what is captured.
    let run = context("RUN dd if=/dev/urandom of=/large bs=1M count=300");
    slipway.build(&[], run.path()).fails(1).says("space").says("Dockerfile:2");
    let large = context("COPY large /large");
    let bytes: Vec<u8> =
        (0..50_000_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    large.write("large", &bytes);
    let copied = slipway.build(&[], large.path());
    copied.fails(1).says("is full").says("prune");
    slipway.assert_store_intact();
    assert_eq!(slipway.run(&["run", "--rm", "small", "echo", "runs"]).ok().text(), "runs");
    slipway.build(&["-t", "small"], small.path()).ok();
    slipway.stop();
    slipway.assert_store_intact();
    drop(slipway);
}

#[test]
fn an_output_that_does_not_fit_is_not_there() {
    let (registry, disk) = (corpus::registry(), Small::of(8));
    let slipway = Slipway::with_mirror(&registry);
    let context = context("RUN head -c 30000000 /dev/urandom > /large");
    let there = |name: &str| disk.path().join(name);
    fs::write(there("old.tar"), "what was there before").expect("a small file");
    for (output, name) in
        [("oci", "image.tar"), ("docker", "old.tar"), ("tar", "files.tar"), ("local", "files")]
    {
        let flag = format!("type={output},dest={}", there(name).display());
        slipway.build(&["-o", &flag], context.path()).fails(1).says("space").says(name);
    }
    assert_eq!(fs::read_to_string(there("old.tar")).expect("a file"), "what was there before");
    let _ = fs::remove_dir(there("files"));
    assert_eq!(names(&disk.path()), ["lost+found", "old.tar"], "nothing half-written");
    slipway.assert_store_intact();
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory").flatten();
    let mut names: Vec<_> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
