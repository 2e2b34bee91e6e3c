//! The Ferrite server.

mod args;
mod cli;
mod client;
mod command;
mod commands;
mod config;
mod connection;
mod ctx;
mod dispatch;
mod output;
mod pause;
mod server;
mod shutdown;
mod slow_lane;
mod slowlog;
mod stats;
mod table;
mod worker;

use std::io;
use std::sync::Arc;

use server::Server;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let port = arguments.windows(2).find(|pair| pair[0] == "--port").map_or("6379", |pair| &pair[1]);
    let listener = std::net::TcpListener::bind(("127.0.0.1", port.parse().expect("a port")))?;
    listener.set_nonblocking(true)?;
    println!("Ready to accept connections on port {}", listener.local_addr()?.port());
    let server = Arc::new(Server::new());
    let worker = worker::start(server, 0, worker::Listeners { tcp: vec![listener], unix: None })?;
    worker.join().expect("a panic ends the process")
}
