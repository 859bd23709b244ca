//! How long readings wait for their answers (steps 1 to 5): one time for all that came in together. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use crate::ops::histogram::Histogram;

/// The unanswered readings of the present connection, in order of arrival, as (time, how many came then). No longer than
/// the gate lets readings in.
#[derive(Debug, Default)]
pub(super) struct Waits {
    came: VecDeque<(Duration, u64)>,
}

impl Waits {
    /// A reading has come in.
    pub(super) fn begin(&mut self, now: Duration) {
        match self.came.back_mut() {
            Some((at, n)) if *at == now => *n += 1,
            _ => self.came.push_back((now, 1)),
        }
    }

    /// The oldest `n` have their answers.
    pub(super) fn end(&mut self, mut n: u64, now: Duration, into: &mut Histogram) {
        while n > 0
            && let Some((at, left)) = self.came.front_mut()
        {
            let gone = n.min(*left);
            into.record_many(now.saturating_sub(*at).as_micros() as u64, gone);
            n -= gone;
            *left -= gone;
            if *left == 0 {
                self.came.pop_front();
            }
        }
    }

    /// Gives the memory of a burst back once nobody waits.
    pub(super) fn shrink(&mut self) {
        if self.came.is_empty() {
            self.came = VecDeque::new();
        }
    }

    /// Nobody waits any more: the connection is gone.
    pub(super) fn clear(&mut self) {
        self.came.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reading_is_timed_from_the_moment_it_came() {
        let (mut waits, mut times) = (Waits::default(), Histogram::default());
        let ms = Duration::from_millis;
        for at in [0, 0, 0, 10] {
            waits.begin(ms(at));
        }
        waits.end(2, ms(1), &mut times);
        assert_eq!((times.count(), times.sum_us), (2, 2_000));
        waits.end(2, ms(20), &mut times);
        assert_eq!((times.count(), times.sum_us), (4, 2_000 + 20_000 + 10_000));
        waits.begin(ms(30));
        waits.clear();
        waits.end(1, ms(40), &mut times);
        assert_eq!(times.count(), 4, "a reading of an earlier connection is answered by nobody");
    }
}
