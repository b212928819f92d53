//! Real tools, whose caches are filled by steps on two machines at the same time.

use super::{Scene, Size};
use tests::hosts::Host;
use tests::scratch::make;
use tests::tree::sha256;

/// A tool, with a folder of files that its steps work in.
struct Tool {
    scene: Scene,
    /// The directory that it has its cache in.
    cache: &'static str,
}

impl Tool {
    fn new(standin: &str, image: &str, cache: &'static str) -> Self {
        let size = Size { caches: 1, workers: 2, clients: 1 };
        Self { scene: Scene::upon(size, standin, image), cache }
    }

    fn client(&self) -> Host {
        self.scene.host("client-1")
    }

    /// Writes a file of the folder.
    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        self.client().write(format!("/root/tool/files/{name}"), content);
    }

    /// Packs a directory of the folder into a file of the folder.
    fn pack(&self, directory: &str, to: &str) {
        let file = self.client().path(format!("/root/tool/files/{to}"));
        make(file.parent().expect("a path below the folder"));
        let tar = self.client().command("tar", ["-czf", to, directory]);
        tar.directory("/root/tool/files").run().ok();
    }

    /// Runs scripts, each in a step of its own that uses the cache, and returns what they wrote.
    /// All have begun before one of them ends: as many workers run them, which have one slot each.
    /// They also have these mounts.
    fn run<const COUNT: usize>(&self, more: &str, scripts: [&str; COUNT]) -> [String; COUNT] {
        let mut stages = "FROM base AS folder\nWORKDIR /src\nCOPY files .\n".to_owned();
        let place = sha256(scripts.concat().as_bytes());
        let meet = self.scene.ask(&format!("/meet/{place}/{COUNT}"));
        let mount = format!("--mount=type=cache,target={}{more}", self.cache);
        for (n, script) in scripts.iter().enumerate() {
            self.write(&format!("{n}.sh"), script);
            stages += &format!(
                "FROM folder AS s{n}\n\
                 RUN {mount} {meet} > /met; \
                 sh -eu {n}.sh > /said-{n} 2>&1 || {{ cat /said-{n}; exit 1; }}\n"
            );
        }
        stages += "FROM scratch\n";
        (0..COUNT).for_each(|n| stages += &format!("COPY --from=s{n} /said-{n} /\n"));
        self.scene.build("client-1", "tool", &stages).ok();
        std::array::from_fn(|n| self.scene.output("client-1", "tool", &format!("said-{n}")))
    }

    /// Runs scripts on two workers at the same time, whose changes to the cache are merged.
    fn fill(&self, scripts: [&str; 2]) -> [String; 2] {
        let said = self.run("", scripts);
        let history = ["cache", "mounts", "history", self.cache];
        self.scene.farm.operator(&history).ok().says("merged with 1");
        said
    }
}

#[track_caller]
fn says(said: &str, text: &str) {
    assert!(said.contains(text), "it should say `{text}`:\n{said}");
}

#[track_caller]
fn never_says(said: &str, text: &str) {
    assert!(!said.contains(text), "it should not say `{text}`:\n{said}");
}

#[test]
fn go_compiles_nothing_again_that_either_of_two_machines_has_compiled() {
    let tool = Tool::new("golang", "golang:1.16", "/root/.cache/go-build");
    let program = |package: &str, call: &str| {
        format!("package main\n\nimport \"{package}\"\n\nfunc main() {{ println({call}) }}\n")
    };
    tool.write("one.go", program("sort", "sort.IsSorted(sort.IntSlice{1, 2})"));
    tool.write("two.go", program("strings", "strings.ToUpper(\"two\")"));
    // With trimmed paths the packages are others than those that Go comes with.
    let build = "go build -trimpath -v -o";
    let one = format!("{build} /one one.go; /one");
    let two = format!("{build} /two two.go; /two");
    let [said_one, said_two] = tool.fill([&one, &two]);
    says(&said_one, "\nsort\n");
    never_says(&said_one, "\nstrings\n");
    says(&said_two, "\nstrings\n");
    never_says(&said_two, "\nsort\n");
    let [said] = tool.run("", [&format!("{one}; {two}")]);
    assert_eq!(said, "true\nTWO", "nothing is compiled");
    // Now all is compiled, and held against what the cache has.
    let [said] = tool.run("", [&format!("export GODEBUG=gocacheverify=1; {one}; {two}")]);
    says(&said, "\nsort\n");
    says(&said, "\nstrings\n");
}

#[test]
fn cargo_finds_the_crates_that_two_machines_have_unpacked() {
    let tool = Tool::new("rust", "rust:1.63", "/root/.cargo/registry");
    let replaced = "[source.crates-io]\nreplace-with = \"local\"\n";
    let local = "[source.local]\nlocal-registry = \"local\"\n";
    tool.write(".cargo/config.toml", format!("{replaced}{local}"));
    let package = |name: &str| {
        format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2021\"\n")
    };
    for name in ["one", "two"] {
        tool.write(&format!("{name}-0.1.0/Cargo.toml"), package(name));
        let code = format!("pub fn said() -> &'static str {{ \"said by {name}\" }}\n");
        tool.write(&format!("{name}-0.1.0/src/lib.rs"), code);
        tool.pack(&format!("{name}-0.1.0"), &format!("local/{name}-0.1.0.crate"));
        let packed = tool.client().read(format!("/root/tool/files/local/{name}-0.1.0.crate"));
        let line = serde_json::json!({
            "name": name, "vers": "0.1.0", "deps": [], "features": {}, "yanked": false,
            "cksum": sha256(&packed[..]),
        });
        tool.write(&format!("local/index/3/{}/{name}", &name[..1]), format!("{line}\n"));
    }
    for (name, uses) in [("a", &["one"][..]), ("b", &["two"]), ("both", &["one", "two"])] {
        let needs: String = uses.iter().map(|crate_| format!("{crate_} = \"0.1\"\n")).collect();
        let manifest = format!("{}[dependencies]\n{needs}", package(name));
        tool.write(&format!("{name}/Cargo.toml"), manifest);
        let print = |crate_: &&str| format!("println!(\"{{}}\", {crate_}::said());");
        let prints: String = uses.iter().map(print).collect();
        tool.write(&format!("{name}/src/main.rs"), format!("fn main() {{ {prints} }}\n"));
    }
    let [said_one, said_two] =
        tool.fill(["cd a; cargo run --offline -v", "cd b; cargo run --offline -v"]);
    says(&said_one, "Unpacking one");
    never_says(&said_one, "Unpacking two");
    says(&said_two, "Unpacking two");
    never_says(&said_two, "Unpacking one");

    let target = " --mount=type=cache,target=/target,sharing=locked";
    let run = "cd both; CARGO_TARGET_DIR=/target cargo run --offline -v";
    let whole = "cd /root/.cargo/registry/src/*; cat one-0.1.0/.cargo-ok two-0.1.0/.cargo-ok";
    let scene = &tool.scene;
    scene.host("worker-1").kill();
    let [said] = tool.run(target, [&format!("({whole}); {run}")]);
    never_says(&said, "Unpacking");
    says(&said, "Compiling one");
    says(&said, "Compiling two");
    says(&said, "said by one\nsaid by two");
    // What one machine has compiled is fresh for the other one.
    scene.boot("worker-1");
    scene.until_there("worker-1");
    scene.host("worker-2").kill();
    let [said] = tool.run(target, [run]);
    never_says(&said, "Compiling");
    says(&said, "Fresh one");
    says(&said, "Fresh two");
    says(&said, "said by one\nsaid by two");
}

/// Runs a command while the packages of a folder are in a registry on the loopback.
const REGISTRY: &str = r"// registry.js PACKAGES PORT COMMAND...
'use strict';
const { execFileSync, spawn } = require('child_process');
const crypto = require('crypto');
const fs = require('fs');
const http = require('http');
const [packages, port, command, ...args] = process.argv.slice(2);

// What the registry says of a package, and the archive.
function pack(name) {
  const directory = `${packages}/${name}`;
  const file = execFileSync('npm', ['pack', '--silent', directory]);
  const archive = fs.readFileSync(file.toString().trim());
  const about = JSON.parse(fs.readFileSync(`${directory}/package.json`, 'utf8'));
  const integrity = 'sha512-' + crypto.createHash('sha512').update(archive).digest('base64');
  const dist = { tarball: `http://127.0.0.1:${port}/${name}.tgz`, integrity };
  const versions = { [about.version]: { ...about, dist } };
  const packument = { name, 'dist-tags': { latest: about.version }, versions };
  return [[`/${name}`, JSON.stringify(packument)], [`/${name}.tgz`, archive]];
}

const served = new Map(fs.readdirSync(packages).flatMap(pack));
const server = http.createServer((request, response) => {
  const body = served.get(request.url);
  response.writeHead(body ? 200 : 404);
  response.end(body);
});
server.listen(port, '127.0.0.1', () => {
  const child = spawn(command, args, { stdio: 'inherit' });
  child.on('exit', (code) => process.exit(code ?? 1));
});
";

#[test]
fn npm_installs_offline_what_two_machines_have_fetched() {
    let tool = Tool::new("node", "node:18", "/root/.npm");
    tool.write("registry.js", REGISTRY);
    let about = |name: &str, needs: &[&str]| {
        let needs: serde_json::Map<_, _> =
            needs.iter().map(|need| ((*need).to_owned(), "1".into())).collect();
        let about = serde_json::json!({"name": name, "version": "1.0.0", "dependencies": needs});
        tool.write(&format!("packages/{name}/package.json"), about.to_string());
    };
    // Both machines fetch what both packages need, too.
    for name in ["one", "two"] {
        about(name, &["three"]);
        let code = format!("module.exports = '{name} ' + require('three');\n");
        tool.write(&format!("packages/{name}/index.js"), code);
    }
    about("three", &[]);
    tool.write("packages/three/index.js", "module.exports = 'and three';\n");
    let address = "http://127.0.0.1:4873/";
    let install = format!("npm install --cache /root/.npm --registry {address}");
    let online = |name: &str| {
        format!("node registry.js ./packages 4873 {install} --offline=false --prefix /app {name}")
    };
    tool.fill([&online("one"), &online("two")]);

    let entries = "grep -rho 'request-cache:[^\"]*three.tgz' /root/.npm/_cacache/index-v5";
    let print = "cd /app; node -p 'require(\"one\") + \"; \" + require(\"two\")'";
    let verify = "npm cache verify --cache /root/.npm";
    let offline = format!("{install} --offline --prefix /app one two");
    let [said] = tool.run("", [&format!("{entries}; {offline}; ({print}); {verify}")]);
    let of_both = format!("request-cache:{address}three.tgz\n").repeat(2);
    says(&said, &of_both);
    says(&said, "one and three; two and three");
    // What the registry says of three packages, and their archives.
    says(&said, "Content verified: 6 ");
    says(&said, "Index entries: 6\n");
    ["removed", "garbage", "Missing"].iter().for_each(|text| never_says(&said, text));
}

#[test]
fn pip_installs_the_wheels_that_two_machines_have_built() {
    let tool = Tool::new("python", "python:3.10-alpine", "/root/.cache/pip");
    for name in ["one", "two"] {
        let setup = format!("setup(name='{name}', version='1.0', py_modules=['{name}'])");
        let setup = format!("from setuptools import setup\n{setup}\n");
        tool.write(&format!("{name}-1.0/setup.py"), setup);
        tool.write(&format!("{name}-1.0/{name}.py"), format!("print('said by {name}')\n"));
        tool.pack(&format!("{name}-1.0"), &format!("sdists/{name}-1.0.tar.gz"));
    }
    let install = "pip install --no-build-isolation --no-index --find-links sdists";
    let [said_one, said_two] = tool.fill([
        &format!("{install} one; python -c 'import one'"),
        &format!("{install} two; python -c 'import two'"),
    ]);
    for (said, name) in [(said_one, "one"), (said_two, "two")] {
        says(&said, &format!("Building wheel for {name}"));
        says(&said, &format!("said by {name}"));
    }
    let [said] = tool.run("", [&format!("{install} one two; python -c 'import one, two'")]);
    never_says(&said, "Building wheel");
    says(&said, "Using cached one-1.0");
    says(&said, "Using cached two-1.0");
    says(&said, "said by one\nsaid by two");
}
