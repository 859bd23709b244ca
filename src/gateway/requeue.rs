//! Dead letters on their way back: they go to the tail of their lane and leave their table in the commit that holds them
//! again. Whoever asked is answered then, so that a long list comes in slices and memory holds one of them.

use tokio::sync::oneshot;

use super::hub::Hub;
use crate::clock;
use crate::intake::Fate;
use crate::record::Body;
use crate::spool::Commit;

/// One question whose letters are not all durable in their lane yet.
pub(super) struct Waiting {
    /// Rows in the table of dead letters.
    ids: Vec<i64>,
    done: oneshot::Sender<usize>,
}

impl Hub {
    pub(super) fn requeue(&mut self, number: u32, letters: Vec<(i64, Body)>, done: oneshot::Sender<usize>) {
        let (now_us, wall_ms) = (self.state.now_us, clock::wall_ms());
        let default = self.order.last().copied().unwrap_or(0);
        let lane = self.lanes.iter().position(|l| l.number == number).unwrap_or(default);
        let mut ids = Vec::with_capacity(letters.len());
        for (id, body) in letters {
            // Asked for twice while the first waits: it goes once.
            if self.state.revived.iter().any(|(_, _, known)| *known == id) {
                continue;
            }
            self.lanes[lane].accept(body, Fate::Forward, None, now_us, wall_ms);
            self.state.revived.push((lane, self.lanes[lane].last_sequence(), id));
            ids.push(id);
        }
        // From direct they would go without a commit, and the table would keep them.
        self.lanes[lane].spool_now(now_us);
        self.state.revival.push(Waiting { ids, done });
        self.answer_requeues();
    }

    /// Requeued dead letters leave their table in the commit that holds them again, never before.
    pub(super) fn revive(&mut self, commit: &mut Commit) {
        let safe =
            self.state.revived.iter().filter(|(lane, sequence, _)| !self.lanes[*lane].in_memory_alone(*sequence));
        self.state.reviving = safe.map(|(_, _, id)| *id).collect();
        commit.revived.extend_from_slice(&self.state.reviving);
    }

    pub(super) fn answer_requeues(&mut self) {
        let revived = &self.state.revived;
        let waits = |w: &Waiting| w.ids.iter().any(|id| revived.iter().any(|(_, _, known)| known == id));
        for answered in self.state.revival.extract_if(.., |w| !waits(w)) {
            // Who has given up asking has no use for the answer.
            let _ = answered.done.send(answered.ids.len());
        }
    }
}
