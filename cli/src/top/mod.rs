//! `slipway top`: how a farm is, again and again or once.

mod screen;
mod show;

use crate::args::farm::Top;
use crate::farm::Farm;
use proto::error::{Class, Failure};
use proto::wire::admin::{Reply, Request};
use proto::wire::overview::Overview;
use screen::{Input, Screen};
use std::io::IsTerminal;
use std::time::Duration;

/// How often it is looked, at most.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Shows it until it is told to end; once where that is asked for, or nobody looks.
pub async fn run(farm: &Farm, args: &Top) -> Result<(), Failure> {
    if args.json {
        crate::print::text(&show::json(&look(farm).await?));
        return Ok(());
    }
    if args.once || !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        crate::print::text(&show::whole(&look(farm).await?));
        return Ok(());
    }
    // A farm that does not answer at all is told of without a screen.
    let mut overview = look(farm).await?;
    let failed = |e: std::io::Error| {
        Failure::new(Class::Unavailable, format!("Using the terminal failed: {e}"))
            .hint("`slipway top --once` needs none.")
    };
    let mut screen = Screen::open().map_err(failed)?;
    let mut note = String::new();
    loop {
        let (rows, columns) = screen.size();
        screen.draw(&show::fitted(&overview, &note, rows, columns)).map_err(failed)?;
        match screen.wait(args.interval.max(INTERVAL_MIN)).await {
            Input::End => return Ok(()),
            // It is drawn anew for the window that it has now.
            Input::Resized => continue,
            Input::Nothing => {}
        }
        // Whoever looks on while the coordinator is started again sees the farm come back.
        match look(farm).await {
            Ok(new) => (overview, note) = (new, String::new()),
            Err(e) => note = format!("No answer, this is how it was: {}", e.message),
        }
    }
}

async fn look(farm: &Farm) -> Result<Overview, Failure> {
    let mut overview = None;
    farm.ask(&Request::Overview, |reply, _| {
        if let Reply::Overview(all) = reply {
            overview = Some(*all);
        }
    })
    .await?;
    let nothing = || Failure::new(Class::Bug, "The farm did not say how it is");
    overview.ok_or_else(nothing)
}
