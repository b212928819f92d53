//! Advice comes out of lowering as BuildKit gives it: the same rules, for the same lines.

use super::*;

/// The rules and their lines, in the order in which they are found.
#[track_caller]
fn advice(text: &str, request: &BuildRequest) -> Vec<String> {
    let mut out = Vec::new();
    lower_with(text, request, &mut out).expect("a Dockerfile that can be lowered");
    out.iter().map(|w| format!("{}:{}", w.rule, w.at.first_line)).collect()
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    assert_eq!(advice(text, &request()), expected, "{text}");
}

#[test]
fn nothing_is_said_of_what_is_well() {
    check("FROM a AS b\nARG X\nENV Y=$X PATH=$PATH:/x\nCOPY $Y /y\nCMD [\"x\"]\n", &[]);
    // Proxies and such are not declared either, but nobody can have set them.
    check("FROM a\nRUN echo $NOT_KNOWN\nEXPOSE $NOT_KNOWN 80\n", &[]);
}

#[test]
fn every_place_has_its_checks() {
    check("FROM a as B\n", &["StageNameCasing:1", "FromAsCasing:1"]);
    check("FROM ${NONE:-a}\n", &["UndefinedArgInFrom:1"]);
    check("ARG NONE\nFROM ${NONE:-a}\n", &[]);
    check("FROM --platform=$TARGETPLATFORM a\n", &["RedundantTargetPlatform:1"]);
    check("FROM --platform=linux/amd64 a\n", &["FromPlatformFlagConstDisallowed:1"]);
    check("FROM --platform=linux/amd64 a AS amd64-tools\n", &[]);
    check("FROM a\nCOPY $NONE/x /x\n", &["UndefinedVar:2"]);
    check("FROM a\nARG NONE\nCOPY $NONE/x /x\n", &[]);
    check("FROM a\nARG A=$NONE\n", &["UndefinedVar:2"]);
    check("FROM a\nENV A 1\nLABEL b 2\n", &["LegacyKeyValueFormat:2", "LegacyKeyValueFormat:3"]);
    check(
        "FROM a\nENV A_KEY=1\nARG A_TOKEN\n",
        &["SecretsUsedInArgOrEnv:2", "SecretsUsedInArgOrEnv:3"],
    );
    check("FROM a\nWORKDIR x\nWORKDIR y\n", &["WorkdirRelativePath:2"]);
    check("FROM a AS b\nWORKDIR /x\nFROM b\nWORKDIR y\n", &[]);
    check("FROM a\nEXPOSE 80/TCP 1:2\n", &["ExposeInvalidFormat:2", "ExposeProtoCasing:2"]);
    check("FROM a\nENV A=$NONE B=$NONE\n", &["UndefinedVar:2", "UndefinedVar:2"]);
    check("FROM a\nMAINTAINER x\n", &["MaintainerDeprecated:2"]);
    check("FROM a\nHEALTHCHECK NONE\nHEALTHCHECK NONE\n", &["MultipleInstructionsDisallowed:2"]);
    check("FROM a AS b\nHEALTHCHECK NONE\nFROM b\nHEALTHCHECK NONE\n", &[]);
}

#[test]
fn a_shell_of_ones_own_is_meant() {
    check("FROM a\nCMD x\n", &["JSONArgsRecommended:2"]);
    check("FROM a\nENTRYPOINT x\n", &["JSONArgsRecommended:2"]);
    check("FROM a\nSHELL [\"sh\", \"-c\"]\nCMD x\n", &[]);
}

#[test]
fn only_stages_that_are_needed_are_looked_into() {
    check("FROM a AS b\nCMD x\nFROM a\n", &[]);
    // What stands in the file alone is looked at everywhere.
    check("FROM a AS b\nMAINTAINER x\nFROM a\n", &["MaintainerDeprecated:2"]);
}

#[test]
fn images_are_valid_by_their_defaults_too() {
    let mut given = request();
    given.build_args = vec![("TAG".into(), "1".into())];
    assert_eq!(advice("ARG TAG\nFROM a:$TAG\n", &given), ["InvalidDefaultArgInFrom:2"]);
    assert_eq!(advice("ARG TAG=2\nFROM a:$TAG\n", &given), [""; 0]);
}

#[test]
fn ignored_files_are_not_there_to_copy() {
    let mut with = request();
    with.ignore = vec!["secret*".into()];
    let text = "FROM a\nCOPY secret.txt ok /x/\nADD secret2 /y\nCOPY --from=b secret.txt /z\n";
    assert_eq!(advice(text, &with), ["CopyIgnoredFile:2", "CopyIgnoredFile:3"]);
    with.ignore.push("!secret2".into());
    assert_eq!(advice(text, &with), [""; 0]);
}

#[test]
fn images_of_another_platform_are_pointed_out() {
    let platform = Platform::parse("linux/amd64").unwrap();
    let arm = Platform::parse("linux/arm64").unwrap();
    let name = "docker.io/library/a:latest".to_owned();
    let mut found = Found::default();
    found.images.insert((name.clone(), platform.clone()), image(&name, &arm));
    let dockerfile = parse(b"FROM a\n", "Dockerfile").unwrap();
    let request = request();
    let (dockerfile, request, build_platform) = (&dockerfile, &request, &platform);
    let mut out = Vec::new();
    let inputs = Inputs { dockerfile, request, build_platform, found: &found };
    assert!(matches!(lower(inputs, &mut out), Ok(Lowered::Draft(_))));
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].rule.name(), "InvalidBaseImagePlatform");
    assert!(out[0].message.contains("linux/arm64"), "{}", out[0].message);
}

#[test]
fn several_platforms_say_it_once() {
    let mut two = request();
    two.platforms = ["linux/amd64", "linux/arm64"].map(|p| Platform::parse(p).unwrap()).into();
    assert_eq!(advice("FROM a\nCMD x\n", &two), ["JSONArgsRecommended:2"]);
}

#[test]
fn the_file_the_line_and_the_person_say_what_is_wanted() {
    check("# check=skip=all\nFROM a\nCMD x\nMAINTAINER y\n", &[]);
    check("FROM a\n# check=skip=UndefinedVar\nENV A=$NONE\nENV B=$NONE\n", &["UndefinedVar:4"]);
    let mut given = request();
    let setting = |value: &str| vec![("BUILDKIT_DOCKERFILE_CHECK".to_owned(), value.to_owned())];
    given.build_args = setting("skip=JSONArgsRecommended");
    let text = "# check=error=true\nFROM a\nCMD x\n";
    assert_eq!(advice(text, &given), [""; 0]);
    given.build_args = setting("what");
    check_error(text, &given, "BUILDKIT_DOCKERFILE_CHECK", None);
}

#[test]
fn advice_can_fail_a_build() {
    let text = "# check=error=true\nFROM a\nCMD x\nENV A=$NONE\n";
    let mut out = Vec::new();
    let error = lower_with(text, &request(), &mut out).unwrap_err();
    let expected = "lint violation found for rules: JSONArgsRecommended, UndefinedVar";
    assert_eq!(error.to_string(), expected);
    let failure = error.failure(text.as_bytes());
    assert_eq!(failure.excerpt, [(3, "CMD x".to_owned())]);
    assert!(failure.hint.unwrap().starts_with("JSONArgsRecommended: "));
    // It is told as well.
    let remark = out[0].told(text.as_bytes());
    assert_eq!((remark.rule.as_str(), remark.excerpt.len()), ("JSONArgsRecommended", 1));
    assert!(remark.url.ends_with("/json-args-recommended/") && !remark.detail.is_empty());
    // Another mistake is more than advice.
    check_error("# check=error=true\nFROM a\nCMD x\nSTOPSIGNAL y\n", &request(), "y", Some(4));
}

#[test]
fn there_is_an_end_to_advice() {
    let text = format!("FROM a\n{}", "ENV A 1\n".repeat(2 * lint::WARNINGS_MAX));
    assert_eq!(advice(&text, &request()).len(), lint::WARNINGS_MAX);
}
