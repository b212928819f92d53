//! Where most scenarios take place: a farm of its own, a registry with small base images, and a
//! context.

use crate::command::{Outcome, Running};
use crate::corpus;
use crate::image::Image;
use crate::registry::Registry;
use crate::scratch::Scratch;
use crate::slipway::Slipway;
use std::path::PathBuf;

/// A farm that takes `conf/busybox:1` and the corpus' other images for those of docker.io.
#[derive(Debug)]
pub struct Site {
    /// The product; before the registry, so that it ends first.
    pub slipway: Slipway,
    /// The registry behind it.
    pub registry: Registry,
    /// The context.
    pub context: Scratch,
}

impl Site {
    /// One with an empty context.
    pub fn new() -> Self {
        let registry = corpus::registry();
        let slipway = Slipway::with_mirror(&registry);
        Self { slipway, registry, context: Scratch::new("context") }
    }

    /// One with a Dockerfile.
    pub fn of(dockerfile: &str) -> Self {
        let site = Self::new();
        site.dockerfile(dockerfile);
        site
    }

    /// Writes the Dockerfile.
    pub fn dockerfile(&self, text: &str) {
        self.write("Dockerfile", text);
    }

    /// Writes a file of the context.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        self.context.write(name, content)
    }

    /// Builds.
    #[track_caller]
    pub fn build(&self, flags: &[&str]) -> Outcome {
        self.slipway.build(flags, self.context.path())
    }

    /// Starts to build.
    #[track_caller]
    pub fn start_build(&self, flags: &[&str]) -> Running {
        let context = self.context.path().to_str().expect("a path of the tests is UTF-8");
        self.slipway.start(&[&["build"], flags, &[context]].concat())
    }

    /// Builds an image without a name, and returns its id.
    #[track_caller]
    pub fn image_id(&self, flags: &[&str]) -> String {
        self.build(&[&["-q"], flags].concat()).ok().text()
    }

    /// Builds to an archive, and reads it.
    #[track_caller]
    pub fn image(&self, flags: &[&str]) -> Image {
        let scratch = Scratch::new("archive");
        let output = format!("type=oci,dest={}", scratch.join("image.tar").display());
        self.build(&[&["-o", &output], flags].concat()).ok();
        Image::only(&scratch.join("image.tar"))
    }

    /// Runs an image.
    #[track_caller]
    pub fn run(&self, image: &str, args: &[&str]) -> Outcome {
        self.slipway.run(&[&["run", "--rm", image], args].concat())
    }
}

impl Default for Site {
    fn default() -> Self {
        Self::new()
    }
}
