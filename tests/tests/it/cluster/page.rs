//! `docs/farm.md`: what a new user types on three machines and a laptop.

use std::path::Path;
use tests::hosts::{Host, Site};
use tests::service::Service;
use tests::slipway::program;

/// A command of the page: on which host, and what.
fn commands(page: &str) -> Vec<(&str, &str)> {
    let blocks = page.split("```console\n").skip(1).filter_map(|rest| rest.split("```").next());
    let prompts = blocks.flat_map(str::lines).filter_map(|line| line.split_once(['#', '$']));
    prompts.map(|(host, command)| (host, command.trim())).collect()
}

#[test]
fn a_farm_of_three_machines_is_made_by_the_commands_of_the_page() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/farm.md");
    let page = std::fs::read_to_string(docs).expect("the page is there");
    let commands = commands(&page);
    assert_eq!(commands.len(), 10, "{commands:?}");
    let site = Site::new();
    let slipway = |host: &Host, args: &str| {
        let args: Vec<&str> = args.split_whitespace().collect();
        host.command(program(), args).directory("/root").env("BUILDKIT_PROGRESS", "plain")
    };
    let laptop = site.host("laptop");
    laptop.write(
        "/root/Dockerfile",
        "FROM scratch\nCOPY --chmod=755 busybox /bin/sh\n\
        RUN echo made > /made\nFROM scratch\nCOPY --from=0 /made /\n",
    );
    let busybox = std::fs::read(tests::tool::tool("busybox")).expect("busybox is installed");
    laptop.write("/root/busybox", busybox);
    let mut services: Vec<Service> = Vec::new();
    let mut token = String::new();
    for (host, command) in commands {
        let host = site.host(host);
        let (variables, command) = command.split_once("slipway ").expect("one of the product");
        let variable = variables.trim().split_once('=');
        let command = command.replace("TOKEN", &token);
        match command.strip_suffix(" &") {
            Some(service) => {
                let mut started = slipway(&host, service);
                if let Some((name, value)) = variable {
                    started = started.env(name, value);
                }
                let mut service = started.serve("role");
                service.until(&command, |log| log.contains("is up").then_some(()));
                services.push(service);
            }
            None => {
                let said = slipway(&host, &command).run().ok().text();
                if command.starts_with("token create") {
                    token = said;
                }
            }
        }
    }
    assert_eq!(laptop.read("/root/bin/made"), b"made\n");
    drop(services);
}
