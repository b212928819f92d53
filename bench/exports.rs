//! What leaves the store: an OCI archive, beside buildah, and a directory, beside `cp -a`.

use crate::context::{Context, path};
use crate::side::{BUILDKIT, Sides, settle, slipway};
use crate::table::{Row, TIMES, Table, Target};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tests::command::{command, run};
use tests::image::Image;
use tests::scratch::{Scratch, remove};
use tests::tool::tool;
use tests::tree::Tree;

pub fn measure(table: &mut Table) {
    let mut context = Context::new();
    let sides = Sides::fresh();
    archives(table, &mut context, &sides);
    whole_way(table, &mut context, &sides);
    directories(table, &context, &sides);
}

/// Archives of a layer that is new each time, where both sides have built before. For the first rows
/// the farm has packed nothing like it before; for the last it has packed the same layer but for one
/// file.
fn archives(table: &mut Table, context: &mut Context, sides: &Sides) {
    let out = Scratch::new("bench-archives");
    let dockerfile = context.dockerfile();
    let archives = [out.join("ours.tar"), out.join("peer.tar")];
    for (again, work) in [
        (false, "OCI archive of those 235 MB, gzip, nothing packed before"),
        (true, "the same, one file changed since the last"),
    ] {
        let (mut ours, mut pushed, mut whole) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..TIMES {
            context.change();
            let files = context.path();
            if !again {
                // Images keep their files; what was packed of them goes.
                sides.ours.build(&["-t", "bench", "-f", &dockerfile], &files).ok();
                let prune = ["cache", "prune", "--all", "--force"];
                slipway(&sides.ours).run(&prune).ok();
            }
            sides.ours.build(&["-f", &dockerfile, "-o", "type=cacheonly"], &files).ok();
            bud(out.path(), &dockerfile, &files);
            archives.iter().for_each(|archive| drop(std::fs::remove_file(archive)));
            settle();
            let flag = format!("type=oci,dest={}", path(&archives[0]));
            ours.push(sides.ours.build(&["-f", &dockerfile, "-o", &flag], &files).ok().took);
            settle();
            let built = bud(out.path(), &dockerfile, &files);
            let push = push(out.path(), &archives[1]);
            pushed.push(push);
            whole.push(built + push);
        }
        let images = archives.each_ref().map(|archive| Image::only(archive));
        let differences = images[0].tree.differences(&images[1].tree);
        for (name, peer) in [("`bud` (known) and `push`", whole), ("`push` alone", pushed)] {
            table.add(Row {
                work: work.to_owned(),
                ours: ours.clone(),
                peer: Some((format!("buildah {name}"), peer)),
                target: Target::Ratio(4.0),
                differences: differences.clone(),
            });
        }
        let sizes = images.each_ref().map(|image| image.packed_size() as f64 / 1e6);
        let share = (sizes[0] / sizes[1] - 1.0) * 100.0;
        table.note(format!(
            "{work}: the layers have {:.1} MB, the peer's {:.1} MB: {share:+.1} %.",
            sizes[0], sizes[1],
        ));
    }
    unmount(out.path());
}

/// How long buildah takes to build. What it knows is not done again.
fn bud(root: &Path, dockerfile: &str, files: &Path) -> Duration {
    let flags = ["--isolation=chroot", "--layers", "-q", "-t", "bench", "-f", dockerfile];
    run(buildah(root, "bud").args(flags).arg(files)).ok().took
}

/// How long buildah takes to write what it built as an archive.
fn push(root: &Path, archive: &Path) -> Duration {
    let to = format!("oci-archive:{}", path(archive));
    run(buildah(root, "push").args(["-q", "bench", &to])).ok().took
}

/// From a context with one changed file to the archive, as a person waits for it: buildah has to
/// build before it can push. The farm has packed nothing like it before.
fn whole_way(table: &mut Table, context: &mut Context, sides: &Sides) {
    let out = Scratch::new("bench-whole-way");
    let dockerfile = context.dockerfile();
    let archives = [out.join("ours.tar"), out.join("peer.tar")];
    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    for _ in 0..TIMES {
        let files = context.path();
        sides.ours.build(&["-t", "bench", "-f", &dockerfile], &files).ok();
        slipway(&sides.ours).run(&["cache", "prune", "--all", "--force"]).ok();
        context.change();
        archives.iter().for_each(|archive| drop(std::fs::remove_file(archive)));
        settle();
        let flag = format!("type=oci,dest={}", path(&archives[0]));
        ours.push(sides.ours.build(&["-f", &dockerfile, "-o", &flag], &files).ok().took);
        settle();
        peer.push(bud(out.path(), &dockerfile, &files) + push(out.path(), &archives[1]));
    }
    let [ours_tree, peer_tree] = archives.each_ref().map(|archive| Image::only(archive).tree);
    table.add(Row {
        work: "from a context with one changed file to such an archive".to_owned(),
        ours,
        peer: Some(("buildah `bud` and `push`".to_owned(), peer)),
        target: Target::Ratio(4.0),
        differences: ours_tree.differences(&peer_tree),
    });
    unmount(out.path());
}

fn unmount(directory: &Path) {
    let mounts = tests::scratch::mounts_below(directory);
    mounts.iter().for_each(|mount| drop(run(command(tool("umount")).arg(mount))));
}

/// buildah with a storage of its own.
fn buildah(root: &Path, verb: &str) -> Command {
    let mut buildah = command(tool("buildah"));
    buildah.arg("--root").arg(root.join("root")).arg("--runroot").arg(root.join("run"));
    buildah.args(["--storage-driver=overlay", verb]).env("HOME", root);
    buildah
}

fn directories(table: &mut Table, context: &Context, sides: &Sides) {
    let out = Scratch::new("bench-directories");
    let dockerfile = context.dockerfile();
    let [ours_at, peer_at, copy_at] = ["ours", "peer", "copy"].map(|name| out.join(name));
    let (mut ours, mut peer, mut copied): (Vec<Duration>, Vec<_>, Vec<_>) = Default::default();
    for _ in 0..TIMES {
        [&ours_at, &peer_at, &copy_at].into_iter().for_each(|directory| remove(directory));
        let export = |builder: &tests::builder::Builder, to: &Path| {
            settle();
            let flag = format!("type=local,dest={}", path(to));
            builder.build(&["-f", &dockerfile, "-o", &flag], &context.path()).ok().took
        };
        ours.push(export(&sides.ours, &ours_at));
        peer.push(export(&sides.peer, &peer_at));
        settle();
        copied.push(run(command(tool("cp")).arg("-a").args([&ours_at, &copy_at])).ok().took);
    }
    let trees = [&ours_at, &peer_at, &copy_at].map(|at| Tree::of_directory(at).without_owners());
    for (name, times, tree, aim) in
        [("`cp -a`", copied, &trees[2], 1.0), (BUILDKIT, peer, &trees[1], 1.0)]
    {
        table.add(Row {
            work: "export of the same to a directory".to_owned(),
            ours: ours.clone(),
            peer: Some((name.to_owned(), times)),
            target: Target::Ratio(aim),
            differences: trees[0].differences(tree),
        });
    }
}
