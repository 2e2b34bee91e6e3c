//! The rounds of background work, `hz` a second on the main thread: closes idle and overgrown clients,
//! removes expired keys, samples rates, begins the checkpoints that save rules ask for.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::client::{ClientEntry, client_flags};
use crate::config::{Settings, SettingsReader};
use crate::connection::unlimited_output_bytes;
use crate::field_expiry;
use crate::log;
use crate::pause::Paused;
use crate::persistence;
use crate::server::{Server, unix_ms};

/// Buckets of the index looked at in one go for expired keys, and how many of them mean that there are more.
const EXPIRE_BUCKETS: usize = 1024;
const EXPIRE_MANY: u64 = 64;

/// After so long without any progress a client that is not read from is given up.
const STUCK_MS: u64 = 60_000;

/// A client with an output limit, which memory does not let it reach, may take nothing for so long.
const HELD_PATIENCE: Duration = Duration::from_secs(1);

/// When somebody has waited so long for memory, clients that hold so much and have not moved for as long make room.
const MEMORY_PATIENCE: Duration = Duration::from_secs(1);
const STALLED_BYTES: u64 = 32 * 1024;

/// Does the rounds until the server stops.
pub(crate) async fn run(server: Arc<Server>) {
    let mut reader = SettingsReader::new(Arc::clone(&server.config));
    let mut round = 0u64;
    let mut damage_logged = 0;
    loop {
        let hz = u64::from(reader.get().hz);
        tokio::time::sleep(Duration::from_millis(1000 / hz)).await;
        let settings = reader.get();
        // Rates are sampled and saving is looked after ten times a second, clients looked at once.
        if round.is_multiple_of((hz / 10).max(1)) {
            sample_rates(&server);
            persistence::look(&server, settings);
            server.memory.refresh(settings);
            close_stalled_clients(&server);
        }
        if round.is_multiple_of(hz) {
            look_at_clients(&server, settings);
            server.set_checkpoint_bytes(settings);
            server.memory.settle();
            log_damage(&server, &mut damage_logged);
        }
        if server.active_expire() && server.pause.now() == Paused::Nothing {
            expire(&server, Duration::from_millis(1000 / hz));
            field_expiry::run(&server);
        }
        round += 1;
    }
}

/// Removes expired keys nobody asks for: a little of the index in each round, and more of it, up to a quarter of the
/// round's time, while that finds many.
fn expire(server: &Server, round: Duration) {
    let begin = Instant::now();
    loop {
        let expired = server.store.expire_some(unix_ms(), EXPIRE_BUCKETS);
        let limit = if expired.is_behind || expired.removed > EXPIRE_MANY {
            round / 4
        } else {
            round / 100
        };
        if begin.elapsed() >= limit {
            return;
        }
    }
}

/// Says in one line what damage has been met since `logged`.
fn log_damage(server: &Server, logged: &mut u64) {
    let met = server.store.stats().damaged_reads;
    let more = met - *logged;
    if let Some(last) = server.store.last_damage().filter(|_| more > 0) {
        log::warning(format_args!(
            "{more} reads of cold records have met damage, the last one here: {last}"
        ));
        *logged = met;
    }
}

fn sample_rates(server: &Server) {
    let stats = &server.stats;
    stats.rates.sample(
        server.uptime_ms(),
        stats.total(|worker| &worker.commands),
        stats.total(|worker| &worker.net_input_bytes),
        stats.total(|worker| &worker.net_output_bytes),
    );
}

/// Closes clients that are over a limit of time or memory.
fn look_at_clients(server: &Server, settings: &Settings) {
    let now_ms = server.uptime_ms();
    let clients = server.clients.all();
    for client in &clients {
        if is_idle(client, settings, now_ms) {
            log::verbose("Closing idle client");
            client.kill();
        } else if is_over_soft_limit(client, settings, now_ms)
            || is_held_at_limit(client, settings, now_ms)
        {
            client.close_for_output_limit();
        } else if is_stuck(client, settings, now_ms) {
            log::warning(format_args!(
                "Client id={} addr={} closed because it does not read its replies.",
                client.id, client.addr
            ));
            client.kill();
        }
    }
    let clients_total = clients.iter().map(|client| client.memory_bytes()).sum();
    server.memory.note_clients(clients_total);
    evict_clients(clients, clients_total, server.memory.clients_bytes());
}

/// Closes clients that hold memory and have not moved for a while though it is their turn, if somebody has been waiting
/// for memory as long.
fn close_stalled_clients(server: &Server) {
    if server.memory.waiting() < MEMORY_PATIENCE {
        return;
    }
    let now_ms = server.uptime_ms();
    for client in server.clients.all() {
        if client.memory_bytes() >= STALLED_BYTES && client.is_awaited_for(MEMORY_PATIENCE, now_ms)
        {
            client.suspect();
        }
    }
}

fn is_idle(client: &ClientEntry, settings: &Settings, now_ms: u64) -> bool {
    let idle_ms = now_ms.saturating_sub(client.last_interaction_ms.load(Relaxed));
    let busy = client.has_flag(client_flags::PAUSED) || client.has_flag(client_flags::BLOCKED);
    settings
        .client_timeout
        .is_some_and(|timeout| !busy && u128::from(idle_ms) > timeout.as_millis())
}

fn is_over_soft_limit(client: &ClientEntry, settings: &Settings, now_ms: u64) -> bool {
    let limit = settings.output_buffer_limit;
    if limit.soft_bytes == 0 || client.output_bytes.load(Relaxed) < limit.soft_bytes {
        client.over_soft_limit_since_ms.store(0, Relaxed);
        return false;
    }
    match client.over_soft_limit_since_ms.load(Relaxed) {
        0 => {
            client
                .over_soft_limit_since_ms
                .store(now_ms.max(1), Relaxed);
            false
        }
        since_ms => now_ms.saturating_sub(since_ms) > u64::from(limit.soft_seconds) * 1000,
    }
}

/// Whether a client that has a limit is held back short of it, for there is no memory for more, and takes nothing: then this is
/// its limit.
fn is_held_at_limit(client: &ClientEntry, settings: &Settings, now_ms: u64) -> bool {
    let limit = settings.output_buffer_limit;
    let patience = match (limit.soft_bytes, limit.hard_bytes) {
        (0, 0) => return false,
        (0, _) => HELD_PATIENCE,
        (_, _) => HELD_PATIENCE.max(Duration::from_secs(limit.soft_seconds.into())),
    };
    client.has_flag(client_flags::BEHIND) && client.is_awaited_for(patience, now_ms)
}

/// Whether a client whose requests are not read any more, for it has too many replies to take first, takes none. It may
/// be waiting for us to read before it goes on to read itself: neither side would ever move.
fn is_stuck(client: &ClientEntry, settings: &Settings, now_ms: u64) -> bool {
    let is_held = client.has_flag(client_flags::BEHIND)
        || client.output_bytes.load(Relaxed) >= unlimited_output_bytes(settings);
    is_held && now_ms.saturating_sub(client.last_interaction_ms.load(Relaxed)) > STUCK_MS
}

/// Closes the clients with the largest buffers until the rest keeps to `limit_bytes` (`maxmemory-clients`).
fn evict_clients(mut clients: Vec<Arc<ClientEntry>>, mut total: u64, limit_bytes: u64) {
    if total <= limit_bytes {
        return;
    }
    clients.sort_unstable_by_key(|client| std::cmp::Reverse(client.memory_bytes()));
    for client in clients
        .iter()
        .filter(|client| !client.has_flag(client_flags::NO_EVICT))
    {
        if total <= limit_bytes {
            return;
        }
        total = total.saturating_sub(client.memory_bytes());
        log::notice(format_args!(
            "Evicting client: id={} addr={}",
            client.id, client.addr
        ));
        client.kill();
    }
}
