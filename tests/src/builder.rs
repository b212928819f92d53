//! The builder under test: Slipway, or BuildKit, by which the scenarios themselves are checked.
//!
//! Both take `docker build`'s command line, so that most scenarios need not know which it is.
//! `SLIPWAY_TEST_BUILDER=buildkit` chooses BuildKit in Debian's docker.io.

use crate::command::{Outcome, Running, run};
use crate::engine::Engine;
use crate::image::Image;
use crate::registry::Registry;
use crate::scratch::Scratch;
use crate::slipway::Slipway;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// Something that builds images.
#[derive(Debug)]
pub enum Builder {
    /// The product.
    Slipway(Slipway),
    /// The peer.
    BuildKit(Engine),
}

impl Builder {
    /// The builder under test, which takes images of docker.io from a registry.
    pub fn under_test(mirror: &Registry) -> Self {
        match std::env::var("SLIPWAY_TEST_BUILDER").as_deref() {
            Err(_) | Ok("slipway") => Self::Slipway(Slipway::with_mirror(mirror)),
            Ok("buildkit") => Self::BuildKit(Engine::start(Some(mirror))),
            Ok(other) => panic!("SLIPWAY_TEST_BUILDER is `{other}`: not slipway or buildkit"),
        }
    }

    /// A command of its client.
    pub fn command(&self, args: &[&str]) -> Command {
        match self {
            Self::Slipway(slipway) => slipway.command(args),
            Self::BuildKit(engine) => engine.command(args),
        }
    }

    /// Runs a command of its client.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Outcome {
        run(&mut self.command(args))
    }

    /// Builds with these flags.
    #[track_caller]
    pub fn build(&self, flags: &[&str], context: &Path) -> Outcome {
        run(&mut self.build_command(flags, context))
    }

    /// Starts to build with these flags.
    #[track_caller]
    pub fn start_build(&self, flags: &[&str], context: &Path) -> Running {
        Running::start(&mut self.build_command(flags, context), &[])
    }

    /// The command that builds with these flags.
    pub fn build_command(&self, flags: &[&str], context: &Path) -> Command {
        let context = context.to_str().expect("a path of the tests is UTF-8");
        let chosen = flags.iter().any(|flag| flag.starts_with("--network"));
        let network: &[&str] = match self {
            // The engine of the tests has no bridge.
            Self::BuildKit(_) if !chosen => &["--network=none"],
            _ => &[],
        };
        self.command(&[&["build"], network, flags, &[context]].concat())
    }

    /// The flags that let RUN see the host's network.
    pub fn host_network(&self) -> &'static [&'static str] {
        match self {
            Self::Slipway(_) => &["--network=host", "--allow=network.host"],
            Self::BuildKit(_) => &["--network=host"],
        }
    }

    /// Runs an image; `flags` may name a network, else it has none to speak of.
    #[track_caller]
    pub fn run_image(&self, flags: &[&str], image: &str, args: &[&str]) -> Outcome {
        let network: &[&str] = match self {
            Self::BuildKit(_) if !flags.iter().any(|f| f.starts_with("--network")) => {
                &["--network=none"]
            }
            _ => &[],
        };
        self.run(&[&["run", "--rm"], network, flags, &[image], args].concat())
    }

    /// What `inspect` says of an image.
    #[track_caller]
    pub fn inspect(&self, image: &str) -> Value {
        let outcome = self.run(&["inspect", image]).ok();
        let list: Value = serde_json::from_slice(&outcome.stdout).expect("inspect prints JSON");
        list[0].clone()
    }

    /// An image's bytes, as `inspect` has them.
    #[track_caller]
    pub fn size(&self, image: &str) -> u64 {
        self.inspect(image)["Size"].as_u64().expect("inspect knows the size")
    }

    /// A variable of an image's environment.
    #[track_caller]
    pub fn env(&self, image: &str, name: &str) -> Option<String> {
        let about = self.inspect(image);
        let all = about["Config"]["Env"].as_array().cloned().unwrap_or_default();
        let mut pairs = all.iter().filter_map(|pair| pair.as_str()?.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
    }

    /// An image with all of its files, by way of `save`.
    #[track_caller]
    pub fn image(&self, name: &str) -> Image {
        let scratch = Scratch::new("save");
        let file = scratch.join("image.tar");
        self.run(&["save", "-o", file.to_str().expect("UTF-8"), name]).ok();
        Image::only(&file)
    }

    /// Makes an image that is named after another registry than docker.io known, where the builder
    /// has no mirrors for others.
    #[track_caller]
    pub fn provide(&self, mirror: &Registry, name: &str, there: &str) {
        if let Self::BuildKit(engine) = self {
            let image = mirror.image(there);
            engine.docker(&["pull", "-q", &image]).ok();
            engine.docker(&["tag", &image, name]).ok();
        }
    }
}
