//! Bad input of every kind: files that are not what they should be, options that no channel can
//! have, memory that changes under a live pair. Each costs an error of its kind, with a remedy in
//! its text, and never a panic, a hang, or a byte read from outside the ring.

#![cfg(not(loom))]

#[path = "hostile/broadcast.rs"]
mod broadcast;
#[path = "hostile/files.rs"]
mod files;
#[path = "hostile/live.rs"]
mod live;
#[path = "hostile/options.rs"]
mod options;
#[path = "hostile/scratch.rs"]
mod scratch;
