//! `slipway up`: the farm of this machine.

use crate::args::Up;
use ops::config::Config;
use proto::error::Failure;

pub const HELPER: &str = "container-helper";
pub const ALREADY_RUNNING: i32 = 75;

pub async fn run(_args: Up, _config: Config) -> Result<u8, Failure> {
    unimplemented!()
}
