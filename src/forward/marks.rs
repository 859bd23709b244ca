//! Up to where each partition has acknowledged. A broker that comes back without what it had acknowledged gives offsets
//! out a second time. Pure.

use std::collections::HashMap;
use std::num::NonZeroU16;
use std::sync::Arc;

/// A partition, by number: of one cluster, in this process.
pub type Mark = NonZeroU16;

/// What an acknowledgement says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged {
    /// `None`: there are more partitions than numbers.
    pub mark: Option<Mark>,
    /// The offset was given before: the highest one that this partition had acknowledged.
    pub again: Option<i64>,
}

#[derive(Debug, Default)]
pub struct Marks {
    partitions: HashMap<(Arc<str>, i32), (Mark, i64)>,
}

impl Marks {
    /// A record of ours got this offset. Negative: the broker knew it already and did not say where it is.
    pub fn acknowledged(&mut self, topic: &Arc<str>, partition: i32, offset: i64) -> Acknowledged {
        if let Some((mark, highest)) = self.partitions.get_mut(&(Arc::clone(topic), partition)) {
            let again = (0..=*highest).contains(&offset).then_some(*highest);
            *highest = if again.is_some() { offset } else { offset.max(*highest) };
            return Acknowledged { mark: Some(*mark), again };
        }
        let number = u16::try_from(self.partitions.len() + 1).ok().and_then(Mark::new);
        if let Some(mark) = number {
            self.partitions.insert((Arc::clone(topic), partition), (mark, offset));
        }
        Acknowledged { mark: number, again: None }
    }

    /// All that was acknowledged is sent again: what the partitions said before means nothing any more.
    pub fn forget(&mut self) {
        self.partitions.values_mut().for_each(|(_, highest)| *highest = -1);
    }
}

/// Whether a cluster still has what it acknowledged. It looks at nothing before [`Watch::begin`].
#[derive(Debug, Default)]
pub struct Watch {
    marks: Option<Marks>,
    loss: Option<String>,
}

impl Watch {
    pub fn begin(&mut self) {
        self.marks = Some(Marks::default());
    }

    /// Returns the partition's number.
    pub fn acknowledged(&mut self, topic: &Arc<str>, partition: i32, offset: i64) -> Option<Mark> {
        let acknowledged = self.marks.as_mut()?.acknowledged(topic, partition, offset);
        if let Some(highest) = acknowledged.again {
            self.lost(format!("topic {topic}, partition {partition} gave offset {offset} after {highest}"));
        }
        acknowledged.mark
    }

    /// The cluster has lost what it had acknowledged; `how` that shows.
    pub fn lost(&mut self, how: String) {
        if let Some(marks) = &mut self.marks {
            marks.forget();
            self.loss.get_or_insert(how);
        }
    }

    /// Told once.
    pub fn take_loss(&mut self) -> Option<String> {
        self.loss.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_given_twice_is_seen_per_partition() {
        let mut marks = Marks::default();
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let first = marks.acknowledged(&a, 0, 10);
        assert_eq!((first.mark, first.again), (Mark::new(1), None));
        assert_eq!(marks.acknowledged(&a, 1, 3).mark, Mark::new(2));
        assert_eq!(marks.acknowledged(&b, 0, 3).again, None);
        assert_eq!(marks.acknowledged(&a, 0, 11).again, None);
        assert_eq!(marks.acknowledged(&a, 0, -1).again, None, "a repeat that the broker knew");
        assert_eq!(marks.acknowledged(&a, 0, 11).again, Some(11), "the same offset");
        assert_eq!(marks.acknowledged(&a, 0, 4).again, Some(11));
        assert_eq!(marks.acknowledged(&a, 0, 5).again, None, "told once");
    }

    #[test]
    fn what_is_forgotten_is_not_told() {
        let mut marks = Marks::default();
        let topic: Arc<str> = "a".into();
        marks.acknowledged(&topic, 0, 10);
        marks.forget();
        assert_eq!(marks.acknowledged(&topic, 0, 2).again, None);
        assert_eq!(marks.acknowledged(&topic, 0, 2).again, Some(2));
    }
}
