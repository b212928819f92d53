//! The stream of a build, which may break, and be opened again.

use crate::farm::Farm;
use crate::node::uplink::waits;
use crate::print::tell;
use cache::net::{NetError, Receiver, Sender, Stream};
use proto::error::{Class, Failure};
use proto::id::{BuildId, LeaseEpoch};
use proto::wire::Service;
use proto::wire::build::{Event, LogPlace, ToCoordinator, VertexId};
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How long a farm that was lost in the middle of a build is tried.
const PATIENCE: Duration = Duration::from_secs(300);

/// What was heard of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// The build.
    pub build: BuildId,
    /// Which life of it.
    pub life: u64,
    /// The number of the last event.
    pub seen: u64,
}

/// How much of each running step's log was shown.
#[derive(Debug, Default)]
pub struct Shown(HashMap<VertexId, (LeaseEpoch, u64)>);

impl Shown {
    /// What of an event was not shown yet: after a coordinator was started again, logs of steps that
    /// went on come from their beginnings.
    pub fn news(&mut self, place: Option<LogPlace>, event: Event) -> Option<Event> {
        let (Some(place), Event::Log { vertex, stream, at, mut data }) = (place, event.clone())
        else {
            return Some(event);
        };
        let (run, shown) = self.0.entry(vertex).or_insert((place.run, 0));
        if *run != place.run {
            (*run, *shown) = (place.run, 0);
        }
        let end = place.offset + data.len() as u64;
        let old = shown.saturating_sub(place.offset).min(data.len() as u64);
        *shown = end.max(*shown);
        data.drain(..old as usize);
        (!data.is_empty()).then_some(Event::Log { vertex, stream, at, data })
    }
}

/// A build's stream.
pub struct Line {
    /// What the farm says.
    pub from: Receiver,
    writer: JoinHandle<mpsc::Receiver<ToCoordinator>>,
    broken: tokio::sync::oneshot::Sender<()>,
}

impl Line {
    /// Opens it, says `first`, and then what comes in `queue`.
    pub async fn open(
        farm: &Farm,
        first: &ToCoordinator,
        queue: mpsc::Receiver<ToCoordinator>,
    ) -> Result<Self, Failure> {
        let mut queue = Some(queue);
        Self::begin(farm, first, &mut queue).await.map_err(Failure::from)
    }

    async fn begin(
        farm: &Farm,
        first: &ToCoordinator,
        queue: &mut Option<mpsc::Receiver<ToCoordinator>>,
    ) -> Result<Self, NetError> {
        let Stream { mut to, from } = farm.open(Service::Build).await?.stream;
        to.send(first).await?;
        let queue = queue.take().expect("a line is begun once");
        let (broken, ended) = tokio::sync::oneshot::channel();
        let writer = tokio::spawn(write(to, queue, ended));
        Ok(Self { from, writer, broken })
    }

    /// Gives back what is to be said on the next one.
    pub async fn close(self) -> mpsc::Receiver<ToCoordinator> {
        let Self { writer, broken, .. } = self;
        drop(broken);
        writer.await.expect("the writer does not panic")
    }
}

/// What is lost on the way is asked for again.
async fn write(
    mut to: Sender,
    mut queue: mpsc::Receiver<ToCoordinator>,
    mut ended: tokio::sync::oneshot::Receiver<()>,
) -> mpsc::Receiver<ToCoordinator> {
    loop {
        tokio::select! {
            message = queue.recv() => match message {
                Some(message) => if to.send(&message).await.is_err() {
                    return queue;
                },
                None => return queue,
            },
            _ = &mut ended => return queue,
        }
    }
}

/// Opens the stream of a build again, which has been lost.
pub async fn reattach(
    farm: &Farm,
    heard: &Heard,
    queue: mpsc::Receiver<ToCoordinator>,
) -> Result<Line, Failure> {
    tell!("The farm was lost; the build {} goes on there. Trying to reach it again", heard.build);
    let Heard { build, life, seen } = heard.clone();
    let attach = ToCoordinator::Attach { build, heard: Some((life, seen)) };
    let (mut queue, began) = (Some(queue), Instant::now());
    for pause in waits() {
        match Line::begin(farm, &attach, &mut queue).await {
            Ok(line) => return Ok(line),
            Err(NetError::Refused(failure)) if failure.class != Class::Unavailable => {
                return Err(failure);
            }
            Err(e) if began.elapsed() > PATIENCE => {
                let message = format!(
                    "The farm could not be reached for {} minutes: {e}",
                    PATIENCE.as_secs() / 60
                );
                return Err(Failure::new(Class::Unavailable, message)
                    .hint(format!("`slipway attach {}` looks after the build.", heard.build)));
            }
            Err(_) => tokio::time::sleep(pause).await,
        }
    }
    Err(Failure::new(Class::Bug, "The waits have ended"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::id::Millis;
    use proto::wire::build::Stream;

    #[test]
    fn what_was_shown_is_not_shown_again_but_a_new_run_is() {
        let mut shown = Shown::default();
        let mut say = |run, offset, text: &str| {
            let place = Some(LogPlace { run: LeaseEpoch(run), offset });
            let (vertex, stream, at) = (VertexId(1), Stream::Stdout, Millis(0));
            let event = Event::Log { vertex, stream, at, data: text.into() };
            match shown.news(place, event) {
                Some(Event::Log { data, .. }) => String::from_utf8(data).unwrap(),
                _ => String::new(),
            }
        };
        assert_eq!(say(1, 0, "one "), "one ");
        assert_eq!(say(1, 4, "two "), "two ");
        assert_eq!(say(1, 0, "one "), "");
        assert_eq!(say(1, 4, "two three"), "three");
        assert_eq!(say(2, 0, "one "), "one ");
    }
}
