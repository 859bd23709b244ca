//! Checks passwords: one or two at a time, on the blocking pool, and remembers which were right.
//!
//! A check takes 7 MiB and some tenths of a second, on purpose. After a power cut a thousand devices come at once; what
//! has been proved once must not be proved again at their next reconnect. Only a keyed hash of it is remembered, with a
//! key that never leaves this process.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::Refusal;
use super::passwords::{self, Users};
use super::throttle::Throttle;
use crate::intake::listener::counters::ListenerCounters;
use crate::intake::listener::transport::tls::stamp_of;

/// Logins that wait for their check, in their turn or for others. More would wait longer than a device does.
const WAITING_MAX: usize = 128;
/// Of one address: who floods takes no more than half of the room.
const WAITING_PER_ADDRESS_MAX: usize = WAITING_MAX / 2;
/// Right passwords remembered in each of two generations.
const REMEMBERED: usize = 2_048;
/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Bad lines that are named in the log.
const NAMED_MAX: usize = 10;

/// A keyed hash of a user, its line in the file and a password.
type Proof = [u8; 32];

pub struct Verifier {
    path: PathBuf,
    counters: Arc<ListenerCounters>,
    key: hmac::Key,
    /// Each is room for one check.
    slots: Arc<Semaphore>,
    state: Mutex<State>,
}

struct State {
    users: Arc<Users>,
    stamp: Option<(i64, i64, u64, u64)>,
    looked_at: Instant,
    /// The newer and the older generation: what is used moves to the newer one.
    proved: [HashSet<Proof>; 2],
    throttle: Throttle,
    /// Logins that wait, by address; only those that have some.
    waiting: HashMap<Option<IpAddr>, usize>,
}

impl Verifier {
    pub fn new(path: &Path, counters: Arc<ListenerCounters>) -> Self {
        let mut key = [0; 32];
        // The kernel's generator does not fail once it has been seeded, and ring waits for that.
        SystemRandom::new().fill(&mut key).expect("the kernel gives random bytes");
        let state = State {
            users: Arc::default(),
            stamp: stamp_of(path),
            looked_at: Instant::now(),
            proved: [HashSet::new(), HashSet::new()],
            throttle: Throttle::default(),
            waiting: HashMap::new(),
        };
        let verifier = Verifier {
            path: path.to_owned(),
            counters,
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            slots: Arc::new(Semaphore::new(slots())),
            state: Mutex::new(state),
        };
        verifier.take_in(load(&verifier.path));
        verifier
    }

    /// # Errors
    /// [`Refusal::BadCredentials`] or [`Refusal::Busy`].
    pub async fn check(&self, user: &str, password: &[u8], address: Option<IpAddr>) -> Result<(), Refusal> {
        self.look().await;
        let users = Arc::clone(&self.state().users);
        let hash = users.hash_of(user);
        let proof = hash.map(|hash| self.proof(user, hash, password));
        // A right password needs no turn: nobody who guesses gets here.
        if self.state().has_proved(proof.as_ref()) {
            return Ok(());
        }
        let _waiting = self.queue(address)?;
        self.wait_for_turn(address).await?;
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(|_| Refusal::Busy)?;
        // While this one waited, another may have proved the same.
        if self.state().has_proved(proof.as_ref()) {
            return Ok(());
        }
        let (hash, password) = (hash.unwrap_or(passwords::NOBODY).to_owned(), password.to_vec());
        let checked = tokio::task::spawn_blocking(move || {
            let right = passwords::verify(&password, &hash);
            // Held by the check and not by the login: one that is given up goes on to its end.
            drop(slot);
            right
        });
        match (checked.await.unwrap_or(false), proof) {
            (true, Some(proof)) => {
                self.state().prove(proof);
                Ok(())
            }
            _ => {
                self.failed(address);
                Err(Refusal::BadCredentials)
            }
        }
    }

    /// Notes a login that failed without a check.
    pub fn failed(&self, address: Option<IpAddr>) {
        self.state().throttle.failed(address, Instant::now());
    }

    async fn wait_for_turn(&self, address: Option<IpAddr>) -> Result<(), Refusal> {
        let turn = self.state().throttle.turn(address, Instant::now());
        if turn != Some(Duration::ZERO) {
            ListenerCounters::add(&self.counters.logins_slowed, 1);
        }
        match turn {
            Some(Duration::ZERO) => {}
            Some(wait) => tokio::time::sleep(wait).await,
            None => return Err(Refusal::Busy),
        }
        Ok(())
    }

    fn queue(&self, address: Option<IpAddr>) -> Result<Waiting<'_>, Refusal> {
        let mut state = self.state();
        let all: usize = state.waiting.values().sum();
        let own = state.waiting.entry(address).or_insert(0);
        if *own >= WAITING_PER_ADDRESS_MAX || all >= WAITING_MAX {
            state.leave(address, 0);
            return Err(Refusal::Busy);
        }
        *own += 1;
        Ok(Waiting { verifier: self, address })
    }

    fn proof(&self, user: &str, hash: &str, password: &[u8]) -> Proof {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [user.as_bytes(), hash.as_bytes(), password] {
            // With its length, so that no two of them run into each other.
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        let mut proof = [0; 32];
        proof.copy_from_slice(context.sign().as_ref());
        proof
    }

    /// Reads the file again when it has changed. Who comes meanwhile is judged by what is known.
    async fn look(&self) {
        let stamp = {
            let mut state = self.state();
            if state.looked_at.elapsed() < LOOK_EVERY {
                return;
            }
            state.looked_at = Instant::now();
            let stamp = stamp_of(&self.path);
            if stamp == state.stamp {
                return;
            }
            stamp
        };
        let path = self.path.clone();
        let loaded = tokio::task::spawn_blocking(move || load(&path)).await;
        self.take_in(loaded.unwrap_or_else(|error| Err(std::io::Error::other(error))));
        // Only now: a login that was given up while the file was read leaves that to the next.
        self.state().stamp = stamp;
    }

    fn take_in(&self, loaded: std::io::Result<Users>) {
        let file = self.path.display();
        match loaded {
            Ok(users) => {
                for (line, reason) in users.skipped.iter().take(NAMED_MAX) {
                    tracing::warn!(%file, line, reason, "a line of the password file is skipped");
                }
                tracing::info!(%file, users = users.len(), skipped = users.skipped.len(), "the password file is read");
                ListenerCounters::set(&self.counters.users, users.len() as u64);
                ListenerCounters::set(&self.counters.user_lines_skipped, users.skipped.len() as u64);
                self.state().users = Arc::new(users);
            }
            Err(error) => tracing::error!(%file, %error, "failed to read the password file; what it said before holds"),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

/// A small box keeps its cores for the readings; one with four has the memory for a second check too.
fn slots() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| if cores.get() >= 4 { 2 } else { 1 })
}

fn load(path: &Path) -> std::io::Result<Users> {
    passwords::read(path).map(|text| Users::parse(&text))
}

impl State {
    fn has_proved(&mut self, proof: Option<&Proof>) -> bool {
        let Some(proof) = proof else { return false };
        if self.proved[0].contains(proof) {
            return true;
        }
        let known = self.proved[1].contains(proof);
        if known {
            self.prove(*proof);
        }
        known
    }

    fn leave(&mut self, address: Option<IpAddr>, n: usize) {
        if let Some(waiting) = self.waiting.get_mut(&address) {
            *waiting -= n;
            if *waiting == 0 {
                self.waiting.remove(&address);
            }
        }
    }

    fn prove(&mut self, proof: Proof) {
        if self.proved[0].len() >= REMEMBERED {
            self.proved.swap(0, 1);
            self.proved[0].clear();
        }
        self.proved[0].insert(proof);
    }
}

/// A place among those that wait.
struct Waiting<'a> {
    verifier: &'a Verifier,
    address: Option<IpAddr>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.verifier.state().leave(self.address, 1);
    }
}

#[cfg(test)]
impl Verifier {
    pub async fn hold_slots(&self) -> tokio::sync::OwnedSemaphorePermit {
        let all = u32::try_from(slots()).expect("one or two");
        Arc::clone(&self.slots).acquire_many_owned(all).await.expect("the slots are never closed")
    }

    /// Addresses with logins that wait.
    pub fn waiting(&self) -> usize {
        self.state().waiting.len()
    }

    /// The file as it is now has been looked at.
    pub fn is_up_to_date(&self) -> bool {
        self.state().stamp == stamp_of(&self.path)
    }
}
