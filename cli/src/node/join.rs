//! `slipway farm init`, `slipway join`: how machines and people become members.

use super::certificates::{self, admit};
use super::identity_dir;
use crate::args::farm::{Init, Join};
use crate::error::user;
use crate::print::say;
use crate::up::make_home;
use cache::net::quic::dial::{Dialer, Target};
use cache::net::quic::{ALPN, Endpoint, Keys};
use ops::address::Address;
use ops::config::Config;
use ops::context::{About, FarmName, Farms};
use ops::identity::tls::joining_client_config;
use ops::identity::{Authority, ClusterId, Identity, NodeName, Role, Subject, Token};
use proto::error::{Class, Failure};
use proto::id::Millis;
use std::path::Path;

/// The file beside an identity that says where the coordinator is.
const COORDINATOR: &str = "coordinator";

/// `slipway farm init`.
pub fn init(args: &Init, config: &Config) -> Result<u8, Failure> {
    let failed = |e: &dyn std::fmt::Display| user(e.to_string());
    make_home(&config.home).map_err(|e| crate::error::io("Making", &config.home, &e))?;
    let dir = config.home.join("authority");
    if dir.exists() {
        let message = format!("There is a cluster already: its authority is in {}", dir.display());
        return Err(user(message).hint("`slipway coordinator` runs it."));
    }
    let now = Millis(crate::clock::now_ms());
    let cluster = ClusterId::parse(&args.name).map_err(|e| failed(&e))?;
    let authority = Authority::create(&cluster, now).map_err(|e| failed(&e))?;
    let name = node_name(None, config)?;
    for role in args.roles().iter() {
        let subject = Subject::node(cluster.clone(), name.clone(), [role]);
        let identity = admit(&authority, &subject.map_err(|e| failed(&e))?, now)?;
        identity.save(&identity_dir(&config.home, role)).map_err(|e| failed(&e))?;
    }
    if args.roles().has(Role::Coordinator) {
        super::ledger::create(config, authority.certificate())?;
    }
    // Last: what is there of a cluster whose authority is not does not count.
    authority.save(&dir).map_err(|e| failed(&e))?;
    let roles: Vec<&str> = args.roles().iter().map(Role::as_str).collect();
    let (first, rest) = roles.split_first().expect("there is a role at least");
    let with = if rest.is_empty() { String::new() } else { format!(" --with {}", rest.join(",")) };
    say!("Made the cluster `{cluster}`, with this machine as `{name}`.");
    say!("");
    say!("Run it:                  slipway {first}{with}");
    say!("Tokens for others, then: slipway token create --role worker");
    say!("                         slipway token create --role client --project NAME");
    say!("");
    say!("Keep a copy of {} in a safe place: it is what makes members.", dir.display());
    Ok(0)
}

/// `slipway join TOKEN@HOST`.
pub async fn join(args: &Join, config: &Config) -> Result<u8, Failure> {
    let expected = || {
        user("Expected TOKEN@HOST or TOKEN@HOST:PORT").hint(
            "`slipway token create` on the coordinator prints the token; HOST is that machine.",
        )
    };
    let (token, host) = args.invitation.rsplit_once('@').ok_or_else(expected)?;
    let token = Token::parse(token).map_err(|e| user(e.to_string()))?;
    let address = Address::coordinator(host).map_err(|e| user(e.to_string()))?;
    let dial = dialer(&token, &address)?;
    let name = match token.role() {
        Role::Client => person(args.name.as_deref())?,
        _ => node_name(args.name.as_deref(), config)?,
    };
    let identity = certificates::join(&dial, &token, &name).await?;
    match token.role() {
        Role::Client => client(args, config, &address, &identity),
        role => node(config, role, &address, &identity),
    }
}

fn dialer(token: &Token, address: &Address) -> Result<Dialer, Failure> {
    let tls = joining_client_config(token.fingerprint(), &[ALPN]);
    let tls = tls.map_err(|e| Failure::new(Class::Denied, e.to_string()))?;
    let keys = Keys::new(tls).map_err(|e| Failure::new(Class::Bug, e.to_string()))?;
    let endpoint = Endpoint::client();
    let endpoint = endpoint.map_err(|e| Failure::new(Class::Unavailable, e.to_string()))?;
    let target = Target {
        address: address.to_string(),
        name: Role::Coordinator.dns_name().to_owned(),
        called: "the coordinator".to_owned(),
    };
    Ok(Dialer::new(&endpoint, &keys, target, 1))
}

fn node(
    config: &Config,
    role: Role,
    address: &Address,
    identity: &Identity,
) -> Result<u8, Failure> {
    make_home(&config.home).map_err(|e| crate::error::io("Making", &config.home, &e))?;
    let dir = identity_dir(&config.home, role);
    identity.save(&dir).map_err(|e| user(e.to_string()))?;
    let file = dir.join(COORDINATOR);
    std::fs::write(&file, format!("{address}\n"))
        .map_err(|e| crate::error::io("Writing", &file, &e))?;
    let subject = identity.subject();
    say!("Joined the cluster `{}` as the {role} `{}`.", subject.cluster(), subject.name());
    say!("Run it: slipway {role}");
    Ok(0)
}

fn client(
    args: &Join,
    config: &Config,
    address: &Address,
    identity: &Identity,
) -> Result<u8, Failure> {
    let failed = |e: &dyn std::fmt::Display| user(e.to_string());
    let subject = identity.subject();
    let name = args.context.clone().unwrap_or_else(|| subject.cluster().to_string());
    let name = FarmName::parse(&name).map_err(|e| failed(&e))?;
    let farms = Farms::of(&config.home);
    let about = About { coordinator: address.clone(), description: String::new() };
    // Whoever joins again has a reason: an expired certificate, another project.
    if farms.names().map_err(|e| failed(&e))?.contains(&name) {
        farms.remove(&name).map_err(|e| failed(&e))?;
    }
    farms.create(&name, &about, identity).map_err(|e| failed(&e))?;
    say!("Joined the cluster `{}` as `{}`.", subject.cluster(), subject.name());
    say!("Build there:          slipway build --farm {name} .");
    say!("Build there always:   slipway context use {name}");
    Ok(0)
}

/// The name of this machine.
fn node_name(asked: Option<&str>, config: &Config) -> Result<NodeName, Failure> {
    match asked {
        Some(name) => NodeName::parse(name).map_err(|e| user(e.to_string())),
        None => config.node_name().map_err(|e| user(e.to_string())),
    }
}

/// The name of the person at this machine.
fn person(asked: Option<&str>) -> Result<NodeName, Failure> {
    let named = asked.map(str::to_owned).or_else(|| std::env::var("USER").ok());
    let name = named.filter(|name| !name.is_empty()).unwrap_or_else(|| "somebody".to_owned());
    NodeName::parse(&name)
        .map_err(|e| user(e.to_string()).hint("Give another name: slipway join --name …"))
}

/// Where the coordinator of the member is whose identity is in `dir`.
pub fn coordinator_of(config: &Config, dir: &Path) -> Result<String, Failure> {
    if let Some(address) = &config.node.coordinator {
        return Ok(address.to_string());
    }
    let file = dir.join(COORDINATOR);
    let text = std::fs::read_to_string(&file).map_err(|e| {
        user(format!("Where the coordinator is cannot be read from {}: {e}", file.display()))
            .hint("Set `coordinator` in the section [node] of the settings, or join again.")
    })?;
    let address = Address::coordinator(text.trim());
    address.map(|a| a.to_string()).map_err(|e| user(format!("{}: {e}", file.display())))
}
