//! The names of the checks.

use std::fmt;

/// A check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// All instructions are in capital letters, or all in small ones.
    ConsistentInstructionCasing,
    /// COPY and ADD do not name what `.dockerignore` leaves out.
    CopyIgnoredFile,
    /// No two stages have one name.
    DuplicateStageName,
    /// EXPOSE names no address and no port of the host.
    ExposeInvalidFormat,
    /// EXPOSE has its protocols in small letters.
    ExposeProtoCasing,
    /// `FROM` and `AS` are both in capital letters, or both in small ones.
    FromAsCasing,
    /// `FROM --platform` is not a constant.
    FromPlatformFlagConstDisallowed,
    /// A base image is of the platform that was asked for.
    InvalidBaseImagePlatform,
    /// FROM has a valid image name, also when only the defaults of ARGs are known.
    InvalidDefaultArgInFrom,
    /// A comment above a stage or an ARG begins with its name. Only on request.
    InvalidDefinitionDescription,
    /// CMD and ENTRYPOINT are JSON arrays.
    JsonArgsRecommended,
    /// ENV and LABEL are of the form `name=value`.
    LegacyKeyValueFormat,
    /// There is no MAINTAINER.
    MaintainerDeprecated,
    /// CMD, ENTRYPOINT and HEALTHCHECK stand once in a stage.
    MultipleInstructionsDisallowed,
    /// No empty line stands inside of a continued instruction.
    NoEmptyContinuation,
    /// `FROM --platform` is not `$TARGETPLATFORM`, which it is anyway.
    RedundantTargetPlatform,
    /// No stage is named `scratch` or `context`.
    ReservedStageName,
    /// ARG and ENV hold no secrets.
    SecretsUsedInArgOrEnv,
    /// Stages' names are in small letters.
    StageNameCasing,
    /// FROM uses ARGs that are declared.
    UndefinedArgInFrom,
    /// Variables are defined before they are used.
    UndefinedVar,
    /// The first WORKDIR is absolute.
    WorkdirRelativePath,
}

impl Rule {
    /// All checks.
    pub const ALL: [Self; 22] = [
        Self::ConsistentInstructionCasing,
        Self::CopyIgnoredFile,
        Self::DuplicateStageName,
        Self::ExposeInvalidFormat,
        Self::ExposeProtoCasing,
        Self::FromAsCasing,
        Self::FromPlatformFlagConstDisallowed,
        Self::InvalidBaseImagePlatform,
        Self::InvalidDefaultArgInFrom,
        Self::InvalidDefinitionDescription,
        Self::JsonArgsRecommended,
        Self::LegacyKeyValueFormat,
        Self::MaintainerDeprecated,
        Self::MultipleInstructionsDisallowed,
        Self::NoEmptyContinuation,
        Self::RedundantTargetPlatform,
        Self::ReservedStageName,
        Self::SecretsUsedInArgOrEnv,
        Self::StageNameCasing,
        Self::UndefinedArgInFrom,
        Self::UndefinedVar,
        Self::WorkdirRelativePath,
    ];

    /// The name, as `# check=skip=…` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ConsistentInstructionCasing => "ConsistentInstructionCasing",
            Self::CopyIgnoredFile => "CopyIgnoredFile",
            Self::DuplicateStageName => "DuplicateStageName",
            Self::ExposeInvalidFormat => "ExposeInvalidFormat",
            Self::ExposeProtoCasing => "ExposeProtoCasing",
            Self::FromAsCasing => "FromAsCasing",
            Self::FromPlatformFlagConstDisallowed => "FromPlatformFlagConstDisallowed",
            Self::InvalidBaseImagePlatform => "InvalidBaseImagePlatform",
            Self::InvalidDefaultArgInFrom => "InvalidDefaultArgInFrom",
            Self::InvalidDefinitionDescription => "InvalidDefinitionDescription",
            Self::JsonArgsRecommended => "JSONArgsRecommended",
            Self::LegacyKeyValueFormat => "LegacyKeyValueFormat",
            Self::MaintainerDeprecated => "MaintainerDeprecated",
            Self::MultipleInstructionsDisallowed => "MultipleInstructionsDisallowed",
            Self::NoEmptyContinuation => "NoEmptyContinuation",
            Self::RedundantTargetPlatform => "RedundantTargetPlatform",
            Self::ReservedStageName => "ReservedStageName",
            Self::SecretsUsedInArgOrEnv => "SecretsUsedInArgOrEnv",
            Self::StageNameCasing => "StageNameCasing",
            Self::UndefinedArgInFrom => "UndefinedArgInFrom",
            Self::UndefinedVar => "UndefinedVar",
            Self::WorkdirRelativePath => "WorkdirRelativePath",
        }
    }

    /// What it asks for, in one sentence.
    pub fn description(self) -> &'static str {
        match self {
            Self::ConsistentInstructionCasing => {
                "Instructions are written in capital letters throughout, or in small ones"
            }
            Self::CopyIgnoredFile => "What .dockerignore leaves out cannot be copied",
            Self::DuplicateStageName => "Every stage has a name of its own",
            Self::ExposeInvalidFormat => "EXPOSE names neither addresses nor ports of the host",
            Self::ExposeProtoCasing => "Protocols in EXPOSE are written in small letters",
            Self::FromAsCasing => "FROM and AS are written in the same case",
            Self::FromPlatformFlagConstDisallowed => "The platform of a FROM is not a constant",
            Self::InvalidBaseImagePlatform => "A base image is of the platform asked for",
            Self::InvalidDefaultArgInFrom => {
                "The defaults of global ARGs give a valid name of a base image"
            }
            Self::InvalidDefinitionDescription => {
                "A comment right above a stage or an ARG is `# name description`"
            }
            Self::JsonArgsRecommended => {
                "CMD and ENTRYPOINT are JSON arrays, so that signals reach the program"
            }
            Self::LegacyKeyValueFormat => "ENV and LABEL are written name=value",
            Self::MaintainerDeprecated => "A label names the author, not MAINTAINER",
            Self::MultipleInstructionsDisallowed => {
                "Of several CMD, ENTRYPOINT or HEALTHCHECK in a stage, only the last counts"
            }
            Self::NoEmptyContinuation => "No empty line stands inside of a continued instruction",
            Self::RedundantTargetPlatform => "$TARGETPLATFORM is the platform of a FROM anyway",
            Self::ReservedStageName => "No stage is named scratch or context",
            Self::SecretsUsedInArgOrEnv => "Secrets are neither in ARG nor in ENV",
            Self::StageNameCasing => "Names of stages are written in small letters",
            Self::UndefinedArgInFrom => "FROM uses declared ARGs only",
            Self::UndefinedVar => "Variables are defined before they are used",
            Self::WorkdirRelativePath => {
                "The first WORKDIR is absolute, so that it does not depend on the base image"
            }
        }
    }

    /// Where it is explained.
    pub fn url(self) -> Option<String> {
        if self == Self::InvalidBaseImagePlatform {
            return None;
        }
        let mut slug = String::new();
        let mut before = 'x';
        let mut chars = self.name().chars().peekable();
        while let Some(c) = chars.next() {
            // A capital letter begins a word, if a small one stands before it or behind it.
            let begins = c.is_ascii_uppercase()
                && (before.is_ascii_lowercase()
                    || chars.peek().is_some_and(char::is_ascii_lowercase));
            if begins && !slug.is_empty() {
                slug.push('-');
            }
            slug.push(c.to_ascii_lowercase());
            before = c;
        }
        Some(format!("https://docs.docker.com/go/dockerfile/rule/{slug}/"))
    }

    /// Whether it is made only on request (`# check=experimental=…`).
    pub fn is_experimental(self) -> bool {
        self == Self::InvalidDefinitionDescription
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
