//! `slipway attach`: shows a build that is under way.

use super::line::Line;
use crate::args::Attach;
use crate::builds;
use crate::error::{exit_code, user};
use crate::farm::{Farm, broke};
use crate::progress::{Display, Mode, Settings};
use proto::error::Failure;
use proto::wire::build::{Ask, ToClient, ToCoordinator};
use tokio::sync::mpsc;

/// Shows a build until it has ended; answers the exit code.
pub async fn run(farm: &Farm, args: &Attach) -> Result<u8, Failure> {
    let build = builds::find(farm, Some(&args.build)).await?;
    let mut look = Settings::from_env(|name| std::env::var(name).ok());
    look.description = "slipway".to_owned();
    let display = Display::start(Mode::Auto, &look);
    let display = display.map_err(|e| Failure::new(e.class(), e.to_string()))?;
    let attach = ToCoordinator::Attach { build, heard: None };
    // What only the client has that began the build is left to it.
    let (_nothing, queue) = mpsc::channel(1);
    let mut line = Line::open(farm, &attach, queue).await?;
    let result = loop {
        match line.from.expect::<ToClient>().await {
            Ok((ToClient::Event(_, _, event), _)) => display.event(event),
            Ok((ToClient::Finished(result), _)) => break *result,
            Ok((ToClient::Ask(_, ask), _)) => tracing::warn!("{}", waits_for(&ask)),
            Ok((ToClient::Accepted(..), _)) => {}
            Err(e) => break Err(broke(e)),
        }
    };
    display.finish(&result);
    match result {
        Ok(_) => Ok(0),
        Err(failure) if failure.exit_code.is_none() && failure.at.is_none() => {
            Err(user(failure.to_string()))
        }
        Err(failure) => Ok(exit_code(&failure)),
    }
}

fn waits_for(ask: &Ask) -> String {
    let what = match ask {
        Ask::Scan { context, .. } => format!("files of `{context}`"),
        Ask::Layout { context, .. } => format!("an image of the layout `{context}`"),
        Ask::Secret(id) => format!("the secret `{id}`"),
        Ask::SshAgent(id) | Ask::Ssh { id, .. } => format!("the ssh agent `{id}`"),
        Ask::Login(host) => format!("a login for {host}"),
        Ask::Cache(_) | Ask::CacheBlobs(..) => "a cache in a directory".to_owned(),
    };
    format!("The build waits for {what}: run the command again that began it")
}
