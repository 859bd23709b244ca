import com.hivemq.client.mqtt.MqttClientBuilderBase;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.concurrent.TimeUnit;
import javax.net.ssl.TrustManagerFactory;

/** The way to the server, as the command line has it. */
final class Line {
    private Line() {}

    static <B extends MqttClientBuilderBase<B>> B of(B builder) throws Exception {
        String scheme = Main.ARGS.get("scheme");
        var transport = builder.transportConfig()
                .serverHost(Main.ARGS.get("host"))
                .serverPort(Integer.parseInt(Main.ARGS.get("port")))
                // The caller stops what hangs; a busy machine is not a fault.
                .mqttConnectTimeout(120, TimeUnit.SECONDS);
        if (scheme.startsWith("ws")) {
            transport = transport.webSocketConfig().serverPath("mqtt").applyWebSocketConfig();
        }
        if (scheme.equals("tls") || scheme.equals("wss")) {
            transport = transport.sslConfig().trustManagerFactory(trust()).applySslConfig();
        }
        return transport.applyTransportConfig();
    }

    private static TrustManagerFactory trust() throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        try (InputStream in = Files.newInputStream(Path.of(Main.ARGS.get("ca")))) {
            store.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(in));
        }
        TrustManagerFactory factory = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        factory.init(store);
        return factory;
    }
}
