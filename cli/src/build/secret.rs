//! Where secrets come from: `--secret`.

use super::context::read_bounded;
use super::fields::Taker;
use crate::error::io;
use crate::tell;
use proto::error::{Class, Failure};
use proto::limit;
use std::fs::File;
use std::path::PathBuf;

/// Where a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// A file.
    File(PathBuf),
    /// A variable.
    Variable(String),
}

impl SecretSource {
    /// The secret. That of a variable that is not set is empty, as with BuildKit.
    pub fn read(&self) -> Result<Vec<u8>, Failure> {
        match self {
            Self::Variable(name) => {
                let value = std::env::var_os(name);
                if value.is_none() {
                    tell!(
                        "WARNING: the variable {name} is not set, so the secret from it is empty"
                    );
                }
                let value = value.unwrap_or_default();
                Ok(std::os::unix::ffi::OsStringExt::into_vec(value))
            }
            Self::File(path) => {
                let file = File::open(path);
                let mut file = file.map_err(|e| io("Opening the secret", path, &e))?;
                read_bounded(&mut file, limit::SECRET_BYTES_MAX)
                    .map_err(|e| io("Reading the secret", path, &e))
            }
        }
    }
}

/// `id=ID[,src=FILE][,env=VARIABLE]`. Of both the variable counts; the file must be there all the
/// same.
pub fn parse(text: &str) -> Result<(String, SecretSource), Failure> {
    let mut take = Taker::new("--secret", text)?;
    let id = take.needed("id", "NAME")?;
    let (src, source) = (take.text("src"), take.text("source"));
    let (mut file, mut variable) = (src.or(source), take.text("env"));
    match take.text("type").as_deref() {
        Some("env") if variable.is_none() => variable = file.take(),
        None | Some("file" | "env") => {}
        Some(_) => return Err(take.wrong("the type is `file` or `env`".to_owned())),
    }
    take.finish()?;
    if file.is_none() && variable.is_none() {
        match std::env::var_os(&id) {
            Some(_) => variable = Some(id.clone()),
            None => file = Some(id.clone()),
        }
    }
    let file = file.map(PathBuf::from);
    if let Some(path) = file.as_ref().filter(|path| !path.exists()) {
        let message = format!("--secret `{text}`: there is no file {}", path.display());
        return Err(Failure::new(Class::Unavailable, message));
    }
    let source = match (variable, file) {
        (Some(variable), _) => SecretSource::Variable(variable),
        (None, file) => SecretSource::File(file.unwrap_or_default()),
    };
    Ok((id, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_read() {
        let file = SecretSource::File("/etc/passwd".into());
        assert_eq!(parse("id=a,src=/etc/passwd").unwrap(), ("a".into(), file.clone()));
        assert_eq!(parse("type=file,id=a,source=/etc/passwd").unwrap().1, file);
        let variable = SecretSource::Variable("V".into());
        assert_eq!(parse("id=a,env=V").unwrap().1, variable);
        assert_eq!(parse("type=env,id=a,src=V").unwrap().1, variable);
        assert_eq!(parse("id=a,src=/etc/passwd,env=V").unwrap().1, variable);
        for bad in ["src=x", "id=", "id=a,src=/nothing/here", "id=a,x=y", "id=a,src=/no/x,env=y"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_variable_that_is_not_set_is_an_empty_secret() {
        let unset = SecretSource::Variable("SLIPWAY_NO_SUCH_VARIABLE".into());
        assert_eq!(unset.read().unwrap(), b"");
    }
}
