// MQTT.js in the scenarios of the README.
"use strict";

const fs = require("node:fs");
const { parseArgs, isDeepStrictEqual } = require("node:util");
const mqtt = require("mqtt");

const names = ["host", "port", "scheme", "version", "prefix", "scenarios", "ca", "user", "password"];
const { values: args } = parseArgs({ options: Object.fromEntries(names.map((name) => [name, { type: "string" }])) });
const V5 = args.version === "5";
const COUNT = 20;
const LARGE = Buffer.from(Array.from({ length: 200 * 1024 }, (_, n) => (n * 7) % 251));

function expect(what, have, want) {
  if (!isDeepStrictEqual(have, want)) {
    console.error(`${what}: ${JSON.stringify(have)} instead of ${JSON.stringify(want)}`.slice(0, 1000));
    process.exit(1);
  }
}

const payloads = (name, count = COUNT) => Array.from({ length: count }, (_, n) => `${name} ${n}`);

class Client {
  constructor(mqttClient) {
    this.client = mqttClient;
    this.inbox = [];
    this.waiting = null;
    mqttClient.on("message", (_topic, payload, packet) => {
      this.inbox.push({ payload, packet });
      this.waiting?.();
    });
  }

  static async connect(name, { clean = true, will } = {}) {
    const options = {
      clientId: `${args.prefix.replaceAll("/", "-")}-${name}`,
      protocolVersion: Number(args.version),
      clean,
      username: args.user,
      password: args.password,
      ca: args.ca && fs.readFileSync(args.ca),
      reconnectPeriod: 0,
      connectTimeout: 120_000,
      will: will && { topic: `${args.prefix}/will`, payload: will, qos: 1 },
      properties: V5 ? { sessionExpiryInterval: clean ? 0 : 300 } : undefined,
    };
    const mqttClient = mqtt.connect(`${args.scheme === "tcp" ? "mqtt" : args.scheme === "tls" ? "mqtts" : args.scheme}://${args.host}:${args.port}/mqtt`, options);
    // Before the connection is there: a kept session's messages come with it.
    const client = new Client(mqttClient);
    await new Promise((resolve, reject) => {
      mqttClient.once("connect", (connack) => {
        client.sessionPresent = connack.sessionPresent;
        resolve();
      });
      mqttClient.once("error", reject);
    });
    return client;
  }

  async subscribe(topic, qos) {
    const granted = await this.client.subscribeAsync(`${args.prefix}/${topic}`, { qos });
    expect("granted", granted.map((grant) => grant.qos), [qos]);
  }

  publish(topic, payload, qos, options = {}) {
    return this.client.publishAsync(`${args.prefix}/${topic}`, payload, { qos, ...options });
  }

  async take(count) {
    while (this.inbox.length < count) {
      await new Promise((resolve) => {
        this.waiting = resolve;
      });
    }
    return this.inbox.splice(0, count);
  }

  end() {
    return this.client.endAsync();
  }
}

const texts = (messages) => messages.map((message) => message.payload.toString());

const scenarios = {
  async qos() {
    const client = await Client.connect("qos");
    for (const qos of [0, 1, 2]) {
      await client.subscribe(`qos/${qos}`, qos);
      const sent = payloads(`qos ${qos}`);
      for (const payload of sent) await client.publish(`qos/${qos}`, payload, qos);
      const messages = await client.take(COUNT);
      expect("payloads", texts(messages), sent);
      expect("QoS", [...new Set(messages.map((message) => message.packet.qos))], [qos]);
    }
    await client.end();
  },

  async resume() {
    let client = await Client.connect("resume", { clean: false });
    expect("session present", client.sessionPresent, false);
    await client.subscribe("resume", 1);
    await client.end();
    const sent = payloads("while away", 5);
    const other = await Client.connect("resume-other");
    for (const payload of sent) await other.publish("resume", payload, 1);
    await other.end();
    client = await Client.connect("resume", { clean: false });
    expect("session present", client.sessionPresent, true);
    expect("payloads", texts(await client.take(5)), sent);
    await client.end();
    await (await Client.connect("resume")).end();
  },

  async will() {
    const watcher = await Client.connect("watcher");
    await watcher.subscribe("will", 1);
    const mortal = await Client.connect("mortal", { will: "gone" });
    mortal.client.stream.destroy();
    expect("will", texts(await watcher.take(1)), ["gone"]);
    await watcher.end();
  },

  async retained() {
    const publisher = await Client.connect("retained");
    await publisher.publish("retained/a", "kept", 1, { retain: true });
    let reader = await Client.connect("retained-reader");
    await reader.subscribe("retained/#", 1);
    let [message] = await reader.take(1);
    expect("retained", [message.payload.toString(), message.packet.retain], ["kept", true]);
    await reader.end();
    await publisher.publish("retained/a", "", 1, { retain: true });
    reader = await Client.connect("retained-late");
    await reader.subscribe("retained/#", 1);
    await publisher.publish("retained/b", "after", 1);
    [message] = await reader.take(1);
    expect("nothing retained", [message.payload.toString(), message.packet.retain], ["after", false]);
    await reader.end();
    await publisher.end();
  },

  async large() {
    const client = await Client.connect("large");
    await client.subscribe("large", 1);
    await client.publish("large", LARGE, 1);
    const [message] = await client.take(1);
    expect("large payload", message.payload.equals(LARGE), true);
    await client.end();
  },

  async properties() {
    const client = await Client.connect("properties");
    await client.subscribe("properties", 1);
    const properties = {
      userProperties: { line: ["7", "8"], cell: "b" },
      responseTopic: `${args.prefix}/answers`,
      correlationData: Buffer.from([0, 1, 255]),
      contentType: "text/plain",
    };
    await client.publish("properties", "p", 1, { properties });
    const got = (await client.take(1))[0].packet.properties;
    expect("user properties", { ...got.userProperties }, properties.userProperties);
    expect("response topic", got.responseTopic, properties.responseTopic);
    expect("correlation data", [...got.correlationData], [0, 1, 255]);
    expect("content type", got.contentType, "text/plain");
    await client.end();
  },
};

async function main() {
  for (const name of args.scenarios.split(",")) {
    await scenarios[name]();
    console.log(`ok ${name}`);
  }
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
