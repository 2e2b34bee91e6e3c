//! Tasks that wait until what they have changed is durable. A sync wakes those whom it serves, and nobody else: with many
//! connections most wait for a later one.

use tokio::sync::oneshot;

use crate::command_log::Position;

#[derive(Default)]
pub(in crate::command_log) struct Waiting {
    tasks: Vec<Task>,
}

/// A task that waits, or has given up.
pub(super) struct Task {
    position: Position,
    ready: oneshot::Sender<()>,
}

impl Task {
    pub(super) fn wake(self) {
        // It may have given up.
        let _ = self.ready.send(());
    }
}

impl Waiting {
    /// Adds a task. What is returned is ready when everything up to `position` is durable, or never will be.
    pub(super) fn add(&mut self, position: Position) -> oneshot::Receiver<()> {
        if self.tasks.len() == self.tasks.capacity() {
            self.tasks.retain(|task| !task.ready.is_closed());
            // So that those who stay are looked at again only after as many more have come.
            self.tasks.reserve(self.tasks.len().max(16));
        }
        let (ready, is_ready) = oneshot::channel();
        self.tasks.push(Task { position, ready });
        is_ready
    }

    /// Takes out those who wait for nothing beyond `durable`.
    pub(super) fn take(&mut self, durable: Position) -> Vec<Task> {
        let is_served = |task: &mut Task| task.position <= durable;
        self.tasks.extract_if(.., is_served).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(bytes: u64) -> Position {
        Position::new(1, bytes)
    }

    #[test]
    fn a_sync_wakes_whom_it_serves_and_nobody_else() {
        let mut waiting = Waiting::default();
        let mut ready: Vec<_> = (1..=40).map(|n| waiting.add(position(n))).collect();
        waiting.take(position(30)).into_iter().for_each(Task::wake);
        for (n, ready) in (1..).zip(&mut ready) {
            assert_eq!(ready.try_recv().is_ok(), n <= 30, "{n}");
        }
        assert_eq!(waiting.take(Position::NEVER).len(), 10);
    }

    #[test]
    fn those_who_give_up_do_not_pile_up() {
        let mut waiting = Waiting::default();
        let _ready = waiting.add(position(1));
        for _ in 0..10_000 {
            drop(waiting.add(position(2)));
        }
        assert!(waiting.tasks.len() < 100);
    }
}
