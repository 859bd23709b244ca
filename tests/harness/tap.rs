//! The tap: a pass-through between gateway and Mosquitto that writes down what the gateway has acknowledged.
//!
//! *Accepted* is what promise 1 speaks of: the gateway's own PUBACK, read off its socket here, whether or not Mosquitto
//! ever hears of it. The tap can cut, hold and refuse connections. It never changes, delays or reorders a byte otherwise.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::jobs::PATIENCE;
use super::wire::{self, Packet};

/// A publication on its way to the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub topic: String,
    pub payload: Bytes,
}

/// What the tap has seen, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// Every QoS 1 PUBLISH towards the gateway, repeats included.
    pub offered: Vec<Message>,
    /// Every one for which the gateway's PUBACK came, on the connection on which it was offered.
    pub accepted: Vec<Message>,
    /// PUBACKs for nothing that was offered on their connection, and those that refuse (version 5).
    pub stray_pubacks: usize,
    /// Connections on which bytes were seen that are not MQTT.
    pub malformed: usize,
    /// Client ids of the CONNECTs, in order.
    pub connects: Vec<String>,
    /// Subscriptions that the broker has confirmed.
    pub subacks: usize,
}

pub struct Tap {
    port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    inner: Mutex<Inner>,
    news: Condvar,
}

#[derive(Default)]
struct Inner {
    history: History,
    upstream: u16,
    held: bool,
    refusing: bool,
    closed: bool,
    /// Both sockets of each connection, to cut them.
    open: BTreeMap<usize, [TcpStream; 2]>,
    connections: usize,
}

/// Who sent the bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Gateway,
    Broker,
}

/// What both directions of one connection share.
#[derive(Default)]
struct Connection {
    level: u8,
    /// By packet id, oldest first: a broker that ignores its window has more than 65,535 messages on the way to a slow
    /// client and gives ids twice. PUBACKs come in the order of the messages.
    unacknowledged: BTreeMap<u16, VecDeque<Message>>,
}

impl Tap {
    /// Listens on a port of its own and passes on to `upstream` on 127.0.0.1.
    pub fn start(upstream: u16) -> Tap {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State::default());
        state.lock().upstream = upstream;
        let accepting = Arc::clone(&state);
        std::thread::spawn(move || accepting.accept_all(&listener));
        Tap { port, state }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Closes every connection now. New ones are let through.
    pub fn cut(&self) {
        self.state.lock().cut();
    }

    /// Passes nothing on in either direction until [`Tap::resume`]; connections stay open.
    pub fn hold(&self) {
        self.state.lock().held = true;
    }

    pub fn resume(&self) {
        self.state.lock().held = false;
        self.state.news.notify_all();
    }

    /// Cuts, and closes new connections at once, until told otherwise.
    pub fn refuse(&self, refusing: bool) {
        let mut inner = self.state.lock();
        inner.refusing = refusing;
        if refusing {
            inner.cut();
        }
    }

    pub fn history(&self) -> History {
        self.state.lock().history.clone()
    }

    /// Waits until the history says so, and returns it.
    pub fn wait_for(&self, what: &str, mut seen: impl FnMut(&History) -> bool) -> History {
        let inner = self.state.lock();
        let waiting = |inner: &mut Inner| !seen(&inner.history);
        let (inner, waited) = self.state.news.wait_timeout_while(inner, PATIENCE, waiting).unwrap();
        let history = inner.history.clone();
        drop(inner);
        let (offered, accepted) = (history.offered.len(), history.accepted.len());
        assert!(!waited.timed_out(), "the tap never saw {what}: {offered} offered, {accepted} accepted");
        history
    }

    /// Waits until no PUBACK has come for `silence`: the gateway pushes back, or there is nothing left to accept.
    pub fn wait_quiet(&self, silence: Duration) -> History {
        let mut inner = self.state.lock();
        loop {
            let before = inner.history.accepted.len();
            let same = |inner: &mut Inner| inner.history.accepted.len() == before;
            let (after, waited) = self.state.news.wait_timeout_while(inner, silence, same).unwrap();
            if waited.timed_out() {
                return after.history.clone();
            }
            inner = after;
        }
    }

    /// Waits until `count` PUBACKs have come.
    pub fn wait_accepted(&self, count: usize) -> History {
        self.wait_for(&format!("{count} PUBACKs"), |history| history.accepted.len() >= count)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let mut inner = self.state.lock();
        inner.closed = true;
        inner.cut();
        drop(inner);
        self.state.news.notify_all();
        // Wakes the accepting thread, which then sees that the tap is closed.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    fn accept_all(self: Arc<Self>, listener: &TcpListener) {
        for gateway in listener.incoming().map_while(Result::ok) {
            if self.lock().closed {
                return;
            }
            // A broker that is away shows to the gateway as a closed connection: dropping the socket does that.
            drop(self.open(gateway));
        }
    }

    fn open(self: &Arc<Self>, gateway: TcpStream) -> io::Result<()> {
        let mut inner = self.lock();
        if inner.refusing {
            return Ok(());
        }
        let broker = TcpStream::connect(("127.0.0.1", inner.upstream))?;
        broker.set_nodelay(true)?;
        gateway.set_nodelay(true)?;
        let number = inner.connections;
        inner.connections += 1;
        inner.open.insert(number, [gateway.try_clone()?, broker.try_clone()?]);
        drop(inner);
        let connection = Arc::new(Mutex::new(Connection::default()));
        self.pump(number, &connection, From::Gateway, gateway.try_clone()?, broker.try_clone()?);
        self.pump(number, &connection, From::Broker, broker, gateway);
        Ok(())
    }

    /// Passes one direction on until its end, then closes both.
    fn pump(
        self: &Arc<Self>,
        number: usize,
        shared: &Arc<Mutex<Connection>>,
        from: From,
        mut source: TcpStream,
        mut sink: TcpStream,
    ) {
        let (state, shared) = (Arc::clone(self), Arc::clone(shared));
        std::thread::spawn(move || {
            let mut chunk = vec![0; 64 * 1024];
            let mut decoding = Some(BytesMut::new());
            while let Ok(read) = source.read(&mut chunk)
                && read > 0
            {
                // Written down before it is passed on: a PUBLISH must be known before its PUBACK can come.
                state.write_down(from, &shared, &mut decoding, &chunk[..read]);
                state.wait_while_held();
                if sink.write_all(&chunk[..read]).is_err() {
                    break;
                }
            }
            state.lock().close(number);
        });
    }

    fn wait_while_held(&self) {
        let waiting = |inner: &mut Inner| inner.held && !inner.closed;
        drop(self.news.wait_while(self.lock(), waiting).unwrap());
    }

    /// `decoding` ends with the first bytes that are not MQTT: from there on a frame cannot be told from another.
    fn write_down(&self, from: From, shared: &Mutex<Connection>, decoding: &mut Option<BytesMut>, bytes: &[u8]) {
        let Some(buffer) = decoding else { return };
        buffer.extend_from_slice(bytes);
        let mut connection = shared.lock().unwrap();
        let mut inner = self.lock();
        loop {
            let frame = match wire::take_frame(buffer) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(_) => return inner.history.give_up(decoding),
            };
            match wire::read(&frame, connection.level) {
                Ok(packet) => inner.history.add(from, &mut connection, packet),
                Err(_) => return inner.history.give_up(decoding),
            }
        }
        self.news.notify_all();
    }
}

impl Inner {
    fn cut(&mut self) {
        while let Some((_, sockets)) = self.open.pop_first() {
            // Fails only for a socket that the peer has already closed.
            sockets.iter().for_each(|socket| drop(socket.shutdown(Shutdown::Both)));
        }
    }

    fn close(&mut self, number: usize) {
        for socket in self.open.remove(&number).iter().flatten() {
            drop(socket.shutdown(Shutdown::Both));
        }
    }
}

impl History {
    fn give_up(&mut self, decoding: &mut Option<BytesMut>) {
        self.malformed += 1;
        *decoding = None;
    }

    fn add(&mut self, from: From, connection: &mut Connection, packet: Packet) {
        match (from, packet) {
            (From::Gateway, Packet::Connect { level, client_id }) => {
                connection.level = level;
                self.connects.push(client_id);
            }
            (From::Broker, Packet::Publish { topic, packet_id, payload, .. }) if packet_id != 0 => {
                let message = Message { topic, payload };
                connection.unacknowledged.entry(packet_id).or_default().push_back(message.clone());
                self.offered.push(message);
            }
            (From::Gateway, Packet::PubAck { packet_id, reason }) => {
                let answered = connection.unacknowledged.get_mut(&packet_id).and_then(VecDeque::pop_front);
                match answered.filter(|_| reason < 0x80) {
                    Some(message) => self.accepted.push(message),
                    None => self.stray_pubacks += 1,
                }
            }
            (From::Broker, Packet::SubAck) => self.subacks += 1,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::mosquitto::{Mosquitto, Options};
    use super::super::mqtt::{Publisher, Subscriber};
    use super::super::readings::{Reading, id_of};
    use super::*;

    /// A subscriber in the gateway's place, behind a tap, and a broker with `count` readings for it.
    fn behind_tap(count: usize) -> (Mosquitto, Tap, Subscriber) {
        let broker = Mosquitto::start(&Options::default());
        let tap = Tap::start(broker.port());
        let subscriber = Subscriber::connect(tap.port(), "gateway", None, "plant/#");
        let mut publisher = Publisher::connect(broker.port(), "dev", None);
        (0..count).for_each(|number| publisher.publish(&Reading::new(1, number)));
        publisher.finish();
        (broker, tap, subscriber)
    }

    fn ids(messages: &[Message]) -> Vec<String> {
        messages.iter().map(|message| id_of(&message.payload).unwrap()).collect()
    }

    fn ids_to(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("d1-{number}")).collect()
    }

    #[test]
    fn accepted_is_what_was_acknowledged_in_order_and_nothing_else() {
        let (_broker, tap, mut subscriber) = behind_tap(20);
        subscriber.take(12);
        let (_, unacknowledged, _) = subscriber.next();
        let history = tap.wait_accepted(12);
        assert_eq!(ids(&history.accepted), ids_to(12));
        assert_eq!(id_of(&unacknowledged).as_deref(), Some("d1-12"));
        assert!(history.offered.len() > 12);
        assert_eq!((history.stray_pubacks, history.malformed), (0, 0));
        assert_eq!((history.connects, history.subacks), (vec!["gateway".to_owned()], 1));
        assert_eq!(tap.wait_quiet(Duration::from_millis(50)).accepted.len(), 12);
    }

    #[test]
    fn after_a_cut_the_rest_is_offered_again_and_an_old_packet_id_is_a_stray() {
        let (_broker, tap, mut subscriber) = behind_tap(10);
        subscriber.take(3);
        tap.wait_accepted(3);
        tap.cut();
        let mut subscriber = Subscriber::connect(tap.port(), "gateway", None, "plant/#");
        assert!(subscriber.session_present());
        // The cut may have swallowed the last PUBACKs after the tap had counted them: then their readings come again.
        while subscriber.take(1).pop().and_then(|(_, payload)| id_of(&payload)).as_deref() != Some("d1-9") {}
        subscriber.acknowledge(60_000);
        let history = tap.wait_for("a stray PUBACK", |history| history.stray_pubacks == 1);
        let accepted = ids(&history.accepted);
        assert_eq!(accepted.iter().collect::<std::collections::BTreeSet<_>>().len(), 10);
        assert!(history.offered.len() > 10, "what was open at the cut is offered twice");
    }

    #[test]
    fn a_held_connection_is_silent_and_goes_on_where_it_was() {
        let (broker, tap, mut subscriber) = behind_tap(5);
        subscriber.take(5);
        tap.wait_accepted(5);
        tap.hold();
        let mut publisher = Publisher::connect(broker.port(), "dev2", None);
        publisher.publish(&Reading::new(2, 0));
        publisher.finish();
        tap.wait_for("the held publication", |history| history.offered.len() == 6);
        assert_eq!(tap.history().accepted.len(), 5);
        tap.resume();
        subscriber.take(1);
        tap.wait_accepted(6);
    }

    #[test]
    fn a_refusing_tap_lets_nobody_through() {
        let broker = Mosquitto::start(&Options::default());
        let tap = Tap::start(broker.port());
        tap.refuse(true);
        let mut refused = TcpStream::connect(("127.0.0.1", tap.port())).unwrap();
        assert_eq!(refused.read(&mut [0]).unwrap_or(0), 0, "closed, without a byte");
        tap.refuse(false);
        Subscriber::connect(tap.port(), "gateway", None, "plant/#");
        assert_eq!(tap.history().connects, ["gateway"]);
    }
}
