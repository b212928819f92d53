//! The commands around images.

use super::size;
use clap::Args;
use std::path::PathBuf;

/// Whose names count.
#[derive(Debug, Args)]
pub struct Within {
    /// Whose names count, within what the certificate allows: branch/NAME or dev/NAME
    #[arg(long, value_name = "SCOPE", env = "SLIPWAY_SCOPE")]
    pub scope: Option<String>,
}

/// Run a command in a new container
#[derive(Debug, Args)]
#[command(after_help = "\
The container sees the image's files; what it writes is thrown away when it ends.

Examples:
  slipway run --rm app
  slipway run --rm -e DEBUG=1 app ls -l /
  slipway run --rm -i --entrypoint sh app")]
pub struct Run {
    /// An image (a name, or the beginning of an id), and what to run in place of its command
    // One list: all that stands behind the image belongs to the container, `--version` too.
    #[arg(value_names = ["IMAGE", "COMMAND"], required = true, num_args = 1.., trailing_var_arg = true)]
    pub image_and_args: Vec<String>,
    /// Take the container away when it ends (it always is)
    #[arg(long)]
    pub rm: bool,
    /// Connect standard input
    #[arg(short, long)]
    pub interactive: bool,
    /// Has no effect: containers have no terminal of their own
    #[arg(short, long)]
    pub tty: bool,
    /// Set a variable: NAME=VALUE, or NAME to take it from the environment
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// In place of the image's entrypoint
    #[arg(long)]
    pub entrypoint: Option<String>,
    /// In place of the image's user
    #[arg(short, long)]
    pub user: Option<String>,
    /// In place of the image's directory
    #[arg(short, long)]
    pub workdir: Option<String>,
    /// The network: default, none, host
    #[arg(long, default_value = "default", value_parser = ["default", "none", "host"])]
    pub network: String,
    /// Memory that it may use: 512m
    #[arg(short, long, value_parser = size)]
    pub memory: Option<u64>,
    #[command(flatten)]
    pub within: Within,
}

/// List images
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slipway images
  slipway images app
  slipway images -q --no-trunc")]
pub struct Images {
    /// Only images of this name
    pub name: Option<String>,
    /// Has no effect: images without a name are always listed
    #[arg(short, long)]
    pub all: bool,
    /// Print only ids
    #[arg(short, long)]
    pub quiet: bool,
    /// Print whole ids
    #[arg(long)]
    pub no_trunc: bool,
    /// Print JSON, one line for each image
    #[arg(long, value_parser = ["json", "table"], default_value = "table")]
    pub format: String,
    #[command(flatten)]
    pub within: Within,
}

/// Remove images
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slipway rmi app:1            take a name away, and with the last one the image
  slipway rmi -f 3f19c5a3d62f  an image with all its names")]
pub struct Remove {
    /// Names, or the beginnings of ids
    #[arg(required = true)]
    pub images: Vec<String>,
    /// Also an id with several names
    #[arg(short, long)]
    pub force: bool,
    #[command(flatten)]
    pub within: Within,
}

/// Give an image another name
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slipway tag app registry.example.com/team/app:1
  slipway tag 3f19c5a3d62f app:stable")]
pub struct Tag {
    /// An image: a name, or the beginning of an id
    pub source: String,
    /// The new name
    pub target: String,
    #[command(flatten)]
    pub within: Within,
}

/// Show everything about images, as JSON
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slipway inspect app
  slipway inspect app | jq '.[0].Config.Env'")]
pub struct Inspect {
    /// Names, or the beginnings of ids
    #[arg(required = true)]
    pub images: Vec<String>,
    #[command(flatten)]
    pub within: Within,
}

/// Show how an image came about
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slipway history app
  slipway history --no-trunc app")]
pub struct History {
    /// An image: a name, or the beginning of an id
    pub image: String,
    /// Do not cut long texts
    #[arg(long)]
    pub no_trunc: bool,
    #[command(flatten)]
    pub within: Within,
}

/// Bring an image from its registry
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slipway pull alpine:3.20
  slipway pull --platform linux/arm64 debian")]
pub struct Pull {
    /// The image's name
    pub image: String,
    /// The platform; by default the machine's own
    #[arg(long)]
    pub platform: Option<String>,
    /// Print only the image's name
    #[arg(short, long)]
    pub quiet: bool,
    #[command(flatten)]
    pub within: Within,
}

/// Send an image to its registry
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slipway tag app registry.example.com/app && slipway push registry.example.com/app")]
pub struct Push {
    /// The image's name
    pub image: String,
    /// Print only the digest
    #[arg(short, long)]
    pub quiet: bool,
    #[command(flatten)]
    pub within: Within,
}

/// Write images to an archive
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slipway save -o app.tar app:latest
  slipway save app | docker load")]
pub struct Save {
    /// Names, or the beginnings of ids
    #[arg(required = true)]
    pub images: Vec<String>,
    /// The file; by default standard output
    #[arg(short, long)]
    pub output: Option<PathBuf>,
    /// The archive's form
    #[arg(long, value_parser = ["docker", "oci"], default_value = "docker")]
    pub format: String,
    #[command(flatten)]
    pub within: Within,
}

/// Take images from an archive
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slipway load -i app.tar
  docker save app | slipway load")]
pub struct Load {
    /// The file; by default standard input
    #[arg(short, long)]
    pub input: Option<PathBuf>,
    /// Print only errors
    #[arg(short, long)]
    pub quiet: bool,
    #[command(flatten)]
    pub within: Within,
}
