use super::super::directive::Escape;
use super::super::expand::Expander;
use super::super::instruction::Kind;
use super::super::value::PortParts;
use super::super::{Dockerfile, parse};
use super::build::{self, FromPlatform};
use super::*;
use cache::tree::pattern::Patterns;
use proto::platform::Platform;

fn read(text: &str) -> Dockerfile {
    parse(text.as_bytes(), "f").unwrap()
}

fn shown(warnings: &[Warning]) -> Vec<String> {
    warnings.iter().map(|w| format!("{}:{}", w.rule, w.at.first_line)).collect()
}

/// The checks that the file alone allows, as `Rule:line`.
fn check_file(text: &str, expect: &[&str]) {
    let file = read(text);
    assert_eq!(shown(&super::file(&file, &config(&file))), expect, "{text}");
}

fn config(file: &Dockerfile) -> Config {
    file.checks.clone().unwrap()
}

/// The checks of a file that cannot be read to its end.
fn check_broken(text: &str, expect: &[&str]) {
    let reading = super::super::read(text.as_bytes(), "f");
    assert!(reading.error.is_some(), "{text}");
    let checks = config(&reading.dockerfile);
    assert_eq!(shown(&super::reading(&reading, &checks)), expect, "{text}");
}

#[test]
fn what_stands_before_an_error_is_checked() {
    check_broken("FROM a as b\nBOGUS\nFROM c as d\n", &["FromAsCasing:1"]);
    check_broken("FROM a as b\nMAINTAINER\n", &["FromAsCasing:1", "MaintainerDeprecated:2"]);
    check_broken("MAINTAINER a\nFROM b as c\n", &["MaintainerDeprecated:1"]);
    check_broken("# check=skip=MaintainerDeprecated\nMAINTAINER a\n", &[]);
    check_broken("FROM a as 9B\n", &["StageNameCasing:1", "FromAsCasing:1"]);
    check_broken("FROM a as b c\n", &["FromAsCasing:1"]);
    // What the whole file says is said of whole files only.
    check_broken("FROM a AS b\nrun x\nFROM c AS b\nBOGUS\n", &[]);
    // Nothing is understood where lines are no words.
    check_broken("FROM a as b\nENV x\n", &[]);
    check_broken("FROM a as b\nRUN <<E\n", &[]);
}

/// All checks of all stages, with an empty environment.
fn check_stages(text: &str, expect: &[&str]) {
    let file = read(text);
    let mut out = Vec::new();
    for stage in &file.stages {
        let mut checks = StageChecks::on(&StageChecks::default());
        for instruction in &stage.instructions {
            let mut e = Expander::new(Escape::Backslash, &|_| None);
            let mut spot = Spot::new(&config(&file), instruction, &mut out);
            match &instruction.kind {
                Kind::Env(pairs) => spot.env(&pairs.expand(&mut e).unwrap()),
                Kind::Label(pairs) => spot.label(&pairs.expand(&mut e).unwrap()),
                Kind::Arg(items) => items.iter().for_each(|item| spot.arg(&item.name)),
                Kind::Workdir(path) => checks.workdir(&mut spot, &e.word(path).unwrap()),
                Kind::Cmd(command) => checks.cmd(&mut spot, command, false),
                Kind::Entrypoint(command) => checks.entrypoint(&mut spot, command, false),
                Kind::Healthcheck(_) => checks.healthcheck(&mut spot),
                Kind::Expose(words) => {
                    for word in words.iter().flat_map(|word| e.words(word).unwrap()) {
                        spot.expose(&PortParts::cut(&word).unwrap());
                    }
                }
                _ => {}
            }
        }
    }
    assert_eq!(shown(&out), expect, "{text}");
}

#[test]
fn names_and_keywords_are_checked() {
    check_file("FROM a AS b\nRUN c\n", &[]);
    check_file("FROM a AS B", &["StageNameCasing:1"]);
    check_file("FROM a as b", &["FromAsCasing:1"]);
    check_file("from a AS b", &["FromAsCasing:1"]);
    check_file("From a As b", &["ConsistentInstructionCasing:1"]);
    check_file(
        "FROM a AS b\nFROM a AS c\nFROM a AS B",
        &["StageNameCasing:3", "DuplicateStageName:3"],
    );
    check_file("FROM a AS scratch", &["ReservedStageName:1"]);
    check_file("FROM a\nrun b\nrun c", &["ConsistentInstructionCasing:1"]);
    check_file("FROM a\nrun b", &["ConsistentInstructionCasing:2"]);
    check_file("FROM a\nMAINTAINER b", &["MaintainerDeprecated:2"]);
    check_file("FROM a\nRUN b \\\n\n c\n", &["NoEmptyContinuation:4"]);
}

#[test]
fn settings_choose_the_checks() {
    check_file("# check=skip=all\nFROM a as B", &[]);
    check_file("# check=skip=StageNameCasing, FromAsCasing\nFROM a as B", &["FromAsCasing:2"]);
    check_file("# check=skip=StageNameCasing,FromAsCasing\nFROM a as B", &[]);
    check_file("FROM x\n# check=skip=StageNameCasing\nFROM a AS B", &[]);
    check_file("FROM x\n# check=skip=what;ever\nFROM a AS B", &["StageNameCasing:3"]);
    let text =
        "# check=experimental=InvalidDefinitionDescription\n\n# what\nARG a\n# b is\nFROM b AS b";
    check_file(text, &["InvalidDefinitionDescription:4"]);
    check_file("# what\nARG a\nFROM b", &[]);
    assert!(Config::parse("skip").is_err() && Config::parse("error=x").is_err());
    assert!(read("# check=foo=1\nFROM a").checks.is_err());
}

#[test]
fn advice_can_be_an_error() {
    let file = read("# check=error=true\nFROM a as B");
    let warnings = super::file(&file, &config(&file));
    let violation = config(&file).violation(&warnings).unwrap();
    let expect = "lint violation found for rules: FromAsCasing, StageNameCasing";
    assert_eq!(violation.to_string(), expect);
    assert!(violation.hint().starts_with("StageNameCasing: "), "{}", violation.hint());
    assert_eq!(config(&file).violation(&[]), None);
    assert_eq!(Config::default().violation(&warnings), None);
}

#[test]
fn values_are_checked() {
    check_stages("FROM a\nENV A b", &["LegacyKeyValueFormat:2"]);
    check_stages("FROM a\nLABEL A b", &["LegacyKeyValueFormat:2"]);
    check_stages(
        "FROM a\nENV API_KEY=1 X=1\nARG my_Token\nLABEL key=1",
        &["SecretsUsedInArgOrEnv:2", "SecretsUsedInArgOrEnv:3"],
    );
    check_stages("FROM a\nENV PUBLIC_KEY=1 KEYS=1 MONKEY=1 TOKEN_FILE=1", &[]);
    check_stages("FROM a\nEXPOSE 80/TCP 1:2", &["ExposeInvalidFormat:2", "ExposeProtoCasing:2"]);
    check_stages("FROM a\nWORKDIR x\nWORKDIR y", &["WorkdirRelativePath:2"]);
    check_stages("FROM a\nWORKDIR /x\nWORKDIR y", &[]);
    check_stages(
        "FROM a\nCMD b\nCMD [\"c\"]",
        &["JSONArgsRecommended:2", "MultipleInstructionsDisallowed:2"],
    );
    check_stages("FROM a\nENTRYPOINT [\"b\"]\nFROM a\nENTRYPOINT [\"c\"]", &[]);
    check_stages(
        "FROM a\nHEALTHCHECK NONE\nHEALTHCHECK CMD b",
        &["MultipleInstructionsDisallowed:2"],
    );
    check_stages("FROM a\n# check=skip=JSONArgsRecommended\nCMD b", &[]);
}

#[test]
fn what_the_build_was_given_is_checked() {
    let config = Config::default();
    let file = read("FROM --platform=linux/arm64 a AS b");
    let (stage, at) = (&file.stages[0], &file.stages[0].at);
    let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
    let mut out = Vec::new();
    let missing = names(&["PAHT", "B", "BUILDKIT_SBOM_SCAN_STAGE"]);
    build::undefined_vars(
        &config,
        &missing,
        &|name| name == "B",
        &|| vec!["PATH".to_owned()],
        at,
        &mut out,
    );
    assert!(out[0].message.ends_with("`$PAHT` is not defined (did you mean `$PATH`?)"));
    build::undefined_args_in_from(&config, &names(&["x", "y"]), &names(&["x"]), stage, &mut out);
    build::default_arg_in_from(&config, stage, true, &mut out);
    build::default_arg_in_from(&config, stage, false, &mut out);
    let (none, target) = (names(&[]), names(&["TARGETPLATFORM"]));
    let text = "linux/arm64";
    let of = |used, text| FromPlatform { text, used, missing: &none, target: Some("linux/arm64") };
    build::from_platform(&config, stage, &of(&none, text), &mut out);
    build::from_platform(&config, stage, &of(&target, text), &mut out);
    build::from_platform(&config, stage, &of(&target, "x"), &mut out);
    let platform = |text| Platform::parse(text).unwrap();
    let (amd, arm) = (platform("linux/amd64"), platform("linux/arm64"));
    build::base_image_platform(&config, "a", &amd, &amd, at, &mut out);
    build::base_image_platform(&config, "a", &amd, &arm, at, &mut out);
    let expect = [
        "UndefinedVar:1",
        "UndefinedArgInFrom:1",
        "InvalidDefaultArgInFrom:1",
        "FromPlatformFlagConstDisallowed:1",
        "RedundantTargetPlatform:1",
        "InvalidBaseImagePlatform:1",
    ];
    assert_eq!(shown(&out), expect);
}

#[test]
fn a_stage_named_after_its_platform_may_have_a_constant_one() {
    let file = read("FROM --platform=linux/arm64 a AS build-arm64");
    let none = Default::default();
    let platform = FromPlatform { text: "linux/arm64", used: &none, missing: &none, target: None };
    let mut out = Vec::new();
    build::from_platform(&Config::default(), &file.stages[0], &platform, &mut out);
    assert_eq!(out, []);
}

#[test]
fn copies_of_ignored_files_are_found() {
    let check = |patterns: &[&str], source: &str, expect: usize| {
        let ignored = Patterns::new(patterns).unwrap();
        let at = &read("FROM a").stages[0].at;
        let mut out = Vec::new();
        build::copy_ignored_file(&Config::default(), "COPY", source, &ignored, at, &mut out);
        assert_eq!(out.len(), expect, "{patterns:?} {source}");
    };
    check(&["a"], "./a/b", 1);
    check(&["a"], "b", 0);
    check(&["a"], ".", 0);
    check(&["**"], ".", 1);
    check(&["a", "!b"], "a", 0);
}

#[test]
fn rules_have_names_and_pages() {
    let names: std::collections::BTreeSet<&str> = Rule::ALL.map(Rule::name).into_iter().collect();
    assert_eq!(names.len(), Rule::ALL.len());
    let url = |rule: Rule| rule.url().unwrap_or_default();
    assert!(url(Rule::JsonArgsRecommended).ends_with("/rule/json-args-recommended/"));
    assert!(url(Rule::SecretsUsedInArgOrEnv).ends_with("/rule/secrets-used-in-arg-or-env/"));
    assert!(Rule::ALL.iter().all(|rule| !rule.description().is_empty()));
}
