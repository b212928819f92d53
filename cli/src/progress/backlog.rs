//! Events that wait for the display.
//!
//! A terminal can be slow or stopped (Ctrl-S, a pager). What waits for it has a limit in bytes;
//! at the limit whoever brings events waits a little, and if that does not help, logs and
//! unfinished transfers are left out, which the display says. Vertices and remarks always fit:
//! they are few.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::format;
use proto::id::Millis;
use proto::wire::build::{Event, Stream, VertexId};
use std::collections::BTreeMap;

/// Events in order, and what was left out.
#[derive(Debug)]
pub struct Backlog {
    events: Vec<Event>,
    bytes: usize,
    bytes_max: usize,
    /// Bytes of logs that were left out, and when the last of them were written.
    lost: BTreeMap<VertexId, (u64, Millis)>,
    stalled: bool,
}

impl Backlog {
    /// Holds up to so many bytes of logs and transfers.
    pub fn new(bytes_max: usize) -> Self {
        Self { events: Vec::new(), bytes: 0, bytes_max, lost: BTreeMap::new(), stalled: false }
    }

    /// Takes an event if there is room, or gives it back.
    #[allow(clippy::result_large_err)]
    pub fn offer(&mut self, event: Event) -> Result<(), Event> {
        let bytes = match &event {
            Event::Vertex(_) | Event::Warning(_) => 0,
            Event::Progress(progress) if progress.completed.is_some() => 0,
            Event::Progress(progress) => size_of::<Event>() + progress.what.len(),
            Event::Log { data, .. } => size_of::<Event>() + data.len(),
        };
        // An event that is larger than the limit fits when it is alone.
        if bytes > 0 && self.bytes > 0 && self.bytes + bytes > self.bytes_max {
            return Err(event);
        }
        self.bytes += bytes;
        self.events.push(event);
        Ok(())
    }

    /// Leaves an event out that [`Backlog::offer`] has given back.
    pub fn lose(&mut self, event: Event) {
        self.stalled = true;
        if let Event::Log { vertex, at, data, .. } = event {
            let lost = self.lost.entry(vertex).or_insert((0, at));
            *lost = (lost.0 + data.len() as u64, at);
        }
    }

    /// Whether something was left out since events were taken: then waiting does not help.
    pub fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// Whether the display should come soon.
    pub fn is_half_full(&self) -> bool {
        self.bytes > self.bytes_max / 2
    }

    /// Whether there is nothing to take.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.lost.is_empty()
    }

    /// All events; what was left out is said in the logs that lack it.
    pub fn take(&mut self) -> Vec<Event> {
        self.bytes = 0;
        self.stalled = false;
        let mut events = std::mem::take(&mut self.events);
        for (vertex, (bytes, at)) in std::mem::take(&mut self.lost) {
            let bytes = format::bytes(bytes);
            let note =
                format!("\n[{bytes} of the log are left out here: the terminal was too slow]\n");
            let data = note.into_bytes();
            events.push(Event::Log { vertex, stream: Stream::Stderr, at, data });
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::wire::build::{Progress, Vertex};

    fn log(bytes: usize) -> Event {
        let data = vec![b'x'; bytes];
        Event::Log { vertex: VertexId(1), stream: Stream::Stdout, at: Millis(7), data }
    }

    fn vertex() -> Event {
        Event::Vertex(Vertex {
            id: VertexId(1),
            name: "RUN".into(),
            inputs: Vec::new(),
            started: None,
            completed: None,
            cached: false,
            saved_ms: 0,
            error: None,
        })
    }

    fn progress(completed: Option<Millis>) -> Event {
        let what = "x".repeat(1000);
        let started = Millis(0);
        Event::Progress(Progress {
            vertex: VertexId(1),
            what,
            current: 1,
            total: 2,
            started,
            completed,
        })
    }

    #[test]
    fn logs_have_a_limit_and_the_display_says_what_it_lacks() {
        let mut backlog = Backlog::new(2000);
        assert!(backlog.is_empty());
        backlog.offer(log(1000)).unwrap();
        assert!(!backlog.is_stalled());
        let refused = backlog.offer(log(1500)).unwrap_err();
        backlog.lose(refused);
        backlog.offer(progress(None)).unwrap_err();
        backlog.lose(progress(None));
        assert!(backlog.is_stalled() && backlog.is_half_full());
        backlog.offer(vertex()).unwrap();
        backlog.offer(progress(Some(Millis(1)))).unwrap();
        let taken = backlog.take();
        assert_eq!(taken[..3], [log(1000), vertex(), progress(Some(Millis(1)))]);
        let [Event::Log { data, .. }] = &taken[3..] else { panic!("{taken:?}") };
        let note = "\n[1.50kB of the log are left out here: the terminal was too slow]\n";
        assert_eq!(std::str::from_utf8(data), Ok(note));
        assert!(backlog.is_empty() && !backlog.is_stalled() && !backlog.is_half_full());
    }

    #[test]
    fn one_event_always_fits() {
        let mut backlog = Backlog::new(10);
        backlog.offer(log(1000)).unwrap();
        backlog.offer(log(1)).unwrap_err();
    }
}
