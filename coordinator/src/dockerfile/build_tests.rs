use super::super::flag::FlagError;
use super::super::mount::MountError;
use super::super::value::DurationError;
use super::super::{Dockerfile, parse};
use super::*;
use std::time::Duration;

fn file(text: &str) -> Dockerfile {
    parse(format!("FROM x\n{text}").as_bytes(), "f").unwrap()
}

fn kind(text: &str) -> Kind {
    file(text).stages[0].instructions[0].kind.clone()
}

fn problem(text: &str) -> Problem {
    let error = parse(format!("FROM x\n{text}").as_bytes(), "f").unwrap_err();
    assert_eq!(error.at.as_ref().map(|at| at.first_line), Some(2), "{text}");
    error.problem
}

fn raw(words: &[Word]) -> Vec<&str> {
    words.iter().map(Word::raw).collect()
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn every_instruction_needs_its_arguments() {
    for name in ["MAINTAINER", "WORKDIR", "USER", "STOPSIGNAL"] {
        assert!(matches!(problem(name), Problem::OneArgument(found) if found == name));
    }
    for name in ["ARG", "ENV", "LABEL", "ONBUILD", "HEALTHCHECK", "EXPOSE", "VOLUME", "SHELL"] {
        assert!(matches!(problem(name), Problem::NoArgument(found) if found == name), "{name}");
    }
    for name in ["ADD", "COPY"] {
        let one = problem(&format!("{name} a"));
        assert!(matches!(one, Problem::NoDestination(found) if found == name));
        assert_eq!(problem(&format!("{name} [\"a\"]")), one);
        assert_eq!(problem(name), one);
    }
    for name in ["RUN", "CMD", "ENTRYPOINT"] {
        kind(name);
    }
}

#[test]
fn unknown_instructions_are_named() {
    let unknown = |name: &str, near| Problem::UnknownInstruction { name: name.to_owned(), near };
    assert_eq!(problem("COYP a b"), unknown("COYP", Some("COPY")));
    assert_eq!(problem("copyy a b"), unknown("copyy", Some("COPY")));
    assert_eq!(problem("SOMETHING"), unknown("SOMETHING", None));
}

#[test]
fn commands_have_two_forms() {
    let shell = |text: &str| CommandLine::Shell(text.to_owned());
    assert_eq!(kind("CMD a  \"b\""), Kind::Cmd(shell("a  \"b\"")));
    assert_eq!(kind("CMD"), Kind::Cmd(shell("")));
    assert_eq!(kind("CMD []"), Kind::Cmd(CommandLine::Exec(vec![])));
    assert_eq!(kind("ENTRYPOINT [\"a\"]"), Kind::Entrypoint(CommandLine::Exec(owned(&["a"]))));
    assert_eq!(kind("ENTRYPOINT ['a']"), Kind::Entrypoint(shell("['a']")));
    assert_eq!(problem("CMD [1]"), Problem::NotStrings("CMD"));
    assert_eq!(kind("SHELL [\"a\", \"b\"]"), Kind::Shell(owned(&["a", "b"])));
    assert_eq!(problem("SHELL a b"), Problem::ShellForm);
    assert_eq!(problem("SHELL []"), Problem::NoArgument("SHELL"));
}

#[test]
fn words_are_kept_unexpanded() {
    assert_eq!(kind("WORKDIR /a b$c"), Kind::Workdir(Word::new("/a b$c")));
    assert_eq!(kind("USER a:b"), Kind::User(Word::new("a:b")));
    assert_eq!(kind("STOPSIGNAL --x $s"), Kind::StopSignal(Word::new("$s")));
    assert_eq!(kind("MAINTAINER A B <c>"), Kind::Maintainer("A B <c>".to_owned()));
    let Kind::Expose(ports) = kind("EXPOSE 9 80 $p 1-2/udp") else { panic!() };
    assert_eq!(raw(&ports), ["$p", "1-2/udp", "80", "9"]);
    let Kind::Volume(volumes) = kind("VOLUME [\"/a b\", \" /c \"]") else { panic!() };
    assert_eq!(raw(&volumes), ["/a b", "/c"]);
    assert_eq!(problem("VOLUME [\"\"]"), Problem::BlankVolume);
}

#[test]
fn args_may_have_defaults_and_descriptions() {
    let Kind::Arg(items) = kind("# b is it\nARG --x a b=1 c= d='e f'") else { panic!() };
    let found: Vec<_> = items
        .iter()
        .map(|i| (i.name.as_str(), i.default.as_ref().map(Word::raw), i.doc.as_deref()))
        .collect();
    assert_eq!(
        found,
        [
            ("a", None, None),
            ("b", Some("1"), Some("is it")),
            ("c", Some(""), None),
            ("d", Some("'e f'"), None)
        ]
    );
    assert_eq!(problem("ARG =x"), Problem::BlankName("ARG"));
}

#[test]
fn flags_are_those_of_the_instruction() {
    let flag = |instruction, flag: &str, near| Problem::Flag {
        instruction,
        why: FlagError::Unknown { flag: flag.to_owned(), near },
    };
    assert_eq!(problem("COPY --chwon=1 a b"), flag("COPY", "--chwon", Some("chown")));
    assert_eq!(problem("ADD --from=a b c"), flag("ADD", "--from", None));
    assert_eq!(problem("RUN --nosuch=x a"), flag("RUN", "--nosuch", None));
    for line in ["CMD --x a", "ENTRYPOINT --x a", "ENV --x a=b", "EXPOSE --x 1", "USER --x a"] {
        assert!(matches!(problem(line), Problem::Flag { .. }), "{line}");
    }
    for line in ["LABEL --x a=b", "VOLUME --x a", "WORKDIR --x a", "MAINTAINER --x a"] {
        assert!(matches!(problem(line), Problem::Flag { .. }), "{line}");
    }
    assert!(matches!(problem("ONBUILD --x RUN a"), Problem::Flag { .. }));
    assert!(matches!(problem("SHELL --x [\"a\"]"), Problem::Flag { .. }));
}

#[test]
fn copies_are_read() {
    let line = "COPY --link --chown=$u --chmod=755 --exclude=a --exclude=b --parents \
                --from=s a\\ b c /d/";
    let Kind::Copy(copy) = kind(line) else { panic!() };
    assert_eq!(raw(&copy.files.sources), ["a\\", "b", "c"]);
    assert_eq!(copy.files.dest.raw(), "/d/");
    assert_eq!(copy.files.chown.as_ref().map(Word::raw), Some("$u"));
    assert_eq!(copy.files.chmod.as_ref().map(Word::raw), Some("755"));
    assert_eq!(copy.files.exclude, ["a", "b"]);
    assert_eq!((copy.from.as_deref(), copy.parents, copy.files.link), (Some("s"), true, true));
    let Kind::Copy(copy) = kind("COPY --from= --link=false [\"a b\", \"c\"]") else { panic!() };
    assert_eq!((raw(&copy.files.sources), copy.from), (vec!["a b"], None));
    for (written, from) in [("$x", "$x"), ("a\\\\b", "a\\b"), ("\"'a'\"", "'a'"), ("${x", "${x")] {
        let line = format!("COPY --from={written} a b");
        let error = file(&line).check_sources().unwrap_err();
        assert_eq!(error.problem, Problem::CopyFrom(from.to_owned()));
        assert_eq!(error.at.map(|at| at.first_line), Some(2));
    }
    assert_eq!(file("COPY --from=a$ a b").check_sources(), Ok(()));
}

#[test]
fn adds_are_read() {
    let Kind::Add(add) = kind("ADD --keep-git-dir --checksum=sha256:x --unpack=false u /d") else {
        panic!()
    };
    assert_eq!((add.keep_git_dir, add.unpack), (Some(true), Some(false)));
    assert_eq!(add.checksum.as_ref().map(Word::raw), Some("sha256:x"));
    let Kind::Add(add) = kind("ADD a b") else { panic!() };
    assert_eq!((add.keep_git_dir, add.unpack, add.checksum), (None, None, None));
}

#[test]
fn heredocs_are_files() {
    let Kind::Copy(copy) = kind("COPY a <<E1 <<-'E2' /d/\n1 $x\nE1\n\t\t2 $x\n\tE2\n") else {
        panic!()
    };
    let file = |name: &str, data: &[u8], expand| InlineFile {
        name: name.to_owned(),
        data: data.to_vec(),
        expand,
    };
    assert_eq!(raw(&copy.files.sources), ["a"]);
    assert_eq!(copy.files.inline, [file("E1", b"1 $x\n", true), file("E2", b"2 $x\n", false)]);
    let Kind::Copy(copy) = kind("COPY [\"<<E\", \"/d\"]") else { panic!() };
    assert_eq!(copy.files.inline, [file("E", b"", true)]);
    let Kind::Copy(copy) = kind("COPY <<E /d\né\0\nE\n") else { panic!() };
    assert_eq!(copy.files.inline, [file("E", "é\0\n".as_bytes(), true)]);
    assert_eq!(problem("COPY a <<E\nE\n"), Problem::HeredocDestination("COPY"));
    assert_eq!(problem("RUN <<E\na\n"), Problem::OpenHeredoc("E".to_owned()));
    assert!(matches!(problem("RUN <<E\n\0\nE\n"), Problem::Nul));
    let bytes = b"FROM x\nCOPY <<E /d\n\xff\nE\nRUN <<E\n\xff\nE\n";
    let error = parse(bytes, "f").unwrap_err();
    assert_eq!((error.problem, error.at.unwrap().first_line), (Problem::NotUtf8, 5));
}

#[test]
fn runs_are_read() {
    let line = "RUN --network=none --security=insecure --mount=target=/x --mount=type=ssh \
                --device=d a b";
    let Kind::Run(run) = kind(line) else { panic!() };
    assert_eq!(run.command, CommandLine::Shell("a b".to_owned()));
    assert_eq!((run.network, run.security), (NetworkMode::None, SecurityMode::Insecure));
    assert_eq!((run.mounts.len(), run.devices.len()), (2, 1));
    assert_eq!(problem("RUN --network=wifi a"), Problem::Network("wifi".to_owned()));
    assert_eq!(problem("RUN --network= a"), Problem::Network(String::new()));
    assert_eq!(problem("RUN --security=x a"), Problem::Security("x".to_owned()));
    let from = MountError::FromVariable("$s".to_owned());
    assert_eq!(problem("RUN --mount=from=$s,target=/x a"), Problem::Mount(from));
    // What may hold variables is looked at later.
    kind("RUN --mount=type=floppy,size=big a");
}

#[test]
fn healthchecks_are_read() {
    let line = "HEALTHCHECK --interval=5s --timeout=0 --start-period=1m --start-interval= \
                --retries=3 cmd  a  b";
    let Kind::Healthcheck(Healthcheck::Cmd { command, interval, start_period, retries, .. }) =
        kind(line)
    else {
        panic!()
    };
    assert_eq!(command, CommandLine::Shell("a  b".to_owned()));
    assert_eq!(
        (interval, start_period, retries),
        (Duration::from_secs(5), Duration::from_secs(60), 3)
    );
    assert_eq!(kind("HEALTHCHECK --nosuch none"), Kind::Healthcheck(Healthcheck::None));
    let Kind::Healthcheck(check) = kind("HEALTHCHECK CMD [\"a\"]") else { panic!() };
    assert_eq!(check.test(), ["CMD", "a"]);
    assert_eq!(problem("HEALTHCHECK NONE x"), Problem::HealthcheckNone);
    assert_eq!(problem("HEALTHCHECK CMD"), Problem::HealthcheckCommand);
    assert_eq!(problem("HEALTHCHECK CMD []"), Problem::HealthcheckCommand);
    assert_eq!(problem("HEALTHCHECK TCP 1"), Problem::HealthcheckType("TCP".to_owned()));
    let why = DurationError::Syntax("soon".to_owned());
    let time = Problem::HealthcheckTime { flag: "interval", why };
    assert_eq!(problem("HEALTHCHECK --interval=soon CMD a"), time);
    for retries in ["-1", "x", "3000000000"] {
        let line = format!("HEALTHCHECK --retries={retries} CMD a");
        assert_eq!(problem(&line), Problem::HealthcheckRetries(retries.to_owned()));
    }
}

#[test]
fn onbuild_keeps_its_text() {
    let text = |line| match kind(line) {
        Kind::Onbuild(text) => text,
        other => panic!("{other:?}"),
    };
    assert_eq!(text("onbuild run   a   \"b\"  "), "run   a   \"b\"  ");
    assert_eq!(text("ONBUILD FOO bar"), "FOO bar");
    assert_eq!(text("ONBUILD COPY <<E /d\n\ta\nE\n"), "COPY <<E /d\n\ta\nE");
    assert_eq!(text("ONBUILD ENV"), "ENV");
    assert_eq!(problem("ONBUILD ONBUILD RUN a"), Problem::OnbuildChain);
    assert_eq!(problem("ONBUILD from a"), Problem::OnbuildForbidden("FROM"));
    assert_eq!(problem("ONBUILD MAINTAINER a"), Problem::OnbuildForbidden("MAINTAINER"));
    assert_eq!(problem("ONBUILD ENV a"), Problem::NoValue("ENV"));
    assert_eq!(problem("ONBUILD CMD [1]"), Problem::NotStrings("CMD"));
}
