//! As much of a build as its history needs: arguments, environment, shell and working directory.

use super::case::Case;
use coordinator::dockerfile::instruction::{Instruction, Kind, Pairs, Transfer};
use coordinator::dockerfile::value::{self, Chmod};
use coordinator::dockerfile::{
    Dockerfile, Expander, ParseError, Stage, Word, history, onbuild, parse, path, source,
};
use proto::platform::Platform;

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

type Result<T> = std::result::Result<T, String>;

/// The history that the case's Dockerfile adds, or the first error.
pub fn history(case: &Case) -> Result<Vec<String>> {
    let shown = |error: ParseError| error.failure(&case.text).to_string();
    let file = parse(&case.text, "Dockerfile").map_err(shown)?;
    let build = Build::new(case, &file)?;
    let target = flag(case, "--target=").next();
    let target = match target {
        Some(name) => file.stage_named(name).ok_or(format!("no stage {name}"))?,
        None => file.stages.len() - 1,
    };
    Ok(build.stage(target)?.history)
}

fn flag<'c>(case: &'c Case, name: &str) -> impl Iterator<Item = &'c str> {
    case.flags.iter().filter_map(move |flag| flag.strip_prefix(name))
}

/// Names and values, in the order of their first setting.
#[derive(Clone, Default)]
struct Env(Vec<(String, String)>);

impl Env {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn set(&mut self, name: &str, value: &str) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => value.clone_into(known),
            None => self.0.push((name.to_owned(), value.to_owned())),
        }
    }
}

struct Build<'f> {
    file: &'f Dockerfile,
    given: Env,
    globals: Env,
}

#[derive(Clone, Default)]
struct State {
    env: Env,
    declared: Vec<(String, Option<String>)>,
    shell: Vec<String>,
    workdir: String,
    history: Vec<String>,
}

impl<'f> Build<'f> {
    fn new(case: &Case, file: &'f Dockerfile) -> Result<Self> {
        let mut given = Env::default();
        for arg in flag(case, "--build-arg=") {
            let of_environment = case.environment.iter().find(|(name, _)| name == arg);
            match (arg.split_once('='), of_environment) {
                (Some((name, value)), _) => given.set(name, value),
                (None, Some((name, value))) => given.set(name, value),
                (None, None) => {}
            }
        }
        let platform = flag(case, "--platform=").next().and_then(|list| list.split(',').next());
        let target = Platform::parse(platform.unwrap_or("linux/amd64")).map_err(text)?;
        let stage = flag(case, "--target=").next().unwrap_or("default").to_owned();
        let mut globals = Env::default();
        for (name, value) in [
            ("BUILDPLATFORM", "linux/amd64".to_owned()),
            ("BUILDOS", "linux".to_owned()),
            ("BUILDARCH", "amd64".to_owned()),
            ("BUILDVARIANT", String::new()),
            ("TARGETPLATFORM", target.to_string()),
            ("TARGETOS", target.os.clone()),
            ("TARGETARCH", target.arch.clone()),
            ("TARGETVARIANT", target.variant.clone()),
            ("TARGETSTAGE", stage),
        ] {
            globals.set(name, given.get(name).unwrap_or(&value));
        }
        let mut build = Self { file, given, globals };
        for arg in &file.args {
            for item in &arg.items {
                let value = match (build.given.get(&item.name), &item.default) {
                    (Some(value), _) => value.to_owned(),
                    (None, Some(word)) => build.expand(&build.globals, word)?,
                    (None, None) => continue,
                };
                build.globals.set(&item.name, &value);
            }
        }
        Ok(build)
    }

    fn expand(&self, env: &Env, word: &Word) -> Result<String> {
        let lookup = |name: &str| env.get(name);
        Expander::new(self.file.escape, &lookup).word(word).map_err(|e| e.to_string())
    }

    fn stage(&self, at: usize) -> Result<State> {
        let stage = &self.file.stages[at];
        let base = self.expand(&self.globals, &stage.base)?;
        if base.is_empty() {
            return Err("the base name of FROM is blank".to_owned());
        }
        if let Some(platform) = &stage.platform {
            let platform = self.expand(&self.globals, platform)?;
            Platform::parse(&platform).map_err(|e| e.to_string())?;
        }
        let earlier = &self.file.stages[..at];
        let parent = earlier.iter().rposition(|stage| stage.lower_name() == Some(&base));
        let (mut state, triggers) = match parent {
            Some(parent) => (self.stage(parent)?, triggers(&self.file.stages[parent])),
            None => image(&base),
        };
        for text in triggers {
            let trigger = onbuild::parse_trigger(&text, &stage.at).map_err(|e| e.to_string())?;
            self.instruction(&mut state, &trigger)?;
        }
        for instruction in &stage.instructions {
            let line = instruction.at.first_line;
            self.instruction(&mut state, instruction).map_err(|e| format!("{line}: {e}"))?;
        }
        Ok(state)
    }

    fn instruction(&self, state: &mut State, instruction: &Instruction) -> Result<()> {
        let env = state.env.clone();
        let lookup = |name: &str| env.get(name);
        let expander = &mut Expander::new(self.file.escape, &lookup);
        let words = |expander: &mut Expander<'_>, words: &[Word]| {
            words.iter().map(|word| expander.word(word)).collect::<std::result::Result<Vec<_>, _>>()
        };
        let row = match &instruction.kind {
            Kind::Add(add) => {
                let add = add.expand(expander).map_err(text)?;
                check_transfer(&add.files, true)?;
                history::add(&add)
            }
            Kind::Arg(items) => self.arg(state, items)?,
            Kind::Cmd(command) => history::cmd(&command.args(&state.shell)),
            Kind::Copy(copy) => {
                let copy = copy.expand(expander).map_err(text)?;
                check_transfer(&copy.files, false)?;
                history::copy(&copy)
            }
            Kind::Entrypoint(command) => history::entrypoint(&command.args(&state.shell)),
            Kind::Env(pairs) => {
                let pairs: Pairs<String> = pairs.expand(expander).map_err(text)?;
                pairs.0.iter().for_each(|pair| state.env.set(&pair.key, &pair.value));
                history::env(&pairs)
            }
            Kind::Expose(ports) => {
                let mut words = Vec::new();
                for port in ports {
                    words.extend(expander.words(port).map_err(text)?);
                }
                let ports = value::ports(&words).map_err(text)?;
                history::expose(&ports.iter().flat_map(|port| port.entries()).collect::<Vec<_>>())
            }
            Kind::Healthcheck(check) => history::healthcheck(check),
            Kind::Label(pairs) => history::label(&pairs.expand(expander).map_err(text)?),
            Kind::Maintainer(name) => history::maintainer(name),
            Kind::Onbuild(_) => return Ok(()),
            Kind::Run(run) => {
                for mount in &run.mounts {
                    let mount = mount.expand(expander).map_err(text)?;
                    // Secrets and sockets have places of their own.
                    let has_place = !mount.target.is_empty();
                    if has_place || format!("{:?}", mount.kind).starts_with("Cache") {
                        mount.target_in(&state.workdir).map_err(text)?;
                    }
                }
                history::run(&run.resolve(&state.shell).args, &state.declared, &lookup)
            }
            Kind::Shell(shell) => {
                state.shell = shell.clone();
                history::shell(shell)
            }
            Kind::StopSignal(signal) => {
                let signal = expander.word(signal).map_err(text)?;
                value::stop_signal(&signal).map_err(text)?;
                history::stop_signal(&signal)
            }
            Kind::User(user) => history::user(&expander.word(user).map_err(text)?),
            Kind::Volume(paths) => history::volume(&words(expander, paths).map_err(text)?),
            Kind::Workdir(to) => {
                let to = expander.word(to).map_err(text)?;
                state.workdir = path::workdir(&state.workdir, &to);
                history::workdir(&state.workdir)
            }
        };
        state.history.push(row);
        Ok(())
    }

    fn arg(
        &self,
        state: &mut State,
        items: &[coordinator::dockerfile::instruction::ArgItem],
    ) -> Result<String> {
        let mut shown = Vec::new();
        for item in items {
            let name = &item.name;
            let value = match (self.given.get(name), &item.default) {
                (Some(value), _) => Some(value.to_owned()),
                (None, Some(word)) => Some(self.expand(&state.env, word)?),
                (None, None) => self.globals.get(name).map(str::to_owned),
            };
            if let Some(value) = &value {
                state.env.set(name, value);
            }
            state.declared.push((name.clone(), value.clone()));
            shown.push((name.clone(), value));
        }
        Ok(history::arg(&shown))
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn check_transfer(files: &Transfer<String>, is_add: bool) -> Result<()> {
    files.chmod.as_deref().map(Chmod::parse).transpose().map_err(text)?;
    for source in &files.sources {
        if source::classify(source).map_err(text)? != source::Source::Path && !is_add {
            return Err(format!("COPY cannot take the URL `{source}` as a source"));
        }
    }
    Ok(())
}

fn triggers(stage: &Stage) -> Vec<String> {
    let of = |instruction: &Instruction| match &instruction.kind {
        Kind::Onbuild(text) => Some(text.clone()),
        _ => None,
    };
    stage.instructions.iter().filter_map(of).collect()
}

/// What the corpus' images bring along, and their triggers: `tests/conformance/images/make.py`.
fn image(name: &str) -> (State, Vec<String>) {
    let mut state = State { workdir: "/".to_owned(), ..State::default() };
    state.env.set("PATH", PATH);
    state.shell = vec!["/bin/sh".to_owned(), "-c".to_owned()];
    let mut triggers = Vec::new();
    if name.ends_with("conf/config:1") {
        for (name, value) in [("APP_HOME", "/srv/app"), ("MODE", "base"), ("EMPTY", "")] {
            state.env.set(name, value);
        }
        state.workdir = "/srv/app".to_owned();
        state.shell.insert(1, "-e".to_owned());
    } else if name.ends_with("conf/onbuild:1") {
        triggers = vec![
            "ENV FROM_ONBUILD=yes".to_owned(),
            "WORKDIR /onbuild".to_owned(),
            "COPY onbuild.txt copied.txt".to_owned(),
            "RUN echo \"$FROM_ONBUILD in $(pwd)\" > ran.txt".to_owned(),
            "LABEL trigger=fired".to_owned(),
        ];
    } else if name.ends_with("conf/onbuild-from:1") {
        triggers = vec!["COPY --from=assets /asset /got/asset".to_owned()];
    }
    (state, triggers)
}
