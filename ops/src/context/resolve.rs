//! Which farm a command is for.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::name::{FarmName, LOCAL};
use crate::address::Address;
use std::collections::BTreeSet;
use std::fmt;

/// All that says which farm is meant, the strongest first.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wishes<'a> {
    /// `--farm`.
    pub flag: Option<&'a str>,
    /// `SLIPWAY_FARM`; empty is as good as none.
    pub variable: Option<&'a str>,
    /// The farm that is in use.
    pub current: Option<&'a FarmName>,
    /// `farm.default` of the settings.
    pub setting: Option<&'a str>,
}

/// Where a command goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// To a farm that was joined.
    Farm(FarmName),
    /// To the coordinator at an address.
    Address(Address),
    /// To this machine's own farm.
    Local,
}

/// What has decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decider {
    /// `--farm`.
    Flag,
    /// `SLIPWAY_FARM`.
    Variable,
    /// The farm that is in use.
    Current,
    /// `farm.default` of the settings.
    Setting,
    /// Nobody said anything.
    Nothing,
}

impl fmt::Display for Decider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Decider::Flag => "--farm",
            Decider::Variable => "SLIPWAY_FARM",
            Decider::Current => "the farm in use",
            Decider::Setting => "the setting `farm.default`",
            Decider::Nothing => "nothing",
        })
    }
}

/// A wish that leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// Neither a name nor an address.
    #[error(
        "`{text}` ({by}) is no farm: expected the name of a farm that was joined, `local` for this \
         machine's own, HOST or HOST:PORT"
    )]
    Nothing {
        /// What was wished.
        text: String,
        /// Who wished it.
        by: Decider,
    },
    /// The farm that is in use was removed.
    #[error("The farm in use, `{name}`, is not there any more; use another one, or none")]
    Gone {
        /// Its name.
        name: FarmName,
    },
}

/// Decides by the strongest wish. A text is the name of a known farm first, then `local`, then an
/// address; the weaker wishes are not looked at, whatever comes of the strongest.
pub fn resolve(
    wishes: &Wishes<'_>,
    known: &BTreeSet<FarmName>,
) -> Result<(Target, Decider), ResolveError> {
    let by_text = |text: &str, by: Decider| {
        let name = FarmName::parse(text).ok().filter(|name| known.contains(name));
        let target = match name {
            Some(name) => Target::Farm(name),
            None if text == LOCAL => Target::Local,
            None => match Address::coordinator(text) {
                Ok(address) => Target::Address(address),
                Err(error) => return Err(ResolveError::Nothing { text: error.text, by }),
            },
        };
        Ok((target, by))
    };
    if let Some(text) = wishes.flag {
        return by_text(text, Decider::Flag);
    }
    if let Some(text) = wishes.variable.filter(|text| !text.is_empty()) {
        return by_text(text, Decider::Variable);
    }
    if let Some(name) = wishes.current {
        if !known.contains(name) {
            return Err(ResolveError::Gone { name: name.clone() });
        }
        return Ok((Target::Farm(name.clone()), Decider::Current));
    }
    match wishes.setting {
        Some(text) => by_text(text, Decider::Setting),
        None => Ok((Target::Local, Decider::Nothing)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> FarmName {
        FarmName::parse(text).unwrap()
    }

    fn known() -> BTreeSet<FarmName> {
        ["ci", "lab"].map(name).into()
    }

    fn at(text: &str) -> Target {
        Target::Address(Address::coordinator(text).unwrap())
    }

    #[test]
    fn the_strongest_wish_decides() {
        let current = name("lab");
        let mut wishes = Wishes {
            flag: Some("ci"),
            variable: Some("build.example.com"),
            current: Some(&current),
            setting: Some("10.0.0.3:99"),
        };
        let said = |wishes: &Wishes<'_>| resolve(wishes, &known()).unwrap();
        assert_eq!(said(&wishes), (Target::Farm(name("ci")), Decider::Flag));
        wishes.flag = None;
        assert_eq!(said(&wishes), (at("build.example.com:7470"), Decider::Variable));
        wishes.variable = Some("");
        assert_eq!(said(&wishes), (Target::Farm(name("lab")), Decider::Current));
        wishes.current = None;
        assert_eq!(said(&wishes), (at("10.0.0.3:99"), Decider::Setting));
        wishes.setting = None;
        assert_eq!(said(&wishes), (Target::Local, Decider::Nothing));
    }

    #[test]
    fn a_name_goes_before_a_host_and_local_is_this_machine() {
        let said = |text| resolve(&Wishes { flag: Some(text), ..Wishes::default() }, &known());
        assert_eq!(said("ci").unwrap().0, Target::Farm(name("ci")));
        assert_eq!(said("ci:7470").unwrap().0, at("ci"));
        assert_eq!(said("prod").unwrap().0, at("prod:7470"));
        assert_eq!(said("local").unwrap().0, Target::Local);
        for bad in ["", "a b", "http://farm", "ci:0"] {
            let error = said(bad).unwrap_err().to_string();
            assert!(error.contains("(--farm)") && error.contains("HOST:PORT"), "{error}");
        }
    }

    #[test]
    fn a_wish_that_leads_nowhere_is_an_error_and_no_weaker_one_is_taken() {
        let gone = name("gone");
        let mut wishes = Wishes { current: Some(&gone), setting: Some("ci"), ..Wishes::default() };
        let error = resolve(&wishes, &known()).unwrap_err();
        assert_eq!(error, ResolveError::Gone { name: name("gone") });
        wishes.variable = Some("a b");
        let error = resolve(&wishes, &known()).unwrap_err();
        assert!(matches!(error, ResolveError::Nothing { by: Decider::Variable, .. }));
    }
}
