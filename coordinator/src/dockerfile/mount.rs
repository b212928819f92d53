//! `RUN --mount` and `RUN --device`.
//!
//! A mount's options are read twice: when the file is parsed, only its `from` is looked at, which
//! decides about the stages that are needed; all other options may hold variables, so that they are
//! read when the step is made.

use super::csv::{self, CsvError};
use super::expand::{ExpandError, Expander, Word};
use super::path;
use super::suggest;
use super::text::shown;
use super::value;
use proto::error::Class;
use proto::step::Sharing;

/// What is wrong with a mount or a device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// Not a list of options.
    #[error("`--{flag}`: {why}")]
    List {
        /// `mount` or `device`.
        flag: &'static str,
        /// What is wrong.
        why: CsvError,
    },
    /// `from=$name`.
    #[error("`--mount`: `from={0}` holds a variable, which is not expanded there")]
    FromVariable(String),
    /// A variable that cannot be expanded.
    #[error("`--mount`: {0}")]
    Expand(ExpandError),
    /// An option that there is not.
    #[error("`--{flag}`: unknown option `{key}`")]
    Key {
        /// `mount` or `device`.
        flag: &'static str,
        /// The option.
        key: String,
        /// The one that is meant.
        near: Option<&'static str>,
    },
    /// An option without `=` that needs a value.
    #[error("`--{flag}`: the option `{key}` needs a value: `{key}=…`")]
    NoValue {
        /// `mount` or `device`.
        flag: &'static str,
        /// The option.
        key: String,
    },
    /// An option that belongs to another type of mount. The type must be named before it.
    #[error("`--mount`: the option `{key}` is not for mounts of the type `{kind}`")]
    NotForType {
        /// The option.
        key: &'static str,
        /// The mount's type.
        kind: &'static str,
    },
    /// A value that is none.
    #[error("`--{flag}`: `{key}={value}` is not valid: expected {expected}")]
    Value {
        /// `mount` or `device`.
        flag: &'static str,
        /// The option.
        key: &'static str,
        /// Its value.
        value: String,
        /// What it should be.
        expected: &'static str,
        /// What is meant.
        near: Option<&'static str>,
    },
    /// Options of a secret that contradict each other.
    #[error("`--mount=type=secret`: {0}")]
    Secret(&'static str),
    /// A path in memory, which is empty.
    #[error("`--mount=type=tmpfs`: there is no `{0}` to mount: a tmpfs has no `source`")]
    Source(String),
    /// A mount at the root, or without a target where the working directory is the root.
    #[error("`--mount`: the target `{0}` is the root directory; give `target=/path`")]
    Target(String),
    /// A second name for a device.
    #[error("`--device`: it is named twice")]
    DeviceTwice,
}

impl MountError {
    /// Whose trouble it is: always the author's of the Dockerfile.
    pub fn class(&self) -> Class {
        Class::User
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Key { near: Some(near), .. } | Self::Value { near: Some(near), .. } => {
                Some(format!("Did you mean `{near}`?"))
            }
            Self::FromVariable(_) => Some(
                "Name a stage with `FROM ${name} AS alias`, where global ARGs are expanded, and \
                 mount from that"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

/// A mount whose variables are not yet replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountSpec {
    fields: Vec<String>,
    from: Option<String>,
}

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where it appears, as it is written: empty when it is not given. See [`Mount::target_in`].
    pub target: String,
    /// What it is.
    pub kind: MountKind,
}

/// What a mount is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// Files of another tree.
    Bind {
        /// A stage, an image or a named context; `None`: the main context.
        from: Option<String>,
        /// The path in it; empty: all.
        source: String,
        /// Whether it can be written to.
        writable: bool,
    },
    /// A directory that outlives the build.
    Cache {
        /// Its name.
        id: String,
        /// What it begins with; `None`: nothing.
        from: Option<String>,
        /// The path in `from` of what it begins with; without one, the path in it of what is shown.
        source: String,
        /// How steps that run at the same time share it.
        sharing: Sharing,
        /// Whether it can only be read.
        read_only: bool,
        /// Mode and owner of its root, when one of them is given.
        owner: Option<Owner>,
    },
    /// Memory.
    Tmpfs {
        /// Bytes; 0: not limited.
        size: u64,
        /// Whether it can only be read.
        read_only: bool,
    },
    /// A secret.
    Secret {
        /// Its name.
        id: String,
        /// The file that holds it, when it is mounted as a file.
        file: Option<String>,
        /// The variable that holds it.
        env: Option<String>,
        /// Whether the step fails without it.
        required: bool,
        /// Mode and owner of the file.
        owner: Owner,
    },
    /// The client's ssh agent.
    Ssh {
        /// Its name.
        id: String,
        /// The socket's path, when it is given.
        socket: Option<String>,
        /// Whether the step fails without it.
        required: bool,
        /// Mode and owner of the socket.
        owner: Owner,
    },
}

/// Mode and owner of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// Permission bits.
    pub mode: u32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl MountSpec {
    /// Reads the value of `--mount`.
    pub fn parse(text: &str) -> Result<Self, MountError> {
        let fields = csv::fields(text).map_err(|why| MountError::List { flag: "mount", why })?;
        let mut from = None;
        for field in &fields {
            let Some((key, value)) = field.split_once('=') else { continue };
            if !key.eq_ignore_ascii_case("from") {
                continue;
            }
            if value.find('$').is_some_and(|at| at + 1 != value.len()) {
                return Err(MountError::FromVariable(shown(value)));
            }
            from = Some(value.to_owned()).filter(|from| !from.is_empty());
        }
        Ok(Self { fields, from })
    }

    /// The stage, image or named context that it shows. `None`: the main context, or nothing.
    pub fn from(&self) -> Option<&str> {
        self.from.as_deref()
    }

    /// Replaces variables, checks all options, and fills in what is not given.
    pub fn expand(&self, expander: &mut Expander<'_>) -> Result<Mount, MountError> {
        let mut options = Options::default();
        for field in &self.fields {
            match field.split_once('=') {
                None => options.set_flag(field)?,
                Some((key, value)) => {
                    let value = expander.word(&Word::new(value)).map_err(MountError::Expand)?;
                    options.set(&key.to_lowercase(), value)?;
                }
            }
        }
        options.finish()
    }
}

impl Mount {
    /// Where it appears: absolute. A relative target counts from the working directory `cwd`.
    pub fn target_in(&self, cwd: &str) -> Result<String, MountError> {
        let target = if path::clean(&self.target).starts_with('/') {
            self.target.clone()
        } else {
            path::clean(&format!("/{cwd}/{}", self.target))
        };
        if path::clean(&target) == "/" {
            return Err(MountError::Target(shown(&self.target)));
        }
        Ok(target)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Type {
    #[default]
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

const TYPES: [(&str, Type); 5] = [
    ("bind", Type::Bind),
    ("cache", Type::Cache),
    ("secret", Type::Secret),
    ("ssh", Type::Ssh),
    ("tmpfs", Type::Tmpfs),
];

const SHARINGS: [(&str, Sharing); 3] =
    [("locked", Sharing::Locked), ("private", Sharing::Private), ("shared", Sharing::Shared)];

const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

/// A mount's options while they are read, in their order.
#[derive(Default)]
struct Options {
    kind: Type,
    from: String,
    source: String,
    target: String,
    read_only: Option<bool>,
    size: u64,
    id: String,
    sharing: Option<Sharing>,
    required: bool,
    env: Option<String>,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
}

impl Options {
    fn kind_name(&self) -> &'static str {
        TYPES.iter().find(|(_, kind)| *kind == self.kind).map_or("bind", |(name, _)| name)
    }

    /// An option without `=`.
    fn set_flag(&mut self, field: &str) -> Result<(), MountError> {
        match field.to_lowercase().as_str() {
            "readonly" | "ro" => self.read_only = Some(true),
            "readwrite" | "rw" => self.read_only = Some(false),
            "required" => {
                self.may_be_required()?;
                self.required = true;
            }
            key if KEYS.contains(&key) => {
                return Err(MountError::NoValue { flag: "mount", key: key.to_owned() });
            }
            _ => return Err(unknown(field)),
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: String) -> Result<(), MountError> {
        match key {
            "type" => self.kind = one_of("type", &value, &TYPES, "a type of mount")?,
            "from" => self.from = value,
            "source" | "src" => self.source = value,
            "target" | "dst" | "destination" => self.target = value,
            "readonly" | "ro" => self.read_only = Some(boolean("readonly", &value)?),
            "readwrite" | "rw" => self.read_only = Some(!boolean("readwrite", &value)?),
            "required" => {
                self.may_be_required()?;
                self.required = boolean("required", &value)?;
            }
            "size" => {
                self.require("size", &[Type::Tmpfs])?;
                let bytes = value::bytes(&value);
                let expected = "a size: `64m`, `1GiB`";
                self.size = bytes.ok_or_else(|| bad_value("size", &value, expected))?;
            }
            "id" => self.id = value,
            "sharing" => {
                let expected = "shared, private or locked";
                self.sharing = Some(one_of("sharing", &value, &SHARINGS, expected)?);
            }
            "mode" => self.mode = Some(number("mode", &value, 8)?),
            "uid" => self.uid = Some(number("uid", &value, 10)?),
            "gid" => self.gid = Some(number("gid", &value, 10)?),
            "env" if value.is_empty() => {
                return Err(bad_value("env", &value, "the name of a variable"));
            }
            "env" => self.env = Some(value),
            _ => return Err(unknown(key)),
        }
        Ok(())
    }

    fn may_be_required(&self) -> Result<(), MountError> {
        self.require("required", &[Type::Secret, Type::Ssh])
    }

    fn require(&self, key: &'static str, kinds: &[Type]) -> Result<(), MountError> {
        if kinds.contains(&self.kind) {
            return Ok(());
        }
        Err(MountError::NotForType { key, kind: self.kind_name() })
    }

    /// Memory is empty. In a cache there is what other steps left.
    fn may_have_source(&self) -> Result<(), MountError> {
        if self.kind != Type::Tmpfs || path::clean(&format!("/{}", self.source)) == "/" {
            return Ok(());
        }
        Err(MountError::Source(shown(&self.source)))
    }

    fn owner(&self, mode: u32) -> Owner {
        Owner {
            mode: self.mode.unwrap_or(mode),
            uid: self.uid.unwrap_or_default(),
            gid: self.gid.unwrap_or_default(),
        }
    }

    fn finish(self) -> Result<Mount, MountError> {
        let with_owner = [Type::Secret, Type::Ssh, Type::Cache];
        for (key, given) in [
            ("mode", self.mode.is_some()),
            ("uid", self.uid.is_some()),
            ("gid", self.gid.is_some()),
        ] {
            if given {
                self.require(key, &with_owner)?;
            }
        }
        let kind = match self.kind {
            Type::Secret => self.secret()?,
            kind => {
                if self.sharing.is_some() {
                    self.require("sharing", &[Type::Cache])?;
                }
                self.may_have_source()?;
                match kind {
                    Type::Cache => self.cache(),
                    Type::Ssh => self.ssh()?,
                    Type::Tmpfs => MountKind::Tmpfs {
                        size: self.size,
                        read_only: self.read_only.unwrap_or(false),
                    },
                    Type::Bind | Type::Secret => MountKind::Bind {
                        from: some(&self.from),
                        source: self.source.clone(),
                        writable: !self.read_only.unwrap_or(true),
                    },
                }
            }
        };
        Ok(Mount { target: self.target, kind })
    }

    fn cache(&self) -> MountKind {
        let owned = self.mode.is_some() || self.uid.is_some() || self.gid.is_some();
        MountKind::Cache {
            id: some(&self.id).unwrap_or_else(|| path::clean(&self.target)),
            from: some(&self.from),
            source: self.source.clone(),
            sharing: self.sharing.unwrap_or(Sharing::Shared),
            read_only: self.read_only.unwrap_or(false),
            owner: owned.then(|| self.owner(0o755)),
        }
    }

    fn secret(&self) -> Result<MountKind, MountError> {
        let wrong = if !self.from.is_empty() {
            Some("a secret has no `from`")
        } else if self.sharing.is_some() {
            Some("a secret has no `sharing`")
        } else if self.source.is_empty() && self.target.is_empty() && self.id.is_empty() {
            Some("one of `id`, `source` and `target` is needed")
        } else if !self.source.is_empty() && !self.id.is_empty() {
            Some("`source` and `id` mean the same; give one of them")
        } else {
            None
        };
        if let Some(wrong) = wrong {
            return Err(MountError::Secret(wrong));
        }
        let id = some(&self.source)
            .or_else(|| some(&self.id))
            .unwrap_or_else(|| path::base(&self.target).to_owned());
        let file = some(&self.target);
        let file = match self.env {
            Some(_) => file,
            None => file.or_else(|| Some(format!("/run/secrets/{}", path::base(&id)))),
        };
        let (env, required, owner) = (self.env.clone(), self.required, self.owner(0o400));
        Ok(MountKind::Secret { id, file, env, required, owner })
    }

    fn ssh(&self) -> Result<MountKind, MountError> {
        if !self.source.is_empty() {
            return Err(MountError::NotForType { key: "source", kind: "ssh" });
        }
        Ok(MountKind::Ssh {
            id: some(&self.id).unwrap_or_else(|| "default".to_owned()),
            socket: some(&self.target),
            required: self.required,
            owner: self.owner(0o600),
        })
    }
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn unknown(key: &str) -> MountError {
    let near = suggest::nearest(key, KEYS);
    MountError::Key { flag: "mount", key: shown(key), near }
}

fn bad_value(key: &'static str, value: &str, expected: &'static str) -> MountError {
    MountError::Value { flag: "mount", key, value: shown(value), expected, near: None }
}

fn boolean(key: &'static str, value: &str) -> Result<bool, MountError> {
    value::boolean(value).ok_or_else(|| bad_value(key, value, "true or false"))
}

fn number(key: &'static str, value: &str, radix: u32) -> Result<u32, MountError> {
    let digits = value.bytes().all(|b| b.is_ascii_digit());
    let number = u32::from_str_radix(value, radix).ok().filter(|_| digits);
    let expected = if radix == 8 { "an octal mode: `0755`" } else { "a number of 0 to 4294967295" };
    number.ok_or_else(|| bad_value(key, value, expected))
}

fn one_of<T: Copy>(
    key: &'static str,
    value: &str,
    known: &[(&'static str, T)],
    expected: &'static str,
) -> Result<T, MountError> {
    let lower = value.to_lowercase();
    known.iter().find(|(name, _)| *name == lower).map(|(_, found)| *found).ok_or_else(|| {
        let near = suggest::nearest(value, known.iter().map(|(name, _)| *name));
        MountError::Value { flag: "mount", key, value: shown(value), expected, near }
    })
}

/// A device that a RUN asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its CDI name; empty when none is given.
    pub name: String,
    /// Whether the step fails without it.
    pub required: bool,
}

impl Device {
    /// Reads the value of `--device`.
    pub fn parse(text: &str) -> Result<Self, MountError> {
        let flag = "device";
        let fields = csv::fields(text).map_err(|why| MountError::List { flag, why })?;
        let mut device = Self { name: String::new(), required: false };
        for field in fields {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key.to_lowercase(), Some(value)),
                None => (field.to_lowercase(), None),
            };
            match (key.as_str(), value) {
                ("required", None) => device.required = true,
                ("required", Some(value)) => {
                    device.required = value::boolean(value).ok_or_else(|| MountError::Value {
                        flag,
                        key: "required",
                        value: shown(value),
                        expected: "true or false",
                        near: None,
                    })?;
                }
                ("name", Some(_)) if !device.name.is_empty() => {
                    return Err(MountError::DeviceTwice);
                }
                ("name", Some(value)) => device.name = value.to_owned(),
                _ if device.name.is_empty() => device.name = field,
                (_, None) => return Err(MountError::NoValue { flag, key: shown(&field) }),
                _ => {
                    let near = suggest::nearest(&key, ["name", "required"]);
                    return Err(MountError::Key { flag, key: shown(&key), near });
                }
            }
        }
        Ok(device)
    }
}

#[cfg(test)]
#[path = "mount_tests.rs"]
mod tests;
