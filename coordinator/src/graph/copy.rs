//! COPY and ADD.

use super::dispatch::{At, Dispatcher};
use super::remote::{self, AddOnly};
use super::stages::Base;
use super::{Answer, LookedAt, LowerProblem, Need, StageState};
use crate::dockerfile::instruction::{AddFiles, CopyFiles, Transfer};
use crate::dockerfile::source::{self, GitRef, Source, classify};
use crate::dockerfile::value::Chmod;
use crate::dockerfile::{heredoc, history, path};
use cache::tree::glob::has_wildcards;
use proto::step::{CopyOp, CopySource, GitOp, HttpOp, InlineOp, Op, StepId, Unpack};

/// The permission bits of files whose text stands in the Dockerfile.
const INLINE_MODE: u16 = 0o644;

/// Sources that were found, with the steps that give them.
#[derive(Default)]
struct Sources {
    inputs: Vec<StepId>,
    list: Vec<CopySource>,
    /// Whether they come from a stage or an image, and not from a directory of the client.
    from_steps: bool,
}

impl Sources {
    fn add(&mut self, input: StepId, path: &str, pattern: bool, unpack: Unpack) {
        let place = self.inputs.iter().position(|i| *i == input).unwrap_or_else(|| {
            self.inputs.push(input);
            self.inputs.len() - 1
        });
        // Input 0 is the root that is copied to.
        let input = place as u32 + 1;
        let path = path.to_owned();
        self.list.push(CopySource { input, path, pattern, unpack, checked: true });
    }
}

impl Dispatcher<'_, '_> {
    pub(super) fn copy(
        &mut self,
        state: &mut StageState,
        at: &mut At<'_>,
        copy: &CopyFiles,
    ) -> Result<(), LowerProblem> {
        let copy = self.expand(state, at, |e| copy.expand(e))?;
        let mut sources = Sources::default();
        for source in &copy.files.sources {
            if !matches!(classify(source), Ok(Source::Path)) {
                return Err(LowerProblem::CopyUrl(source.clone()));
            }
            let input = match &copy.from {
                Some(from) => self.from(from, true, "Cannot copy", at)?,
                None => {
                    self.advice.copied(&self.inputs, at, "COPY", source);
                    self.context(source, &state.platform)
                }
            };
            if let Some(from) = &copy.from {
                sources.from_steps = !self.narrow(from, true, source);
            }
            sources.add(input, source, true, Unpack::Never);
        }
        let row = history::copy(&copy);
        self.transfer(state, at, &copy.files, sources, copy.parents, row)
    }

    pub(super) fn add(
        &mut self,
        state: &mut StageState,
        at: &mut At<'_>,
        add: &AddFiles,
    ) -> Result<(), LowerProblem> {
        let add = self.expand(state, at, |e| add.expand(e))?;
        let only = AddOnly::of(&add);
        if only.checksum.is_some() && add.files.sources.len() != 1 {
            let why = "can only be given for a single source".to_owned();
            return Err(LowerProblem::Checksum(why));
        }
        let mut sources = Sources::default();
        for source in &add.files.sources {
            match classify(source)? {
                Source::Path => {
                    if only.checksum.is_some() {
                        let why = "needs an http(s) or git source".to_owned();
                        return Err(LowerProblem::Checksum(why));
                    }
                    let unpack = only.unpack.unwrap_or(true);
                    let unpack = if unpack { Unpack::IfArchive } else { Unpack::Never };
                    self.advice.copied(&self.inputs, at, "ADD", source);
                    let input = self.context(source, &state.platform);
                    sources.add(input, source, true, unpack);
                }
                Source::Http { file_name } => {
                    self.http(state, &mut sources, source, &file_name, &only, at)?;
                }
                Source::Git(git) => self.git(state, &mut sources, &git, &only, at)?,
            }
        }
        let row = history::add(&add);
        self.transfer(state, at, &add.files, sources, false, row)
    }

    /// The main context, of which `source` is looked at.
    fn context(&mut self, source: &str, platform: &proto::platform::Platform) -> StepId {
        if !self.inputs.request.has_context {
            return self.build.scratch(platform);
        }
        self.build.local("context", LookedAt::Path(source), platform)
    }

    /// Of a local directory that a name stands for, only what is copied is looked at. Answers whether
    /// the name stands for one.
    pub(super) fn narrow(&mut self, from: &str, is_copy: bool, source: &str) -> bool {
        let Ok(Some(index)) = self.stages.source(from, is_copy) else { return false };
        let stage = &self.stages.all[index];
        let (Base::Local(name), Some((_, platform))) = (&stage.base, self.done.get(&index)) else {
            return false;
        };
        // Of a directory that stands for a stage of the file, all is looked at already.
        if !stage.is_written {
            self.build.local(name, LookedAt::Path(source), platform);
        }
        !stage.is_written
    }

    /// Files that come from what they are put upon, or from nothing at all, are not looked for in
    /// advance.
    fn check(
        &mut self,
        sources: &mut Sources,
        base: StepId,
        (parents, exclude): (bool, bool),
        at: &At<'_>,
    ) {
        let is_pattern = |source: &CopySource| has_wildcards(source.path.as_bytes());
        if !sources.from_steps || !(parents || exclude || sources.list.iter().any(is_pattern)) {
            return;
        }
        let known =
            |from: &StepId| self.build.is_scratch(*from) || self.build.are_same(*from, base);
        let known: Vec<bool> = sources.inputs.iter().map(known).collect();
        for source in sources.list.iter_mut().filter(|source| source.pattern) {
            source.checked = !known[source.input as usize - 1];
        }
        let may_be_missing = |source: &CopySource| !source.checked && !is_pattern(source);
        if parents && sources.list.iter().any(may_be_missing) {
            let message = "COPY --parents from what it is put upon, or from an empty stage: as in \
                           BuildKit, what is not there is left out without an error";
            self.build.remark(message.to_owned(), at.instruction);
        }
    }

    /// The stage, image or named context that `--from` names.
    pub(super) fn from(
        &self,
        name: &str,
        is_copy: bool,
        what: &'static str,
        at: &At<'_>,
    ) -> Result<StepId, LowerProblem> {
        let later =
            || LowerProblem::LaterStage { what, name: name.to_owned(), current: at.stage.clone() };
        let index = self.stages.source(name, is_copy)?.ok_or_else(later)?;
        self.done.get(&index).map(|(step, _)| *step).ok_or_else(later)
    }

    fn http(
        &mut self,
        state: &StageState,
        sources: &mut Sources,
        url: &str,
        file_name: &str,
        only: &AddOnly<'_>,
        at: &At<'_>,
    ) -> Result<(), LowerProblem> {
        let (found, checksum) = match remote::file(self.inputs.found, url, only)? {
            Answer::Known(found) => found,
            Answer::Wanted(what) => {
                self.wanted.push(Need { what, at: Some(at.instruction.at.clone()) });
                return Ok(());
            }
        };
        // The name that counts is the URL's: what the server calls the file can change at any time.
        // A name that is none (`..`) is not the file's: the copy takes what it stands for in the
        // root where the file is alone, or finds nothing.
        let op = Op::Http(HttpOp {
            url: url.to_owned(),
            name: source::safe_name(file_name),
            checksum,
            resolved: found.digest,
            modified: found.modified,
        });
        let input = self.build.plain(op, Vec::new(), &state.platform);
        let unpack = only.unpack.unwrap_or(false);
        let unpack = if unpack { Unpack::IfArchive } else { Unpack::Never };
        sources.add(input, file_name, false, unpack);
        Ok(())
    }

    fn git(
        &mut self,
        state: &StageState,
        sources: &mut Sources,
        git: &GitRef,
        only: &AddOnly<'_>,
        at: &At<'_>,
    ) -> Result<(), LowerProblem> {
        let commit = match remote::commit(self.inputs.found, git, only)? {
            Answer::Known(commit) => commit,
            Answer::Wanted(what) => {
                self.wanted.push(Need { what, at: Some(at.instruction.at.clone()) });
                return Ok(());
            }
        };
        let op = Op::Git(GitOp {
            remote: git.remote.clone(),
            reference: git.reference.clone(),
            commit: commit.to_owned(),
            subdir: git.subdir.clone(),
            keep_git_dir: only.keep_git_dir.or(git.keep_git_dir).unwrap_or(false),
            submodules: git.submodules.unwrap_or(true),
        });
        let input = self.build.plain(op, Vec::new(), &state.platform);
        sources.add(input, "/", false, Unpack::Never);
        Ok(())
    }

    fn transfer(
        &mut self,
        state: &mut StageState,
        at: &mut At<'_>,
        files: &Transfer<String>,
        mut sources: Sources,
        parents: bool,
        row: String,
    ) -> Result<(), LowerProblem> {
        for file in &files.inline {
            let name = heredoc::file_path(&file.name);
            let data = file.data.clone();
            let op = Op::Inline(InlineOp { name: name.clone(), data, mode: INLINE_MODE });
            let input = self.build.plain(op, Vec::new(), &state.platform);
            sources.add(input, &name, false, Unpack::Never);
        }
        if let Some(mode) = &files.chmod {
            Chmod::parse(mode)?;
        }
        // A linked layer does not look at what it is put upon. (With --chmod BuildKit does not
        // link.)
        let link = files.link && files.chmod.is_none();
        let base = if link { self.build.scratch(&state.platform) } else { state.step };
        self.check(&mut sources, base, (parents, !files.exclude.is_empty()), at);
        let op = Op::Copy(CopyOp {
            sources: sources.list,
            dest: path::destination(&state.cwd, &files.dest),
            chown: files.chown.clone(),
            chmod: files.chmod.clone(),
            parents,
            exclude: files.exclude.clone(),
        });
        let name = self.title(state, at);
        let inputs = [vec![base], sources.inputs].concat();
        let mut step = self.push(state, at, op, inputs, name, at.cache());
        if link {
            step = self.build.plain(Op::Merge, vec![state.step, step], &state.platform);
        }
        state.step = step;
        state.row(row, Some(step));
        Ok(())
    }
}
