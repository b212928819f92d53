//! The command line of clusters: roles, members, farms to build on.

use clap::{Args, Subcommand};
use ops::identity::Role;
use std::time::Duration;

/// Roles that run in one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roles(Vec<Role>);

impl Roles {
    /// `first`, and others; each once.
    pub fn new(first: Role, others: &[Role]) -> Self {
        let mut roles = vec![first];
        roles.extend(others.iter().filter(|role| **role != first));
        roles.sort();
        roles.dedup();
        Self(roles)
    }

    /// Each of them; the coordinator first.
    pub fn iter(&self) -> impl Iterator<Item = Role> + '_ {
        self.0.iter().copied()
    }

    /// Whether it is among them.
    pub fn has(&self, role: Role) -> bool {
        self.0.contains(&role)
    }
}

fn node_role(text: &str) -> Result<Role, String> {
    match Role::parse(text) {
        Some(role) if role != Role::Client => Ok(role),
        _ => Err("expected coordinator, worker or cache".to_owned()),
    }
}

fn role(text: &str) -> Result<Role, String> {
    Role::parse(text).ok_or_else(|| "expected coordinator, worker, cache or client".to_owned())
}

/// Run a role of a farm
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slipway coordinator
  slipway coordinator --with cache,worker     all of a small farm in one process
  slipway worker

Settings are in $SLIPWAY_HOME/config.toml; `slipway config show` prints all of them.")]
pub struct Run {
    /// Other roles to run in the same process: coordinator, worker, cache
    #[arg(long, value_delimiter = ',', value_parser = node_role)]
    pub with: Vec<Role>,
}

/// Make a farm of several machines
#[derive(Debug, Subcommand)]
pub enum Farm {
    /// Make a new cluster, with this machine as the first of its members
    Init(Init),
}

/// Make a new cluster
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slipway farm init --name build
  slipway farm init --name build --roles coordinator")]
pub struct Init {
    /// The cluster's name
    #[arg(long, default_value = "slipway")]
    pub name: String,
    /// What this machine is to be
    #[arg(long, value_delimiter = ',', value_parser = node_role,
          default_values = ["coordinator", "cache", "worker"])]
    roles: Vec<Role>,
}

impl Init {
    /// What this machine is to be.
    pub fn roles(&self) -> Roles {
        Roles::new(self.roles[0], &self.roles[1..])
    }
}

/// Tokens, by which machines and people become members
#[derive(Debug, Subcommand)]
pub enum Token {
    /// Make a token
    Create(CreateToken),
    /// List tokens, without their secrets
    Ls,
    /// Take a token back: nobody joins by it any more
    Revoke {
        /// Its id, or the beginning of it, as `slipway token ls` shows it
        id: String,
    },
}

/// Make a token
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slipway token create --role worker --ttl 1h
  slipway token create --role client --project web --scope dev/ann
  slipway token create --role client --project web --scope trusted --uses 1")]
pub struct CreateToken {
    /// What its holder may become: coordinator, worker, cache or client
    #[arg(long, value_parser = role)]
    pub role: Role,
    /// How long it is good: 30m, 1h, 7d
    #[arg(long, default_value = "1h", value_parser = super::time)]
    pub ttl: Duration,
    /// How often it may be used
    #[arg(long)]
    pub uses: Option<u32>,
    /// A client's project: what its builds share, and are counted for
    #[arg(long, default_value = "default")]
    pub project: String,
    /// What a client's results are for: `trusted`, `branch/NAME` or `dev/NAME`
    #[arg(long, default_value = "trusted")]
    pub scope: String,
    /// Whether a client may look after the farm: nodes, tokens, others' builds
    #[arg(long)]
    pub admin: bool,
}

/// Become a member of a farm
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slipway join TOKEN@farm.example.com
  slipway join TOKEN@10.0.0.3:7470 --name box-2

With a token for a client, `slipway build --farm NAME` builds there afterwards.")]
pub struct Join {
    /// A token of `slipway token create`, and the coordinator's host
    #[arg(value_name = "TOKEN@HOST")]
    pub invitation: String,
    /// The name of this machine or person in the cluster; by default the host's or the user's
    #[arg(long)]
    pub name: Option<String>,
    /// How a client calls the farm; by default the cluster's name
    #[arg(long)]
    pub context: Option<String>,
}

/// Look after the members of a farm
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  slipway node ls
  slipway node drain box-2
  slipway node rm box-2
  slipway node drain worker/box-2      where a cache node has the same name")]
pub enum Node {
    /// List members
    Ls,
    /// Give a worker no new work
    Cordon {
        /// Its name
        name: String,
    },
    /// Give a worker new work again; have a cache node stay that was told to leave
    Uncordon {
        /// Its name
        name: String,
    },
    /// Give a member no new work, and wait until it has ended what it does, or has given away what
    /// it has
    Drain {
        /// Its name
        name: String,
    },
    /// Forget a member; what it does is done elsewhere, and what only it has is lost
    Rm {
        /// Its name
        name: String,
    },
}

/// Show how the farm is: workers, builds, running steps, and why others wait
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slipway top                  a live view; q ends it
  slipway top --once           once, as text
  slipway top --json | jq -r '.waiting[].why'")]
pub struct Top {
    /// Print it once
    #[arg(long)]
    pub once: bool,
    /// Print it once, as JSON
    #[arg(long)]
    pub json: bool,
    /// How often it is looked
    #[arg(long, default_value = "1s", value_parser = super::time)]
    pub interval: Duration,
}

/// The farms that were joined
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  slipway context ls
  slipway context use build      builds go to the farm `build` from now on
  slipway context use local      builds are done on this machine again")]
pub enum Context {
    /// List them
    Ls,
    /// Build on this one from now on; `local` for this machine
    Use {
        /// Its name
        name: String,
    },
    /// Print which one is in use
    Show,
    /// Leave one
    Rm {
        /// Its name
        name: String,
    },
}
