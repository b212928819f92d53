//! Peak memory while 2 GiB go through context, RUN, COPY --from and export.

use crate::context::path;
use crate::side::{farm, slipway};
use crate::table::Table;
use std::fs::{self, File};
use std::io::Write;
use std::time::Duration;
use tests::builder::Builder;
use tests::command::DEADLINE;
use tests::image::Image;
use tests::registry::Registry;
use tests::scratch::Scratch;
use tests::slipway::Slipway;

const SIZE: usize = 2 << 30;
const LIMIT: u64 = 400 << 20;

const DOCKERFILE: &str = "FROM alpine AS a
COPY large /large
RUN cp /large /copy
FROM scratch
COPY --from=a /copy /large
";

pub fn measure(table: &mut Table) {
    let registry = Registry::of(&["alpine"]);
    let builder = Builder::Slipway(Slipway::with_mirror(&registry));
    builder.run(&["images"]).ok();
    let farm = farm(slipway(&builder)).pid;
    let context = Scratch::new("bench-memory");
    context.write("Dockerfile", DOCKERFILE);
    write_large(&context);
    let mut client = 0;
    for output in ["type=local", "type=oci,compression=zstd"] {
        let to = context.join(output.split([',', '=']).nth(1).expect("a type"));
        let flag = format!("{output},dest={}", path(&to));
        fs::write(context.join(".dockerignore"), "local\noci\n").expect("writing");
        let mut running = builder.start_build(&["-o", &flag], context.path());
        while running.is_running() {
            client = client.max(peak(running.pid()).unwrap_or(0));
            std::thread::sleep(Duration::from_millis(20));
        }
        running.finish(DEADLINE).ok();
    }
    let size = fs::metadata(context.join("local/large")).expect("the file came out").len();
    assert_eq!(size, SIZE as u64, "the whole file came out");
    assert_eq!(Image::only(&context.join("oci")).tree.size(), SIZE as u64, "in the archive, too");
    let farm = peak(farm).expect("the farm lives");
    let sum = farm + client;
    let verdict = if sum < LIMIT { "reached" } else { "**missed**" };
    table.note(format!(
        "Peak memory with a file of 2 GiB through context, RUN, COPY --from, a directory and an OCI \
         archive: farm {} MiB, client {} MiB (`VmHWM`); aimed at under {} MiB together: {verdict}.",
        farm >> 20,
        client >> 20,
        LIMIT >> 20,
    ));
}

/// A file that does not compress.
fn write_large(context: &Scratch) {
    let mut file = File::create(context.join("large")).expect("making a file");
    let mut source = File::open("/dev/urandom").expect("a source of random bytes");
    let copied = std::io::copy(&mut std::io::Read::take(&mut source, SIZE as u64), &mut file);
    assert_eq!(copied.expect("writing a large file"), SIZE as u64);
    file.flush().expect("writing a large file");
}

/// The most memory that a process ever had, in bytes (proc_pid_status(5)).
fn peak(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib << 10)
}
