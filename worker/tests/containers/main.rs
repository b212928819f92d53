//! Real containers, on a root made of busybox. Needs root.

mod agent;
mod changes;
mod confinement;
mod house;
mod lifetime;
mod mounts;
mod network;
mod process;
mod runtimes;
mod sweep;
