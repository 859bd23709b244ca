import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;

/** The HiveMQ MQTT client in the scenarios of the README. */
public final class Main {
    static final int COUNT = 20;
    static final Map<String, String> ARGS = new HashMap<>();

    /** A message as both versions have it. */
    record Message(byte[] payload, int qos, boolean retained, Object whole) {
        String text() {
            return new String(payload, StandardCharsets.UTF_8);
        }
    }

    /** What the clients of both versions can do. */
    interface Client {
        boolean sessionPresent();

        void subscribe(String topic, int qos) throws Exception;

        void publish(String topic, byte[] payload, int qos, boolean retained);

        List<Message> take(int count) throws Exception;

        void end();
    }

    static Client connect(String name, boolean clean, String will) throws Exception {
        return ARGS.get("version").equals("5") ? new V5(name, clean, will) : new V3(name, clean, will);
    }

    static Client connect(String name) throws Exception {
        return connect(name, true, null);
    }

    static String id(String name) {
        return ARGS.get("prefix").replace('/', '-') + "-" + name;
    }

    static String topic(String name) {
        return ARGS.get("prefix") + "/" + name;
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static void expect(String what, Object have, Object want) {
        if (!Objects.deepEquals(have, want)) {
            String text = what + ": " + have + " instead of " + want;
            System.err.println(text.substring(0, Math.min(text.length(), 1000)));
            System.exit(1);
        }
    }

    static List<String> numbered(String name, int count) {
        List<String> texts = new ArrayList<>();
        for (int n = 0; n < count; n++) {
            texts.add(name + " " + n);
        }
        return texts;
    }

    static List<String> texts(List<Message> messages) {
        return messages.stream().map(Message::text).toList();
    }

    static void qos() throws Exception {
        Client client = connect("qos");
        for (int level = 0; level <= 2; level++) {
            client.subscribe("qos/" + level, level);
            List<String> sent = numbered("qos " + level, COUNT);
            for (String payload : sent) {
                client.publish("qos/" + level, bytes(payload), level, false);
            }
            List<Message> messages = client.take(COUNT);
            expect("payloads", texts(messages), sent);
            for (Message message : messages) {
                expect("QoS", message.qos(), level);
            }
        }
        client.end();
    }

    static void resume() throws Exception {
        Client client = connect("resume", false, null);
        expect("session present", client.sessionPresent(), false);
        client.subscribe("resume", 1);
        client.end();
        List<String> sent = numbered("while away", 5);
        Client other = connect("resume-other");
        for (String payload : sent) {
            other.publish("resume", bytes(payload), 1, false);
        }
        other.end();
        client = connect("resume", false, null);
        expect("session present", client.sessionPresent(), true);
        expect("payloads", texts(client.take(5)), sent);
        client.end();
        connect("resume").end();
    }

    /** The library does not let go of its socket: here the connection ends by a second one with the same client id. */
    static void will() throws Exception {
        Client watcher = connect("watcher");
        watcher.subscribe("will", 1);
        connect("mortal", true, "gone");
        Client second = connect("mortal");
        expect("will", texts(watcher.take(1)), List.of("gone"));
        second.end();
        watcher.end();
    }

    static void retained() throws Exception {
        Client publisher = connect("retained");
        publisher.publish("retained/a", bytes("kept"), 1, true);
        Client reader = connect("retained-reader");
        reader.subscribe("retained/#", 1);
        Message message = reader.take(1).get(0);
        expect("retained", List.of(message.text(), message.retained()), List.of("kept", true));
        reader.end();
        publisher.publish("retained/a", new byte[0], 1, true);
        reader = connect("retained-late");
        reader.subscribe("retained/#", 1);
        publisher.publish("retained/b", bytes("after"), 1, false);
        message = reader.take(1).get(0);
        expect("nothing retained", List.of(message.text(), message.retained()), List.of("after", false));
        reader.end();
        publisher.end();
    }

    static void large() throws Exception {
        byte[] sent = new byte[200 * 1024];
        for (int n = 0; n < sent.length; n++) {
            sent[n] = (byte) (n * 7 % 251);
        }
        Client client = connect("large");
        client.subscribe("large", 1);
        client.publish("large", sent, 1, false);
        expect("large payload", Arrays.equals(client.take(1).get(0).payload(), sent), true);
        client.end();
    }

    public static void main(String[] args) {
        for (int n = 0; n < args.length; n += 2) {
            ARGS.put(args[n].substring(2), args[n + 1]);
        }
        try {
            for (String scenario : ARGS.get("scenarios").split(",")) {
                play(scenario);
                System.out.println("ok " + scenario);
            }
        } catch (Throwable failure) {
            // The library's own threads would keep the program alive.
            failure.printStackTrace();
            System.exit(1);
        }
        System.exit(0);
    }

    static void play(String scenario) throws Exception {
        switch (scenario) {
            case "qos" -> qos();
            case "resume" -> resume();
            case "will" -> will();
            case "retained" -> retained();
            case "large" -> large();
            case "properties" -> V5.properties();
            default -> throw new IllegalArgumentException(scenario);
        }
    }
}
