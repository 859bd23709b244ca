"""aiomqtt in the scenarios of the README."""

import asyncio
import ssl

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from common import COUNT, LARGE, USER_PROPERTIES, arguments, cut_off, expect, payloads

args = arguments()


def client(name, clean=True, will=None):
    options = {}
    if args.version == 5:
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 0 if clean else 300
        options = {"clean_start": clean, "properties": properties}
    else:
        options = {"clean_session": clean}
    if args.scheme in ("tls", "wss"):
        options["tls_params"] = aiomqtt.TLSParameters(ca_certs=args.ca, cert_reqs=ssl.CERT_REQUIRED)
    if will:
        options["will"] = aiomqtt.Will(f"{args.prefix}/will", will, qos=1)
    return aiomqtt.Client(
        args.host,
        args.port,
        identifier=f"{args.prefix.replace('/', '-')}-{name}",
        username=args.user,
        password=args.password,
        protocol=aiomqtt.ProtocolVersion.V5 if args.version == 5 else aiomqtt.ProtocolVersion.V311,
        transport="websockets" if args.scheme in ("ws", "wss") else "tcp",
        # The caller stops what hangs; a busy machine is not a fault.
        timeout=120,
        **options,
    )


async def subscribe(receiver, topic, qos):
    granted = await receiver.subscribe(f"{args.prefix}/{topic}", qos=qos)
    expect("granted", [getattr(reason, "value", reason) for reason in granted], [qos])


async def publish(sender, topic, payload, qos, **options):
    await sender.publish(f"{args.prefix}/{topic}", payload, qos=qos, **options)


async def take(receiver, count):
    messages = []
    async for message in receiver.messages:
        messages.append(message)
        if len(messages) == count:
            return messages


async def qos():
    async with client("qos") as c:
        for level in (0, 1, 2):
            await subscribe(c, f"qos/{level}", level)
            sent = payloads(f"qos {level}")
            for payload in sent:
                await publish(c, f"qos/{level}", payload, level)
            messages = await take(c, COUNT)
            expect("payloads", [message.payload for message in messages], sent)
            expect("QoS", {message.qos for message in messages}, {level})


async def resume():
    async with client("resume", clean=False) as c:
        await subscribe(c, "resume", 1)
    sent = payloads("while away", 5)
    async with client("resume-other") as other:
        for payload in sent:
            await publish(other, "resume", payload, 1)
    async with client("resume", clean=False) as c:
        messages = await take(c, 5)
        expect("payloads", [message.payload for message in messages], sent)
    async with client("resume"):
        pass


async def will():
    async with client("watcher") as watcher:
        await subscribe(watcher, "will", 1)
        try:
            async with client("mortal", will=b"gone") as mortal:
                cut_off(mortal._client.socket())
                await take(mortal, 1)
        except aiomqtt.MqttError:
            pass
        expect("will", (await take(watcher, 1))[0].payload, b"gone")


async def retained():
    async with client("retained") as publisher:
        await publish(publisher, "retained/a", b"kept", 1, retain=True)
        async with client("retained-reader") as reader:
            await subscribe(reader, "retained/#", 1)
            message = (await take(reader, 1))[0]
            expect("retained", (message.payload, bool(message.retain)), (b"kept", True))
        await publish(publisher, "retained/a", b"", 1, retain=True)
        async with client("retained-late") as reader:
            await subscribe(reader, "retained/#", 1)
            await publish(publisher, "retained/b", b"after", 1)
            message = (await take(reader, 1))[0]
            expect("nothing retained", (message.payload, bool(message.retain)), (b"after", False))


async def large():
    async with client("large") as c:
        await subscribe(c, "large", 1)
        await publish(c, "large", LARGE, 1)
        expect("large payload", (await take(c, 1))[0].payload == LARGE, True)


async def properties():
    async with client("properties") as c:
        await subscribe(c, "properties", 1)
        sent = Properties(PacketTypes.PUBLISH)
        sent.UserProperty = USER_PROPERTIES
        sent.ResponseTopic = f"{args.prefix}/answers"
        sent.CorrelationData = b"\x00\x01\xff"
        sent.ContentType = "text/plain"
        await publish(c, "properties", b"p", 1, properties=sent)
        got = (await take(c, 1))[0].properties
        expect("user properties", got.UserProperty, USER_PROPERTIES)
        have = (got.ResponseTopic, got.CorrelationData, got.ContentType)
        expect("properties", have, (f"{args.prefix}/answers", b"\x00\x01\xff", "text/plain"))


async def main():
    for scenario in args.scenarios.split(","):
        await globals()[scenario]()
        print("ok", scenario, flush=True)


asyncio.run(main())
