//! The listening sockets: for each worker one per address, all on the same port; and one UNIX socket they share.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::{BindAddress, Settings};
use crate::log;
use crate::sys::error_text;

/// The listening sockets of one worker.
#[derive(Default)]
pub(crate) struct Listeners {
    pub(crate) tcp: Vec<TcpListener>,
    pub(crate) unix: Option<UnixListener>,
}

/// Opens the listening sockets of all workers; returns them and the TCP port (0: none). Port 0 in the settings means
/// no TCP as in Redis, but where that would leave nothing to listen on, a free port. The error is one line.
pub(crate) fn open(settings: &Settings) -> Result<(Vec<Listeners>, u16), String> {
    let mut workers: Vec<Listeners> = (0..settings.workers)
        .map(|_| Listeners::default())
        .collect();
    let wants_tcp = settings.port != 0 || settings.unixsocket.is_none();
    let port = if wants_tcp {
        open_tcp(settings, &mut workers)?
    } else {
        0
    };
    if let Some(path) = &settings.unixsocket {
        let listener = open_unix(path, settings).map_err(|error| {
            format!(
                "Failed opening Unix socket {}: {}",
                path.display(),
                error_text(&error)
            )
        })?;
        for worker in &mut workers {
            let shared = listener.try_clone().map_err(|error| {
                format!("Failed sharing the Unix socket: {}", error_text(&error))
            })?;
            worker.unix = Some(shared);
        }
    }
    Ok((workers, port))
}

fn open_tcp(settings: &Settings, workers: &mut [Listeners]) -> Result<u16, String> {
    let mut port = settings.port;
    for bind in &settings.bind {
        let failed = |error: &io::Error| {
            format!(
                "Could not create server TCP listening socket {}:{port}: bind: {}",
                bind.address,
                error_text(error)
            )
        };
        match open_address(bind, port, settings.tcp_backlog, workers) {
            Ok(opened) => port = opened,
            Err(error) if bind.may_be_missing(&error) => {
                log::verbose(format_args!("{}, going on without it", failed(&error)));
            }
            Err(error) => return Err(failed(&error)),
        }
    }
    if workers[0].tcp.is_empty() {
        return Err(format!(
            "Failed listening on port {port} (TCP): none of the bind addresses is on this machine"
        ));
    }
    Ok(port)
}

/// Listens on one address with one socket per worker; returns the port.
fn open_address(
    bind: &BindAddress,
    port: u16,
    backlog: i32,
    workers: &mut [Listeners],
) -> io::Result<u16> {
    let mut address = resolve(&bind.address, port)?;
    // With SO_REUSEPORT a second server of the same user would get the port, too, and half of the clients. So the
    // port is first claimed without it.
    if port != 0 {
        new_socket(address)?.bind(&address.into())?;
    }
    for worker in workers {
        let socket = new_socket(address)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        socket.listen(backlog)?;
        socket.set_nonblocking(true)?;
        let listener = TcpListener::from(socket);
        address = listener.local_addr()?;
        worker.tcp.push(listener);
    }
    Ok(address.port())
}

/// The socket address that `bind` means by `address`.
pub(crate) fn resolve(address: &str, port: u16) -> io::Result<SocketAddr> {
    match address {
        "*" => return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)),
        "::*" => return Ok(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)),
        _ => {}
    }
    let found = (address, port).to_socket_addrs()?.next();
    found.ok_or_else(|| io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address"))
}

fn new_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

impl BindAddress {
    /// Whether the error says that this machine does not have the address or its family, and that does not matter.
    pub(crate) fn may_be_missing(&self, error: &io::Error) -> bool {
        let os = error.raw_os_error();
        let is_missing_here = error.kind() == io::ErrorKind::AddrNotAvailable
            || os.is_some_and(|code| {
                [
                    libc::EAFNOSUPPORT,
                    libc::EPROTONOSUPPORT,
                    libc::ESOCKTNOSUPPORT,
                    libc::EPFNOSUPPORT,
                ]
                .contains(&code)
            });
        is_missing_here && (self.optional || self.address == "::*")
    }
}

fn open_unix(path: &Path, settings: &Settings) -> io::Result<UnixListener> {
    // The socket file of a server that is gone is in the way; one that answers belongs to somebody.
    if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        if UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another process listens on it",
            ));
        }
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    if let Some(mode) = settings.unixsocket_mode {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    listener.set_nonblocking(true)?;
    Ok(listener)
}
