//! What a client's certificate says about who it is. Pure. The chain has been checked before.

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use crate::config::CertificateIdentity;

/// Longer than any name a person gives; what is longer would not fit into logs and rules.
const BYTES_MAX: usize = 256;

/// The identity, or `None` where the certificate has none that is printable and of a sensible length.
pub fn identity(certificate: &[u8], kind: CertificateIdentity) -> Option<String> {
    let (_, certificate) = parse_x509_certificate(certificate).ok()?;
    let name = match kind {
        CertificateIdentity::CommonName => common_name(&certificate),
        CertificateIdentity::AlternativeName => alternative_name(&certificate),
    }?;
    let usable = !name.is_empty() && name.len() <= BYTES_MAX && !name.contains(char::is_control);
    usable.then(|| name.to_owned())
}

fn common_name<'c>(certificate: &'c X509Certificate<'_>) -> Option<&'c str> {
    certificate.subject().iter_common_name().next()?.as_str().ok()
}

fn alternative_name<'c>(certificate: &'c X509Certificate<'_>) -> Option<&'c str> {
    let names = certificate.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => Some(*name),
        _ => None,
    })
}

/// When a certificate expires, in seconds since 1970.
pub fn expiry_s(certificate: &[u8]) -> Option<u64> {
    let (_, certificate) = parse_x509_certificate(certificate).ok()?;
    u64::try_from(certificate.validity().not_after.timestamp()).ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(common_name: Option<&str>, names: Vec<SanType>) -> Vec<u8> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(name) = common_name {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.subject_alt_names = names;
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn names_come_from_where_the_configuration_says() {
        let uri = SanType::URI("urn:device:7".try_into().unwrap());
        let address = SanType::IpAddress("10.0.0.7".parse().unwrap());
        let both = certificate(Some("press-7"), vec![address.clone(), uri]);
        assert_eq!(identity(&both, CertificateIdentity::CommonName).as_deref(), Some("press-7"));
        assert_eq!(identity(&both, CertificateIdentity::AlternativeName).as_deref(), Some("urn:device:7"));
        let neither = certificate(None, vec![address]);
        assert_eq!(identity(&neither, CertificateIdentity::CommonName), None);
        assert_eq!(identity(&neither, CertificateIdentity::AlternativeName), None);
        assert!(expiry_s(&both).unwrap() > 1_735_689_600);
    }

    #[test]
    fn names_that_would_break_a_log_line_are_none() {
        for name in ["", "a\nb", "nul\0", &"x".repeat(257)] {
            assert_eq!(
                identity(&certificate(Some(name), Vec::new()), CertificateIdentity::CommonName),
                None,
                "{name:?}"
            );
        }
        assert_eq!(identity(b"no certificate", CertificateIdentity::CommonName), None);
        assert_eq!(expiry_s(b"no certificate"), None);
    }
}
