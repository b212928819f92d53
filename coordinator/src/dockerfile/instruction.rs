//! Instructions as types.
//!
//! What BuildKit expands when it builds is a [`Word`]; the types that hold such words have a
//! parameter for them, and a method `expand` that gives the same type with texts instead. So a value
//! that was not expanded cannot get into a step, a history or an image config.

use super::expand::{ExpandError, Expander, Title, Word};
use super::heredoc::Heredoc;
use super::mount::{Device, MountSpec};
use proto::error::SourceRange;
use proto::step::{NetworkMode, SecurityMode};
use std::collections::BTreeSet;
use std::time::Duration;

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// What it says.
    pub kind: Kind,
    /// Its name as it is written: `run`.
    pub keyword: String,
    /// Its text as it is written: its lines joined, without comments and heredocs.
    pub text: String,
    /// The comments above it, without their `#`. They may hold settings of checks.
    pub comments: Vec<String>,
    /// Where it stands, heredocs included.
    pub at: SourceRange,
}

/// What an instruction says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// ADD.
    Add(Box<AddFiles>),
    /// ARG.
    Arg(Vec<ArgItem>),
    /// CMD.
    Cmd(CommandLine),
    /// COPY.
    Copy(Box<CopyFiles>),
    /// ENTRYPOINT.
    Entrypoint(CommandLine),
    /// ENV.
    Env(Pairs),
    /// EXPOSE: sorted as they are written. One word may expand to several.
    Expose(Vec<Word>),
    /// HEALTHCHECK.
    Healthcheck(Healthcheck),
    /// LABEL.
    Label(Pairs),
    /// MAINTAINER.
    Maintainer(String),
    /// ONBUILD: the trigger's text, with its heredocs.
    Onbuild(String),
    /// RUN.
    Run(Box<Run>),
    /// SHELL: never empty.
    Shell(Vec<String>),
    /// STOPSIGNAL.
    StopSignal(Word),
    /// USER.
    User(Word),
    /// VOLUME: never empty.
    Volume(Vec<Word>),
    /// WORKDIR.
    Workdir(Word),
}

impl Kind {
    /// The instruction's name in capital letters.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Add(_) => "ADD",
            Self::Arg(_) => "ARG",
            Self::Cmd(_) => "CMD",
            Self::Copy(_) => "COPY",
            Self::Entrypoint(_) => "ENTRYPOINT",
            Self::Env(_) => "ENV",
            Self::Expose(_) => "EXPOSE",
            Self::Healthcheck(_) => "HEALTHCHECK",
            Self::Label(_) => "LABEL",
            Self::Maintainer(_) => "MAINTAINER",
            Self::Onbuild(_) => "ONBUILD",
            Self::Run(_) => "RUN",
            Self::Shell(_) => "SHELL",
            Self::StopSignal(_) => "STOPSIGNAL",
            Self::User(_) => "USER",
            Self::Volume(_) => "VOLUME",
            Self::Workdir(_) => "WORKDIR",
        }
    }

    /// The names without a value, for each word on its own, of instructions of which one
    /// [`Expander`] replaces several words; up to the word that cannot be expanded.
    pub fn missing<'e>(
        &self,
        expander: impl Fn() -> Expander<'e>,
    ) -> Option<Vec<BTreeSet<String>>> {
        let mut words: Vec<&Word> = Vec::new();
        let mut inline: &[InlineFile] = &[];
        match self {
            Self::Env(pairs) | Self::Label(pairs) => {
                words.extend(pairs.0.iter().flat_map(|pair| [&pair.key, &pair.value]));
            }
            Self::Copy(copy) => {
                words.extend(copy.files.words());
                inline = &copy.files.inline;
            }
            Self::Add(add) => {
                words.extend(add.checksum.iter().chain(add.files.words()));
                inline = &add.files.inline;
            }
            Self::Volume(paths) => words.extend(paths),
            _ => return None,
        }
        let mut out = Vec::new();
        let mut note = |expand: &dyn Fn(&mut Expander<'_>) -> Result<(), ExpandError>| {
            let mut expander = expander();
            let result = expand(&mut expander);
            out.push(expander.missing().clone());
            result
        };
        let texts = inline.iter().filter(|file| file.expand);
        let words = words.into_iter().try_for_each(|word| note(&|e| e.word(word).map(drop)));
        // The error is that of the whole instruction, and told there.
        let _ = words.and_then(|()| {
            texts.into_iter().try_for_each(|file| note(&|e| e.heredoc(&file.data).map(drop)))
        });
        Some(out)
    }
}

impl Instruction {
    /// What people see while it runs: `RUN make`, `COPY a.txt /target`. Variables that the builder
    /// knows are replaced. Secrets that are variables must be hidden by `expander`'s lookup.
    pub fn title(&self, expander: &Expander<'_>) -> String {
        let of = match self.kind {
            Kind::Run(_) => Title::Command,
            _ => Title::Other,
        };
        let mut text = self.text.clone();
        if let Kind::Run(run) = &self.kind
            && let Some(summary) = run.summary()
        {
            text = format!("{text} ({summary})");
        }
        let title = expander.title(&text, of);
        match title.split_once(' ') {
            Some((keyword, rest)) => format!("{} {rest}", keyword.to_uppercase()),
            None => title.to_uppercase(),
        }
    }
}

/// A name and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair<T = Word> {
    /// The name.
    pub key: T,
    /// The value.
    pub value: T,
    /// Whether it is written `name value`, without `=`.
    pub is_legacy: bool,
}

/// The pairs of ENV and LABEL: never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pairs<T = Word>(pub Vec<Pair<T>>);

impl Pairs {
    /// Replaces the variables in names and values.
    pub fn expand(&self, expander: &mut Expander<'_>) -> Result<Pairs<String>, ExpandError> {
        let pair = |pair: &Pair| {
            let key = expander.word(&pair.key)?;
            let value = expander.word(&pair.value)?;
            Ok(Pair { key, value, is_legacy: pair.is_legacy })
        };
        Ok(Pairs(self.0.iter().map(pair).collect::<Result<_, ExpandError>>()?))
    }
}

/// One name of ARG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgItem {
    /// The name: never expanded.
    pub name: String,
    /// The value when no other is given. Expand it only then: what is not used may be wrong.
    pub default: Option<Word>,
    /// What the comment above says about it.
    pub doc: Option<String>,
}

/// A command: of CMD, ENTRYPOINT, HEALTHCHECK and RUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    /// A text for the shell.
    Shell(String),
    /// A program and its arguments; may be empty.
    Exec(Vec<String>),
}

impl CommandLine {
    /// The program and its arguments; a text is given to `shell`, the value of SHELL.
    pub fn args(&self, shell: &[String]) -> Vec<String> {
        match self {
            Self::Exec(args) => args.clone(),
            Self::Shell(text) => shell.iter().chain([text]).cloned().collect(),
        }
    }
}

/// HEALTHCHECK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Healthcheck {
    /// None, also not the base image's.
    None,
    /// A command that is run now and then. Times of zero, and zero retries, are inherited.
    Cmd {
        /// The command. A text is run by the image's shell, when the container runs.
        command: CommandLine,
        /// The time between two runs.
        interval: Duration,
        /// How long one run may take.
        timeout: Duration,
        /// How long failures do not count after the start.
        start_period: Duration,
        /// The time between two runs in that period.
        start_interval: Duration,
        /// How many failures in a row make the container unhealthy.
        retries: u32,
    },
}

impl Healthcheck {
    /// The image config's `Test`: `NONE`, `CMD …` or `CMD-SHELL …`.
    pub fn test(&self) -> Vec<String> {
        let with = |kind: &str, rest: &[String]| {
            [kind.to_owned()].into_iter().chain(rest.iter().cloned()).collect()
        };
        match self {
            Self::None => with("NONE", &[]),
            Self::Cmd { command: CommandLine::Exec(args), .. } => with("CMD", args),
            Self::Cmd { command: CommandLine::Shell(text), .. } => {
                with("CMD-SHELL", std::slice::from_ref(text))
            }
        }
    }
}

/// A file whose text stands in the Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InlineFile {
    /// Its name.
    pub name: String,
    /// Its text.
    pub data: Vec<u8>,
    /// Whether variables in the text are still to be replaced.
    pub expand: bool,
}

/// What COPY and ADD have in common. At least one of `sources` and `inline` is not empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer<T = Word> {
    /// Paths and patterns, and for ADD also URLs and git references; copied in this order.
    pub sources: Vec<T>,
    /// Heredocs; copied after the sources.
    pub inline: Vec<InlineFile>,
    /// Where to.
    pub dest: T,
    /// `user[:group]` of everything copied.
    pub chown: Option<T>,
    /// The mode of everything copied. See [`super::value::Chmod`].
    pub chmod: Option<T>,
    /// `--link`. Without effect when there is a `chmod`.
    pub link: bool,
    /// Patterns of what is left out: `cache::tree::pattern`.
    pub exclude: Vec<String>,
}

impl Transfer {
    fn words(&self) -> impl Iterator<Item = &Word> {
        self.chown.iter().chain(&self.chmod).chain(&self.sources).chain([&self.dest])
    }

    fn expand(&self, expander: &mut Expander<'_>) -> Result<Transfer<String>, ExpandError> {
        let chown = optional(&self.chown, expander)?;
        let chmod = optional(&self.chmod, expander)?;
        let sources =
            self.sources.iter().map(|word| expander.word(word)).collect::<Result<_, _>>()?;
        let dest = expander.word(&self.dest)?;
        let inline = |file: &InlineFile| {
            let data = if file.expand { expander.heredoc(&file.data)? } else { file.data.clone() };
            Ok(InlineFile { name: file.name.clone(), data, expand: false })
        };
        let inline = self.inline.iter().map(inline).collect::<Result<_, ExpandError>>()?;
        let (link, exclude) = (self.link, self.exclude.clone());
        Ok(Transfer { sources, inline, dest, chown, chmod, link, exclude })
    }
}

/// An option of COPY and ADD; one that expands to nothing is not given.
fn optional(
    word: &Option<Word>,
    expander: &mut Expander<'_>,
) -> Result<Option<String>, ExpandError> {
    let text = word.as_ref().map(|word| expander.word(word)).transpose()?;
    Ok(text.filter(|text| !text.is_empty()))
}

/// COPY.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyFiles<T = Word> {
    /// What, and where to.
    pub files: Transfer<T>,
    /// A stage by its name or number, an image or a named context; `None`: the main context. Never
    /// holds variables.
    pub from: Option<String>,
    /// `--parents`.
    pub parents: bool,
}

impl CopyFiles {
    /// Replaces the variables.
    pub fn expand(&self, expander: &mut Expander<'_>) -> Result<CopyFiles<String>, ExpandError> {
        let files = self.files.expand(expander)?;
        Ok(CopyFiles { files, from: self.from.clone(), parents: self.parents })
    }
}

/// ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddFiles<T = Word> {
    /// What, and where to.
    pub files: Transfer<T>,
    /// `--checksum`: a digest, or a commit.
    pub checksum: Option<T>,
    /// `--keep-git-dir`, when it is given.
    pub keep_git_dir: Option<bool>,
    /// `--unpack`, when it is given.
    pub unpack: Option<bool>,
}

impl AddFiles {
    /// Replaces the variables.
    pub fn expand(&self, expander: &mut Expander<'_>) -> Result<AddFiles<String>, ExpandError> {
        let checksum = optional(&self.checksum, expander)?;
        let files = self.files.expand(expander)?;
        let (keep_git_dir, unpack) = (self.keep_git_dir, self.unpack);
        Ok(AddFiles { files, checksum, keep_git_dir, unpack })
    }
}

/// RUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The command. Only a text for the shell has heredocs.
    pub command: CommandLine,
    /// The heredocs in it: their text is UTF-8.
    pub heredocs: Vec<Heredoc>,
    /// `--mount`.
    pub mounts: Vec<MountSpec>,
    /// `--network`; [`NetworkMode::Default`] is the build's.
    pub network: NetworkMode,
    /// `--security`.
    pub security: SecurityMode,
    /// `--device`.
    pub devices: Vec<Device>,
}
