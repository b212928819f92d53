//! Makes a case from a seed.

mod common;
mod context;

use super::case::{Case, Instruction, REGISTRY};
use super::peer::Language;
use super::words::{self, chance, pick};
use fastrand::Rng;

/// The case of a seed. `language` says what the peer understands.
pub fn generate(seed: u64, language: Language) -> Case {
    let mut maker = Maker {
        random: Rng::with_seed(seed),
        full: language == Language::Full,
        case: Case { by_layer: language == Language::Full, ..Case::default() },
        stages: Vec::new(),
        made: Vec::new(),
    };
    maker.context();
    maker.ignore();
    maker.dockerfile();
    if language == Language::Common { common::only(maker.case) } else { maker.case }
}

struct Maker {
    random: Rng,
    /// Whether the peer knows what the corpus' builder knows.
    full: bool,
    case: Case,
    /// How instructions may call the stages so far.
    stages: Vec<String>,
    /// Paths that the stage probably has, absolute.
    made: Vec<String>,
}

impl Maker {
    fn chance(&mut self, percent: u8) -> bool {
        chance(&mut self.random, percent)
    }

    fn value(&mut self) -> String {
        words::value(&mut self.random, self.full)
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        pick(&mut self.random, of)
    }

    fn dockerfile(&mut self) {
        if self.full && self.chance(4) {
            self.case.dockerfile.push(Instruction::line("# escape=`", []));
        }
        if self.chance(15) {
            let name = self.pick(&words::VARIABLES).to_owned();
            let value = self.value();
            self.push("ARG", vec![format!("{name}={value}")]);
        }
        if self.chance(12) {
            let name = self.pick(&words::VARIABLES);
            let value = words::plain(&mut self.random);
            self.case.flags.extend(["--build-arg".to_owned(), format!("{name}={value}")]);
        }
        let count = 1 + usize::from(self.chance(45)) + usize::from(self.chance(15));
        for number in 0..count {
            self.stage(number);
        }
        if count > 1 && self.chance(10) {
            let target = self.stages[self.random.usize(..self.stages.len())].clone();
            self.case.flags.extend(["--target".to_owned(), target]);
        }
    }

    fn stage(&mut self, number: usize) {
        let earlier = (!self.stages.is_empty() && self.chance(35))
            .then(|| self.stages[self.random.usize(..self.stages.len())].clone())
            .filter(|name| name.parse::<usize>().is_err());
        let base = match earlier {
            Some(stage) => stage,
            None if self.chance(20) => "scratch".to_owned(),
            None => format!("{REGISTRY}/conf/busybox:1"),
        };
        let can_run = base != "scratch";
        let mut from = vec![base];
        let named = self.chance(70);
        if named {
            let word = self.pick(&["AS", "as", "As"]).to_owned();
            from.extend([word, format!("s{number}")]);
        }
        self.push("FROM", from);
        if !can_run && !self.full {
            // An older engine does not save images without files.
            self.push("COPY", vec!["Dockerfile".to_owned(), "/".to_owned()]);
        }
        self.made = vec!["/etc".to_owned(), "/home/app".to_owned(), "/opt".to_owned()];
        for _ in 0..self.random.usize(1..8) {
            self.instruction(can_run);
        }
        self.stages.push(if named { format!("s{number}") } else { number.to_string() });
    }

    fn push(&mut self, keyword: &str, words: Vec<String>) {
        let keyword = words::keyword(&mut self.random, keyword);
        self.case.dockerfile.push(Instruction::line(&keyword, words));
    }

    fn instruction(&mut self, can_run: bool) {
        match self.random.u8(..40) {
            0..=12 => self.copy("COPY"),
            13..=15 => self.copy("ADD"),
            16..=21 if can_run => self.run(),
            22..=24 => self.workdir(),
            25..=28 => self.pairs("ENV"),
            29 => self.legacy_env(),
            30 | 31 => self.arg(),
            32 => self.pairs("LABEL"),
            33 | 34 => self.settings(),
            35 => self.user(),
            36 => self.onbuild(),
            37 => self.document(),
            38 => self.push("#", vec!["a remark".to_owned()]),
            _ => self.copy("COPY"),
        }
    }

    fn copy(&mut self, keyword: &str) {
        let words = self.copying(keyword);
        self.push(keyword, words);
    }

    fn copying(&mut self, keyword: &str) -> Vec<String> {
        let mut words = Vec::new();
        let from = keyword == "COPY" && !self.stages.is_empty() && self.chance(35);
        let image = keyword == "COPY" && !from && self.chance(5);
        if from {
            let stage = &self.stages[self.random.usize(..self.stages.len())];
            words.push(format!("--from={stage}"));
        } else if image {
            words.push(format!("--from={REGISTRY}/conf/busybox:1"));
        }
        if self.chance(15) {
            words.push(format!("--chown={}", self.owner()));
        }
        // An older BuildKit has no sticky bits.
        if self.full && self.chance(12) {
            words.push(format!("--chmod={}", self.chmod()));
        }
        if self.full {
            self.newer_flags(keyword, &mut words);
        }
        let parents = words.iter().any(|word| word == "--parents");
        let count = if self.chance(75) { 1 } else { self.random.usize(2..4) };
        for _ in 0..count {
            let source = if from || image { self.elsewhere() } else { self.source(parents) };
            words.push(source);
        }
        let mut to = self.destination();
        if count > 1 && !to.ends_with('/') && self.chance(90) {
            to.push('/');
        }
        words.push(to);
        words
    }

    fn newer_flags(&mut self, keyword: &str, words: &mut Vec<String>) {
        if self.chance(15) {
            words.push("--link".to_owned());
        }
        if keyword == "COPY" && self.chance(12) {
            words.push("--parents".to_owned());
        }
        while self.chance(15) {
            let path = self.there();
            words.push(format!("--exclude={}", words::excluding(&mut self.random, &path)));
        }
        if keyword == "ADD" && self.chance(15) {
            words.push(self.pick(&["--unpack=false", "--unpack", "--unpack=true"]).to_owned());
        }
    }

    fn owner(&mut self) -> String {
        let names = [
            "app",
            "app:staff",
            "7",
            "7:8",
            "svc",
            "1000:app",
            "root:7",
            "nobody",
            ":7",
            "no:no",
            "$A",
        ];
        self.pick(&names).to_owned()
    }

    fn chmod(&mut self) -> String {
        let old = ["644", "0755", "600", "777", "4755", "1777"];
        let new =
            ["u=rwX,go=rX", "a+x", "go-w", "+x", "u+s", "=r", "g=u", "a-x+X", "$A", "u=rw,g=r,o="];
        if self.full && self.chance(50) {
            self.pick(&new).to_owned()
        } else {
            self.pick(&old).to_owned()
        }
    }

    /// A source in the context.
    fn source(&mut self, parents: bool) -> String {
        let path = self.there();
        match self.random.u8(..16) {
            0 | 1 if !parents || self.chance(10) => ".".to_owned(),
            2 => format!("./{path}"),
            3 => format!("/{path}"),
            4 => format!("{path}/"),
            5 => format!("{path}/."),
            6 | 7 => words::pattern(&mut self.random, &path),
            8 => path.rsplit_once('/').map_or(path.clone(), |(above, _)| above.to_owned()),
            9 if parents => path.replacen('/', "/./", 1),
            9 => format!("../{path}"),
            10 if parents => format!("**/{}", words::name(&mut self.random)),
            11 if !parents => words::reference(&mut self.random, self.full),
            _ => path,
        }
    }

    /// A source in another stage or image.
    fn elsewhere(&mut self) -> String {
        let path = self.there();
        match self.random.u8(..9) {
            0 => "/etc/passwd".to_owned(),
            1 => "/home".to_owned(),
            2 => format!("/opt/{path}"),
            3 => words::pattern(&mut self.random, "/etc/passwd"),
            4 => "/opt/".to_owned(),
            5 => "etc/group".to_owned(),
            6 => format!("/{path}"),
            _ => self.place(),
        }
    }

    /// A path that the stage probably has, or a new one.
    fn place(&mut self) -> String {
        if !self.made.is_empty() && self.chance(60) {
            return self.made[self.random.usize(..self.made.len())].clone();
        }
        let place = format!("/{}", words::path(&mut self.random));
        self.made.push(place.clone());
        place
    }

    fn destination(&mut self) -> String {
        let place = self.place();
        match self.random.u8(..14) {
            0 => "/".to_owned(),
            1 => ".".to_owned(),
            2 => "./".to_owned(),
            3 | 4 => format!("{place}/"),
            5 => format!("{place}/{}", words::name(&mut self.random)),
            6 => words::path(&mut self.random),
            7 => format!("{}/", words::path(&mut self.random)),
            8 => format!("{place}/../{}", words::name(&mut self.random)),
            9 => format!("/opt/{}", words::reference(&mut self.random, self.full)),
            10 => format!("{place}/."),
            _ => place,
        }
    }

    fn run(&mut self) {
        let mut words = Vec::new();
        // An older BuildKit leaves the places of mounts behind.
        if self.full && self.chance(25) {
            words.push(self.mount());
        }
        if self.chance(10) {
            let place = self.place();
            words.push(format!("[\"mkdir\", \"-p\", \"{place}\"]"));
            self.push("RUN", words);
            return;
        }
        if self.full && self.chance(12) {
            words.push("<<END".to_owned());
            let keyword = words::keyword(&mut self.random, "RUN");
            let mut instruction = Instruction::line(&keyword, words);
            let first = self.script();
            let second = self.script();
            instruction.body = vec![first, second, "END".to_owned()];
            self.case.dockerfile.push(instruction);
            return;
        }
        words.push(self.script());
        self.push("RUN", words);
    }

    fn mount(&mut self) -> String {
        let place = self.place();
        let from = if self.stages.is_empty() || self.chance(50) {
            String::new()
        } else {
            format!(",from={}", self.stages[self.random.usize(..self.stages.len())])
        };
        match self.random.u8(..7) {
            0 => format!("--mount=type=tmpfs,target={place}"),
            6 => format!("--mount=type=tmpfs,target={place},ro"),
            1 => "--mount=type=cache,target=/m".to_owned(),
            2 if from.is_empty() => {
                format!("--mount=type=bind,source={},target=/m", self.there())
            }
            3 => format!("--mount=target={place}{from}"),
            4 => format!("--mount=type=bind,target=/m,rw{from}"),
            _ => format!("--mount=type=bind,target=/m{from}"),
        }
    }

    /// A command that changes something and succeeds.
    fn script(&mut self) -> String {
        let place = self.place();
        let other = self.place();
        let command = match self.random.u8(..20) {
            0 => format!("mkdir -p {place}"),
            1 => format!("rm -rf {place}"),
            2 => format!("ln -s {other} {place}"),
            3 => format!("chmod 750 {place}"),
            4 => format!("chown 7:8 {place}"),
            5 => format!("mv {place} {other}"),
            6 => format!("cp -a {place} {other}"),
            7 => format!("echo \"$A $B $C $foo\" > {place}"),
            8 => format!("pwd > {place}; id >> {place}"),
            9 => format!("ln {place} {other}"),
            10 => format!("ls -ln /m > {other} && cat /m/* >> {other}"),
            11 => format!("rm -rf {place} && mkdir {place} && echo 1 > {place}/new"),
            12 => format!("touch /m/x; echo $((1 + 2)) '$A' \\$A ${{A:-n}} >> {place}"),
            13 => format!("env | grep -v -e HOSTNAME -e OTEL -e TRACE | sort > {place}"),
            14 => format!("mkfifo {place}"),
            15 => format!("mkdir -m 2775 {place} && chgrp 8 {place}"),
            16 => format!("ln -s {other} {place}/sub"),
            17 => format!("mkdir {place} && mkdir {other} && ln -s {other} {place}/lib"),
            18 => format!("touch -d @1000 {place}; chmod g+s {place}"),
            _ => format!("mkdir -p {place}/sub && echo hi > {place}/sub/f"),
        };
        format!("({command}) 2>/dev/null || true")
    }

    fn workdir(&mut self) {
        let place = self.destination();
        self.push("WORKDIR", vec![place]);
    }

    fn pairs(&mut self, keyword: &str) {
        let mut words = Vec::new();
        for _ in 0..self.random.usize(1..4) {
            let name = self.pick(&words::VARIABLES).to_owned();
            let value = self.value();
            words.push(format!("{name}={value}"));
        }
        self.push(keyword, words);
    }

    fn legacy_env(&mut self) {
        let name = self.pick(&words::VARIABLES).to_owned();
        let value = self.value();
        let keyword = self.pick(&["ENV", "LABEL"]).to_owned();
        self.push(&keyword, vec![name, value]);
    }

    fn arg(&mut self) {
        let name = self.pick(&words::VARIABLES).to_owned();
        let word = if self.chance(50) { format!("{name}={}", self.value()) } else { name };
        self.push("ARG", vec![word]);
    }

    fn user(&mut self) {
        let user = ["root", "app", "7", "7:8", "app:staff", "${A:-app}", "nobody"];
        let user = self.pick(&user).to_owned();
        self.push("USER", vec![user]);
    }

    /// What changes the image's settings alone.
    fn settings(&mut self) {
        let reference = words::reference(&mut self.random, self.full);
        let plain = words::plain(&mut self.random);
        let (keyword, words) = match self.random.u8(..14) {
            0 => ("CMD", vec![format!("[\"{plain}\", \"{reference}\"]")]),
            1 => ("CMD", vec!["echo".to_owned(), reference]),
            2 => ("ENTRYPOINT", vec![format!("[\"/bin/{plain}\"]")]),
            3 => ("ENTRYPOINT", vec!["exec".to_owned(), plain]),
            4 => (
                "EXPOSE",
                vec![
                    self.pick(&["80", "80/udp", "1-3", "${A:-81}", "443/tcp", "99999", "90/TCP"])
                        .to_owned(),
                ],
            ),
            5 => ("VOLUME", vec![format!("[\"/{plain}\", \"/v2\"]")]),
            6 => ("VOLUME", vec![format!("/{plain}"), reference]),
            7 => (
                "STOPSIGNAL",
                vec![self.pick(&["SIGTERM", "9", "SIGRTMIN+1", "${A:-SIGINT}", "KILL"]).to_owned()],
            ),
            8 => ("SHELL", vec!["[\"/bin/sh\", \"-ec\"]".to_owned()]),
            9 => ("HEALTHCHECK", vec!["NONE".to_owned()]),
            10 => (
                "HEALTHCHECK",
                vec!["--interval=5s".to_owned(), "--retries=3".to_owned(), "CMD".to_owned(), plain],
            ),
            11 => ("MAINTAINER", vec![plain, reference]),
            12 => ("CMD", vec![format!("[ \"{plain}\" , ] ")]),
            _ => ("HEALTHCHECK", vec!["CMD".to_owned(), format!("[\"a\", \"{reference}\"]")]),
        };
        self.push(keyword, words);
    }

    fn onbuild(&mut self) {
        let (keyword, words) = match self.random.u8(..3) {
            0 => ("COPY", self.copying("COPY")),
            1 => ("RUN", vec![self.script()]),
            _ => ("ENV", vec![format!("A={}", self.value())]),
        };
        self.push("ONBUILD", [vec![keyword.to_owned()], words].concat());
    }

    /// A file that is written down in the Dockerfile.
    fn document(&mut self) {
        if !self.full {
            return self.copy("COPY");
        }
        let mark = self.pick(&["EOF", "\"EOF\"", "-EOF", "'X'"]).to_owned();
        let end = mark.trim_matches(['-', '"', '\'']).to_owned();
        let to = self.destination();
        let keyword = self.pick(&["COPY", "ADD"]).to_owned();
        let mut words = Vec::new();
        if self.chance(20) {
            words.push(format!("--chown={}", self.owner()));
        }
        if self.chance(20) {
            words.push(format!("--chmod={}", self.chmod()));
        }
        words.extend([format!("<<{mark}"), to]);
        let value = self.value();
        let mut instruction = Instruction::line(&keyword, words);
        instruction.body = vec![format!("one {value}"), "\ttwo # three".to_owned(), end];
        self.case.dockerfile.push(instruction);
    }
}
