//! Which image a person means, and what taking one away does. The rules are Docker's.

use super::naming::{Change, Known};
use cache::store::Image;
use proto::error::{Class, Failure};
use proto::id::OciDigest;
use proto::reference::{Reference, familiar};

fn user(message: String) -> Failure {
    Failure::new(Class::User, message)
}

/// What somebody means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meant<'k> {
    /// This name of this image.
    Name(&'k Known),
    /// The image with this id.
    Id(&'k Image),
}

impl<'k> Meant<'k> {
    /// The image.
    pub fn image(self) -> &'k Image {
        match self {
            Self::Name(known) => &known.image,
            Self::Id(image) => image,
        }
    }
}

/// The image that `text` means: a name first, then the beginning of an id.
pub fn find<'k>(all: &'k [Known], text: &str) -> Result<Meant<'k>, Failure> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    let full = Reference::parse(text).map(|reference| reference.to_string());
    let named = |full: &String| all.iter().find(|known| known.key == *full);
    if let Some(known) = full.as_ref().ok().and_then(named) {
        return Ok(Meant::Name(known));
    }
    let is_hex = !hex.is_empty() && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let mut found: Option<&Image> = None;
    if is_hex {
        for known in all.iter().filter(|known| known.image.id.hex().starts_with(hex)) {
            if found.is_some_and(|image| image.id != known.image.id) {
                return Err(user(format!("Several images have ids that begin with `{text}`"))
                    .hint("Give more of the id; `slipway images --no-trunc` shows it whole."));
            }
            found = Some(&known.image);
        }
    }
    match (found, full) {
        (Some(image), _) => Ok(Meant::Id(image)),
        (None, Err(e)) if !is_hex => {
            let text: String = text.chars().take(200).collect();
            Err(user(format!("`{text}` is not a valid image name: {e}")))
        }
        _ => Err(user(format!("There is no image `{text}`"))
            .hint("See `slipway images`; `slipway pull` brings one from its registry.")),
    }
}

/// What taking away what `text` means does, and what the person is told, line by line.
pub fn remove(all: &[Known], text: &str, force: bool) -> Result<(Change, Vec<String>), Failure> {
    let meant = find(all, text)?;
    let id = meant.image().id;
    let rows: Vec<&Known> = all.iter().filter(|known| known.image.id == id).collect();
    let going: Vec<&Known> = match meant {
        Meant::Name(known) => vec![known],
        Meant::Id(_) => {
            let names = rows.iter().filter(|known| known.name().is_some()).count();
            if names > 1 && !force {
                return Err(user(format!("The image {} has {names} names", id.short()))
                    .hint("Remove them one by one, or all of them with --force."));
            }
            rows.clone()
        }
    };
    let (mut change, mut said) = (Change::default(), Vec::new());
    for known in &going {
        if let Some(name) = known.name() {
            said.push(format!("Untagged: {}", familiar(name)));
        }
        change.delete.push(known.key.clone());
    }
    // Without names nobody would find it again: the row by its id goes along with the last one.
    let left = rows.iter().filter(|known| !change.delete.contains(&known.key));
    if left.clone().all(|known| known.name().is_none()) {
        let unnamed: Vec<String> = left.map(|known| known.key.clone()).collect();
        change.delete.extend(unnamed);
        said.push(format!("Deleted: {id}"));
    }
    Ok((change, said))
}

/// The rows that a list shows: those without a name only for images that have none.
pub fn listed(all: &[Known]) -> impl Iterator<Item = &Known> {
    let is_named = |id: OciDigest| all.iter().any(|k| k.image.id == id && k.name().is_some());
    all.iter().filter(move |known| known.name().is_some() || !is_named(known.image.id))
}

/// An image for tests.
#[cfg(test)]
pub(super) fn image(id: u8) -> Image {
    Image {
        id: OciDigest::from_bytes([id; 32]),
        platform: proto::platform::Platform::parse("linux/amd64").unwrap(),
        config: proto::id::BlobId::of(&[id]),
        layers: Vec::new(),
        tagged_ms: 1,
        created_ms: 1,
        size: 0,
        references: Vec::new(),
        archive: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(key: &str, id: u8) -> Known {
        let image = image(id);
        let key = if key.is_empty() { image.id.to_string() } else { format!("docker.io/{key}") };
        Known { key, image }
    }

    fn all() -> Vec<Known> {
        vec![
            known("library/app:latest", 0xab),
            known("library/app:1", 0xab),
            known("me/other:latest", 0xac),
            known("", 0xcd),
        ]
    }

    #[test]
    fn names_come_before_ids() {
        let all = all();
        assert_eq!(find(&all, "app"), Ok(Meant::Name(&all[0])));
        assert_eq!(find(&all, "app:1"), Ok(Meant::Name(&all[1])));
        assert_eq!(find(&all, "me/other"), Ok(Meant::Name(&all[2])));
        assert_eq!(find(&all, "abab"), Ok(Meant::Id(&all[0].image)));
        assert_eq!(find(&all, "sha256:cd"), Ok(Meant::Id(&all[3].image)));
        assert_eq!(find(&all, &all[3].key), Ok(Meant::Id(&all[3].image)));
        assert!(find(&all, "a").unwrap_err().message.contains("Several images"));
        for unknown in ["other", "app:2", "ff", "sha256:"] {
            assert!(find(&all, unknown).is_err(), "{unknown}");
        }
        assert!(find(&all, "A B").unwrap_err().message.contains("A B"));
    }

    #[test]
    fn removing_a_name_keeps_an_image_that_has_others() {
        let all = all();
        let (change, said) = remove(&all, "app:1", false).unwrap();
        assert_eq!(change.delete, ["docker.io/library/app:1"]);
        assert_eq!(said, ["Untagged: app:1"]);
        let (_, said) = remove(&all, "me/other", false).unwrap();
        assert_eq!(said[0], "Untagged: me/other:latest");
        assert!(said[1].starts_with("Deleted: sha256:acac"));
    }

    #[test]
    fn removing_an_id_with_several_names_needs_force() {
        let all = all();
        assert!(remove(&all, "abab", false).is_err());
        let (change, said) = remove(&all, "abab", true).unwrap();
        assert_eq!((change.delete.len(), said.len()), (2, 3));
        let (change, said) = remove(&all, "cdcd", false).unwrap();
        assert_eq!((change.delete, said.len()), (vec![all[3].key.clone()], 1));
    }

    #[test]
    fn an_image_with_a_name_is_not_listed_without() {
        let mut all = all();
        all.push(known("", 0xab));
        assert_eq!(listed(&all).count(), 4);
    }
}
