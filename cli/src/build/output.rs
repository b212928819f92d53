//! `-o`, `--push`, `--load`: what is made, and where it goes on this machine.

use super::fields::Taker;
use super::request::full_name;
use crate::args::build::Build;
use crate::error::user;
use proto::error::Failure;
use proto::wire::build::{ArchiveFormat, ArchiveOutput, ImageOutput, MediaTypes, Output, Times};
use std::path::PathBuf;

/// Where an output goes on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Nowhere: the farm keeps it.
    Farm,
    /// An archive.
    Archive(Place),
    /// An archive, unpacked.
    Layout(PathBuf),
    /// Files in a directory; in one of its own for each platform, if so.
    Directory(PathBuf, Split),
    /// A tar of the files; in a directory of its own for each platform when there are several.
    Tar(Place),
}

/// A file, or something like it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Standard output.
    Stdout,
    /// A file.
    File(PathBuf),
    /// The Docker engine that runs on this machine.
    Engine,
}

/// Whether each platform has a directory of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// When there are several.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The outputs that the flags ask for.
pub fn read(args: &Build, tags: &[String]) -> Result<(Vec<Output>, Vec<Target>), Failure> {
    let mut given: Vec<String> = args.output.clone();
    if args.push.unwrap_or(false) {
        match given.iter_mut().find(|o| kind_of(o) == "image" || kind_of(o) == "registry") {
            Some(output) => output.push_str(",push=true"),
            None => given.push("type=registry".to_owned()),
        }
    }
    if args.load.unwrap_or(false) {
        given.push("type=docker".to_owned());
    }
    if given.is_empty() {
        given.push("type=image".to_owned());
    }
    let mut outputs = Vec::new();
    let mut targets = Vec::new();
    for text in &given {
        let (output, target) = one(text, tags)?;
        outputs.push(output);
        targets.push(target);
    }
    let stdout =
        |t: &&Target| matches!(t, Target::Archive(Place::Stdout) | Target::Tar(Place::Stdout));
    if targets.iter().filter(stdout).count() > 1 {
        return Err(user("Only one output can go to standard output"));
    }
    Ok((outputs, targets))
}

fn kind_of(text: &str) -> &str {
    text.split(',').find_map(|f| f.strip_prefix("type=")).unwrap_or("")
}

/// One output, and where it goes.
pub fn one(text: &str, tags: &[String]) -> Result<(Output, Target), Failure> {
    if text == "-" {
        return Ok((Output::Files { epoch: None }, Target::Tar(Place::Stdout)));
    }
    if !text.contains('=') {
        return Ok((Output::Files { epoch: None }, Target::Directory(text.into(), Split::Auto)));
    }
    let mut take = Taker::new("--output", text)?;
    let kind = take.text("type").ok_or_else(|| take.wrong("the type is missing".to_owned()))?;
    let dest = take.text("dest");
    let (output, target) = match kind.as_str() {
        "image" | "registry" => {
            let names = take.names(tags)?;
            let push = take.flag("push", kind == "registry")?;
            let by_digest = take.flag("push-by-digest", false)?;
            let store = take.flag("store", kind == "image")?;
            if push && names.is_empty() {
                return Err(take.wrong("pushing needs a name: -t NAME".to_owned()));
            }
            for ignored in ["name-canonical", "dangling-name-prefix", "unpack"] {
                take.text(ignored);
            }
            let packing = take.packing(MediaTypes::Oci)?;
            let times = take.times()?;
            let image = ImageOutput { names, store, push, by_digest, packing, times };
            (Output::Image(image), Target::Farm)
        }
        "oci" | "docker" => archive(&kind, &mut take, tags, dest)?,
        "local" => {
            let none = || take.wrong("it needs dest=DIRECTORY".to_owned());
            let dest = dest.ok_or_else(none)?;
            match take.text("mode").as_deref() {
                None | Some("copy") => {}
                Some(mode) => return Err(take.wrong(format!("the mode `{mode}` is not supported"))),
            }
            let epoch = take.epoch()?;
            (Output::Files { epoch }, Target::Directory(dest.into(), take.split()?))
        }
        "tar" => {
            let place = place(dest);
            let epoch = take.epoch()?;
            // It is read, and says nothing: BuildKit's tars go by the number of platforms alone.
            take.split()?;
            (Output::Files { epoch }, Target::Tar(place))
        }
        "cacheonly" => (Output::CacheOnly, Target::Farm),
        _ => {
            return Err(take.wrong(format!(
                "there is no output type `{kind}`; there are image, registry, oci, docker, local, \
                 tar and cacheonly"
            )));
        }
    };
    take.finish()?;
    Ok((output, target))
}

fn place(dest: Option<String>) -> Place {
    match dest.as_deref() {
        None | Some("-") => Place::Stdout,
        Some(path) => Place::File(path.into()),
    }
}

fn archive(
    kind: &str,
    take: &mut Taker<'_>,
    tags: &[String],
    dest: Option<String>,
) -> Result<(Output, Target), Failure> {
    let names = take.names(tags)?;
    let as_tar = take.flag("tar", true)?;
    take.text("context");
    let (format, media) = match kind {
        "oci" => (ArchiveFormat::Oci, MediaTypes::Oci),
        _ => (ArchiveFormat::Docker, MediaTypes::Docker),
    };
    let packing = take.packing(media)?;
    let times = take.times()?;
    let target = match (kind, dest, as_tar) {
        (_, Some(dest), false) => Target::Layout(dest.into()),
        (_, None, false) => return Err(take.wrong("tar=false needs dest=DIRECTORY".to_owned())),
        ("docker", None, true) => Target::Archive(Place::Engine),
        (_, dest, true) => Target::Archive(place(dest)),
    };
    Ok((Output::Archive(ArchiveOutput { format, names, packing, times }), target))
}

impl Taker<'_> {
    fn names(&mut self, tags: &[String]) -> Result<Vec<String>, Failure> {
        match self.text("name") {
            None => Ok(tags.to_vec()),
            Some(names) => names.split(',').map(full_name).collect(),
        }
    }

    /// A time that takes the place of the build's `SOURCE_DATE_EPOCH`.
    fn epoch(&mut self) -> Result<Option<i64>, Failure> {
        let Some(text) = self.text("source-date-epoch") else { return Ok(None) };
        let why = || format!("source-date-epoch={text}: expected seconds since 1970");
        text.parse().map(Some).map_err(|_| self.wrong(why()))
    }

    fn times(&mut self) -> Result<Times, Failure> {
        Ok(Times { epoch: self.epoch()?, rewrite: self.flag("rewrite-timestamp", false)? })
    }

    fn split(&mut self) -> Result<Split, Failure> {
        if !self.has("platform-split") {
            return Ok(Split::Auto);
        }
        Ok(if self.flag("platform-split", true)? { Split::Always } else { Split::Never })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::wire::build::LayerCompression;

    fn target(text: &str) -> Target {
        one(text, &[]).unwrap().1
    }

    #[test]
    fn outputs_are_read() {
        assert_eq!(target("out"), Target::Directory("out".into(), Split::Auto));
        assert_eq!(target("-"), Target::Tar(Place::Stdout));
        for split in ["", ",platform-split=true", ",platform-split=false"] {
            let tar = Target::Tar(Place::File("x.tar".into()));
            assert_eq!(target(&format!("type=tar,dest=x.tar{split}")), tar);
        }
        let never = Target::Directory("d".into(), Split::Never);
        assert_eq!(target("type=local,dest=d,platform-split=false"), never);
        assert_eq!(target("type=oci,dest=a.tar"), Target::Archive(Place::File("a.tar".into())));
        assert_eq!(target("type=oci,dest=d,tar=false"), Target::Layout("d".into()));
        assert_eq!(target("type=docker"), Target::Archive(Place::Engine));
        let (output, _) = one("type=image,name=a,push=true,compression=zstd", &[]).unwrap();
        let Output::Image(image) = output else { panic!("an image") };
        assert_eq!(image.names, ["docker.io/library/a:latest"]);
        assert!(image.push && image.store);
        assert_eq!(image.packing.compression, LayerCompression::Zstd);
        let (output, _) =
            one("type=oci,dest=a,rewrite-timestamp=true,source-date-epoch=17", &[]).unwrap();
        let Output::Archive(archive) = output else { panic!("an archive") };
        assert_eq!(archive.times, Times { epoch: Some(17), rewrite: true });
        let (output, _) = one("type=local,dest=a,source-date-epoch=-1", &[]).unwrap();
        assert_eq!(output, Output::Files { epoch: Some(-1) });
    }

    #[test]
    fn wrong_outputs_are_refused() {
        for bad in [
            "type=bogus",
            "type=local",
            "type=registry",
            "type=oci,tar=false",
            "type=oci,compression=rar",
            "type=oci,compression-level=99",
            "type=oci,source-date-epoch=context",
            "type=tar,rewrite-timestamp=true",
            "type=tar,platform-split=perhaps",
            "type=image,what=1",
            "dest=x",
            "type=image,push",
        ] {
            assert!(one(bad, &[]).is_err(), "{bad}");
        }
    }
}
