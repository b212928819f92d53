//! Hosts: several machines in one, joined by a network and by nothing else.
//!
//! ```text
//!  Site: a network namespace of its own; the machine's own network has no part in it
//! ┌────────────────────────────────────────────────────────────────────────────────┐
//! │             lan: a bridge, 10.77.0.0/24; its rules are the cuts                │
//! │   ┌──────────────────┬──────────────────────────┬──────────────────┐           │
//! │   │                  │                          │                  │           │
//! │   │                  │                        near3                │           │
//! │   │                  │                          ║  relay: a thread │           │
//! │   │                  │                        far3  of the test    │           │
//! │ wire1              wire2                      wire3              wire4         │
//! └───╫──────────────────╫──────────────────────────╫──────────────────╫───────────┘
//! ┌───╫──────────┐ ┌─────╫────────┐ ┌───────────────╫──────┐ ┌─────────╫────┐
//! │ eth0 .1      │ │ eth0 .2      │ │ eth0 .3              │ │ eth0 .4      │
//! │ coordinator  │ │ worker-1     │ │ worker-2, which has  │ │ client       │
//! │              │ │              │ │ a slow or lossy link │ │              │
//! └──────────────┘ └──────────────┘ └──────────────────────┘ └──────────────┘
//!  Host: namespaces of its own (network, processes, mounts, name, IPC, control groups)
//!        /                          a directory of the real disk, the host's own
//!        /bin /lib* /nix /sbin /usr shared by all, read only; so are the directory of the tests'
//!                                   programs and the images that stand in for others
//!        /sys/fs/cgroup             the host's own groups, which it sees as the top
//!        /etc/hosts                 the names of all hosts of the site
//! ```
//!
//! What tests do to hosts is what happens to machines: [`Host::kill`] is a loss of power,
//! [`Host::freeze`] a kernel that answers for programs that do not, [`Host::cut`] and [`Site::cut`]
//! are cables that are pulled, [`Host::link`] is distance or a bad line. None of them tells anybody:
//! no connection is reset, no packet is refused, peers must notice by themselves.
//!
//! Nothing here has a name outside of the test process but directories and control groups: the
//! namespaces, with devices and mounts in them, hang on its threads, and the hosts' processes get
//! SIGKILL when the thread ends that started them. So all of it is gone when the test process is,
//! however it ended. The directories and groups are swept by the next test process
//! ([`crate::scratch`]).
//!
//! It needs root, control groups of the second version, and a kernel with bridges, `veth`, `tun`
//! and nftables for bridges; `sch_netem` is not needed.

mod command;
mod cuts;
mod groups;
mod host;
mod inside;
mod lan;
mod link;
mod machine;
mod number;
mod relay;
mod root;
mod site;

pub use command::HostCommand;
pub(crate) use groups::sweep;
pub use host::Host;
pub use link::Link;
pub use site::Site;
