//! DUMP and RESTORE: payloads between Ferrite and real servers, forms that older servers wrote, errors, payloads that are
//! changed at random, and large values. Random tests print their seed; `FERRITE_TEST_SEED=<seed>` repeats one. Where there is
//! no `redis-server` or `valkey-server`, what is compared with it is left out.

#[path = "../common/mod.rs"]
mod common;
mod errors;
mod forms;
mod fuzz;
mod large;
#[allow(dead_code)] // Shared with the differential tests, which use the rest.
#[path = "../differential/oracle.rs"]
mod oracle;
mod payload;
#[allow(dead_code)] // As above.
#[path = "../differential/random.rs"]
mod random;
mod servers;
mod values;
#[allow(dead_code)] // As above.
#[path = "../differential/wire.rs"]
mod wire;

use std::time::{SystemTime, UNIX_EPOCH};

/// The seed of a random test.
fn seed() -> u64 {
    if let Ok(seed) = std::env::var("FERRITE_TEST_SEED") {
        return seed.parse().expect("FERRITE_TEST_SEED is a number");
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("a time after 1970").as_nanos() as u64
}
