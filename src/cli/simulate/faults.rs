//! Seeded faults: what a bad device does to a good reading. Pure: decides, and leaves the doing to the device.

use std::str::FromStr;
use std::time::Duration;

use super::dice::Dice;

/// How often each fault happens, as a probability for each reading.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct FaultRates {
    /// The reading is published twice.
    pub doubles: f64,
    /// The reading is held back and published after the next one of the same equipment.
    pub disorder: f64,
    /// The reading carries a timestamp of the past.
    pub late: f64,
    /// The payload is not JSON.
    pub malformed: f64,
    /// Many readings at once.
    pub burst: f64,
    /// The device goes without a word, and comes back after a while.
    pub die: f64,
}

/// What is wrong with a `--faults` value.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FaultsError {
    #[error("\"{0}\" is not name=probability, as in doubles=0.01")]
    NotAPair(String),
    #[error("there is no fault \"{0}\", only doubles, disorder, late, malformed, burst and die")]
    UnknownName(String),
    #[error("\"{0}\" is not a probability between 0 and 1")]
    NotAProbability(String),
}

impl FromStr for FaultRates {
    type Err = FaultsError;

    /// Reads `doubles=0.01,late=0.001`; what is not named does not happen.
    fn from_str(text: &str) -> Result<Self, FaultsError> {
        let mut rates = Self::default();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (name, probability) = pair.split_once('=').ok_or_else(|| FaultsError::NotAPair(pair.into()))?;
            *rates.by_name(name.trim())? = read_probability(probability.trim())?;
        }
        Ok(rates)
    }
}

fn read_probability(text: &str) -> Result<f64, FaultsError> {
    let valid = text.parse().ok().filter(|p| (0.0..=1.0).contains(p));
    valid.ok_or_else(|| FaultsError::NotAProbability(text.into()))
}

impl FaultRates {
    fn by_name(&mut self, name: &str) -> Result<&mut f64, FaultsError> {
        Ok(match name {
            "doubles" => &mut self.doubles,
            "disorder" => &mut self.disorder,
            "late" => &mut self.late,
            "malformed" => &mut self.malformed,
            "burst" => &mut self.burst,
            "die" => &mut self.die,
            _ => return Err(FaultsError::UnknownName(name.into())),
        })
    }

    /// What happens to the next reading. Every fault uses its throws whether it happens or not, so that changing one
    /// rate leaves the others where they were in the stream.
    pub fn plan(&self, dice: &mut Dice) -> Plan {
        let mut happens = |rate| dice.happens(rate);
        let (doubled, held, late) = (happens(self.doubles), happens(self.disorder), happens(self.late));
        let (malformed, burst, dies) = (happens(self.malformed), happens(self.burst), happens(self.die));
        let late_ms = dice.between(1_000, LATE_MS_MAX);
        let damage = Damage::drawn(dice);
        let extra = dice.between(10, BURST_MAX) as u32;
        Plan {
            doubled,
            held,
            late_by: late.then(|| Duration::from_millis(late_ms)),
            damage: malformed.then_some(damage),
            extra_readings: if burst { extra } else { 0 },
            dies,
        }
    }
}

/// A late reading is up to an hour old: a device that was switched off over a break.
const LATE_MS_MAX: u64 = 3_600_000;
/// The most extra readings in one burst. Bounds the queue of a device.
pub const BURST_MAX: u64 = 50;

/// What happens to one reading; by default nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Plan {
    pub doubled: bool,
    pub held: bool,
    pub late_by: Option<Duration>,
    pub damage: Option<Damage>,
    pub extra_readings: u32,
    pub dies: bool,
}

/// How a payload is spoilt. None of them leaves valid JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// Nothing at all.
    Empty,
    /// Cut off after this part (in thousandths) of the payload.
    Cut { keep_permille: u16 },
    /// A byte that no UTF-8 text contains, somewhere.
    NotUtf8 { at_permille: u16 },
    /// The wrong closing bracket.
    WrongBracket,
}

impl Damage {
    fn drawn(dice: &mut Dice) -> Self {
        let kind = dice.between(0, 3);
        let place = dice.between(0, 999) as u16;
        match kind {
            0 => Self::Empty,
            1 => Self::Cut { keep_permille: place },
            2 => Self::NotUtf8 { at_permille: place },
            _ => Self::WrongBracket,
        }
    }

    /// Spoils a JSON object in place.
    pub fn apply(self, payload: &mut Vec<u8>) {
        let place = |permille: u16, len: usize| len * usize::from(permille) / 1000;
        match self {
            Self::Empty => payload.clear(),
            Self::Cut { keep_permille } => payload.truncate(place(keep_permille, payload.len())),
            Self::NotUtf8 { at_permille } => payload.insert(place(at_permille, payload.len()), 0xFF),
            Self::WrongBracket => {
                payload.pop();
                payload.push(b']');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_is_documented() {
        let rates: FaultRates = "doubles=0.01, late=0.5,die=1".parse().unwrap();
        assert_eq!(rates, FaultRates { doubles: 0.01, late: 0.5, die: 1.0, ..FaultRates::default() });
        assert_eq!("".parse::<FaultRates>().unwrap(), FaultRates::default());
    }

    #[test]
    fn refuses_what_means_nothing() {
        let error = |text: &str| text.parse::<FaultRates>().unwrap_err();
        assert_eq!(error("doubles"), FaultsError::NotAPair("doubles".into()));
        assert_eq!(error("gremlins=1"), FaultsError::UnknownName("gremlins".into()));
        for bad in ["1.1", "-0.1", "NaN", "often"] {
            assert_eq!(error(&format!("late={bad}")), FaultsError::NotAProbability(bad.into()));
        }
    }

    #[test]
    fn each_fault_comes_about_as_often_as_asked() {
        let rates: FaultRates =
            "doubles=0.1,disorder=0.05,late=0.02,malformed=0.2,burst=0.01,die=0.03".parse().unwrap();
        let mut dice = Dice::of(11, 0, 0);
        let plans: Vec<Plan> = (0..100_000).map(|_| rates.plan(&mut dice)).collect();
        let check = |name: &str, expected: usize, is: fn(&Plan) -> bool| {
            let seen = plans.iter().filter(|plan| is(plan)).count();
            // Five standard deviations of the rarest one are 16 %.
            assert!(seen.abs_diff(expected) < expected / 6, "{name}: {seen}, expected {expected}");
        };
        check("doubles", 10_000, |plan| plan.doubled);
        check("disorder", 5_000, |plan| plan.held);
        check("late", 2_000, |plan| plan.late_by.is_some());
        check("malformed", 20_000, |plan| plan.damage.is_some());
        check("burst", 1_000, |plan| plan.extra_readings > 0);
        check("die", 3_000, |plan| plan.dies);
    }

    proptest! {
        #[test]
        fn same_seed_same_plans_and_one_rate_leaves_the_others(seed: u64) {
            let plans = |rates: FaultRates| -> Vec<Plan> {
                let mut dice = Dice::of(seed, 0, 0);
                (0..100).map(|_| rates.plan(&mut dice)).collect()
            };
            let some = FaultRates { late: 0.3, malformed: 0.3, ..FaultRates::default() };
            prop_assert_eq!(plans(some), plans(some));
            let more = FaultRates { doubles: 0.5, ..some };
            for (without, with) in plans(some).iter().zip(plans(more)) {
                prop_assert_eq!((without.late_by, without.damage), (with.late_by, with.damage));
            }
        }

        #[test]
        fn damage_never_leaves_json(seed: u64) {
            let mut payload = br#"{"jobPercentFinished": 7, "producing": true}"#.to_vec();
            Damage::drawn(&mut Dice::of(seed, 0, 0)).apply(&mut payload);
            prop_assert!(serde_json::from_slice::<serde_json::Value>(&payload).is_err());
        }
    }
}
