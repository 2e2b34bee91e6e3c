//! The Ferrite server.

mod args;
mod client;
mod command;
mod commands;
mod ctx;
mod output;
mod server;

fn main() {}
