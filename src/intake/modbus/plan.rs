//! Which requests read a set of registers: as few as the device allows. Pure.

use super::register::Table;

/// Cells that are read in one go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    pub table: Table,
    pub address: u16,
    pub count: u16,
}

/// What a device allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Registers in one request: at most 125.
    pub registers: u16,
    /// Coils or discrete inputs in one request: at most 2,000.
    pub bits: u16,
    /// Cells that nobody asked for are read along where that saves a request.
    pub gap: u16,
}

impl Request {
    /// One behind the last cell.
    pub fn end(&self) -> u32 {
        u32::from(self.address) + u32::from(self.count)
    }

    pub fn holds(&self, other: &Request) -> bool {
        self.table == other.table && self.address <= other.address && other.end() <= self.end()
    }

    fn touches(&self, other: &Request) -> bool {
        self.table == other.table && u32::from(self.address) < other.end() && u32::from(other.address) < self.end()
    }

    fn to(self, end: u32) -> Request {
        Request { count: u16::try_from(end - u32::from(self.address)).unwrap_or(u16::MAX), ..self }
    }
}

/// Requests that hold every one of `wanted` as a whole, by table and address.
pub fn plan(wanted: impl IntoIterator<Item = Request>, limits: Limits) -> Vec<Request> {
    let mut wanted: Vec<Request> = wanted.into_iter().collect();
    wanted.sort_by_key(|want| (want.table, want.address, want.count));
    let mut requests: Vec<Request> = Vec::new();
    for want in wanted {
        match requests.last_mut() {
            Some(last) if joins(last, &want, limits) => *last = last.to(last.end().max(want.end())),
            _ => requests.push(want),
        }
    }
    requests
}

fn joins(last: &Request, want: &Request, limits: Limits) -> bool {
    let most = if want.table.is_bits() { limits.bits } else { limits.registers };
    last.table == want.table
        && u32::from(want.address) <= last.end() + u32::from(limits.gap)
        && last.end().max(want.end()) - u32::from(last.address) <= u32::from(most)
}

/// Two requests for what a refused one was asked for: cut at the widest gap, else in the middle. `None`: it cannot be cut.
///
/// A device that refuses one cell refuses the whole request: cutting on finds that cell, and saves the others.
pub fn split(refused: &Request, wanted: impl IntoIterator<Item = Request>) -> Option<[Request; 2]> {
    let mut wanted: Vec<Request> = wanted.into_iter().filter(|want| refused.holds(want)).collect();
    wanted.sort_by_key(|want| (want.address, want.count));
    // What overlaps cannot be told apart by cutting.
    let mut pieces: Vec<Request> = Vec::new();
    for want in wanted {
        match pieces.last_mut() {
            Some(last) if last.touches(&want) => *last = last.to(last.end().max(want.end())),
            _ => pieces.push(want),
        }
    }
    let (first, last) = (*pieces.first()?, *pieces.last()?);
    let middle = (u32::from(first.address) + last.end()) / 2;
    let value = |at: &usize| {
        let (left, right) = (pieces[at - 1].end(), u32::from(pieces[*at].address));
        (right - left, u32::MAX - left.abs_diff(middle))
    };
    let cut = (1..pieces.len()).max_by_key(value)?;
    Some([first.to(pieces[cut - 1].end()), pieces[cut].to(last.end())])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { registers: 125, bits: 2_000, gap: 0 };

    fn input(address: u16, count: u16) -> Request {
        Request { table: Table::Input, address, count }
    }

    #[test]
    fn neighbours_go_into_one_request_and_gaps_only_where_allowed() {
        let wanted =
            [input(72, 2), input(0, 2), input(2, 2), input(6, 2), Request { table: Table::Holding, ..input(4, 2) }];
        let holding = Request { table: Table::Holding, ..input(4, 2) };
        assert_eq!(plan(wanted, LIMITS), [input(0, 4), input(6, 2), input(72, 2), holding]);
        assert_eq!(plan(wanted, Limits { gap: 2, ..LIMITS }), [input(0, 8), input(72, 2), holding]);
        assert_eq!(plan(wanted, Limits { gap: 100, ..LIMITS }), [input(0, 74), holding]);
        assert_eq!(plan(wanted, Limits { gap: 100, registers: 60, ..LIMITS }), [input(0, 8), input(72, 2), holding]);
        assert_eq!(plan([input(65_535, 1), input(65_534, 1)], LIMITS), [input(65_534, 2)]);
    }

    #[test]
    fn a_refused_request_is_cut_at_its_widest_gap_then_in_the_middle() {
        let wanted = [input(0, 2), input(2, 2), input(4, 2), input(6, 2), input(20, 2)];
        assert_eq!(split(&input(0, 22), wanted), Some([input(0, 8), input(20, 2)]));
        assert_eq!(split(&input(0, 8), wanted), Some([input(0, 4), input(4, 4)]));
        assert_eq!(split(&input(0, 2), wanted), None);
        let same = [input(0, 2), input(0, 2), input(1, 1)];
        assert_eq!(split(&input(0, 2), same), None, "bits of one register");
    }

    fn wanted() -> impl Strategy<Value = Vec<Request>> {
        let table = prop_oneof![Just(Table::Coil), Just(Table::Input), Just(Table::Holding)];
        let one = (table, 0u16..300, 1u16..8).prop_map(|(table, address, count)| {
            let count = if table.is_bits() { 1 } else { count };
            Request { table, address, count }
        });
        proptest::collection::vec(one, 1..60)
    }

    proptest! {
        #[test]
        fn every_register_is_in_a_request_that_is_allowed(
            wanted in wanted(), registers in 8u16..125, bits in 1u16..2_000, gap in 0u16..20
        ) {
            let limits = Limits { registers, bits, gap };
            let requests = plan(wanted.clone(), limits);
            for want in &wanted {
                prop_assert!(requests.iter().any(|request| request.holds(want)), "{want:?} in {requests:?}");
            }
            for request in &requests {
                let most = if request.table.is_bits() { bits } else { registers };
                prop_assert!((1..=most).contains(&request.count));
            }
            for pair in requests.windows(2) {
                prop_assert!(!joins(&pair[0], &pair[1], limits), "{pair:?} could be one");
            }
        }

        /// However many registers a device refuses, all others are read in the end, in few steps.
        #[test]
        fn cutting_isolates_what_is_refused(
            steps in proptest::collection::vec((0u16..12, 1u16..5), 1..60),
            refused in proptest::collection::btree_set(0u16..400, 0..4)
        ) {
            let mut next = 0;
            let place = |(gap, count): &(u16, u16)| {
                next += gap + count;
                input(next - count, *count)
            };
            let wanted: Vec<Request> = steps.iter().map(place).collect();
            let is_refused = |request: &Request| {
                refused.iter().any(|cell| (u32::from(request.address)..request.end()).contains(&u32::from(*cell)))
            };
            let mut open = plan(wanted.clone(), Limits { gap: 10, ..LIMITS });
            let (mut good, mut asked) = (Vec::new(), 0);
            while let Some(request) = open.pop() {
                asked += 1;
                if !is_refused(&request) {
                    good.push(request);
                } else if let Some(halves) = split(&request, wanted.iter().copied()) {
                    prop_assert!(halves.iter().all(|half| request.holds(half) && *half != request));
                    open.extend(halves);
                }
            }
            prop_assert!(asked <= 2 * wanted.len());
            for want in &wanted {
                prop_assert_eq!(good.iter().any(|request| request.holds(want)), !is_refused(want), "{:?}", want);
            }
        }
    }
}
