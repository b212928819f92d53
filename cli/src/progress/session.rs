//! The display of one build without its terminal: events go in, what is to be written comes out.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

#[cfg(test)]
mod tests;

use super::model::{Ending, Model};
use super::palette::Palette;
use super::plain::Plain;
use super::rawjson;
use super::report;
use super::screen::Screen;
use super::tail::Limits;
use super::tty::{self, Size, View};
use proto::error::{Class, Failure};
use proto::id::Millis;
use proto::wire::build::{Event, Summary};

/// What a failed step said, where nobody has seen its log yet.
const UNSEEN: Limits = Limits { lines: 1000, bytes: 256 << 10 };
/// The same where the whole log was shown, or is not wanted: as many lines as BuildKit repeats.
const SEEN: Limits = Limits { lines: 10, bytes: 64 << 10 };

/// What a display looks like.
#[derive(Debug, Clone)]
pub struct Look {
    /// Its form.
    pub form: Form,
    /// Its colours.
    pub palette: Palette,
    /// Whether remarks come with their places in the Dockerfile.
    pub expand_warnings: bool,
}

/// The form of a display.
#[derive(Debug, Clone)]
pub enum Form {
    /// Lines on a terminal that are drawn again and again.
    Tty(View),
    /// Text that only grows.
    Plain,
    /// JSON.
    RawJson,
    /// Nothing until the build has failed.
    Quiet,
}

/// How a build ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It has a result.
    Built(Summary),
    /// It has none; why.
    Failed(Failure),
    /// Nobody says; the display is given up.
    Abandoned,
}

/// The display of one build.
pub struct Session {
    model: Model,
    palette: Palette,
    expand_warnings: bool,
    state: State,
}

enum State {
    Tty { view: View, screen: Screen },
    Plain(Plain),
    RawJson,
    Quiet,
}

impl Session {
    /// The display of a build that is asked for now.
    pub fn new(now: Millis, look: Look) -> Self {
        let (tails, state) = match look.form {
            Form::Tty(view) => (UNSEEN, State::Tty { view, screen: Screen::default() }),
            Form::Plain => (SEEN, State::Plain(Plain::default())),
            Form::RawJson => (SEEN, State::RawJson),
            Form::Quiet => (UNSEEN, State::Quiet),
        };
        let Look { palette, expand_warnings, .. } = look;
        Self { model: Model::new(now, tails), palette, expand_warnings, state }
    }

    /// Whether there is something to write even if nothing happens: times that run, or lines that
    /// wait for their turn.
    pub fn moves(&self) -> bool {
        match &self.state {
            State::Tty { .. } => true,
            State::Plain(plain) => plain.waits(),
            State::RawJson | State::Quiet => false,
        }
    }

    /// Takes what has happened, and says what to write.
    pub fn events(&mut self, now: Millis, size: Size, events: &[Event]) -> String {
        let Self { model, palette, state, .. } = self;
        if let State::RawJson = state {
            return rawjson::line(now, events);
        }
        for event in events {
            model.apply(now, event);
            if let State::Plain(plain) = state {
                plain.note(now, model, event);
            }
        }
        let mut text = String::new();
        match state {
            State::Tty { view, screen } => {
                let lines = tty::frame(model, now, size, view);
                text = screen.draw(&lines, size.width, palette);
            }
            State::Plain(plain) => plain.write(now, model, &mut text),
            State::RawJson | State::Quiet => {}
        }
        text
    }

    /// The build has ended: says what to write last.
    pub fn finish(mut self, now: Millis, size: Size, outcome: &Outcome) -> String {
        self.model.end(
            now,
            match outcome {
                Outcome::Built(_) => Ending::Finished,
                Outcome::Failed(failure) if failure.class != Class::Cancelled => Ending::Failed,
                Outcome::Failed(_) | Outcome::Abandoned => Ending::Cancelled,
            },
        );
        let mut text = String::new();
        if let State::Plain(plain) = &mut self.state {
            plain.finish(now, &self.model, &mut text);
        } else {
            text = self.events(now, size, &[]);
        }
        let palette = &self.palette;
        let logs = report::logs(&self.model, palette);
        let warnings = report::warnings(self.model.warnings(), self.expand_warnings, palette);
        let shows_all = matches!(self.state, State::Tty { .. } | State::Plain(_));
        match outcome {
            Outcome::Built(summary) if shows_all => {
                text + &warnings + "\n" + &report::summary(summary)
            }
            Outcome::Failed(failure) if shows_all => {
                text + &logs + &warnings + &report::failure(failure, palette)
            }
            Outcome::Failed(failure) => text + &logs + &report::failure(failure, palette),
            Outcome::Built(_) | Outcome::Abandoned => text,
        }
    }
}
