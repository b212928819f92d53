//! A Dockerfile, from its bytes to the keys of its steps.

use super::Target;
use coordinator::dockerfile::parse;
use coordinator::graph::keys::{Joined, keys, local_inputs};
use coordinator::graph::{
    Draft, Found, FoundFile, Inputs, Lowered, Wanted, layout_reference, lower,
};
use proto::id::{ContentDigest, OciDigest, RootId, TreeId};
use proto::limit;
use proto::platform::Platform;
use proto::step::{ImageOp, ImageOrigin};
use proto::wire::build::{BuildRequest, Output};
use proto::wire::worker::ResolvedImage;

pub struct Dockerfile;

/// Images with triggers can lead to further images, but not for ever.
const ROUNDS: usize = 8;

const SEEDS: [&str; 8] = [
    "# syntax=docker/dockerfile:1\n# escape=`\nFROM a AS b\nRUN c `\n d\nCOPY --from=b x /y/\n",
    "ARG V=1\nFROM --platform=$BUILDPLATFORM a:${V:-2} AS Base\nARG V\nENV A=$V B=\"${A#x*}\" C='$'\n\
     LABEL x=y \"a b\"=c\nEXPOSE 80 90-95/udp\nUSER u:g\nVOLUME [\"/a\", \"/b\"]\n",
    "FROM a\nRUN <<EOF cat > x\nhello $X\nEOF\nCOPY <<-'E F' <<b /d/\n\ttext\nE F\n$A\nb\n",
    "FROM a\nRUN --mount=type=cache,target=/c,sharing=locked,id=x --mount=type=bind,from=b,source=/s,\
     target=/t --mount=type=secret,id=k,env=K,mode=0400 --mount=type=tmpfs,target=/m,size=1g \
     --mount=type=ssh --network=none [\"a\", \"b\\u00e4\"]\n",
    "FROM onbuild AS x\nONBUILD RUN y\nFROM x\nONBUILD COPY <<E /z\nw\nE\nHEALTHCHECK --interval=1m30s \
     --retries=3 CMD a || b\nSTOPSIGNAL SIGTERM\nSHELL [\"sh\", \"-c\"]\nCMD a\nENTRYPOINT [\"b\"]\n",
    "from a as b\nadd --chown=1:2 --chmod=u=rwX,go=rX --link --exclude=*.x --checksum=sha256:\
     0000000000000000000000000000000000000000000000000000000000000000 http://h/f.tar /d\n\
     add https://h/r.git?ref=v1&subdir=s#main:d /e\ncopy --parents a/./b/** c? d[0-9] ../e /\n",
    "# check=skip=all;error=true\n\u{feff}FROM scratch\nMAINTAINER x y\nWORKDIR a\\ b\nCMD [\"x\",]\n\
     RUN a \\\n# comment\n\n b\n",
    "FROM a AS one\nFROM one AS two\nCOPY --from=0 / /\nCOPY --from=two x y\nFROM b\nCOPY --from=three c d\n",
];

const WORDS: &[&[u8]] = &[
    b"\nFROM ",
    b"\nRUN ",
    b"\nCOPY ",
    b"\nADD ",
    b"\nENV ",
    b"\nARG ",
    b"\nONBUILD ",
    b" AS ",
    b"--from=",
    b"--mount=type=",
    b"--chown=",
    b"--platform=",
    b"<<EOF",
    b"\nEOF\n",
    b"<<-'",
    b"\\\n",
    b"${",
    b":-",
    b"##",
    b"//",
    b"}",
    b"$",
    b"\"",
    b"'",
    b"`",
    b"[\"",
    b"\", \"",
    b"]",
    b"# escape=`\n",
    b"# check=",
    b"http://",
    b".git#",
    b"\xff",
    b"\0",
    b"\r\n",
    b"\t",
    b"=",
    b",",
    b"/./",
    b"**",
    b"\xef\xbb\xbf",
    b"9999999999999999999",
    b"-1",
    b"0777",
    b"scratch",
    b"one",
    b"TARGETARCH",
];

impl Target for Dockerfile {
    fn name(&self) -> &'static str {
        "dockerfile"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        SEEDS.iter().map(|text| text.as_bytes().to_vec()).collect()
    }

    fn words(&self) -> &'static [&'static [u8]] {
        WORDS
    }

    fn run(&self, input: &[u8]) -> bool {
        let dockerfile = match parse(input, "Dockerfile") {
            Ok(dockerfile) => dockerfile,
            Err(e) => {
                explained(&e.failure(input));
                return false;
            }
        };
        let platform = Platform::parse("linux/amd64").expect("a platform");
        let request = request();
        let mut found = Found::default();
        for _ in 0..ROUNDS {
            let inputs = Inputs {
                dockerfile: &dockerfile,
                request: &request,
                build_platform: &platform,
                found: &found,
            };
            let mut advice = Vec::new();
            let lowered = lower(inputs, &mut advice);
            advice.iter().for_each(|warning| drop(warning.told(input)));
            match lowered {
                Ok(Lowered::Draft(draft)) => {
                    check(draft);
                    return true;
                }
                Ok(Lowered::Needs(needs)) => {
                    assert!(!needs.is_empty(), "it needs nothing, and is no draft");
                    needs.into_iter().for_each(|need| look_up(need.what, &mut found));
                }
                Err(e) => {
                    explained(&e.failure(input));
                    return false;
                }
            }
        }
        panic!("it never has all that it needs");
    }
}

/// Messages are short, on one line, and of the person's making.
fn explained(failure: &proto::error::Failure) {
    assert!(!failure.message.is_empty());
    assert!(failure.message.len() < 100_000, "{} bytes", failure.message.len());
    assert_ne!(failure.class, proto::error::Class::Bug, "{failure}");
}

fn check(draft: Draft) {
    let root = RootId(TreeId::from_bytes([1; 32]));
    let roots = draft.locals.keys().map(|name| (name.clone(), root)).collect();
    let graph = draft.finish(&roots);
    for (at, step) in graph.steps.iter().enumerate() {
        assert!(step.inputs.iter().all(|input| input.index() < at), "an input comes later");
    }
    assert!(graph.steps.len() <= limit::STEPS_MAX + 1);
    for target in &graph.targets {
        assert!(target.step.index() < graph.steps.len());
    }
    let selected = ContentDigest::from_bytes([2; 32]);
    let selections = local_inputs(&graph).into_iter().map(|place| (place, selected)).collect();
    let keys = keys(&graph, &selections, "nonce", Joined::WithOthers);
    assert_eq!(keys.len(), graph.steps.len());
}

fn look_up(what: Wanted, found: &mut Found) {
    match what {
        Wanted::Image { reference, platform } => {
            let image = image(&reference, &platform);
            found.images.insert((reference, platform), image);
        }
        Wanted::Layout { context, platform } => {
            let reference = layout_reference(&context);
            let image = image(&reference, &platform);
            found.images.insert((reference, platform), image);
        }
        Wanted::File { url } => {
            let digest = OciDigest::from_bytes([0; 32]);
            found.files.insert(url, FoundFile { digest, name: None, modified: None });
        }
        Wanted::Commit { remote, reference } => {
            found.commits.insert((remote, reference), "0".repeat(40));
        }
        Wanted::Time(of) => {
            found.times.insert(of, None);
        }
    }
}

fn image(reference: &str, platform: &Platform) -> ResolvedImage {
    let triggers = if reference.contains("onbuild") { r#","OnBuild":["RUN x"]"# } else { "" };
    ResolvedImage {
        op: ImageOp {
            reference: reference.to_owned(),
            manifest: OciDigest::from_bytes([reference.len() as u8; 32]),
            origin: ImageOrigin::Registry,
        },
        platform: platform.clone(),
        config: format!(
            r#"{{"os":"linux","architecture":"amd64","config":{{"Env":["PATH=/bin"]{triggers}}}}}"#
        ),
        layers: Vec::new(),
    }
}

fn request() -> BuildRequest {
    BuildRequest {
        dockerfile_name: "Dockerfile".into(),
        build_args: vec![("V".into(), "3".into())],
        ignore: vec!["x*".into()],
        has_context: true,
        outputs: vec![Output::CacheOnly],
        ..BuildRequest::default()
    }
}
