//! The first thing in which two steps differ.

use super::trace::{Field, Kind, Origin, Sketch, Trace, Variable, Verdict};
use cache::tree::change::{Change, What};
use proto::id::RootId;
use std::collections::BTreeSet;
use std::fmt;

/// A step of a build.
#[derive(Debug, Clone, Copy)]
pub struct At<'t> {
    /// The build.
    pub trace: &'t Trace,
    /// The step's place.
    pub step: usize,
}

/// Why a step was not found, as far as it is known. Each reads as the end of a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// Nothing like it was built before.
    New,
    /// It was to be made anew.
    Fresh,
    /// Another instruction stood in its place.
    Instruction,
    /// A part of its text.
    Text(Field),
    /// A variable.
    Variable {
        /// Its name.
        name: String,
        /// What sets it.
        origin: Origin,
        /// What became of it.
        turn: Turn,
    },
    /// The order of its variables.
    Order,
    /// The image that it starts from, or takes files from.
    Image {
        /// Whether it is the base.
        is_base: bool,
        /// Its name before, if it had another one.
        before: Option<String>,
        /// Its name.
        now: String,
        /// Its digests, before and now.
        digests: (String, String),
    },
    /// A heredoc's text.
    Heredoc(String),
    /// What lies at a URL.
    Download(String),
    /// The commit of a repository, and which it was before and is now.
    Commit(String, String, String),
    /// Files, which are still to be looked at.
    Files(Trees),
    /// One of these files.
    File {
        /// Whose.
        of: String,
        /// Which, and what of it.
        change: Change,
    },
    /// One of these files; which, cannot be said any more.
    Lost {
        /// Whose.
        of: String,
    },
    /// Another step.
    Step(String),
    /// Nothing in the definition, but another step was made anew.
    Anew(String),
    /// The same step came to no good end before.
    Broken,
    /// Nothing: it was built before, and what came out is not kept any more.
    Gone,
}

/// Files of which a step takes some, before and now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trees {
    /// Whose files.
    pub of: String,
    /// Which of the step's inputs they are.
    pub place: u32,
    /// The trees that the step took them from, where they are known.
    pub roots: Option<(RootId, RootId)>,
    /// The step that made them; none for files of the client.
    pub step: Option<String>,
}

/// What became of a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It was not there.
    Added,
    /// It is gone.
    Removed,
    /// It has another value.
    Changed,
}

impl<'t> At<'t> {
    /// What is kept of it.
    pub fn sketch(&self) -> &'t Sketch {
        &self.trace.steps[self.step]
    }

    fn input(&self, place: usize) -> Self {
        Self { trace: self.trace, step: self.sketch().inputs[place].step as usize }
    }

    /// In how many things two steps differ.
    pub(super) fn distance(&self, other: At<'_>) -> usize {
        let (old, new) = (self.sketch(), other.sketch());
        let fields = old.fields.iter().filter(|field| !new.fields.contains(field)).count();
        let known: BTreeSet<_> = self.variables().collect();
        let theirs: BTreeSet<_> = other.variables().collect();
        let inputs = old.inputs.len().min(new.inputs.len());
        let differs = |place: &usize| {
            !old.inputs[*place].takes_the_same(&new.inputs[*place])
                || self.input(*place).sketch().key != other.input(*place).sketch().key
        };
        let inputs = (0..inputs).filter(differs).count();
        fields + known.symmetric_difference(&theirs).count() + inputs
    }

    fn variables(&self) -> impl Iterator<Item = &'t Variable> {
        let trace = self.trace;
        self.sketch().variables.iter().map(move |place| &trace.variables[*place as usize])
    }
}

/// The first thing in which a step differs from one that was built before. Inputs up to the place
/// `past` were found to be the same.
pub fn compare(before: Option<At<'_>>, now: At<'_>, past: Option<u32>) -> Difference {
    if now.sketch().is_fresh {
        return Difference::Fresh;
    }
    let Some(before) = before else { return Difference::New };
    let first = past.map_or(0, |past| past as usize + 1);
    if let Some(difference) = differs(before, now, first) {
        return difference;
    }
    if before.sketch().verdict == Verdict::Broken {
        return Difference::Broken;
    }
    let roots = before.sketch().roots.iter().zip(&now.sketch().roots);
    match roots.into_iter().position(|(before, now)| before != now) {
        Some(place) => Difference::Anew(seen(now, place)),
        None => Difference::Gone,
    }
}

/// What differs in the text of two steps, else in what they are made from.
fn differs(before: At<'_>, now: At<'_>, first: usize) -> Option<Difference> {
    let places = first..before.sketch().inputs.len().min(now.sketch().inputs.len());
    let inputs = || places.into_iter().find_map(|place| input(before, now, place));
    match own(before, now) {
        // What a base image sets differs because the image does.
        Some(variable @ Difference::Variable { origin: Origin::Other, .. }) => {
            inputs().or(Some(variable))
        }
        own => own.or_else(inputs),
    }
}

/// What differs in the text of two steps.
fn own(before: At<'_>, now: At<'_>) -> Option<Difference> {
    let (old, new) = (before.sketch(), now.sketch());
    if std::mem::discriminant(&old.kind) != std::mem::discriminant(&new.kind) {
        return Some(Difference::Instruction);
    }
    let field = old.fields.iter().zip(&new.fields).find(|(a, b)| a != b).map(|(_, b)| b.0);
    if let Some(difference) = field.and_then(|field| of_source(&old.kind, &new.kind, field)) {
        return Some(difference);
    }
    match field {
        Some(Field::Command) => Some(Difference::Text(Field::Command)),
        field => variables(before, now).or(field.map(Difference::Text)),
    }
}

/// What differs between two sources of files.
fn of_source(old: &Kind, new: &Kind, field: Field) -> Option<Difference> {
    match (old, new, field) {
        (
            Kind::Image { reference: before, digest: old },
            Kind::Image { reference: now, digest: new },
            Field::Bytes,
        ) => Some(Difference::Image {
            is_base: true,
            before: (before != now).then(|| before.clone()),
            now: now.clone(),
            digests: (old.clone(), new.clone()),
        }),
        (_, Kind::Inline(name), Field::Bytes) => Some(Difference::Heredoc(name.clone())),
        (_, Kind::Http(url), Field::Bytes) => Some(Difference::Download(url.clone())),
        (Kind::Git { commit: old, .. }, Kind::Git { remote, commit: new }, Field::Bytes) => {
            Some(Difference::Commit(remote.clone(), old.clone(), new.clone()))
        }
        _ => None,
    }
}

fn variables(before: At<'_>, now: At<'_>) -> Option<Difference> {
    if before.variables().eq(now.variables()) {
        return None;
    }
    let find = |at: At<'_>, name: &str| at.variables().find(|v| v.name == name).map(|v| v.value);
    let changed = now.variables().find_map(|variable| {
        let turn = match find(before, &variable.name) {
            None => Turn::Added,
            Some(value) if value != variable.value => Turn::Changed,
            Some(_) => return None,
        };
        Some((variable, turn))
    });
    let removed = || {
        let gone = before.variables().find(|variable| find(now, &variable.name).is_none());
        gone.map(|variable| (variable, Turn::Removed))
    };
    match changed.or_else(removed) {
        Some((Variable { name, origin, .. }, turn)) => {
            Some(Difference::Variable { name: name.clone(), origin: *origin, turn })
        }
        None => {
            let names = |at: At<'_>| at.variables().map(|v| v.name.clone()).collect::<Vec<_>>();
            (names(before) != names(now)).then_some(Difference::Order)
        }
    }
}

/// What differs in one of the inputs.
fn input(before: At<'_>, now: At<'_>, place: usize) -> Option<Difference> {
    let (old, new) = (&before.sketch().inputs[place], &now.sketch().inputs[place]);
    let from = now.input(place);
    if let (Some(old_root), Some(new_root)) = (old.local, new.local) {
        let is_same = old.takes_the_same(new);
        let of = whose(&from.sketch().kind);
        let (roots, place) = (Some((old_root, new_root)), place as u32);
        return (!is_same).then_some(Difference::Files(Trees { of, place, roots, step: None }));
    }
    let source = before.input(place);
    if source.sketch().key == from.sketch().key {
        return None;
    }
    match (&source.sketch().kind, &from.sketch().kind) {
        (Kind::Image { .. }, Kind::Image { .. }) => match own(source, from)? {
            Difference::Image { before, now, digests, .. } => {
                Some(Difference::Image { is_base: place == 0, before, now, digests })
            }
            other => Some(other),
        },
        _ if from.sketch().name.is_empty() => Some(match differs(source, from, 0)? {
            // What is taken of these files is what another step takes.
            Difference::Files(trees) => Difference::Files(Trees { roots: None, ..trees }),
            other => other,
        }),
        // A root is all that a step sees: which file of it differs says little.
        _ if place == 0 => Some(Difference::Step(from.sketch().name.clone())),
        _ => {
            let name = from.sketch().name.clone();
            let root = |at: At<'_>| at.sketch().roots.get(place).copied();
            let roots = root(before).zip(root(now));
            let of = format!("`{name}`");
            Some(Difference::Files(Trees { of, place: place as u32, roots, step: Some(name) }))
        }
    }
}

fn whose(kind: &Kind) -> String {
    match kind {
        Kind::Local(name) if name == "context" => "the context".to_owned(),
        Kind::Local(name) => format!("the context {name}"),
        _ => "what it is made from".to_owned(),
    }
}

/// The nearest step that people see, of those that give an input.
fn seen(now: At<'_>, place: usize) -> String {
    let mut at = now.input(place);
    while at.sketch().name.is_empty() && !at.sketch().inputs.is_empty() {
        at = at.input(0);
    }
    at.sketch().name.clone()
}

impl Field {
    fn words(self) -> &'static str {
        match self {
            Self::Command => "its command has another text",
            Self::Directory => "it runs in another directory",
            Self::User => "it runs as another user",
            Self::Network => "it has another network",
            Self::Security => "it is confined in another way",
            Self::HostName => "it has another host name",
            Self::Hosts => "it knows other hosts (--add-host)",
            Self::Limits => "it has other limits (--ulimit)",
            Self::SharedMemory => "it has another size of /dev/shm",
            Self::ControlGroup => "it has another control group",
            Self::Devices => "it has other devices",
            Self::Mounts => "it has other mounts",
            Self::Sources => "its sources are others",
            Self::Destination => "its destination is another one",
            Self::Chown => "its --chown is another one",
            Self::Chmod => "its --chmod is another one",
            Self::Selection => "its --exclude or --parents is another one",
            Self::Path => "its path or user is another one",
            Self::Epoch => "its SOURCE_DATE_EPOCH is another one",
            Self::Bytes => "its bytes are others",
            Self::Form => "its source is taken in another way",
            Self::Platform => "it is for another platform",
        }
    }
}

impl Difference {
    /// Its name for programs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Fresh => "no-cache",
            Self::Instruction => "instruction",
            Self::Text(Field::Command) => "command",
            Self::Text(_) => "text",
            Self::Variable { origin: Origin::Arg, .. } => "arg",
            Self::Variable { origin: Origin::Env, .. } => "env",
            Self::Variable { origin: Origin::Other, .. } | Self::Order => "variable",
            Self::Image { is_base: true, .. } => "base",
            Self::Image { is_base: false, .. } => "image",
            Self::Heredoc(_) => "heredoc",
            Self::Download(_) => "download",
            Self::Commit(..) => "commit",
            Self::Files(_) | Self::Lost { .. } => "files",
            Self::File { .. } => "file",
            Self::Step(_) | Self::Anew(_) => "step",
            Self::Broken => "broken",
            Self::Gone => "gone",
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New => f.write_str("nothing like it was built before"),
            Self::Fresh => f.write_str("it was to take no earlier result (--no-cache)"),
            Self::Instruction => f.write_str("another instruction stood in its place"),
            Self::Text(field) => f.write_str(field.words()),
            Self::Variable { name, origin, turn } => {
                let what = match origin {
                    Origin::Arg => "ARG",
                    Origin::Env => "ENV",
                    Origin::Other => "variable",
                };
                match turn {
                    Turn::Added => write!(f, "the {what} {name} is new"),
                    Turn::Removed => write!(f, "the {what} {name} is gone"),
                    Turn::Changed => write!(f, "the {what} {name} has another value"),
                }
            }
            Self::Order => f.write_str("its variables are set in another order"),
            Self::Image { is_base, before, now, digests: (old, new) } => {
                let what = if *is_base { "base image" } else { "image" };
                match before {
                    Some(before) => write!(f, "the {what} is {now} ({new}), and was {before}"),
                    None => write!(f, "the {what} {now} has the digest {new}, and had {old}"),
                }
            }
            Self::Heredoc(name) => write!(f, "the heredoc {name} has another text"),
            Self::Download(url) => write!(f, "{url} has other bytes"),
            Self::Commit(remote, old, new) => {
                write!(f, "{remote} is taken at the commit {new}, and was at {old}")
            }
            Self::Files(Trees { step: Some(step), .. }) => Self::Step(step.clone()).fmt(f),
            Self::Files(Trees { of, .. }) => write!(f, "files of {of} differ"),
            Self::File { of, change } => file(f, of, change),
            Self::Lost { of } => {
                write!(
                    f,
                    "files of {of} differ, but which is not known: they are not kept any more"
                )
            }
            Self::Step(name) => write!(f, "its input `{name}` is another one"),
            Self::Anew(name) => write!(f, "its input `{name}` was made anew"),
            Self::Broken => f.write_str("it came to no good end before"),
            Self::Gone => {
                f.write_str("nothing differs, but its earlier result is not kept any more")
            }
        }
    }
}

fn file(f: &mut fmt::Formatter<'_>, of: &str, change: &Change) -> fmt::Result {
    let path = String::from_utf8_lossy(&change.path);
    let path = match path.is_empty() {
        true => "the directory itself".to_owned(),
        false => path.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect(),
    };
    match change.what {
        What::Added => write!(f, "the file {path} of {of} is new"),
        What::Removed => write!(f, "the file {path} of {of} is gone"),
        What::Kind => write!(f, "the file {path} of {of} is of another kind"),
        What::Content => write!(f, "the file {path} of {of} has other content"),
        What::Target => write!(f, "the link {path} of {of} leads elsewhere"),
        What::Device => write!(f, "the device {path} of {of} has another number"),
        What::Mode(old, new) => {
            write!(f, "the file {path} of {of} has the mode {new:04o}, and had {old:04o}")
        }
        What::Owner((a, b), (c, d)) => {
            write!(f, "the file {path} of {of} belongs to {c}:{d}, and belonged to {a}:{b}")
        }
        What::Attributes => write!(f, "the file {path} of {of} has other attributes"),
        What::Names => write!(f, "the file {path} of {of} has other names besides"),
    }
}
