//! What librdkafka has to know of an OAUTHBEARER token: who and until when (RFC 7519, claims `sub` and `exp`). Pure.
//! The broker, not we, checks the signature.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

#[derive(Debug, PartialEq, Eq)]
pub struct Token {
    pub token: String,
    pub principal: String,
    /// ms since 1970.
    pub expires_ms: i64,
}

#[derive(serde::Deserialize)]
struct Claims {
    sub: String,
    exp: f64,
}

/// # Errors
/// In words, without the token, when it is not a JWT with `sub` and `exp`.
pub fn token(jwt: &str) -> Result<Token, String> {
    let payload = jwt.split('.').nth(1).ok_or("use the token: it is not a JWT (header.payload.signature)")?;
    let json = URL_SAFE_NO_PAD.decode(payload).map_err(|_| "use the token: its payload is not base64url")?;
    let claims: Claims =
        serde_json::from_slice(&json).map_err(|_| "use the token: its payload lacks `sub` or `exp`".to_owned())?;
    Ok(Token { token: jwt.to_owned(), principal: claims.sub, expires_ms: (claims.exp * 1000.0) as i64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_read_and_what_is_no_token_is_refused_without_showing_it() {
        let jwt = format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(r#"{"sub":"gw-7","exp":1790000000}"#));
        let read = token(&jwt).expect("a token");
        assert_eq!((read.principal.as_str(), read.expires_ms), ("gw-7", 1_790_000_000_000));
        for bad in ["", "secret", "a.secret.c", "a.e30.c"] {
            let error = token(bad).expect_err(bad);
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
