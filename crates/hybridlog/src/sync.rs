//! Where the lock-free parts of the engine take their synchronisation from: the standard library and parking_lot.
//!
//! Built with `--cfg shuttle` they take it from wrappers of the same, between whose steps another thread may run as the
//! Shuttle scheduler decides: see `interleavings.rs`. What is shipped pays nothing for that.

#[cfg(shuttle)]
mod scheduled;

#[cfg(not(shuttle))]
pub(crate) use parking_lot::{Mutex, RwLock};
#[cfg(not(shuttle))]
pub(crate) use std::{
    hint::spin_loop, sync::atomic, thread::sleep, thread::yield_now as give_way, thread_local,
};

#[cfg(shuttle)]
pub(crate) use scheduled::{
    Mutex, RwLock, atomic, give_way, give_way as spin_loop, is_planted, sleep,
};
#[cfg(all(test, shuttle))]
pub(crate) use scheduled::{PLANTED, calmly};
#[cfg(shuttle)]
pub(crate) use shuttle::thread_local;

/// A static that every explored interleaving begins with anew.
#[cfg(not(shuttle))]
macro_rules! global {
    (static $name:ident: $type:ty = $value:expr;) => {
        static $name: $type = $value;
    };
}
#[cfg(shuttle)]
macro_rules! global {
    (static $name:ident: $type:ty = $value:expr;) => {
        shuttle::lazy_static! { static ref $name: $type = $value; }
    };
}
pub(crate) use global;

/// Whether the bug of that name is there: never in what is shipped. Tests plant it to see themselves fail, by
/// `--cfg planted="..."` or, where they try interleavings, by a variable of the environment.
#[cfg(not(shuttle))]
macro_rules! planted {
    ($bug:literal) => {
        cfg!(planted = $bug)
    };
}
#[cfg(shuttle)]
macro_rules! planted {
    ($bug:literal) => {
        $crate::sync::is_planted($bug)
    };
}
pub(crate) use planted;
