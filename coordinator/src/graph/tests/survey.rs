//! What is said of a Dockerfile without building it.

use super::*;
use crate::graph::survey::{Arg, Outline, Wish, check, outline};

#[track_caller]
fn with<T>(text: &str, request: &BuildRequest, look: impl FnOnce(Inputs<'_>) -> T) -> T {
    let dockerfile = &parse(text.as_bytes(), "Dockerfile").expect("a Dockerfile");
    let build_platform = &Platform::parse("linux/amd64").expect("a platform");
    look(Inputs { dockerfile, request, build_platform, found: &Found::default() })
}

/// The rules with their lines, then the error with its line.
#[track_caller]
fn checks_with(text: &str, request: &BuildRequest, expected: &[&str]) {
    let checked = with(text, request, check);
    let seen = checked.warnings.iter().map(|w| format!("{}:{}", w.rule, w.at.first_line));
    let line = |error: &LowerError| error.at.as_ref().map_or(0, |at| at.first_line);
    let error = checked.error.iter().map(|error| format!("{error}:{}", line(error)));
    assert_eq!(seen.chain(error).collect::<Vec<_>>(), expected, "{text}");
}

#[track_caller]
fn checks(text: &str, expected: &[&str]) {
    checks_with(text, &request(), expected);
}

fn of_target(target: &str) -> BuildRequest {
    BuildRequest { target: Some(target.into()), ..request() }
}

#[test]
fn without_a_target_all_stages_are_checked() {
    let text = "FROM a AS one\nCMD x\nFROM b AS two\nCMD y\n";
    checks(text, &["JSONArgsRecommended:2", "JSONArgsRecommended:4"]);
    checks_with(text, &of_target("one"), &["JSONArgsRecommended:2"]);
    checks_with(text, &of_target("none"), &["The target stage `none` was not found:0"]);
}

#[test]
fn what_an_unknown_image_may_set_is_no_mistake() {
    checks("FROM golang\nENV BIN=$GOPATH/bin\nWORKDIR $GOPATH/src\nVOLUME $GOPATH\n", &[]);
    checks("FROM a\nSTOPSIGNAL $SIGNAL\nENV X=${HOME:?unset}\nEXPOSE $PORT\n", &[]);
    // What is near to a name that the file sets is misspelt, whatever the image is.
    checks("FROM a\nARG VERSION=1\nCOPY app-$VERSON /app\n", &["UndefinedVar:3"]);
    checks("FROM scratch\nCOPY $NONE/x /x\n", &["UndefinedVar:2"]);
    checks("FROM a AS b\nFROM b\nCOPY $NONE/x /x\n", &[]);
    checks("FROM scratch AS b\nFROM b\nCOPY $NONE/x /x\n", &["UndefinedVar:3"]);
    let mut replaced = request();
    replaced.contexts = vec![("a".into(), NamedContext::Local)];
    checks_with("FROM a\nCOPY $NONE/x /x\n", &replaced, &["UndefinedVar:2"]);
}

#[test]
fn what_no_image_can_make_right_is_an_error() {
    checks("FROM a\nVOLUME \"\"\n", &["VOLUME: a volume's path cannot be empty:2"]);
    // Beside a variable that the image may set.
    checks("FROM a\nENV X=$HOME Y='b\n", &["Cannot expand `'b`: the quote ' is not closed:2"]);
    let open = "Cannot expand `${Y`: a `}` is missing after `${`:2";
    checks("FROM a\nVOLUME $HOME ${Y\n", &[open]);
    checks(
        "FROM a\nCMD x\nCOPY --from=9 x y\n",
        &["There is no stage of the index 9: `--from` counts stages from 0:3"],
    );
    checks(
        "# check=error=true\nFROM a\nCMD x\n",
        &["JSONArgsRecommended:3", "lint violation found for rules: JSONArgsRecommended:0"],
    );
    checks("# check=skip=JSONArgsRecommended;error=true\nFROM a\nCMD x\n", &[]);
}

#[test]
fn nothing_is_looked_up_and_no_right_is_needed() {
    checks("FROM a\nADD https://h/x git@h:x.git#main /\nRUN --network=host make\n", &[]);
    checks("FROM a\nRUN --security=insecure --device=gpu make\nCOPY --from=b / /\n", &[]);
}

#[test]
fn triggers_of_the_file_are_looked_at() {
    let text = "FROM a AS b\nONBUILD COPY --from=9 x y\nFROM b\n";
    checks(text, &["There is no stage of the index 9: `--from` counts stages from 0:3"]);
}

fn lines(outline: &Outline) -> Vec<String> {
    let arg = |a: &Arg| {
        let (value, about) = (a.value.as_deref(), a.description.as_deref());
        format!("{}={}:{} {}", a.name, value.unwrap_or("-"), a.at.first_line, about.unwrap_or(""))
    };
    let wish = |w: &Wish| format!("{}:{} {}", w.id, w.at.first_line, w.is_required);
    let wishes = outline.secrets.iter().chain(&outline.ssh).map(wish);
    let lines = outline.args.iter().map(arg).chain(wishes);
    lines.map(|line| line.trim_end().to_owned()).collect()
}

#[test]
fn an_outline_has_the_args_that_the_target_depends_on() {
    let text = "\
        ARG inherited=box\nARG unused=abc$inherited\n# sfx is a suffix\nARG sfx=usy$inherited\n\
        FROM b$sfx AS first\n# this is about nothing\nARG FOO=123\n# BAR is a number\nARG BAR=456\n\
        FROM alpine$unused AS second\nARG BAZ\n\
        FROM scratch AS third\nARG ABC=a\nARG TARGETARCH\nARG none\n\
        # target defines the target\nFROM third AS Target\nCOPY --from=first /etc/passwd /\n\
        FROM second\n";
    let mut request = of_target("TARGET");
    request.build_args = vec![("BAR".into(), "678".into())];
    let found = with(text, &request, outline).unwrap();
    assert_eq!(found.name.as_deref(), Some("target"));
    assert_eq!(found.description.as_deref(), Some("defines the target"));
    let expected = [
        "inherited=box:1",
        "sfx=usybox:4 is a suffix",
        "FOO=123:7",
        "BAR=678:9 is a number",
        "ABC=a:13",
        "none=-:15",
    ];
    assert_eq!(lines(&found), expected);
    let found = with("FROM scratch\n", &super::request(), outline).unwrap();
    assert_eq!((found.name, found.description, found.args), (None, None, Vec::new()));
}

#[test]
fn a_global_arg_is_described_where_it_stands() {
    let text = "# V is the version\nARG V=1\nARG W=$V\nARG V=$W.2\nFROM a\nARG V\n";
    let mut request = request();
    assert_eq!(lines(&with(text, &request, outline).unwrap()), ["W=1:3", "V=1.2:4"]);
    let text = "# V is the version\nARG V=1\nFROM a\nARG V\n";
    assert_eq!(lines(&with(text, &request, outline).unwrap()), ["V=1:2 is the version"]);
    // Whoever gives a value gives it to the stage.
    request.build_args = vec![("V".into(), "7".into())];
    assert_eq!(lines(&with(text, &request, outline).unwrap()), ["V=7:4"]);
}

#[track_caller]
fn outlines(text: &str, build_args: &[(&str, &str)], expected: &[&str]) {
    let build_args = build_args.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let request = BuildRequest { build_args, ..request() };
    assert_eq!(lines(&with(text, &request, outline).unwrap()), expected, "{text}");
}

#[test]
fn a_value_is_the_one_that_an_arg_has_where_it_stands() {
    outlines("ARG t\nFROM scratch\nARG t\n", &[], &["t=-:3"]);
    outlines("ARG t\nFROM scratch${t:-}\nARG u\n", &[], &["u=-:3"]);
    outlines("ARG t\nFROM scratch${t:-}\nARG u\n", &[("t", "")], &["t=:1", "u=-:3"]);
    outlines("ARG V=1\nARG V\nFROM scratch\nARG V\n", &[], &["V=-:2"]);
    outlines("ARG A=1\nARG V=$A\nARG V=2\nFROM scratch\nARG V\n", &[], &["V=2:3"]);
    outlines("ARG A=1\nARG V=$A\nFROM scratch\nARG V=2\n", &[], &["V=2:4"]);
    outlines(
        "ARG SOURCE_DATE_EPOCH=05\nFROM a\nARG SOURCE_DATE_EPOCH\n",
        &[],
        &["SOURCE_DATE_EPOCH=05:1"],
    );
}

#[test]
fn the_builders_own_args_are_told_where_they_are_given() {
    outlines("ARG TARGETOS\nFROM scratch\nARG TARGETOS\n", &[], &["TARGETOS=-:1"]);
    let text = "FROM scratch\nARG TARGETPLATFORM TARGETARCH TARGETOS\n";
    let given = [("TARGETPLATFORM", "foo"), ("TARGETARCH", "bar")];
    outlines(text, &given, &["TARGETARCH=bar:2", "TARGETPLATFORM=foo:2"]);
    let text = "ARG X=$TARGETARCH\nFROM scratch\nARG X\n";
    let mut request = request();
    request.platforms = vec![Platform::parse("linux/arm64").unwrap()];
    assert_eq!(lines(&with(text, &request, outline).unwrap()), ["X=amd64:1"]);
}

#[test]
fn of_args_with_one_name_the_one_nearest_to_the_target_counts() {
    let text = "FROM scratch AS b\nARG X=1\nFROM scratch AS d\nARG X=2\nARG Y\n\
                FROM b\nCOPY --from=d /a /b\n";
    outlines(text, &[], &["X=1:2", "Y=-:5"]);
}

#[track_caller]
fn no_outline(text: &str, expected: &str) {
    let error = with(text, &request(), outline).unwrap_err();
    let line = error.at.as_ref().map_or(0, |at| at.first_line);
    assert_eq!(format!("{error}:{line}"), expected, "{text}");
}

#[test]
fn what_cannot_be_built_has_no_outline() {
    let violation = "lint violation found for rules: FromAsCasing:0";
    no_outline("# check=error=true\nFROM scratch as q\n", violation);
    let settings = "`foo` is no setting; there are skip=…, experimental=… and error=true";
    let expected = format!("The directive `check` is not valid: {settings}:1");
    no_outline("# check=foo\nFROM scratch\n", &expected);
    for name in ["FROM Bad AS x", "FROM b\nCOPY --from=Bad a b", "FROM b\nRUN --mount=from=Bad x"] {
        let error = with(&format!("{name}\nFROM scratch\n"), &request(), outline).unwrap_err();
        assert!(error.to_string().contains("`Bad` is not a valid image reference"), "{error}");
    }
}

#[test]
fn settings_of_the_build_take_the_place_of_those_in_the_file() {
    let text = "# check=foo\nFROM scratch as q\n";
    let mut request = request();
    request.build_args = vec![("BUILDKIT_DOCKERFILE_CHECK".into(), String::new())];
    checks_with(text, &request, &["FromAsCasing:2"]);
    request.build_args[0].1 = "foo".into();
    assert!(crate::graph::survey::check_settings(&request).is_err());
    assert!(crate::graph::survey::check_settings(&super::request()).is_ok());
}

#[test]
fn a_variable_is_told_for_each_word_that_uses_it() {
    checks("FROM scratch\nENV a=$b$b c=$b\n", &["UndefinedVar:2"; 2]);
    checks("FROM scratch\nCOPY <<A <<B /\n$x\nA\n$x\nB\n", &["UndefinedVar:2"; 2]);
    let text = "FROM scratch\nADD --chown=$x --checksum=$x $x/a $x/b /$x\nVOLUME $x $x\n";
    let expected: Vec<String> =
        [2, 2, 2, 2, 2, 3, 3].map(|line| format!("UndefinedVar:{line}")).into();
    let checked = with(text, &request(), check);
    let seen = checked.warnings.iter().map(|w| format!("{}:{}", w.rule, w.at.first_line));
    assert_eq!(seen.collect::<Vec<_>>(), expected);
    // Up to the word that cannot be expanded.
    let checked = with("FROM scratch\nENV a=$b c=${ d=$b\n", &request(), check);
    assert_eq!((checked.warnings.len(), checked.error.is_some()), (1, true));
}

#[test]
fn what_is_wrong_with_a_port_comes_after_the_advice_about_it() {
    let checked = with("FROM scratch\nEXPOSE foo:80 1:2/TCP\n", &request(), check);
    let rules: Vec<_> = checked.warnings.iter().map(|w| w.rule.name()).collect();
    assert_eq!(rules, ["ExposeProtoCasing", "ExposeInvalidFormat", "ExposeInvalidFormat"]);
    assert!(checked.error.is_some());
}

#[test]
fn names_of_sources_stand_as_they_are() {
    let found = with("FROM scratch\nCOPY --from=$x a b\nFROM scratch\n", &request(), check);
    let error = found.error.unwrap();
    assert_eq!(error.at.as_ref().map(|at| at.first_line), Some(2));
    assert_eq!(error.lines_as_told(), None);
}

#[test]
fn an_outline_has_what_runs_ask_their_client_for() {
    let text = "\
        FROM a AS first\nRUN --mount=type=secret,target=/etc/passwd --mount=type=ssh x\n\
        FROM b AS unused\nRUN --mount=type=secret,id=never --mount=type=ssh,id=ssh2 x\n\
        FROM scratch AS third\nARG BAR=1\nRUN --mount=type=secret,id=second$BAR,required=true x\n\
        FROM third AS target\nCOPY --from=first /foo /\n\
        RUN --mount=type=ssh,id=ssh3,required --mount=type=secret,id=passwd,required x\n\
        FROM unused\n";
    let found = with(text, &of_target("target"), outline).unwrap();
    let expected =
        ["BAR=1:6", "passwd:2 true", "second1:7 true", "default:2 false", "ssh3:10 true"];
    assert_eq!(lines(&found), expected);
}
