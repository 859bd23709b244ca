//! What is asked of one group of a device, and what was learned of what the device refuses. Pure; times are since any
//! fixed moment.

use std::collections::VecDeque;
use std::time::Duration;

use super::plan::{Limits, Request, plan, split};
use super::register::Register;

/// What a device refuses by itself is asked for again after this long.
const REFUSED_REST: Duration = Duration::from_secs(60);

/// The requests of one group.
#[derive(Debug)]
pub struct Asking {
    wanted: Vec<Request>,
    limits: Limits,
    slots: Vec<Slot>,
    /// Of this round, still to be asked.
    open: VecDeque<Request>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Slot {
    request: Request,
    /// Why it was refused, and until when it is left out.
    refused: Option<(String, Duration)>,
}

impl Asking {
    pub fn new(registers: &[Register], limits: Limits) -> Self {
        let wanted: Vec<Request> = registers.iter().map(Register::request).collect();
        let mut asking = Asking { wanted, limits, slots: Vec::new(), open: VecDeque::new() };
        asking.forget();
        asking
    }

    /// Forgets what was refused: the device may be another one by now.
    pub fn forget(&mut self) {
        let slot = |request| Slot { request, refused: None };
        self.slots = plan(self.wanted.iter().copied(), self.limits).into_iter().map(slot).collect();
    }

    /// Begins a round. Returns what is left out of it, with the cause.
    pub fn begin(&mut self, now: Duration) -> Vec<(Request, String)> {
        let mut left_out = Vec::new();
        self.open.clear();
        for slot in &self.slots {
            match &slot.refused {
                Some((cause, until)) if *until > now => left_out.push((slot.request, cause.clone())),
                _ => self.open.push_back(slot.request),
            }
        }
        left_out
    }

    pub fn next(&mut self) -> Option<Request> {
        self.open.pop_front()
    }

    /// The device says that an address of this request is not there. `true`: it was cut, and both halves are asked for
    /// at once. `false`: it is a single one, and rests.
    pub fn refused(&mut self, request: Request, cause: &str, now: Duration) -> bool {
        let Some(at) = self.slots.iter().position(|slot| slot.request == request) else { return false };
        match split(&request, self.wanted.iter().copied()) {
            Some(halves) => {
                self.slots.splice(at..=at, halves.map(|request| Slot { request, refused: None }));
                halves.iter().rev().for_each(|half| self.open.push_front(*half));
                true
            }
            None => {
                self.slots[at].refused = Some((cause.to_owned(), now + REFUSED_REST));
                false
            }
        }
    }

    /// It is there after all.
    pub fn granted(&mut self, request: Request) {
        self.slots.iter_mut().filter(|slot| slot.request == request).for_each(|slot| slot.refused = None);
    }

    /// Requests of a round in which nothing rests.
    #[cfg(test)]
    fn requests(&self) -> usize {
        self.slots.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intake::modbus::register::tests::register;
    use crate::intake::modbus::register::{Kind, Table};
    use crate::intake::serial::decode::packed;

    const SECOND: Duration = Duration::from_secs(1);

    /// A device that knows the registers below 6.
    fn round(asking: &mut Asking, now: Duration) -> (usize, usize, usize) {
        let (left_out, mut asked, mut good) = (asking.begin(now).len(), 0, 0);
        while let Some(request) = asking.next() {
            asked += 1;
            if request.end() <= 6 {
                good += usize::from(request.count);
                asking.granted(request);
            } else {
                asking.refused(request, "illegal data address", now);
            }
        }
        (left_out, asked, good)
    }

    #[test]
    fn what_is_refused_is_found_left_out_and_tried_again() {
        let registers: Vec<Register> = (0..8)
            .map(|at| register(&format!("r{at}"), Table::Input, at, Kind::Words(packed::Kind::Unsigned(2))))
            .collect();
        let mut asking = Asking::new(&registers, Limits { registers: 125, bits: 2_000, gap: 0 });
        assert_eq!(asking.requests(), 1);
        let (left_out, asked, good) = round(&mut asking, SECOND);
        assert_eq!((left_out, good), (0, 6), "the first round already brings what there is");
        assert!(asked <= 8, "{asked}");
        assert_eq!(round(&mut asking, 2 * SECOND), (2, asking.requests() - 2, 6));
        let (left_out, asked, _) = round(&mut asking, 62 * SECOND);
        assert_eq!((left_out, asked), (0, asking.requests()));
        asking.forget();
        assert_eq!(asking.requests(), 1);
    }
}
