//! Slipway's hands on one machine: root file systems, containers, images.

pub mod agent;
pub mod image;
pub mod rootfs;
pub mod sandbox;
