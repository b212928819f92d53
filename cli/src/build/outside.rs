//! `--cache-from` and `--cache-to`: caches outside of the farm.

mod directories;

pub use directories::Directories;

use super::fields::Taker;
use super::request::full_name;
use crate::args::build::Build;
use crate::print::tell;
use proto::error::Failure;
use proto::wire::build::MediaTypes;
use proto::wire::outside::{CacheFrom, CacheMode, CachePlace, CacheTo};
use std::path::PathBuf;

/// What the flags ask for.
#[derive(Debug, Default)]
pub struct Caches {
    /// Caches to take from.
    pub from: Vec<CacheFrom>,
    /// Caches to give to.
    pub to: Vec<CacheTo>,
    /// Where those on this machine are.
    pub directories: Directories,
}

/// Reads the flags. Says which caches are left out because nothing can be taken from them.
pub fn read(args: &Build) -> Result<Caches, Failure> {
    let mut caches = Caches::default();
    for text in args.cache_from.iter().filter(|text| !text.is_empty()) {
        if let Some(why) = from(text, &mut caches)? {
            tell!("WARNING: --cache-from `{text}` is not used: {why}");
        }
    }
    for text in args.cache_to.iter().filter(|text| !text.is_empty()) {
        to(text, &mut caches)?;
    }
    Ok(caches)
}

/// A text without fields is a reference.
fn with_type(text: &str) -> String {
    if text.contains('=') { text.to_owned() } else { format!("type=registry,ref={text}") }
}

/// What to do instead of a type that there is not.
fn instead(kind: &str) -> String {
    let there_are = "there are registry and local";
    match kind {
        "inline" => "images of Slipway carry no cache; use type=registry,ref=NAME".to_owned(),
        "gha" => {
            "GitHub's cache service is not spoken to; keep a directory by actions/cache, with \
                  type=local, or use type=registry,ref=NAME"
                .to_owned()
        }
        "s3" | "azblob" => format!("{kind} is not spoken to; use type=registry,ref=NAME"),
        "" => format!("the type is missing; {there_are}"),
        _ => format!("there is no cache type `{kind}`; {there_are}"),
    }
}

/// Adds a cache to take from. Answers why not when that is no reason not to build.
fn from(text: &str, caches: &mut Caches) -> Result<Option<String>, Failure> {
    let whole = with_type(text);
    let mut take = Taker::new("--cache-from", &whole)?;
    let kind = take.text("type").unwrap_or_default();
    match kind.as_str() {
        "registry" => {
            let reference = take.needed("ref", "NAME")?;
            let place = CachePlace::Registry(full_name(&reference)?);
            caches.from.push(CacheFrom { place, name: reference });
        }
        "local" => {
            let source = take.needed("src", "DIRECTORY")?;
            let number = caches.directories.from.len() as u32;
            caches.directories.from.push(PathBuf::from(&source));
            caches.from.push(CacheFrom { place: CachePlace::Client(number), name: source });
        }
        kind => return Ok(Some(instead(kind))),
    }
    take.finish().map(|()| None)
}

/// Adds a cache to give to.
fn to(text: &str, caches: &mut Caches) -> Result<(), Failure> {
    let whole = with_type(text);
    let mut take = Taker::new("--cache-to", &whole)?;
    let kind = take.text("type").unwrap_or_default();
    let (reference, name, directory) = match kind.as_str() {
        "registry" => {
            let name = take.needed("ref", "NAME")?;
            (Some(full_name(&name)?), name, None)
        }
        "local" => {
            let name = take.needed("dest", "DIRECTORY")?;
            (None, name.clone(), Some(PathBuf::from(name)))
        }
        kind => return Err(take.wrong(instead(kind))),
    };
    let mode = match take.text("mode").as_deref() {
        None | Some("min") => CacheMode::Min,
        Some("max") => CacheMode::Max,
        Some(other) => return Err(take.wrong(format!("mode={other}: expected min or max"))),
    };
    let may_fail = take.flag("ignore-error", false)?;
    // Scripts say so for BuildKit; ours are always these.
    for always in ["image-manifest", "oci-mediatypes"] {
        if !take.flag(always, true)? {
            return Err(take.wrong(format!("{always}=false: caches are OCI manifests")));
        }
    }
    let packing = take.packing(MediaTypes::Oci)?;
    take.finish()?;
    caches.to.push(CacheTo { reference, name, mode, packing, may_fail });
    caches.directories.to.push(directory.map(|directory| (directory, may_fail)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::wire::build::LayerCompression;

    fn given(text: &str) -> Result<CacheTo, Failure> {
        let mut caches = Caches::default();
        to(text, &mut caches).map(|()| caches.to.remove(0))
    }

    #[test]
    fn caches_to_write_are_read() {
        let registry = given("type=registry,ref=host:5/a/b:c,mode=max,compression=zstd").unwrap();
        assert_eq!(registry.reference.as_deref(), Some("host:5/a/b:c"));
        assert_eq!(registry.mode, CacheMode::Max);
        assert_eq!(registry.packing.compression, LayerCompression::Zstd);
        let plain = given("a/b").unwrap();
        assert_eq!(plain.reference.as_deref(), Some("docker.io/a/b:latest"));
        assert_eq!((plain.mode, plain.may_fail), (CacheMode::Min, false));
        let local = given("type=local,dest=x,ignore-error=true").unwrap();
        assert_eq!((local.reference, local.may_fail), (None, true));
        for bad in [
            "type=inline",
            "type=gha",
            "type=registry",
            "type=local,src=x",
            "type=local,dest=x,mode=all",
            "type=registry,ref=a,what=1",
            "type=registry,ref=a,image-manifest=false",
            "ref=a",
            "A B",
        ] {
            assert!(given(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn caches_to_read_are_read() {
        let mut caches = Caches::default();
        for text in ["a/b:c", "type=local,src=x", "type=registry,ref=h:1/d", "type=local,src=y"] {
            assert_eq!(from(text, &mut caches).unwrap(), None, "{text}");
        }
        let places: Vec<&CachePlace> = caches.from.iter().map(|from| &from.place).collect();
        let registry = |name: &str| CachePlace::Registry(name.to_owned());
        assert_eq!(
            places,
            [
                &registry("docker.io/a/b:c"),
                &CachePlace::Client(0),
                &registry("h:1/d:latest"),
                &CachePlace::Client(1)
            ]
        );
        for (text, says) in [("type=gha", "actions/cache"), ("type=s3,bucket=x", "registry")] {
            let why = from(text, &mut caches).unwrap();
            assert!(why.as_deref().is_some_and(|why| why.contains(says)), "{text}: {why:?}");
        }
        for bad in ["type=registry", "type=local,dest=x", "A B"] {
            assert!(from(bad, &mut caches).is_err(), "{bad}");
        }
    }
}
