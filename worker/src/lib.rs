//! Slipway's hands on one machine: root file systems, containers, images.

pub mod rootfs;
pub mod sandbox;
