import com.hivemq.client.mqtt.MqttGlobalPublishFilter;
import com.hivemq.client.mqtt.datatypes.MqttQos;
import com.hivemq.client.mqtt.mqtt3.Mqtt3BlockingClient;
import com.hivemq.client.mqtt.mqtt3.Mqtt3Client;
import com.hivemq.client.mqtt.mqtt3.message.publish.Mqtt3Publish;
import java.util.ArrayList;
import java.util.List;

/** A client of version 3.1.1. */
final class V3 implements Main.Client {
    private final Mqtt3BlockingClient client;
    private final Mqtt3BlockingClient.Mqtt3Publishes inbox;
    private final boolean present;

    V3(String name, boolean clean, String will) throws Exception {
        var builder = Line.of(Mqtt3Client.builder().identifier(Main.id(name)));
        if (Main.ARGS.containsKey("user")) {
            byte[] password = Main.bytes(Main.ARGS.get("password"));
            builder = builder.simpleAuth().username(Main.ARGS.get("user")).password(password).applySimpleAuth();
        }
        if (will != null) {
            var message = Mqtt3Publish.builder().topic(Main.topic("will")).payload(Main.bytes(will));
            builder = builder.willPublish(message.qos(MqttQos.AT_LEAST_ONCE).build());
        }
        client = builder.buildBlocking();
        // Before the connection is there: a kept session's messages come with it.
        inbox = client.publishes(MqttGlobalPublishFilter.ALL);
        present = client.connectWith().cleanSession(clean).send().isSessionPresent();
    }

    public boolean sessionPresent() {
        return present;
    }

    public void subscribe(String topic, int qos) {
        var suback = client.subscribeWith().topicFilter(Main.topic(topic)).qos(MqttQos.fromCode(qos)).send();
        Main.expect("granted", suback.getReturnCodes().get(0).getCode(), qos);
    }

    public void publish(String topic, byte[] payload, int qos, boolean retained) {
        client.publishWith().topic(Main.topic(topic)).payload(payload).qos(MqttQos.fromCode(qos)).retain(retained).send();
    }

    public List<Main.Message> take(int count) throws InterruptedException {
        List<Main.Message> messages = new ArrayList<>();
        while (messages.size() < count) {
            Mqtt3Publish m = inbox.receive();
            messages.add(new Main.Message(m.getPayloadAsBytes(), m.getQos().getCode(), m.isRetain(), m));
        }
        return messages;
    }

    public void end() {
        client.disconnect();
    }
}
