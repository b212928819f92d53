//! Other builders, and what they understand.

use crate::command::command;
use crate::engine::Engine;
use crate::scratch::Scratch;
use crate::tool::tool;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// What a peer understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// What the corpus' builder understands.
    Full,
    /// What BuildKit understood when Debian's docker.io was made.
    Classic,
    /// What of the classic one Debian's buildah does as BuildKit does.
    Common,
}

/// Another builder.
#[derive(Debug)]
pub struct Peer {
    /// A command that takes `docker build`'s flags, `-o type=oci` among them.
    builder: Command,
    language: Language,
    /// Before the directory of the command's program, so that it ends first.
    _engine: Option<Engine>,
    _scratch: Option<Scratch>,
}

/// `docker build` with an archive as its output, which this engine has by way of `save` only. It takes
/// nothing from its cache: there, what finds no file has the result of anything else that found none.
const BUILD_AND_SAVE: &str = r#"#!/bin/bash
set -euo pipefail
[ "$1" = -o ]
id=$(mktemp)
trap 'rm -f "$id"' EXIT
docker build --no-cache --network=none --iidfile "$id" "${@:3}"
docker save -o "${2#*dest=}" "$(cat "$id")"
"#;

/// `buildah bud` with an archive as its output. Docker's formats have what those of OCI lack: ONBUILD and
/// HEALTHCHECK. Each build has a store of its own: in a common one, a build removes the images of its stages
/// from under others. What runs in a `chroot` has the machine's network, but needs no control groups. Mounts
/// are this build's own, and its store is in the test's directory, so that both go even if it is killed.
const BUD_AND_PUSH: &str = r#"#!/usr/bin/env -S unshare --mount --propagation private bash
set -euo pipefail
[ "$1" = -o ]
own=$(mktemp -d -p "$HOME")
trap 'umount --quiet --lazy "$own/store/overlay" || true; rm -rf --one-file-system "$own"' EXIT
buildah() {
    command buildah --root "$own/store" --runroot "$own/run" --storage-driver overlay "$@"
}
buildah bud --format docker --identity-label=false --layers=false --tls-verify=false \
    --isolation chroot --network host --no-hosts --dns none --iidfile "$own/id" "${@:3}"
buildah push --quiet "$(cat "$own/id")" "docker-archive:${2#*dest=}"
"#;

impl Peer {
    /// BuildKit in Debian's docker.io, started for this.
    pub fn engine() -> Self {
        let engine = Engine::start(None);
        let scratch = Scratch::new("peer");
        let mut builder = script(&scratch, BUILD_AND_SAVE);
        for (name, value) in engine.command(&[]).get_envs() {
            builder.env(name, value.unwrap_or_default());
        }
        let (engine, scratch) = (Some(engine), Some(scratch));
        Self { builder, language: Language::Classic, _engine: engine, _scratch: scratch }
    }

    /// Debian's buildah.
    pub fn buildah() -> Self {
        let scratch = Scratch::new("peer");
        // Found before anything is built: the message says what to install.
        tool("buildah");
        let policy = r#"{"default": [{"type": "insecureAcceptAnything"}]}"#;
        scratch.write(".config/containers/policy.json", policy);
        let mut builder = script(&scratch, BUD_AND_PUSH);
        builder.env("HOME", scratch.path());
        Self { builder, language: Language::Common, _engine: None, _scratch: Some(scratch) }
    }

    /// A command line: words with spaces between them. Its environment is that of this process.
    pub fn command(line: &str) -> Self {
        let mut words = line.split_whitespace();
        let mut builder = Command::new(words.next().unwrap_or("docker"));
        builder.args(words).envs(std::env::vars());
        Self { builder, language: Language::Full, _engine: None, _scratch: None }
    }

    /// What it understands.
    pub fn language(&self) -> Language {
        self.language
    }

    pub(super) fn builder(&self) -> &Command {
        &self.builder
    }
}

/// A script as a command.
fn script(scratch: &Scratch, text: &str) -> Command {
    let program = scratch.write("build", text);
    fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("a file of the test");
    command(program)
}
