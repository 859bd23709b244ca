//! What a shared bound keeps back for the lanes that go first. Pure.

/// Place of a lane's priority among those it shares a bound with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rank {
    /// Nobody goes before it.
    Highest,
    Between,
    /// Somebody goes before it, and nobody behind.
    Lowest,
}

impl Rank {
    /// Of each lane, by its priority.
    pub fn all(priorities: &[i32]) -> Vec<Rank> {
        let highest = priorities.iter().max();
        let lowest = priorities.iter().min();
        let rank = |p| match p {
            p if Some(p) == highest => Rank::Highest,
            p if Some(p) == lowest => Rank::Lowest,
            _ => Rank::Between,
        };
        priorities.iter().map(rank).collect()
    }

    /// How much of a bound a lane may fill: 5 % are kept for the highest, half of them for those above the lowest.
    pub fn share(self, bound: u64) -> u64 {
        match self {
            Rank::Highest => bound,
            Rank::Between => bound - bound / 40,
            Rank::Lowest => bound - bound / 20,
        }
    }
}

/// Shares out what each lane gets for itself: equally, but at least 5 % for the highest.
pub fn parts(total: u64, ranks: &[Rank]) -> Vec<u64> {
    let count = ranks.len().max(1) as u64;
    let highest = ranks.iter().filter(|r| **r == Rank::Highest).count() as u64;
    let favoured = if highest * 20 <= count { (total / 20 / highest.max(1)).max(total / count) } else { total / count };
    let rest = (total - favoured * highest) / (count - highest).max(1);
    ranks.iter().map(|r| if *r == Rank::Highest { favoured } else { rest }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_may_fill_it_and_the_last_leaves_a_twentieth() {
        let ranks = Rank::all(&[i32::MAX, 10, 0, 0]);
        assert_eq!(ranks, [Rank::Highest, Rank::Between, Rank::Lowest, Rank::Lowest]);
        assert_eq!(ranks.iter().map(|r| r.share(1_000)).collect::<Vec<_>>(), [1_000, 975, 950, 950]);
        assert_eq!(Rank::all(&[3, 3]), [Rank::Highest; 2], "with nobody before it a lane leaves nothing");
    }

    #[test]
    fn parts_are_equal_until_the_highest_would_get_less_than_a_twentieth() {
        assert_eq!(parts(1_000, &Rank::all(&[9, 0, 0, 0])), [250; 4]);
        let mut many = vec![0; 40];
        many[7] = 1;
        let parts = parts(39_000, &Rank::all(&many));
        assert_eq!((parts[7], parts[0]), (1_950, 950));
        assert!(parts.iter().sum::<u64>() <= 39_000);
    }
}
