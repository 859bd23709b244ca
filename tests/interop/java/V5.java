import com.hivemq.client.mqtt.MqttGlobalPublishFilter;
import com.hivemq.client.mqtt.datatypes.MqttQos;
import com.hivemq.client.mqtt.mqtt5.Mqtt5BlockingClient;
import com.hivemq.client.mqtt.mqtt5.Mqtt5Client;
import com.hivemq.client.mqtt.mqtt5.datatypes.Mqtt5UserProperties;
import com.hivemq.client.mqtt.mqtt5.datatypes.Mqtt5UserProperty;
import com.hivemq.client.mqtt.mqtt5.message.publish.Mqtt5Publish;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/** A client of version 5. */
final class V5 implements Main.Client {
    private final Mqtt5BlockingClient client;
    private final Mqtt5BlockingClient.Mqtt5Publishes inbox;
    private final boolean present;

    V5(String name, boolean clean, String will) throws Exception {
        var builder = Line.of(Mqtt5Client.builder().identifier(Main.id(name)));
        if (Main.ARGS.containsKey("user")) {
            byte[] password = Main.bytes(Main.ARGS.get("password"));
            builder = builder.simpleAuth().username(Main.ARGS.get("user")).password(password).applySimpleAuth();
        }
        if (will != null) {
            var message = Mqtt5Publish.builder().topic(Main.topic("will")).payload(Main.bytes(will));
            builder = builder.willPublish(message.qos(MqttQos.AT_LEAST_ONCE).build());
        }
        client = builder.buildBlocking();
        // Before the connection is there: a kept session's messages come with it.
        inbox = client.publishes(MqttGlobalPublishFilter.ALL);
        var connect = client.connectWith().cleanStart(clean).sessionExpiryInterval(clean ? 0 : 300);
        present = connect.send().isSessionPresent();
    }

    public boolean sessionPresent() {
        return present;
    }

    public void subscribe(String topic, int qos) {
        var suback = client.subscribeWith().topicFilter(Main.topic(topic)).qos(MqttQos.fromCode(qos)).send();
        Main.expect("granted", suback.getReasonCodes().get(0).getCode(), qos);
    }

    public void publish(String topic, byte[] payload, int qos, boolean retained) {
        client.publishWith().topic(Main.topic(topic)).payload(payload).qos(MqttQos.fromCode(qos)).retain(retained).send();
    }

    public List<Main.Message> take(int count) throws InterruptedException {
        List<Main.Message> messages = new ArrayList<>();
        while (messages.size() < count) {
            Mqtt5Publish m = inbox.receive();
            messages.add(new Main.Message(m.getPayloadAsBytes(), m.getQos().getCode(), m.isRetain(), m));
        }
        return messages;
    }

    public void end() {
        // The session is kept for as long as CONNECT said.
        client.disconnect();
    }

    static void properties() throws Exception {
        V5 c = new V5("properties", true, null);
        c.subscribe("properties", 1);
        var user = Mqtt5UserProperties.of(
                Mqtt5UserProperty.of("line", "7"), Mqtt5UserProperty.of("cell", "b"), Mqtt5UserProperty.of("line", "8"));
        byte[] correlation = {0, 1, (byte) 255};
        c.client.publishWith().topic(Main.topic("properties")).payload(Main.bytes("p")).qos(MqttQos.AT_LEAST_ONCE)
                .userProperties(user).responseTopic(Main.topic("answers")).correlationData(correlation)
                .contentType("text/plain").send();
        Mqtt5Publish got = (Mqtt5Publish) c.take(1).get(0).whole();
        Main.expect("user properties", got.getUserProperties(), user);
        Main.expect("response topic", got.getResponseTopic().map(Object::toString), Optional.of(Main.topic("answers")));
        Main.expect("correlation data", got.getCorrelationData(), Optional.of(ByteBuffer.wrap(correlation)));
        Main.expect("content type", got.getContentType().map(Object::toString), Optional.of("text/plain"));
        c.end();
    }
}
