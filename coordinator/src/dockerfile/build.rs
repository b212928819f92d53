//! From a logical line to an instruction.

use super::directive::Escape;
use super::error::Problem;
use super::expand::Word;
use super::flag::{self, Flags, Takes};
use super::heredoc::{Heredoc, Marker};
use super::instruction::{
    AddFiles, ArgItem, CommandLine, CopyFiles, Healthcheck, InlineFile, Kind, Pairs, Run, Transfer,
};
use super::lexer::Logical;
use super::mount::{Device, MountSpec};
use super::stage::{Docs, StageName};
use super::text::shown;
use super::words;
use super::{heredoc, suggest, value};
use proto::step::{NetworkMode, SecurityMode};
use std::collections::BTreeMap;

/// The instructions that there are.
pub(super) const NAMES: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// What one logical line says.
pub(super) enum Parsed {
    From(From),
    Other(Kind),
}

/// FROM.
pub(super) struct From {
    pub base: Word,
    pub name: Option<StageName>,
    pub platform: Option<Word>,
    pub as_keyword: Option<String>,
}

/// A line that was cut, but not yet understood.
pub(super) struct Line<'l> {
    /// The instruction's name in capital letters; `None` when there is no such instruction.
    name: Option<&'static str>,
    pub keyword: &'l str,
    flags: Vec<String>,
    pub args: &'l str,
    /// The arguments as a JSON array, for instructions that may have one.
    json: Option<Vec<String>>,
    escape: Escape,
    logical: &'l Logical,
}

impl<'l> Line<'l> {
    pub(super) fn cut(logical: &'l Logical, escape: Escape) -> Result<Self, Problem> {
        Self::cut_text(&logical.text, logical, escape)
    }

    fn cut_text(text: &'l str, logical: &'l Logical, escape: Escape) -> Result<Self, Problem> {
        let parts = flag::cut(text, escape).map_err(Problem::Flags)?;
        let flag::Parts { keyword, flags, args } = parts;
        let name = NAMES.into_iter().find(|name| name.eq_ignore_ascii_case(keyword));
        let json = match name {
            Some(name @ ("ADD" | "CMD" | "COPY" | "ENTRYPOINT" | "RUN" | "SHELL" | "VOLUME")) => {
                words::json(name, args)?
            }
            _ => None,
        };
        Ok(Self { name, keyword, flags, args, json, escape, logical })
    }

    /// The heredocs that it announces.
    pub(super) fn markers(&self) -> Result<Vec<Marker>, Problem> {
        let takes = match self.name {
            Some("ONBUILD") => self.trigger()?.is_some_and(|trigger| trigger.takes_heredocs()),
            _ => self.takes_heredocs(),
        };
        if !takes {
            return Ok(Vec::new());
        }
        heredoc::markers(&self.logical.text).map_err(Problem::HeredocName)
    }

    fn takes_heredocs(&self) -> bool {
        matches!(self.name, Some("ADD" | "COPY" | "RUN")) && self.json.is_none()
    }

    /// The instruction of an ONBUILD. One that is an ONBUILD itself is not looked into.
    fn trigger(&self) -> Result<Option<Self>, Problem> {
        if self.args.is_empty() {
            return Ok(None);
        }
        let trigger = Self::cut_text(self.args, self.logical, self.escape)?;
        if let Some(name @ ("ENV" | "LABEL")) = trigger.name {
            match words::pairs(name, trigger.args, self.escape) {
                // Names are looked at when the trigger comes into effect.
                Ok(_) | Err(Problem::BlankName(_)) => {}
                Err(problem) => return Err(problem),
            }
        }
        Ok(Some(trigger))
    }

    /// What the line says.
    pub(super) fn parse(self, heredocs: Vec<Heredoc>) -> Result<Parsed, Problem> {
        let Some(name) = self.name else {
            let name = shown(self.keyword);
            let near = suggest::nearest(&self.keyword.to_uppercase(), NAMES);
            return Err(Problem::UnknownInstruction { name, near });
        };
        let kind = match name {
            "FROM" => return self.from().map(Parsed::From),
            "ADD" => self.add(heredocs)?,
            "ARG" => self.arg()?,
            "CMD" => self.no_flags(name, Kind::Cmd(self.command()))?,
            "COPY" => self.copy(heredocs)?,
            "ENTRYPOINT" => self.no_flags(name, Kind::Entrypoint(self.command()))?,
            "ENV" => self.no_flags(name, Kind::Env(self.pairs(name)?))?,
            "EXPOSE" => self.no_flags(name, Kind::Expose(self.ports(name)?))?,
            "HEALTHCHECK" => self.healthcheck()?,
            "LABEL" => self.no_flags(name, Kind::Label(self.pairs(name)?))?,
            "MAINTAINER" => self.no_flags(name, Kind::Maintainer(self.one(name)?))?,
            "ONBUILD" => self.onbuild(&heredocs)?,
            "RUN" => self.run(heredocs)?,
            "SHELL" => self.shell()?,
            // BuildKit does not look at the flags of STOPSIGNAL and ARG.
            "STOPSIGNAL" => Kind::StopSignal(Word::new(self.one(name)?)),
            "USER" => self.no_flags(name, Kind::User(Word::new(self.one(name)?)))?,
            "VOLUME" => self.no_flags(name, Kind::Volume(self.volumes(name)?))?,
            _ => self.no_flags(name, Kind::Workdir(Word::new(self.one(name)?)))?,
        };
        Ok(Parsed::Other(kind))
    }

    fn flags(
        &self,
        instruction: &'static str,
        known: &[(&'static str, Takes)],
    ) -> Result<Flags, Problem> {
        Flags::parse(&self.flags, known).map_err(|why| Problem::Flag { instruction, why })
    }

    fn no_flags(&self, name: &'static str, kind: Kind) -> Result<Kind, Problem> {
        self.flags(name, &[]).map(|_| kind)
    }

    /// All of the arguments as one text.
    fn one(&self, name: &'static str) -> Result<String, Problem> {
        if self.args.is_empty() {
            return Err(Problem::OneArgument(name));
        }
        Ok(self.args.to_owned())
    }

    fn command(&self) -> CommandLine {
        match &self.json {
            Some(args) => CommandLine::Exec(args.clone()),
            None => CommandLine::Shell(self.args.to_owned()),
        }
    }

    /// A JSON array, or words between blanks.
    fn list(&self, name: &'static str) -> Result<Vec<String>, Problem> {
        match &self.json {
            Some(words) => Ok(words.clone()),
            None => words::separated(name, self.args),
        }
    }

    fn pairs(&self, name: &'static str) -> Result<Pairs, Problem> {
        let pairs = words::pairs(name, self.args, self.escape)?;
        if pairs.is_empty() { Err(Problem::NoArgument(name)) } else { Ok(Pairs(pairs)) }
    }

    fn ports(&self, name: &'static str) -> Result<Vec<Word>, Problem> {
        let mut words = words::separated(name, self.args)?;
        if words.is_empty() {
            return Err(Problem::NoArgument(name));
        }
        words.sort_unstable();
        Ok(words.into_iter().map(Word::new).collect())
    }

    fn volumes(&self, name: &'static str) -> Result<Vec<Word>, Problem> {
        let words = self.list(name)?;
        if words.is_empty() {
            return Err(Problem::NoArgument(name));
        }
        let volume = |word: &String| match word.trim() {
            "" => Err(Problem::BlankVolume),
            path => Ok(Word::new(path)),
        };
        words.iter().map(volume).collect()
    }

    fn arg(&self) -> Result<Kind, Problem> {
        let words = words::quoted("ARG", self.args, self.escape)?;
        if words.is_empty() {
            return Err(Problem::NoArgument("ARG"));
        }
        let docs = Docs::new(&self.logical.comments);
        let item = |word: &String| {
            let (name, default) = match word.split_once('=') {
                Some(("", _)) => return Err(Problem::BlankName("ARG")),
                Some((name, value)) => (name, Some(Word::new(value))),
                None => (word.as_str(), None),
            };
            Ok(ArgItem { name: name.to_owned(), default, doc: docs.about(name) })
        };
        Ok(Kind::Arg(words.iter().map(item).collect::<Result<_, _>>()?))
    }

    fn shell(&self) -> Result<Kind, Problem> {
        self.flags("SHELL", &[])?;
        match &self.json {
            Some(words) if !words.is_empty() => Ok(Kind::Shell(words.clone())),
            None if !self.args.is_empty() => Err(Problem::ShellForm),
            _ => Err(Problem::NoArgument("SHELL")),
        }
    }

    fn from(&self) -> Result<From, Problem> {
        let words = words::separated("FROM", self.args)?;
        let (base, name) = match words.as_slice() {
            [base] => (base, None),
            [base, keyword, name] if keyword.eq_ignore_ascii_case("as") => {
                (base, Some((keyword.clone(), stage_name(name)?)))
            }
            _ => return Err(Problem::FromArguments),
        };
        let flags = self.flags("FROM", &[("platform", Takes::Text)])?;
        let (as_keyword, name) = name.unzip();
        let platform = flags.text("platform").map(Word::new);
        Ok(From { base: Word::new(base), name, platform, as_keyword })
    }

    fn copy(&self, heredocs: Vec<Heredoc>) -> Result<Kind, Problem> {
        let words = self.transfer_words("COPY")?;
        let flags = self.flags(
            "COPY",
            &[
                ("chown", Takes::Text),
                ("from", Takes::Text),
                ("chmod", Takes::Text),
                ("link", Takes::Bool),
                ("exclude", Takes::List),
                ("parents", Takes::Bool),
            ],
        )?;
        let files = transfer("COPY", words, &flags, &heredocs)?;
        let from = flags.text("from").map(str::to_owned);
        let parents = flags.bool("parents").unwrap_or(false);
        Ok(Kind::Copy(Box::new(CopyFiles { files, from, parents })))
    }

    fn add(&self, heredocs: Vec<Heredoc>) -> Result<Kind, Problem> {
        let words = self.transfer_words("ADD")?;
        let flags = self.flags(
            "ADD",
            &[
                ("chown", Takes::Text),
                ("chmod", Takes::Text),
                ("link", Takes::Bool),
                ("keep-git-dir", Takes::Bool),
                ("checksum", Takes::Text),
                ("unpack", Takes::Bool),
                ("exclude", Takes::List),
            ],
        )?;
        Ok(Kind::Add(Box::new(AddFiles {
            files: transfer("ADD", words, &flags, &heredocs)?,
            checksum: flags.text("checksum").map(Word::new),
            keep_git_dir: flags.bool("keep-git-dir"),
            unpack: flags.bool("unpack"),
        })))
    }

    fn transfer_words(&self, name: &'static str) -> Result<Vec<String>, Problem> {
        let words = self.list(name)?;
        if words.len() < 2 { Err(Problem::NoDestination(name)) } else { Ok(words) }
    }

    fn run(&self, heredocs: Vec<Heredoc>) -> Result<Kind, Problem> {
        let flags = self.flags(
            "RUN",
            &[
                ("device", Takes::List),
                ("mount", Takes::List),
                ("network", Takes::Text),
                ("security", Takes::Text),
            ],
        )?;
        for heredoc in &heredocs {
            if heredoc.text.contains(&0) {
                return Err(Problem::Nul);
            }
            std::str::from_utf8(&heredoc.text).map_err(|_| Problem::NotUtf8)?;
        }
        let devices = flags.list("device").map(Device::parse).collect::<Result<_, _>>();
        let mounts = flags.list("mount").map(MountSpec::parse).collect::<Result<_, _>>();
        let network = match flags.list("network").next().unwrap_or("default") {
            "default" => NetworkMode::Default,
            "none" => NetworkMode::None,
            "host" => NetworkMode::Host,
            other => return Err(Problem::Network(shown(other))),
        };
        let security = match flags.list("security").next().unwrap_or("sandbox") {
            "sandbox" => SecurityMode::Sandbox,
            "insecure" => SecurityMode::Insecure,
            other => return Err(Problem::Security(shown(other))),
        };
        Ok(Kind::Run(Box::new(Run {
            command: self.command(),
            heredocs,
            mounts: mounts.map_err(Problem::Mount)?,
            network,
            security,
            devices: devices.map_err(Problem::Mount)?,
        })))
    }

    fn healthcheck(&self) -> Result<Kind, Problem> {
        let end = self.args.find(char::is_whitespace).unwrap_or(self.args.len());
        let (kind, rest) = self.args.split_at(end);
        let rest = rest.trim_start();
        match kind.to_uppercase().as_str() {
            "" => Err(Problem::NoArgument("HEALTHCHECK")),
            "NONE" if rest.is_empty() => Ok(Kind::Healthcheck(Healthcheck::None)),
            "NONE" => Err(Problem::HealthcheckNone),
            "CMD" => self.healthcheck_command(rest).map(Kind::Healthcheck),
            _ => Err(Problem::HealthcheckType(shown(kind))),
        }
    }

    fn healthcheck_command(&self, text: &str) -> Result<Healthcheck, Problem> {
        let command = match words::json("HEALTHCHECK", text)? {
            Some(args) if args.is_empty() => return Err(Problem::HealthcheckCommand),
            Some(args) => CommandLine::Exec(args),
            None if text.is_empty() => return Err(Problem::HealthcheckCommand),
            None => CommandLine::Shell(text.to_owned()),
        };
        let known = ["interval", "timeout", "start-period", "start-interval", "retries"];
        let flags = self.flags("HEALTHCHECK", &known.map(|name| (name, Takes::Text)))?;
        let time = |flag: &'static str| {
            value::duration(flags.text(flag).unwrap_or("0"))
                .map_err(|why| Problem::HealthcheckTime { flag, why })
        };
        let retries = flags.text("retries").unwrap_or("0");
        let retries = match retries.parse::<i32>().map(u32::try_from) {
            Ok(Ok(retries)) => retries,
            _ => return Err(Problem::HealthcheckRetries(shown(retries))),
        };
        Ok(Healthcheck::Cmd {
            command,
            interval: time("interval")?,
            timeout: time("timeout")?,
            start_period: time("start-period")?,
            start_interval: time("start-interval")?,
            retries,
        })
    }

    fn onbuild(&self, heredocs: &[Heredoc]) -> Result<Kind, Problem> {
        let Some(trigger) = self.trigger()? else {
            return Err(Problem::NoArgument("ONBUILD"));
        };
        self.flags("ONBUILD", &[])?;
        match trigger.name {
            Some("ONBUILD") => return Err(Problem::OnbuildChain),
            Some(name @ ("FROM" | "MAINTAINER")) => return Err(Problem::OnbuildForbidden(name)),
            _ => {}
        }
        let text = self.logical.text.trim_start();
        let mut text = text[self.keyword.len()..].trim_ascii_start().to_owned();
        for heredoc in heredocs {
            text.push('\n');
            text.push_str(std::str::from_utf8(&heredoc.text).map_err(|_| Problem::NotUtf8)?);
            text.push_str(&heredoc.marker.name);
        }
        Ok(Kind::Onbuild(text))
    }
}

/// `^[a-z][a-z0-9-_.]*$`, in any case.
fn stage_name(written: &str) -> Result<StageName, Problem> {
    let lower = written.to_lowercase();
    let fine = lower.starts_with(|c: char| c.is_ascii_lowercase())
        && lower
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.'));
    if !fine {
        return Err(Problem::StageName(shown(written)));
    }
    Ok(StageName { lower, written: written.to_owned() })
}

/// What COPY and ADD have in common. `words` are at least two.
fn transfer(
    name: &'static str,
    mut words: Vec<String>,
    flags: &Flags,
    heredocs: &[Heredoc],
) -> Result<Transfer, Problem> {
    let dest = words.pop().unwrap_or_default();
    if Marker::of_word(&dest).is_some() {
        return Err(Problem::HeredocDestination(name));
    }
    // Of several heredocs of one name the last one counts; a JSON form has none.
    let texts: BTreeMap<&str, &[u8]> =
        heredocs.iter().map(|h| (h.marker.name.as_str(), h.text.as_slice())).collect();
    let mut sources = Vec::new();
    let mut inline = Vec::new();
    for word in words {
        let Some(marker) = Marker::of_word(&word) else {
            sources.push(Word::new(word));
            continue;
        };
        let text = texts.get(marker.name.as_str()).map(|text| text.to_vec()).unwrap_or_default();
        let Marker { name, expand, .. } = marker.clone();
        inline.push(InlineFile { name, data: Heredoc { marker, text }.content(), expand });
    }
    Ok(Transfer {
        sources,
        inline,
        dest: Word::new(dest),
        chown: flags.text("chown").map(Word::new),
        chmod: flags.text("chmod").map(Word::new),
        link: flags.bool("link").unwrap_or(false),
        exclude: flags.list("exclude").map(str::to_owned).collect(),
    })
}

#[cfg(test)]
#[path = "build_tests.rs"]
mod tests;
