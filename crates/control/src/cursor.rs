//! The order tasks are handed out in: every task once an epoch, shuffled anew each epoch by a
//! seed. The order is a function of `(seed, ordinal)`, so a restart continues where it was.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// Position of a task in its file, for the `n`-th group of a phase.
#[derive(Debug, Clone)]
pub struct Cursor {
    seed: u64,
    tasks: usize,
    epoch: u64,
    order: Vec<u32>,
}

impl Cursor {
    /// A cursor over `tasks` tasks (at least one, fewer than 2^32).
    #[must_use]
    pub fn new(seed: u64, tasks: usize) -> Self {
        let mut cursor = Self { seed, tasks, epoch: 0, order: Vec::new() };
        cursor.shuffle();
        cursor
    }

    fn shuffle(&mut self) {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed ^ self.epoch.rotate_left(32));
        self.order = (0..self.tasks as u32).collect();
        self.order.shuffle(&mut rng);
    }

    /// Index of the task of the `ordinal`-th group, from 0. `None` if there are no tasks.
    pub fn task(&mut self, ordinal: u64) -> Option<usize> {
        let tasks = self.tasks as u64;
        let epoch = ordinal.checked_div(tasks)?;
        if epoch != self.epoch {
            self.epoch = epoch;
            self.shuffle();
        }
        self.order.get((ordinal % tasks) as usize).map(|index| *index as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_visits_every_task_once_in_another_order() {
        let mut cursor = Cursor::new(3, 50);
        let mut epoch = |n: u64| {
            (0..50).map(|i| cursor.task(n * 50 + i).expect("50 tasks")).collect::<Vec<_>>()
        };
        let (first, second, again) = (epoch(0), epoch(1), epoch(0));
        assert_eq!(first, again, "the order is not a function of the ordinal");
        assert_ne!(first, second);
        for mut order in [first, second] {
            order.sort_unstable();
            assert_eq!(order, (0..50).collect::<Vec<_>>());
        }
        assert_eq!(Cursor::new(3, 0).task(0), None);
    }
}
