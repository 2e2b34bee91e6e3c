//! A clock cheap enough to time single operations of some ten nanoseconds: the processor's time
//! stamp counter, calibrated against the system's clock. Elsewhere than on x86-64 it is the
//! system's clock.
#![allow(unsafe_code)] // The time stamp counter is read by an intrinsic.

use std::time::{Duration, Instant};

/// Turns readings of the counter into nanoseconds.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    nanos_per_tick: f64,
}

impl Clock {
    /// Measures the counter's rate; takes a twentieth of a second.
    pub(crate) fn calibrate() -> Self {
        let (instant, ticks) = (Instant::now(), Self::ticks());
        while instant.elapsed() < Duration::from_millis(50) {
            std::hint::spin_loop();
        }
        let (nanos, ticks) = (instant.elapsed().as_nanos() as f64, Self::ticks() - ticks);
        Clock {
            nanos_per_tick: nanos / ticks as f64,
        }
    }

    /// A reading taken when everything before it in the program is done.
    #[inline]
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn ticks() -> u64 {
        let mut processor = 0;
        // SAFETY: rdtscp only reads a counter, and writes the processor's number to `processor`;
        // every x86-64 processor since 2008 has it.
        unsafe { std::arch::x86_64::__rdtscp(&mut processor) }
    }

    /// A reading of the system's clock.
    #[inline]
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn ticks() -> u64 {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_nanos() as u64
    }

    /// The time between two readings, in nanoseconds.
    #[inline]
    pub(crate) fn nanos_between(self, from: u64, to: u64) -> u64 {
        (to.saturating_sub(from) as f64 * self.nanos_per_tick) as u64
    }

    /// What a pair of readings with nothing between them says, in nanoseconds: it is contained in
    /// every time that is measured.
    pub(crate) fn overhead_nanos(self) -> u64 {
        let mut pairs: Vec<u64> = (0..1_001)
            .map(|_| {
                let from = Self::ticks();
                self.nanos_between(from, Self::ticks())
            })
            .collect();
        pairs.sort_unstable();
        pairs[pairs.len() / 2]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_agrees_with_the_systems_clock() {
        let clock = Clock::calibrate();
        // A thread that loses the processor between two readings shows a difference; one of some
        // tries does not.
        let measured: Vec<u64> = (0..10)
            .map(|_| {
                let (instant, from) = (Instant::now(), Clock::ticks());
                while instant.elapsed() < Duration::from_millis(5) {
                    std::hint::spin_loop();
                }
                clock.nanos_between(from, Clock::ticks())
            })
            .collect();
        let is_close = |nanos: &u64| (4_900_000..5_200_000).contains(nanos);
        assert!(
            measured.iter().any(is_close),
            "{measured:?} ns for 5 ms each"
        );
    }
}
