//! `--annotation`: `[TYPE[\[PLATFORM\]],…:]NAME=VALUE`, as buildx has it.

use crate::error::user;
use crate::print::tell;
use proto::error::Failure;
use proto::platform::Platform;
use proto::wire::build::Output;

/// What is annotated.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// Manifests: of all images, or of that for one platform.
    Manifest(Option<Platform>),
    /// The index over the images.
    Index,
    /// What names a manifest or the index elsewhere.
    Descriptor,
}

/// The annotations that the flags ask for. Names say where they belong, as the worker reads them:
/// `NAME`, `manifest[PLATFORM]:NAME`, `index:NAME`.
pub fn read(
    given: &[String],
    outputs: &[Output],
    platforms: &[Platform],
) -> Result<Vec<(String, String)>, Failure> {
    let makes_image = |output: &Output| matches!(output, Output::Image(_) | Output::Archive(_));
    let lacks_index = platforms.len() <= 1 && outputs.iter().any(makes_image);
    let mut out = Vec::new();
    for text in given.iter().filter(|text| !text.is_empty()) {
        let wrong = |why: String| user(format!("--annotation `{text}`: {why}"));
        let (places, name, value) = parse(text).map_err(wrong)?;
        for place in places {
            let name = match place {
                Place::Manifest(None) if name.contains(':') => format!("manifest:{name}"),
                Place::Manifest(None) => name.to_owned(),
                Place::Manifest(Some(platform)) => format!("manifest[{platform}]:{name}"),
                Place::Index if lacks_index => {
                    return Err(wrong("an image for one platform has no index".to_owned()));
                }
                Place::Index => format!("index:{name}"),
                Place::Descriptor => {
                    tell!("WARNING: --annotation {text} has no effect");
                    continue;
                }
            };
            out.push((name, value.to_owned()));
        }
    }
    Ok(out)
}

fn parse(text: &str) -> Result<(Vec<Place>, &str, &str), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    match name.split_once(':') {
        None => Ok((vec![Place::Manifest(None)], name, value)),
        Some((places, name)) => {
            let places = places.split(',').map(place).collect::<Result<_, _>>()?;
            Ok((places, name, value))
        }
    }
}

fn place(text: &str) -> Result<Place, String> {
    let (kind, platform) = match text.split_once('[') {
        None => (text, None),
        Some((kind, rest)) => {
            let name = rest.strip_suffix(']').ok_or("a `[` is not closed")?;
            (kind, Some(Platform::parse(name).map_err(|e| e.to_string())?))
        }
    };
    match kind {
        "manifest" => Ok(Place::Manifest(platform)),
        "index" => Ok(Place::Index),
        "manifest-descriptor" | "index-descriptor" => Ok(Place::Descriptor),
        _ => Err(format!(
            "`{kind}` cannot be annotated; there are manifest, index, manifest-descriptor and \
             index-descriptor"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::output;

    fn image() -> Output {
        output::one("type=image", &[]).unwrap().0
    }

    fn names(given: &str, outputs: &[Output], platforms: &[&str]) -> Result<String, Failure> {
        let platforms: Vec<_> = platforms.iter().map(|p| Platform::parse(p).unwrap()).collect();
        let read = read(&[given.to_owned()], outputs, &platforms)?;
        Ok(read.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn annotations_say_what_they_are_on() {
        let both = ["linux/amd64", "linux/arm64"];
        let read = |given| names(given, &[image()], &both).unwrap();
        assert_eq!(read("a.b=c=d"), "a.b=c=d");
        assert_eq!(read("manifest:a=1"), "a=1");
        assert_eq!(read("manifest:a:b=1"), "manifest:a:b=1");
        assert_eq!(read("index,manifest[linux/aarch64]:a="), "index:a= manifest[linux/arm64]:a=");
        assert_eq!(read("index-descriptor:a=1"), "");
        assert_eq!(read(""), "");
    }

    #[test]
    fn only_an_image_for_several_platforms_has_an_index() {
        let image = [image()];
        assert!(names("index:a=1", &image, &["linux/amd64"]).is_err());
        assert!(names("index:a=1", &[Output::CacheOnly], &[]).is_ok());
    }

    #[test]
    fn annotations_that_are_none_are_refused() {
        for bad in ["x", "what:a=1", "Index:a=1", "manifest[linux:a=1", "manifest[]:a=1", ":a=1"] {
            assert!(names(bad, &[], &[]).is_err(), "{bad}");
        }
    }
}
