//! A few threads for what may block: commands that walk the whole data set. How many run at once is bounded; the rest
//! wait in line.

use tokio::sync::Semaphore;

/// Commands that may be on the slow lane at once.
const LANES: usize = 4;

/// The slow lane.
pub(crate) struct SlowLane {
    permits: Semaphore,
}

impl Default for SlowLane {
    fn default() -> Self {
        SlowLane {
            permits: Semaphore::new(LANES),
        }
    }
}

impl SlowLane {
    /// Runs `work` on a thread of its own, waiting for a free lane first.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let _permit = self
            .permits
            .acquire()
            .await
            .expect("the semaphore is never closed");
        tokio::task::spawn_blocking(work)
            .await
            .expect("a panic ends the process")
    }
}
