//! Values of flags that are lists of fields: `type=local,dest=out`.

use crate::error::user;
use proto::error::Failure;
use proto::wire::build::{LayerCompression, MediaTypes, Packing};
use std::collections::BTreeMap;

/// Takes fields one by one; what is left at the end is unknown.
pub struct Taker<'t> {
    fields: BTreeMap<String, String>,
    flag: &'t str,
    text: &'t str,
}

impl<'t> Taker<'t> {
    /// The fields of a flag's value: `a=b,c=d`, as CSV has them.
    pub fn new(flag: &'t str, text: &'t str) -> Result<Self, Failure> {
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
        let record = reader.records().next().and_then(Result::ok).unwrap_or_default();
        let mut fields = BTreeMap::new();
        for field in record.iter() {
            let Some((key, value)) = field.split_once('=') else {
                return Err(user(format!("{flag} `{text}`: `{field}` has no `=`")));
            };
            fields.insert(key.trim().to_ascii_lowercase(), value.to_owned());
        }
        Ok(Self { fields, flag, text })
    }
}

impl Taker<'_> {
    /// What is wrong with the value.
    pub fn wrong(&self, why: String) -> Failure {
        user(format!("{} `{}`: {why}", self.flag, self.text))
    }

    /// Whether a field was given, even an empty one.
    pub fn has(&self, key: &str) -> bool {
        self.fields.contains_key(key)
    }

    /// A text.
    pub fn text(&mut self, key: &str) -> Option<String> {
        self.fields.remove(key).filter(|v| !v.is_empty())
    }

    /// A text that must be there.
    pub fn needed(&mut self, key: &str, as_what: &str) -> Result<String, Failure> {
        self.text(key).ok_or_else(|| self.wrong(format!("it needs {key}={as_what}")))
    }

    /// true or false.
    pub fn flag(&mut self, key: &str, default: bool) -> Result<bool, Failure> {
        match self.text(key).as_deref() {
            None => Ok(default),
            Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => Err(self.wrong(format!("{key}={other}: expected true or false"))),
        }
    }

    /// How layers are packed.
    pub fn packing(&mut self, media: MediaTypes) -> Result<Packing, Failure> {
        let compression = match self.text("compression").as_deref() {
            None | Some("gzip") => LayerCompression::Gzip,
            Some("uncompressed") => LayerCompression::None,
            Some("zstd") => LayerCompression::Zstd,
            Some(other) => {
                let why = "there are uncompressed, gzip and zstd";
                return Err(self.wrong(format!("compression={other}: {why}")));
            }
        };
        let level = match self.text("compression-level") {
            None => 0,
            Some(text) => {
                let max = if compression == LayerCompression::Zstd { 19 } else { 9 };
                let level = text.parse().ok().filter(|l| (1..=max).contains(l));
                let why = format!("compression-level={text}: expected a number from 1 to {max}");
                level.ok_or_else(|| self.wrong(why))?
            }
        };
        let force = self.flag("force-compression", false)?;
        let oci = self.flag("oci-mediatypes", media == MediaTypes::Oci)?;
        let media = if oci { MediaTypes::Oci } else { MediaTypes::Docker };
        Ok(Packing { compression, level, force, media })
    }

    /// Nothing may be left.
    pub fn finish(self) -> Result<(), Failure> {
        match self.fields.keys().next() {
            None => Ok(()),
            Some(key) => Err(self.wrong(format!("there is no field `{key}` for this type"))),
        }
    }
}
