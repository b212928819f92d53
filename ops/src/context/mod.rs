//! The farms that a person has joined, by name.
//!
//! ```text
//! $SLIPWAY_HOME/farms/NAME/farm.toml      coordinator = "HOST:PORT", description = "…"
//! $SLIPWAY_HOME/farms/NAME/identity.pem   who one is there (`identity::Identity`)
//! $SLIPWAY_HOME/farms/current             the name of the one that is in use
//! ```
//!
//! A farm appears and goes as a whole; which one a command is for says [`resolve`].

mod name;
mod resolve;

pub use name::{FarmName, LOCAL};
pub use resolve::{Decider, ResolveError, Target, Wishes, resolve};

use crate::address::Address;
use crate::files;
use crate::identity::{Identity, KeepError};
use name::CURRENT;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The file that says what a farm is.
const FARM: &str = "farm.toml";

/// Characters of a description.
pub const DESCRIPTION_MAX: usize = 200;

/// How the directory of a farm that is being made is called, and of one that is being removed.
const MAKING: &str = ".new-";
const REMOVING: &str = ".gone-";

/// What is said about a farm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// Its coordinator.
    pub coordinator: Address,
    /// For people: one line, at most [`DESCRIPTION_MAX`] characters.
    pub description: String,
}

/// A farm that was joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Farm {
    /// What the person calls it.
    pub name: FarmName,
    /// What is said about it.
    pub about: About,
    /// Where it is kept. A renewed identity is saved here.
    pub dir: PathBuf,
}

impl Farm {
    /// Who one is there.
    pub fn identity(&self) -> Result<Identity, KeepError> {
        Identity::load(&self.dir)
    }
}

/// Why something cannot be done with a farm.
#[derive(Debug, thiserror::Error)]
pub enum FarmError {
    /// No farm is called so.
    #[error("There is no farm `{name}`; {}", list_of(known))]
    Missing {
        /// The name.
        name: FarmName,
        /// Those that there are.
        known: BTreeSet<FarmName>,
    },
    /// One is called so.
    #[error("There is a farm `{name}` already; remove it first, or take another name")]
    Exists {
        /// The name.
        name: FarmName,
    },
    /// The description is too long, or has line breaks.
    #[error("A farm's description is one line of at most {DESCRIPTION_MAX} characters")]
    Description,
    /// A file is not what was written.
    #[error("{} is damaged: {detail}. Remove the farm and join it again", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// A file cannot be read.
    #[error("Reading {} failed: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file cannot be written or removed.
    #[error("Changing {} failed: {source}", path.display())]
    Change {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The identity cannot be written.
    #[error(transparent)]
    Identity(#[from] KeepError),
}

fn list_of(known: &BTreeSet<FarmName>) -> String {
    let names: Vec<&str> = known.iter().map(FarmName::as_str).collect();
    match names.is_empty() {
        true => "none was joined (`slipway join TOKEN@HOST`)".to_owned(),
        false => format!("there are: {}", names.join(", ")),
    }
}

/// `farm.toml`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    coordinator: String,
    #[serde(default)]
    description: String,
}

/// All farms of a state directory.
#[derive(Debug, Clone)]
pub struct Farms {
    dir: PathBuf,
}

impl Farms {
    /// Those under `$SLIPWAY_HOME`. There need not be any yet.
    pub fn of(home: &Path) -> Self {
        Self { dir: home.join("farms") }
    }

    /// Keeps a farm that was joined, with who one is there. It is there as a whole or not at all.
    pub fn create(
        &self,
        name: &FarmName,
        about: &About,
        identity: &Identity,
    ) -> Result<(), FarmError> {
        if !is_line(&about.description) {
            return Err(FarmError::Description);
        }
        let path = self.dir.join(name.as_str());
        let change = |source| FarmError::Change { path: path.clone(), source };
        files::make_dir(&self.dir).map_err(change)?;
        let making = tempfile::Builder::new().prefix(MAKING).tempdir_in(&self.dir);
        let making = making.map_err(change)?;
        identity.save(making.path())?;
        let file = File {
            coordinator: about.coordinator.to_string(),
            description: about.description.clone(),
        };
        let text = toml::to_string(&file).map_err(|e| change(io::Error::other(e)))?;
        files::write(making.path(), FARM, text.as_bytes()).map_err(change)?;
        match fs::rename(making.path(), &path) {
            Ok(()) => {}
            // No farm's directory is empty: one that is there is not replaced.
            Err(e) => {
                return Err(match e.kind() {
                    io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => {
                        FarmError::Exists { name: name.clone() }
                    }
                    _ => change(e),
                });
            }
        }
        // It has another name now.
        let _ = making.keep();
        files::sync(&self.dir).map_err(change)
    }

    /// The names of all farms.
    pub fn names(&self) -> Result<BTreeSet<FarmName>, FarmError> {
        let read = |source| FarmError::Read { path: self.dir.clone(), source };
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            Err(e) => return Err(read(e)),
        };
        let mut names = BTreeSet::new();
        for entry in entries {
            let entry = entry.map_err(read)?;
            // Whatever else lies there is nobody's farm.
            if entry.path().is_dir() {
                let name = entry.file_name();
                names.extend(name.to_str().and_then(|name| FarmName::parse(name).ok()));
            }
        }
        Ok(names)
    }

    /// All farms by name; for one that is damaged, what is wrong with it.
    pub fn list(&self) -> Result<Vec<(FarmName, Result<Farm, FarmError>)>, FarmError> {
        let names = self.names()?;
        Ok(names.into_iter().map(|name| (name.clone(), self.show(&name))).collect())
    }

    /// One farm.
    pub fn show(&self, name: &FarmName) -> Result<Farm, FarmError> {
        let dir = self.existing(name)?;
        let path = dir.join(FARM);
        let text = files::read(&path);
        let text = text.map_err(|source| FarmError::Read { path: path.clone(), source })?;
        let about = about(&text).map_err(|detail| FarmError::Damaged { path, detail })?;
        Ok(Farm { name: name.clone(), about, dir })
    }

    /// The farm that is in use. It may have been removed meanwhile.
    pub fn current(&self) -> Result<Option<FarmName>, FarmError> {
        let path = self.dir.join(CURRENT);
        match files::read(&path) {
            Ok(text) => match FarmName::parse(text.trim_end()) {
                Ok(name) => Ok(Some(name)),
                Err(e) => Err(FarmError::Damaged { path, detail: e.to_string() }),
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(FarmError::Read { path, source }),
        }
    }

    /// From now on this farm is in use; none for this machine's own.
    pub fn set_current(&self, name: Option<&FarmName>) -> Result<(), FarmError> {
        let path = self.dir.join(CURRENT);
        let change = |source| FarmError::Change { path: path.clone(), source };
        let Some(name) = name else {
            return match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(change(e)),
                _ => Ok(()),
            };
        };
        self.existing(name)?;
        files::write(&self.dir, CURRENT, format!("{name}\n").as_bytes()).map_err(change)
    }

    /// Forgets a farm, and who one was there. When it was in use, none is afterwards.
    pub fn remove(&self, name: &FarmName) -> Result<(), FarmError> {
        let path = self.existing(name)?;
        let change = |source| FarmError::Change { path: path.clone(), source };
        // One that cannot be read names no farm.
        if self.current().ok().flatten().is_some_and(|current| current == *name) {
            self.set_current(None)?;
        }
        let away = tempfile::Builder::new().prefix(REMOVING).tempdir_in(&self.dir);
        let away = away.map_err(change)?;
        fs::rename(&path, away.path()).map_err(change)?;
        files::sync(&self.dir).map_err(change)?;
        let gone = away.close();
        self.sweep();
        match gone {
            // Another removal has swept it away.
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(change(e)),
            _ => Ok(()),
        }
    }

    /// What a removal left that was broken off.
    fn sweep(&self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(REMOVING) {
                // The next removal tries again.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// The directory of a farm that is there.
    fn existing(&self, name: &FarmName) -> Result<PathBuf, FarmError> {
        let dir = self.dir.join(name.as_str());
        match dir.is_dir() {
            true => Ok(dir),
            false => Err(FarmError::Missing { name: name.clone(), known: self.names()? }),
        }
    }
}

fn about(text: &str) -> Result<About, String> {
    let file: File = toml::from_str(text).map_err(|e| e.message().to_owned())?;
    let coordinator = Address::coordinator(&file.coordinator).map_err(|e| e.to_string())?;
    if !is_line(&file.description) {
        return Err(FarmError::Description.to_string());
    }
    Ok(About { coordinator, description: file.description })
}

fn is_line(text: &str) -> bool {
    text.chars().count() <= DESCRIPTION_MAX && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests;
