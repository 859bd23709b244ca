//! A thin link between the gateway and Kafka: 300 ms round trip, 1 Mbit/s each way, as a poor LTE connection has.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Half of the round trip.
pub const DELAY: Duration = Duration::from_millis(150);
pub const BITS_PER_SECOND: f64 = 1e6;
/// One piece on its way, a few packets' worth.
const PIECE: usize = 2048;
/// What the link holds of one connection: the bytes that fly (18.75 KB) and a modem's buffer behind them.
const PIECES_MAX: usize = 32;

/// One direction of the link, shared by all connections: when it is free again.
struct Lane(Mutex<Instant>);

impl Lane {
    /// When the last bit of `bytes` has left, if they are given to it now.
    fn departure(&self, bytes: usize) -> Instant {
        let mut free = self.0.lock().unwrap();
        let took = Duration::from_secs_f64(bytes as f64 * 8.0 / BITS_PER_SECOND);
        *free = (*free).max(Instant::now()) + took;
        *free
    }
}

/// Starts the link on `port` of this machine, towards `upstream`. It ends with the process.
pub fn start(listener: TcpListener, upstream: u16) {
    let up = Arc::new(Lane(Mutex::new(Instant::now())));
    let down = Arc::new(Lane(Mutex::new(Instant::now())));
    thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            let Ok(far) = TcpStream::connect(("127.0.0.1", upstream)) else { continue };
            let ends = [&near, &far];
            ends.iter().for_each(|end| end.set_nodelay(true).unwrap());
            carry(&up, near.try_clone().unwrap(), far.try_clone().unwrap());
            carry(&down, far, near);
        }
    });
}

/// Takes pieces at the pace of the lane, and gives each on when it has crossed.
fn carry(lane: &Arc<Lane>, mut from: TcpStream, to: TcpStream) {
    let (pieces, arriving) = sync_channel(PIECES_MAX);
    let lane = Arc::clone(lane);
    thread::spawn(move || take(&lane, &mut from, &pieces));
    thread::spawn(move || deliver(&arriving, to));
}

fn take(lane: &Lane, from: &mut TcpStream, pieces: &SyncSender<(Instant, Vec<u8>)>) {
    let mut piece = [0; PIECE];
    while let Ok(read) = from.read(&mut piece)
        && read > 0
    {
        let departure = lane.departure(read);
        if pieces.send((departure + DELAY, piece[..read].to_vec())).is_err() {
            break;
        }
        // The next piece is not taken before this one has left: TCP feels the link's pace.
        thread::sleep(departure.saturating_duration_since(Instant::now()));
    }
    let _ = from.shutdown(Shutdown::Read);
}

fn deliver(arriving: &Receiver<(Instant, Vec<u8>)>, mut to: TcpStream) {
    for (due, piece) in arriving {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&piece).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
