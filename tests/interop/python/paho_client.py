"""paho-mqtt in the scenarios of the README."""

import queue
import ssl
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from common import COUNT, LARGE, USER_PROPERTIES, arguments, cut_off, expect, payloads

args = arguments()


class Client:
    """A connected client whose messages can be waited for."""

    def __init__(self, name, clean=True, will=None):
        websocket = args.scheme in ("ws", "wss")
        version = mqtt.MQTTv5 if args.version == 5 else mqtt.MQTTv311
        # In version 5 it is for the CONNECT to say.
        session = {} if args.version == 5 else {"clean_session": clean}
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=f"{args.prefix.replace('/', '-')}-{name}",
            protocol=version,
            transport="websockets" if websocket else "tcp",
            reconnect_on_failure=False,
            **session,
        )
        if args.scheme in ("tls", "wss"):
            self.client.tls_set(ca_certs=args.ca, cert_reqs=ssl.CERT_REQUIRED)
        if args.user:
            self.client.username_pw_set(args.user, args.password)
        if will:
            self.client.will_set(f"{args.prefix}/will", will, qos=1)
        self.inbox = queue.Queue()
        self.answers = queue.Queue()
        self.closed = threading.Event()
        self.client.on_message = lambda _c, _u, message: self.inbox.put(message)
        self.client.on_connect = lambda _c, _u, flags, reason, _p: self.answers.put((flags, reason))
        self.client.on_subscribe = lambda _c, _u, _m, reasons, _p: self.answers.put(reasons)
        self.client.on_disconnect = lambda *_: self.closed.set()
        self.client.connect(args.host, args.port, keepalive=60, **self._connect_options(clean))
        self.client.loop_start()
        flags, reason = self.answers.get()
        expect("CONNACK", reason.value, 0)
        self.session_present = flags.session_present

    @staticmethod
    def _connect_options(clean):
        if args.version != 5:
            return {}
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 0 if clean else 300
        return {"clean_start": clean, "properties": properties}

    def subscribe(self, topic, qos):
        self.client.subscribe(f"{args.prefix}/{topic}", qos)
        expect("granted", [reason.value for reason in self.answers.get()], [qos])

    def publish(self, topic, payload, qos, retain=False, properties=None):
        self.client.publish(f"{args.prefix}/{topic}", payload, qos, retain, properties).wait_for_publish()

    def take(self, count):
        return [self.inbox.get() for _ in range(count)]

    def end(self):
        self.client.disconnect()
        self.closed.wait()
        self.client.loop_stop()


def qos():
    client = Client("qos")
    for level in (0, 1, 2):
        client.subscribe(f"qos/{level}", level)
        sent = payloads(f"qos {level}")
        for payload in sent:
            client.publish(f"qos/{level}", payload, level)
        messages = client.take(COUNT)
        expect("payloads", [message.payload for message in messages], sent)
        expect("QoS", {message.qos for message in messages}, {level})
    client.end()


def resume():
    client = Client("resume", clean=False)
    expect("session present", client.session_present, False)
    client.subscribe("resume", 1)
    client.end()
    sent = payloads("while away", 5)
    other = Client("resume-other")
    for payload in sent:
        other.publish("resume", payload, 1)
    other.end()
    client = Client("resume", clean=False)
    expect("session present", client.session_present, True)
    expect("payloads", [message.payload for message in client.take(5)], sent)
    client.end()
    Client("resume").end()


def will():
    watcher = Client("watcher")
    watcher.subscribe("will", 1)
    cut_off(Client("mortal", will=b"gone").client.socket())
    expect("will", watcher.take(1)[0].payload, b"gone")
    watcher.end()


def retained():
    publisher = Client("retained")
    publisher.publish("retained/a", b"kept", 1, retain=True)
    reader = Client("retained-reader")
    reader.subscribe("retained/#", 1)
    message = reader.take(1)[0]
    expect("retained", (message.payload, message.retain), (b"kept", True))
    reader.end()
    publisher.publish("retained/a", b"", 1, retain=True)
    reader = Client("retained-late")
    reader.subscribe("retained/#", 1)
    publisher.publish("retained/b", b"after", 1)
    message = reader.take(1)[0]
    expect("nothing retained", (message.payload, message.retain), (b"after", False))
    reader.end()
    publisher.end()


def large():
    client = Client("large")
    client.subscribe("large", 1)
    client.publish("large", LARGE, 1)
    expect("large payload", client.take(1)[0].payload == LARGE, True)
    client.end()


def properties():
    client = Client("properties")
    client.subscribe("properties", 1)
    sent = Properties(PacketTypes.PUBLISH)
    sent.UserProperty = USER_PROPERTIES
    sent.ResponseTopic = f"{args.prefix}/answers"
    sent.CorrelationData = b"\x00\x01\xff"
    sent.ContentType = "text/plain"
    client.publish("properties", b"p", 1, properties=sent)
    got = client.take(1)[0].properties
    expect("user properties", got.UserProperty, USER_PROPERTIES)
    have = (got.ResponseTopic, got.CorrelationData, got.ContentType)
    expect("properties", have, (f"{args.prefix}/answers", b"\x00\x01\xff", "text/plain"))
    client.end()


for scenario in args.scenarios.split(","):
    globals()[scenario]()
    print("ok", scenario, flush=True)
