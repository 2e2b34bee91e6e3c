//! The hand-over of what is withdrawn, and of generations.

use std::sync::Arc;

use super::explore;
use crate::epoch;
use crate::generation::Generations;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use crate::sync::spin_loop;

/// Of two places one is current; the other is withdrawn after a barrier. Nobody who is pinned may meet a withdrawn one.
#[test]
fn a_barrier_waits_for_all_pins() {
    explore(10_000, || {
        let current = Arc::new(AtomicUsize::new(0));
        let is_there = Arc::new([AtomicBool::new(true), AtomicBool::new(false)]);
        let readers = [0, 1].map(|_| {
            let (current, is_there) = (Arc::clone(&current), Arc::clone(&is_there));
            shuttle::thread::spawn(move || {
                for _ in 0..2 {
                    let _outer = epoch::pin();
                    drop(epoch::pin());
                    let found = current.load(Relaxed);
                    for _ in 0..2 {
                        assert!(is_there[found].load(Relaxed), "withdrawn while pinned");
                    }
                }
            })
        });
        for place in [1, 0] {
            is_there[place].store(true, Relaxed);
            current.store(place, Relaxed);
            epoch::barrier();
            is_there[1 - place].store(false, Relaxed);
        }
        for thread in readers {
            thread.join().expect("no thread fails");
        }
    });
}

/// Operations that are pinned all the time, or stop half-way and hold their generation instead.
#[test]
fn a_generation_ends_with_its_operations() {
    explore(10_000, || {
        let generations = Arc::new(Generations::new(1));
        let running = Arc::new([const { AtomicUsize::new(0) }; 4]);
        let operations = [0, 1].map(|_| {
            let (generations, running) = (Arc::clone(&generations), Arc::clone(&running));
            shuttle::thread::spawn(move || {
                let pin = epoch::pin();
                let generation = generations.current();
                let running = &running[generation as usize];
                running.fetch_add(1, Relaxed);
                let held = generations.hold(generation);
                drop(pin);
                spin_loop();
                let pin = epoch::pin();
                running.fetch_sub(1, Relaxed);
                drop(pin);
                drop(held);
            })
        });
        for old in 1..3 {
            assert_eq!(generations.advance(|_| (), |_| spin_loop()), old + 1);
            let left = running[old as usize].load(Relaxed);
            assert_eq!(left, 0, "an operation of generation {old} still runs");
            assert!(generations.may_relocate());
        }
        for thread in operations {
            thread.join().expect("no thread fails");
        }
    });
}
