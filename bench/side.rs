//! The two sides: the same flags and the same contexts for both.

use std::path::Path;
use std::time::Duration;
use tests::builder::Builder;
use tests::engine::Engine;
use tests::registry::Registry;
use tests::scratch::Process;
use tests::slipway::Slipway;

/// What the peer is called in the table.
pub const BUILDKIT: &str = "BuildKit";

/// Both builders, with nothing in their caches.
pub struct Sides {
    pub ours: Builder,
    pub peer: Builder,
    /// Serves the base images while both live.
    _registry: Registry,
}

impl Sides {
    /// Starts both: what is measured is a build, not how long a daemon takes to start.
    pub fn fresh() -> Self {
        let registry = Registry::of(&["alpine"]);
        let slipway = Slipway::with_mirror(&registry);
        slipway.run(&["images"]).ok();
        let peer = Builder::BuildKit(Engine::start(Some(&registry)));
        Self { ours: Builder::Slipway(slipway), peer, _registry: registry }
    }

    /// Builds on both sides, and returns how long each took.
    pub fn time(&self, flags: &[&str], context: &Path) -> (Duration, Duration) {
        settle();
        let ours = self.ours.build(flags, context).ok().took;
        settle();
        let peer = self.peer.build(flags, context).ok().took;
        (ours, peer)
    }

    /// How the images of this name differ.
    pub fn differences(&self, image: &str) -> String {
        self.ours.image(image).tree.differences(&self.peer.image(image).tree)
    }
}

/// What the product is, without the harness' choice of builders.
pub fn slipway(builder: &Builder) -> &Slipway {
    match builder {
        Builder::Slipway(slipway) => slipway,
        Builder::BuildKit(_) => unreachable!("our side is Slipway"),
    }
}

/// The process of a farm.
pub fn farm(slipway: &Slipway) -> Process {
    let is_farm = |process: &Process| process.command.split(' ').nth(1) == Some("up");
    slipway.processes().into_iter().find(is_farm).expect("the farm runs")
}

/// Lets the disk catch up, so that one side does not pay for what the other has written.
pub fn settle() {
    rustix::fs::sync();
}
