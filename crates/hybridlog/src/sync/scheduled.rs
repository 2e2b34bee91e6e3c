//! The standard library's atomics and parking_lot's locks, with a point before each step at which Shuttle may let another
//! thread run.
//!
//! Shuttle has atomics and locks of its own. They are larger than a machine word, so they cannot lie in the reserved memory
//! in which buckets, segments and records do; these are what they wrap and nothing else. Shuttle runs all threads of an
//! execution on one thread of the system, one at a time, so nothing is gained by anything stronger; a thread that finds a lock
//! taken gives way until it is free.

use std::cell::Cell;
use std::sync::OnceLock;
use std::time::Duration;

/// The variable of the environment that names the bug to be planted.
pub(crate) const PLANTED: &str = "FERRITE_PLANTED";

thread_local! {
    static IS_CALM: Cell<bool> = const { Cell::new(false) };
}

/// Here another thread may run. Outside of an exploration nothing happens.
fn switch() {
    if !IS_CALM.get() && shuttle::current::try_get_current_task().is_some() {
        // Shuttle knows no time: this is its plain point of decision.
        shuttle::thread::sleep(Duration::ZERO);
    }
}

/// Lets others run first: what this thread waits for is theirs to do.
pub(crate) fn give_way() {
    if shuttle::current::try_get_current_task().is_some() {
        shuttle::thread::yield_now();
    } else {
        std::thread::yield_now();
    }
}

pub(crate) fn sleep(_: Duration) {
    give_way();
}

/// Runs what is only there to prepare, or to look at the end, as one step.
#[cfg(test)]
pub(crate) fn calmly<T>(body: impl FnOnce() -> T) -> T {
    IS_CALM.set(true);
    let result = body();
    IS_CALM.set(false);
    result
}

/// Whether the environment asks for the bug.
pub(crate) fn is_planted(bug: &str) -> bool {
    static NAMED: OnceLock<Option<String>> = OnceLock::new();
    let planted = NAMED.get_or_init(|| std::env::var(PLANTED).ok());
    planted.as_deref() == Some(bug)
}

pub(crate) mod atomic {
    pub(crate) use std::sync::atomic::{Ordering, compiler_fence, fence};

    use super::switch;

    /// A step of the standard library's, with a point of decision before it.
    macro_rules! step {
        (load $value:ty) => {
            pub(crate) fn load(&self, order: Ordering) -> $value {
                switch();
                self.0.load(order)
            }
        };
        (store $value:ty) => {
            pub(crate) fn store(&self, value: $value, order: Ordering) {
                switch();
                self.0.store(value, order);
            }
        };
        (compare_exchange $value:ty) => {
            pub(crate) fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                switch();
                self.0.compare_exchange(current, new, success, failure)
            }
        };
        (fetch_update $value:ty) => {
            pub(crate) fn fetch_update(
                &self,
                set: Ordering,
                fetch: Ordering,
                change: impl FnMut($value) -> Option<$value>,
            ) -> Result<$value, $value> {
                switch();
                self.0.fetch_update(set, fetch, change)
            }
        };
        ($exchange:ident $value:ty) => {
            pub(crate) fn $exchange(&self, value: $value, order: Ordering) -> $value {
                switch();
                self.0.$exchange(value, order)
            }
        };
    }

    macro_rules! atomics {
        ($($name:ident of $value:ty: $($step:ident)*;)*) => {
            $(
                /// As that of the standard library, in the same place in memory.
                #[repr(transparent)]
                #[derive(Default, Debug)]
                pub(crate) struct $name(std::sync::atomic::$name);

                impl $name {
                    pub(crate) const fn new(value: $value) -> Self {
                        $name(std::sync::atomic::$name::new(value))
                    }

                    $(step! { $step $value })*
                }
            )*
        };
    }

    atomics! {
        AtomicBool of bool: load store swap;
        AtomicU32 of u32: load store fetch_add fetch_sub;
        AtomicU64 of u64: load store fetch_add fetch_sub fetch_or fetch_max fetch_min compare_exchange;
        AtomicI64 of i64: load store fetch_add;
        AtomicUsize of usize: load store fetch_add fetch_sub fetch_update;
    }

    impl AtomicU64 {
        /// Never fails without a reason: an execution is to be repeatable.
        pub(crate) fn compare_exchange_weak(
            &self,
            current: u64,
            new: u64,
            success: Ordering,
            failure: Ordering,
        ) -> Result<u64, u64> {
            self.compare_exchange(current, new, success, failure)
        }

        #[cfg(test)]
        pub(crate) fn into_inner(self) -> u64 {
            self.0.into_inner()
        }
    }

    /// A byte of a record, which is found there and never made.
    #[repr(transparent)]
    pub(crate) struct AtomicU8(std::sync::atomic::AtomicU8);

    impl AtomicU8 {
        step! { load u8 }
        step! { store u8 }
    }

    /// As that of the standard library, in the same place in memory.
    #[repr(transparent)]
    #[derive(Debug)]
    pub(crate) struct AtomicPtr<T>(std::sync::atomic::AtomicPtr<T>);

    impl<T> AtomicPtr<T> {
        step! { load *mut T }
        step! { store *mut T }
    }
}

/// As parking_lot's, with its guards.
#[derive(Default, Debug)]
pub(crate) struct Mutex<T>(parking_lot::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Mutex<T> {
        Mutex(parking_lot::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> parking_lot::MutexGuard<'_, T> {
        loop {
            match self.try_lock() {
                Some(guard) => return guard,
                None => give_way(),
            }
        }
    }

    pub(crate) fn try_lock(&self) -> Option<parking_lot::MutexGuard<'_, T>> {
        switch();
        self.0.try_lock()
    }
}

/// As parking_lot's, with its guards.
#[derive(Default, Debug)]
pub(crate) struct RwLock<T>(parking_lot::RwLock<T>);

impl<T> RwLock<T> {
    pub(crate) const fn new(value: T) -> RwLock<T> {
        RwLock(parking_lot::RwLock::new(value))
    }

    pub(crate) fn read(&self) -> parking_lot::RwLockReadGuard<'_, T> {
        loop {
            switch();
            match self.0.try_read() {
                Some(guard) => return guard,
                None => give_way(),
            }
        }
    }

    pub(crate) fn write(&self) -> parking_lot::RwLockWriteGuard<'_, T> {
        loop {
            switch();
            match self.0.try_write() {
                Some(guard) => return guard,
                None => give_way(),
            }
        }
    }
}
