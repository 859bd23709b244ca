//! One broker with every lock that Kafka has: what its doors are, who may enter, and the rights of one user.
//!
//! Owns the certificates and the names, never the broker itself. Each door is a listener of its own that announces
//! itself, so a client that came through one never gets in by another. The plain listener stays: the rig's own way in.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use tempfile::TempDir;

use super::jobs;
use super::kafka::KafkaServer;
use super::kafka_setup::Extras;

/// May do anything. The password is looked for in logs, so it must not be a word.
pub const PLANT: (&str, &str) = ("plant", "Zx81-pl4nt-s3cret");
/// May do what [`Secured::allow`] says.
pub const LIMITED: (&str, &str) = ("limited", "Qy77-l1mited-s3cret");

/// The same, for a test that starts without any right.
pub const NEWCOMER: (&str, &str) = ("newcomer", "Kb52-n3wcomer-s3cret");

/// How long the broker keeps a connection at most before it wants to see a token again.
const REAUTHENTICATE: Duration = Duration::from_secs(60);

/// A listener of the secured broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    Tls,
    /// Asks for a client certificate.
    Mutual,
    /// User and password (PLAIN, both SCRAMs) inside TLS.
    Login,
    /// User and password in the open.
    OpenLogin,
    /// OAUTHBEARER inside TLS.
    Token,
}

const DOORS: [(Door, &str, &str); 5] = [
    (Door::Tls, "TLS", "SSL"),
    (Door::Mutual, "MUTUAL", "SSL"),
    (Door::Login, "LOGIN", "SASL_SSL"),
    (Door::OpenLogin, "OPENLOGIN", "SASL_PLAINTEXT"),
    (Door::Token, "TOKEN", "SASL_SSL"),
];

pub struct Secured {
    pub kafka: Arc<KafkaServer>,
    ports: [u16; DOORS.len()],
    dir: TempDir,
}

impl Secured {
    /// The one that all tests of this run share.
    pub fn shared() -> &'static Secured {
        static SHARED: OnceLock<Secured> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    fn start() -> Secured {
        let dir = jobs::scratch("pki");
        write_certificates(dir.path());
        let ports = DOORS.map(|_| jobs::free_port());
        let listeners = DOORS.iter().zip(ports).map(|((_, name, protocol), port)| (*name, *protocol, port)).collect();
        let scram =
            |mechanism: &str, (name, password): (&str, &str)| format!("{mechanism}=[name={name},password={password}]");
        let scrams = ["SCRAM-SHA-256", "SCRAM-SHA-512"].map(|mechanism| scram(mechanism, PLANT)).to_vec();
        let kafka =
            KafkaServer::shared_with(&Extras { listeners, lines: lines(dir.path()), scrams, ..Extras::default() });
        Secured { kafka, ports, dir }
    }

    pub fn bootstrap_servers(&self, door: Door) -> String {
        let at = DOORS.iter().position(|(have, ..)| *have == door).expect("every door is in the list");
        format!("127.0.0.1:{}", self.ports[at])
    }

    /// `ca.pem`, `gateway.pem`, `gateway.key`, or `stranger.pem`: an authority that has signed nothing.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Gives the user the right to write to `topics`.
    pub fn allow(&self, (user, _): (&str, &str), topics: &[String]) {
        self.kafka.change_rights("--add", user, topics);
    }

    pub fn forbid(&self, (user, _): (&str, &str), topics: &[String]) {
        self.kafka.change_rights("--remove", user, topics);
    }
}

/// An unsigned token (RFC 7519 section 6), which Kafka's development validator takes.
#[expect(clippy::disallowed_methods, reason = "a token is made for a time by the wall clock")]
pub fn token(lifetime: Duration) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set").as_secs();
    let claims = serde_json::json!({ "sub": PLANT.0, "iat": now, "exp": now + lifetime.as_secs() });
    let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
    format!("{}.{}.", part(r#"{"alg":"none"}"#), part(&claims.to_string()))
}

fn write_certificates(dir: &Path) {
    let authority = authority("Plant");
    let (certificate, key) = issue(&authority, "kafka");
    let write = |name: &str, text: String| fs::write(dir.join(name), text).unwrap();
    write("broker.pem", key.clone() + &certificate + &authority.pem());
    write("ca.pem", authority.pem());
    let (certificate, key) = issue(&authority, "gateway");
    write("gateway.pem", certificate);
    write("gateway.key", key);
    write("stranger.pem", self::authority("Stranger").pem());
}

pub fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Certificate and key for `localhost` and 127.0.0.1, as PEM.
pub fn issue(authority: &CertifiedIssuer<'static, KeyPair>, name: &str) -> (String, String) {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.subject_alt_names.push(SanType::IpAddress(Ipv4Addr::LOCALHOST.into()));
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, authority).unwrap().pem(), key.serialize_pem())
}

fn lines(dir: &Path) -> Vec<String> {
    let security = "org.apache.kafka.common.security";
    let users: String =
        [PLANT, LIMITED, NEWCOMER].iter().map(|(name, password)| format!(" user_{name}=\"{password}\"")).collect();
    let mut lines = vec![
        "ssl.keystore.type=PEM".to_owned(),
        format!("ssl.keystore.location={}", dir.join("broker.pem").display()),
        "ssl.truststore.type=PEM".to_owned(),
        format!("ssl.truststore.location={}", dir.join("ca.pem").display()),
        "listener.name.mutual.ssl.client.auth=required".to_owned(),
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer".to_owned(),
        format!("super.users=User:ANONYMOUS;User:CN=gateway;User:{}", PLANT.0),
    ];
    for door in ["login", "openlogin"] {
        let name = format!("listener.name.{door}");
        let scram = format!("{security}.scram.ScramLoginModule required;");
        lines.push(format!("{name}.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512"));
        lines.push(format!("{name}.plain.sasl.jaas.config={security}.plain.PlainLoginModule required{users};"));
        lines.push(format!("{name}.scram-sha-256.sasl.jaas.config={scram}"));
        lines.push(format!("{name}.scram-sha-512.sasl.jaas.config={scram}"));
    }
    let module =
        format!("{security}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"kafka\";");
    let validator = format!("{security}.oauthbearer.internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler");
    lines.extend([
        "listener.name.token.sasl.enabled.mechanisms=OAUTHBEARER".to_owned(),
        format!("listener.name.token.oauthbearer.sasl.jaas.config={module}"),
        format!("listener.name.token.oauthbearer.sasl.server.callback.handler.class={validator}"),
        // With it the broker closes a connection at its token's end, unless a new token has been shown (KIP-368).
        format!("connections.max.reauth.ms={}", REAUTHENTICATE.as_millis()),
    ]);
    lines
}
