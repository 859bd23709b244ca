//! The password file: a line `user:$argon2id$...` for each user. Pure but for [`read`] and the salt's random bytes.
//!
//! What cannot be understood lets nobody in: a bad line is skipped and named, and of a user who is there twice neither
//! line counts, since nobody can say which password was meant.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use argon2::password_hash::{PasswordHash, SaltString};
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use ring::rand::{SecureRandom, SystemRandom};

/// Bounds what a file costs in memory: some 20,000 users.
pub const FILE_BYTES_MAX: u64 = 4 << 20;
/// Longest name of a user: it goes into logs, events and topics.
const USER_BYTES_MAX: usize = 256;

/// What a new hash costs: 7 MiB and 5 passes are as hard to guess as 19 MiB and 2 (the least that is recommended for
/// argon2id), and a box with a budget of 32 MiB can spare them for a tenth of a second.
const MEMORY_KIB: u32 = 7 << 10;
const PASSES: u32 = 5;
const LANES: u32 = 1;
const HASH_BYTES: usize = 32;
const SALT_BYTES: usize = 16;

/// Hashes that cost more are not checked: one login could take the gateway's memory away.
const MEMORY_KIB_MAX: u32 = 64 << 10;
const PASSES_MAX: u32 = 20;
const LANES_MAX: u32 = 8;
/// Shorter results could be guessed.
const HASH_BYTES_MIN: usize = 16;

/// What unknown users are checked against, so that they cost as much as known ones. No password gives 32 zero bytes.
pub const NOBODY: &str =
    "$argon2id$v=19$m=7168,t=5,p=1$bm9ib2R5IGlzIGhlcmU$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// The users of one file and what is wrong with its lines.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Users {
    hashes: HashMap<String, String>,
    /// Line number and reason. Never quotes a line: it could be a password.
    pub skipped: Vec<(usize, &'static str)>,
}

impl Users {
    pub fn parse(text: &str) -> Self {
        let (mut users, mut twice) = (Users::default(), HashSet::new());
        for (index, line) in text.lines().enumerate() {
            let line = line.trim_end_matches('\r');
            if is_comment(line) {
                continue;
            }
            match parse_line(line) {
                Err(reason) => users.skipped.push((index + 1, reason)),
                Ok((user, hash)) => {
                    if users.hashes.insert(user.to_owned(), hash.to_owned()).is_some() {
                        twice.insert(user);
                    }
                    if twice.contains(user) {
                        users.skipped.push((index + 1, "the user is there twice: neither line counts"));
                    }
                }
            }
        }
        users.hashes.retain(|user, _| !twice.contains(user.as_str()));
        users
    }

    pub fn hash_of(&self, user: &str) -> Option<&str> {
        self.hashes.get(user).map(String::as_str)
    }

    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }
}

/// A line that is for people.
pub fn is_comment(line: &str) -> bool {
    line.trim().is_empty() || line.starts_with('#')
}

/// The name a line belongs to, whatever stands behind it.
pub fn user_of(line: &str) -> Option<&str> {
    (!is_comment(line)).then(|| line.split_once(':').map(|(user, _)| user)).flatten()
}

fn parse_line(line: &str) -> Result<(&str, &str), &'static str> {
    let (user, hash) = line.split_once(':').ok_or("no `:` behind a user")?;
    check_user(user)?;
    check_hash(hash)?;
    Ok((user, hash))
}

/// # Errors
/// Why nobody can be called so, as a fragment.
pub fn check_user(user: &str) -> Result<(), &'static str> {
    match user {
        "" => Err("the user has no name"),
        _ if user.len() > USER_BYTES_MAX => Err("the user's name is longer than 256 bytes"),
        _ if user.starts_with('#') || user.contains(':') => {
            Err("a user's name holds no `:` and does not begin with `#`")
        }
        _ if user.contains(char::is_control) => Err("the user's name is not printable"),
        _ => Ok(()),
    }
}

fn check_hash(text: &str) -> Result<(), &'static str> {
    const NO_HASH: &str = "no argon2id hash behind the user: set the password anew with `forebay passwd`";
    let hash = PasswordHash::new(text).map_err(|_| NO_HASH)?;
    let output = hash.hash.ok_or(NO_HASH)?;
    if hash.algorithm != Algorithm::Argon2id.ident() || hash.salt.is_none() || output.len() < HASH_BYTES_MIN {
        return Err(NO_HASH);
    }
    let params = Params::try_from(&hash).map_err(|_| NO_HASH)?;
    let costs = (params.m_cost(), params.t_cost(), params.p_cost());
    if costs.0 > MEMORY_KIB_MAX || costs.1 > PASSES_MAX || costs.2 > LANES_MAX {
        return Err("the hash costs more than 64 MiB, 20 passes or 8 lanes");
    }
    Ok(())
}

/// Whether `password` is the one of `hash`. Takes the hash's memory and some tenths of a second.
pub fn verify(password: &[u8], hash: &str) -> bool {
    PasswordHash::new(hash).is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok())
}

/// A new hash with a random salt.
///
/// # Errors
/// As a fragment: no random bytes, or no memory for the hash.
pub fn hash(password: &[u8]) -> Result<String, String> {
    let mut salt = [0; SALT_BYTES];
    SystemRandom::new().fill(&mut salt).map_err(|_| "get random bytes".to_owned())?;
    let salt = SaltString::encode_b64(&salt).map_err(|error| format!("write a salt: {error}"))?;
    let params = Params::new(MEMORY_KIB, PASSES, LANES, Some(HASH_BYTES)).map_err(|error| format!("hash: {error}"))?;
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon.hash_password(password, &salt).map(|hash| hash.to_string()).map_err(|error| format!("hash: {error}"))
}

/// The text of a password file.
///
/// # Errors
/// What the system says, or that it is larger than [`FILE_BYTES_MAX`] or no UTF-8.
pub fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the file is larger than 4MiB"));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the file is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A hash of "secret" that costs next to nothing.
    const CHEAP: &str = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA";

    #[test]
    fn a_new_hash_fits_its_password_alone_and_costs_what_a_stranger_costs() {
        let hash = hash(b"press-7 secret").expect("the machine has random bytes and 7 MiB");
        assert!(check_hash(&hash).is_ok() && check_hash(NOBODY).is_ok());
        assert!(verify(b"press-7 secret", &hash));
        assert!(!verify(b"press-7 Secret", &hash) && !verify(b"", &hash));
        assert!(!verify(b"press-7 secret", NOBODY));
        let cost = |hash: &str| hash.split('$').nth(3).map(str::to_owned);
        assert_eq!(cost(&hash), cost(NOBODY));
    }

    #[test]
    fn bad_lines_are_named_and_let_nobody_in() {
        let text = format!(
            "# people\n\nanna:{CHEAP}\r\nplain:secret\nno hash\n:{CHEAP}\nold:$argon2i$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA\n\
             dear:$argon2id$v=19$m=1048576,t=1,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA\nshort:$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAA\n\
             twin:{CHEAP}\nbob:{CHEAP}\ntwin:{CHEAP}\ntwin:{CHEAP}\n"
        );
        let users = Users::parse(&text);
        assert_eq!(users.hashes.len(), 2, "{users:?}");
        assert!(users.hash_of("anna").is_some() && users.hash_of("bob").is_some());
        let lines: Vec<usize> = users.skipped.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [4, 5, 6, 7, 8, 9, 12, 13]);
        assert!(!users.skipped.iter().any(|(_, reason)| reason.contains("secret")));
    }

    proptest! {
        #[test]
        fn no_text_makes_a_user_without_a_hash(text in "([a-z:#$=,0-9 ]{0,40}\n){0,8}") {
            let users = Users::parse(&text);
            prop_assert!(users.is_empty(), "{:?}", users);
        }

        #[test]
        fn a_line_more_never_changes_what_another_user_needs(line in ".{0,60}") {
            let users = Users::parse(&format!("anna:{CHEAP}\n{line}\n"));
            let own = user_of(&line) == Some("anna") || line.contains(['\n', '\r']);
            prop_assert!(own || users.hash_of("anna") == Some(CHEAP));
        }
    }
}
