//! Latches of one key and of many.

use std::sync::Arc;

use super::explore;
use crate::latch::{LatchMode, Latches};
use crate::latching::{Latching, TRIES_FOR_ALL};
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use crate::sync::spin_loop;

const STRIPE: u32 = 7;
/// After so many tries nobody is patient any more.
const TRIES: u64 = TRIES_FOR_ALL as u64;

fn latched<T>(latches: &Latches, mode: LatchMode, body: impl FnOnce() -> T) -> T {
    while !latches.try_acquire(STRIPE, mode) {
        spin_loop();
    }
    let result = body();
    latches.release(STRIPE, mode);
    result
}

#[test]
fn writers_exclude_all_others() {
    explore(10_000, || {
        let latches = Arc::new(Latches::new());
        let pair = Arc::new([const { AtomicU64::new(0) }; 2]);
        let [one, other] = [0, 1].map(|_| {
            let (latches, pair) = (Arc::clone(&latches), Arc::clone(&pair));
            shuttle::thread::spawn(move || {
                latched(&latches, LatchMode::Exclusive, || {
                    for number in &*pair {
                        // Two steps: only the latch makes them one.
                        let seen = number.load(Relaxed);
                        number.store(seen + 1, Relaxed);
                    }
                });
            })
        });
        let readers = [0, 1].map(|_| {
            let (latches, pair) = (Arc::clone(&latches), Arc::clone(&pair));
            shuttle::thread::spawn(move || {
                latched(&latches, LatchMode::Shared, || {
                    let seen = [pair[0].load(Relaxed), pair[1].load(Relaxed)];
                    assert_eq!(seen[0], seen[1], "a writer beside a reader");
                });
            })
        });
        for thread in [one, other].into_iter().chain(readers) {
            thread.join().expect("no thread fails");
        }
        assert_eq!(pair[0].load(Relaxed), 2, "a writer beside a writer");
    });
}

/// Each thread wants two of three stripes and asks for them in an order of its own. All have lost their patience, and keep
/// what they get, when the stripes come free one after the other.
#[test]
fn whoever_waits_has_his_turn() {
    explore(500, || {
        let latches = Arc::new(Latches::new());
        let numbers = Arc::new([const { AtomicU64::new(0) }; 3]);
        let tries = Arc::new([const { AtomicU64::new(0) }; 3]);
        for stripe in 0..3 {
            assert!(latches.try_acquire(stripe, LatchMode::Exclusive));
        }
        let threads = [[0, 1], [1, 2], [2, 0]].map(|mine| {
            let (latches, numbers) = (Arc::clone(&latches), Arc::clone(&numbers));
            let tries = Arc::clone(&tries);
            shuttle::thread::spawn(move || {
                let wanted = mine.iter().map(|stripe| (*stripe, LatchMode::Exclusive));
                let mut latching = Latching::new(&latches, wanted.collect());
                while !latching.try_rest() {
                    tries[mine[0] as usize].fetch_add(1, Relaxed);
                    spin_loop();
                }
                for stripe in mine {
                    let number = &numbers[stripe as usize];
                    let seen = number.load(Relaxed);
                    number.store(seen + 1, Relaxed);
                }
            })
        });
        while tries.iter().any(|tries| tries.load(Relaxed) < TRIES) {
            spin_loop();
        }
        for stripe in 0..3 {
            latches.release(stripe, LatchMode::Exclusive);
        }
        for thread in threads {
            thread.join().expect("no thread fails");
        }
        for number in &*numbers {
            assert_eq!(number.load(Relaxed), 2, "one latch held by two");
        }
        for stripe in 0..3 {
            assert!(latches.try_acquire(stripe, LatchMode::Exclusive));
        }
    });
}
