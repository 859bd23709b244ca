//! The job cycle of one equipment: idle, producing from 0 to 100 %, finished, idle again, with a fault now and then.
//! Pure: one call is one status interval; time and chance are told.

use super::dice::Dice;

/// A fault once in about 500 intervals of production: with one status a second, a few in an hour.
const FAULT_PROBABILITY: f64 = 0.002;

/// What the equipment says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// 0 to 100.
    pub job_percent_finished: u8,
    pub producing: bool,
}

/// Progress is counted in thousandths, so that a long job moves less than one percent an interval.
const DONE: u32 = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle {
        intervals_left: u32,
    },
    Producing,
    Finished {
        intervals_left: u32,
    },
    /// The job stands still where it is and goes on afterwards.
    Fault {
        intervals_left: u32,
    },
}

/// One equipment at work.
#[derive(Debug, Clone)]
pub struct Job {
    phase: Phase,
    progress: u32,
    /// Thousandths an interval at nominal speed, drawn anew for each job.
    speed: u32,
}

impl Job {
    /// An equipment found somewhere in its cycle, so that a plant does not start in step.
    pub fn new(dice: &mut Dice) -> Self {
        let mut job = Self { phase: Phase::Idle { intervals_left: 0 }, progress: 0, speed: 0 };
        for _ in 0..dice.between(0, 200) {
            job.step(dice);
        }
        job
    }

    /// One interval passes.
    pub fn step(&mut self, dice: &mut Dice) -> Status {
        match self.phase {
            Phase::Idle { intervals_left: 0 } => self.start(dice),
            Phase::Idle { intervals_left } => self.phase = Phase::Idle { intervals_left: intervals_left - 1 },
            Phase::Producing => self.produce(dice),
            Phase::Finished { intervals_left: 0 } => self.rest(dice),
            Phase::Finished { intervals_left } => self.phase = Phase::Finished { intervals_left: intervals_left - 1 },
            Phase::Fault { intervals_left: 0 } => self.phase = Phase::Producing,
            Phase::Fault { intervals_left } => self.phase = Phase::Fault { intervals_left: intervals_left - 1 },
        }
        self.status()
    }

    fn start(&mut self, dice: &mut Dice) {
        self.progress = 0;
        self.speed = dice.between(5, 40) as u32;
        self.phase = Phase::Producing;
    }

    fn produce(&mut self, dice: &mut Dice) {
        if dice.happens(FAULT_PROBABILITY) {
            self.phase = Phase::Fault { intervals_left: dice.between(3, 30) as u32 };
            return;
        }
        // Real work does not move evenly: half to one and a half times the nominal speed, but always forward.
        let step = u64::from(self.speed) * dice.between(50, 150) / 100;
        self.progress = (self.progress + (step as u32).max(1)).min(DONE);
        if self.progress == DONE {
            self.phase = Phase::Finished { intervals_left: dice.between(1, 5) as u32 };
        }
    }

    fn rest(&mut self, dice: &mut Dice) {
        self.progress = 0;
        self.phase = Phase::Idle { intervals_left: dice.between(2, 20) as u32 };
    }

    fn status(&self) -> Status {
        let job_percent_finished = (self.progress * 100 / DONE) as u8;
        Status { job_percent_finished, producing: self.phase == Phase::Producing }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn statuses(seed: u64, intervals: usize) -> Vec<Status> {
        let mut dice = Dice::of(seed, 0, 0);
        let mut job = Job::new(&mut dice);
        (0..intervals).map(|_| job.step(&mut dice)).collect()
    }

    proptest! {
        #[test]
        fn stays_within_bounds_and_never_falls_while_producing(seed: u64) {
            for pair in statuses(seed, 3000).windows(2) {
                prop_assert!(pair[1].job_percent_finished <= 100);
                if pair[0].producing && pair[1].producing {
                    prop_assert!(pair[0].job_percent_finished <= pair[1].job_percent_finished);
                }
                // Progress falls only from a finished job back to nothing.
                if pair[1].job_percent_finished < pair[0].job_percent_finished {
                    prop_assert_eq!((pair[0].job_percent_finished, pair[1].job_percent_finished), (100, 0));
                }
            }
        }

        #[test]
        fn same_seed_same_job(seed: u64) {
            prop_assert_eq!(statuses(seed, 500), statuses(seed, 500));
        }
    }

    #[test]
    fn every_phase_is_visited() {
        let seen = statuses(3, 20_000);
        let has = |percent: std::ops::RangeInclusive<u8>, producing| {
            seen.iter().any(|s| percent.contains(&s.job_percent_finished) && s.producing == producing)
        };
        assert!(has(0..=0, false), "idle");
        assert!(has(1..=99, true), "producing");
        assert!(has(100..=100, false), "finished");
        assert!(has(1..=99, false), "fault");
    }
}
