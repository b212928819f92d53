//! Farms of several machines: real processes on hosts that nothing but the network joins.

mod explain;
mod mounts;
mod moved;
mod page;
mod soak;
mod steps;
mod strangers;
mod tools;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use tests::cluster::{Cluster, HOME};
use tests::command::{Outcome, Running};
use tests::hosts::Host;
use tests::http::{Request, Response, Server};
use tests::mirror::Mirror;

/// What a farm consists of.
struct Size {
    caches: usize,
    workers: usize,
    clients: usize,
}

/// A farm, with a web server on a host outside of it that counts who asks.
struct Scene {
    web: Server,
    guests: Arc<Guests>,
    /// Where images come from, if some are needed. Before the hosts of the farm.
    mirror: Option<Mirror>,
    /// The first stage of all builds, `base`.
    base: String,
    farm: Cluster,
}

/// How often a path may be waited for.
const DEADLINE: Duration = Duration::from_secs(300);

/// What the web server knows of who has asked.
#[derive(Default)]
struct Guests {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Who is between `/enter/NAME` and `/leave/NAME`, by what stands before the last slash.
    inside: BTreeMap<String, usize>,
    most: BTreeMap<String, usize>,
    /// Paths below `/wait/` that may go on.
    open: BTreeSet<String>,
    /// Who has come to `/meet/PLACE/COUNT`.
    met: BTreeMap<String, usize>,
    asked: BTreeMap<String, usize>,
}

impl Guests {
    /// `/wait/NAME` is answered once the test has opened it, `/meet/NAME/COUNT` once as many have
    /// come; `/enter/NAME` and `/leave/NAME` count who is inside. Everything is answered with how
    /// often it was asked for.
    fn answer(&self, request: &Request) -> Response {
        let path = request.path.trim_matches('/').to_owned();
        let mut state = self.state.lock().expect("no one panics with it");
        let asked = state.asked.entry(path.clone()).or_default();
        *asked += 1;
        let asked = *asked;
        let parts: Vec<&str> = path.split('/').collect();
        match parts.as_slice() {
            ["wait", name] => {
                let waits = |state: &mut State| !state.open.contains(*name);
                let waited = self.changed.wait_timeout_while(state, DEADLINE, waits);
                drop(waited.expect("no one panics with it"));
            }
            ["meet", name, count] => {
                let count: usize = count.parse().expect("a number");
                *state.met.entry((*name).to_owned()).or_default() += 1;
                self.changed.notify_all();
                let waits = |state: &mut State| state.met[*name] < count;
                let waited = self.changed.wait_timeout_while(state, DEADLINE, waits);
                drop(waited.expect("no one panics with it"));
            }
            ["enter", name] => {
                let inside = state.inside.entry((*name).to_owned()).or_default();
                *inside += 1;
                let inside = *inside;
                let most = state.most.entry((*name).to_owned()).or_default();
                *most = (*most).max(inside);
            }
            ["leave", name] => *state.inside.entry((*name).to_owned()).or_default() -= 1,
            _ => {}
        }
        // The connection ends with the answer.
        Response { cut_after: Some(usize::MAX), ..Response::new(200, format!("{asked}\n")) }
    }

    /// Lets those go on who wait at `/wait/NAME`.
    fn open(&self, name: &str) {
        self.state.lock().expect("no one panics with it").open.insert(name.to_owned());
        self.changed.notify_all();
    }

    /// How often a path was asked for.
    fn count(&self, path: &str) -> usize {
        let state = self.state.lock().expect("no one panics with it");
        state.asked.get(path.trim_matches('/')).copied().unwrap_or(0)
    }

    /// How many were inside at once, at most.
    fn most(&self, name: &str) -> usize {
        let state = self.state.lock().expect("no one panics with it");
        state.most.get(name).copied().unwrap_or(0)
    }
}

impl Scene {
    /// A farm that runs. Workers have one slot each.
    fn new(size: Size) -> Self {
        Self::with(size, BASE.to_owned(), |_| None)
    }

    /// The same, whose builds begin with an image of a stand-in.
    fn upon(size: Size, standin: &str, image: &str) -> Self {
        let mirror = |farm: &Cluster| Some(Mirror::of_standins(farm.site(), &[standin]));
        Self::with(size, format!("FROM {image} AS base\n{TOOLS}"), mirror)
    }

    fn with(size: Size, base: String, mirror: impl Fn(&Cluster) -> Option<Mirror>) -> Self {
        let farm = Cluster::new("[coordinator]\nlost_after = \"3s\"\ngrace = \"60s\"\n");
        let guests = Arc::new(Guests::default());
        let answering = guests.clone();
        let web = farm.site().host("web").serve(0, move |request| answering.answer(request));
        let scene = Self { web, guests, mirror: mirror(&farm), base, farm };
        (1..=size.caches).for_each(|n| scene.join("cache", n));
        (1..=size.workers).for_each(|n| scene.join("worker", n));
        for n in 1..=size.clients {
            scene.farm.join(&format!("client-{n}"), "client");
        }
        scene
    }

    fn host(&self, name: &str) -> Host {
        self.farm.site().host(name)
    }

    /// Another member of that role, which is there when this returns.
    fn join(&self, role: &str, number: usize) {
        let name = format!("{role}-{number}");
        let images = self.mirror.as_ref().map(Mirror::settings).unwrap_or_default();
        let settings = format!("[worker]\nslots = 1\n{images}");
        self.host(&name).write(format!("{HOME}/config.toml"), settings);
        self.farm.member(&name, role);
        self.until_there(&name);
    }

    fn until_there(&self, name: &str) {
        self.farm.until_state(name, "serving");
    }

    /// A host that was killed has power again, and its process runs, which is named like it.
    fn boot(&self, name: &str) {
        self.host(name).boot();
        self.farm.start(name, name.split('-').next().expect("one part at least"));
        self.farm
            .until(&format!("{name} is there"), |farm| farm.operator(&["node", "ls"]).code == 0);
    }

    /// The worker that runs a step now: the one in which a container asks something.
    fn busy(&self) -> String {
        let asks = |p: &tests::scratch::Process| p.command.contains("/bin/ask");
        let mut workers = (1..=2).map(|n| format!("worker-{n}"));
        let busy = workers.find(|name| self.host(name).processes().iter().any(asks));
        busy.expect("a worker runs a step")
    }

    /// A command of a Dockerfile that asks the web server for a path, and writes its answer.
    fn ask(&self, path: &str) -> String {
        format!("ask {path}")
    }

    /// Writes a context with busybox in it, as `/root/NAME` of the host.
    fn context(&self, host: &Host, name: &str, dockerfile: &str) {
        host.write(format!("/root/{name}/Dockerfile"), dockerfile);
        let busybox = std::fs::read(tests::tool::tool("busybox")).expect("busybox is installed");
        host.write(format!("/root/{name}/busybox"), busybox);
        // `wget` of a program without libraries does not work where there are none. The connection
        // is not half closed, which not all networks of containers take well.
        let (web, port) = self.web.address().rsplit_once(':').expect("host and port");
        let get = "printf \"GET $0 HTTP/1.0\\r\\n\\r\\n\"; tail -n 1 > /answer";
        let ask =
            format!("#!/bin/sh\nbusybox nc {web} {port} -e /bin/sh -c '{get}' $1\ncat /answer\n");
        host.write(format!("/root/{name}/ask"), ask);
    }

    /// Begins a build of a Dockerfile, whose first stage is `base`, with its files as the output, in
    /// `/root/NAME.out`.
    fn start_build(&self, client: &str, name: &str, stages: &str) -> Running {
        let host = self.host(client);
        self.context(&host, name, &format!("{}{stages}", self.base));
        let output = format!("type=local,dest=/root/{name}.out");
        let args = ["build", "--farm", "test", "-o", &output, &format!("/root/{name}")];
        self.farm.slipway(&host, &args).start()
    }

    fn build(&self, client: &str, name: &str, stages: &str) -> Outcome {
        self.start_build(client, name, stages).finish(tests::command::DEADLINE)
    }

    /// A file of a build's output.
    fn output(&self, client: &str, name: &str, file: &str) -> String {
        let bytes = self.host(client).read(format!("/root/{name}.out/{file}"));
        String::from_utf8(bytes).expect("the tests write UTF-8").trim_end().to_owned()
    }
}

/// What a stage needs that begins with an image, to ask the web server.
const TOOLS: &str = "\
COPY --chmod=755 busybox ask /usr/local/bin/
SHELL [\"/bin/sh\", \"-euc\"]
";

/// A stage with a shell.
const BASE: &str = "\
FROM scratch AS base
COPY --chmod=755 busybox ask /bin/
RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]
SHELL [\"/bin/sh\", \"-euc\"]
";
