//! Passwords: which ones are good enough, and their hashes.
//! Must not keep a password, nor log one.

use argon2::password_hash::PasswordVerifier as _;
use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, Version};
use portcullis_model::Secret;

use super::token::random;

/// Characters of a password, at least.
pub const MIN_PASSWORD_CHARS: usize = 12;
/// Bytes of a password, at most: hashing takes time for each.
pub(super) const MAX_PASSWORD_BYTES: usize = 1_024;

/// What OWASP's password storage cheat sheet asks for at least; 19 MiB, in KiB.
const MEMORY: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;
const SALT: usize = 32;

/// Those that are long enough, but first in every list. In lower case, without digits and signs at the end.
const COMMON: [&str; 40] = [
    "",
    "abcdefghijkl",
    "abcdefghijklmnopqrstuvwxyz",
    "admin",
    "adminadmin",
    "administrator",
    "changeme",
    "changemechangeme",
    "changemeplease",
    "correcthorsebatterystaple",
    "default",
    "defaultpassword",
    "iloveyou",
    "iloveyouforever",
    "iloveyouiloveyou",
    "letmein",
    "letmeinletmein",
    "mypassword",
    "mypasswordis",
    "newpassword",
    "onetwothreefour",
    "p@ssw0rd",
    "p@ssword",
    "passw0rd",
    "password",
    "passwordpassword",
    "passwort",
    "portcullis",
    "portcullisadmin",
    "qwerty",
    "qwertyqwerty",
    "qwertyuiop",
    "qwertyuiopasdfghjkl",
    "secret",
    "secretpassword",
    "temporarypassword",
    "thisismypassword",
    "trustno",
    "welcome",
    "welcomewelcome",
];

/// Why a password is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordProblem {
    #[error("use at least {MIN_PASSWORD_CHARS} characters; a few words in a row are easy to remember")]
    TooShort,
    #[error("use at most {MAX_PASSWORD_BYTES} bytes")]
    TooLong,
    #[error("do not use the user's name")]
    IsName,
    #[error("this one is among the first that attackers try; choose another")]
    Common,
}

/// Whether a password is good enough for a user of this name.
///
/// # Errors
/// What is wrong with it.
pub fn check_password(password: &str, name: &str) -> Result<(), PasswordProblem> {
    if password.chars().count() < MIN_PASSWORD_CHARS {
        return Err(PasswordProblem::TooShort);
    }
    if password.len() > MAX_PASSWORD_BYTES {
        return Err(PasswordProblem::TooLong);
    }
    let lower = password.to_lowercase();
    let name = name.to_lowercase();
    if !name.is_empty() && lower.replace(&name, "").chars().count() < MIN_PASSWORD_CHARS / 2 {
        return Err(PasswordProblem::IsName);
    }
    let word = lower.trim_end_matches(|c: char| !c.is_alphabetic());
    let mut characters: Vec<char> = lower.chars().collect();
    characters.sort_unstable();
    characters.dedup();
    // Three different characters are a pattern, whatever the length.
    if characters.len() <= 3 || COMMON.contains(&word) {
        return Err(PasswordProblem::Common);
    }
    Ok(())
}

/// The hash of a password: Argon2id, as a PHC string. Takes some 40 ms and 19 MiB.
pub fn hash_password(password: &str) -> Secret {
    let salt = random::<SALT>();
    let hash = hasher().hash_password_with_salt(password.as_bytes(), &salt);
    Secret::new(&hash.expect("these parameters can be used").to_string())
}

/// How a password compares with a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Wrong,
    Right,
    /// The hash is of parameters that are not today's.
    RightButOld,
}

/// Compares; takes as long as hashing does.
pub(super) fn compare(password: &str, hash: &Secret) -> Comparison {
    let Ok(parsed) = PasswordHash::new(hash.expose()) else { return Comparison::Wrong };
    if hasher().verify_password(password.as_bytes(), &parsed).is_err() {
        return Comparison::Wrong;
    }
    let is_todays = Params::try_from(&parsed)
        .is_ok_and(|found| (found.m_cost(), found.t_cost(), found.p_cost()) == (MEMORY, PASSES, LANES));
    match is_todays && parsed.algorithm.as_str() == Algorithm::Argon2id.as_str() {
        true => Comparison::Right,
        false => Comparison::RightButOld,
    }
}

fn hasher() -> Argon2<'static> {
    let params = Params::new(MEMORY, PASSES, LANES, None).expect("these parameters can be used");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_long_and_neither_common_nor_the_name() {
        let long = "x9".repeat(513);
        for (password, problem) in [
            ("short", PasswordProblem::TooShort),
            ("elevenchars", PasswordProblem::TooShort),
            (long.as_str(), PasswordProblem::TooLong),
            ("Alexandra.B1", PasswordProblem::IsName),
            ("alexandra.b-alexandra.b", PasswordProblem::IsName),
            ("Password1234!", PasswordProblem::Common),
            ("qwertyuiop12", PasswordProblem::Common),
            ("123456789012", PasswordProblem::Common),
            ("aaaaaaaaaaaaab", PasswordProblem::Common),
        ] {
            assert_eq!(check_password(password, "alexandra.b"), Err(problem), "{password}");
        }
        for password in ["four old lamps", "ÄÖÜäöüß-ÄÖÜßx", "x9f!kd03-qpzm"] {
            assert_eq!(check_password(password, "alexandra.b"), Ok(()), "{password}");
        }
    }

    #[test]
    fn a_hash_says_how_it_was_made_and_compares() {
        let hash = hash_password("four old lamps");
        assert!(hash.expose().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.expose());
        assert_eq!(compare("four old lamps", &hash), Comparison::Right);
        assert_eq!(compare("four old lamp", &hash), Comparison::Wrong);
        assert_eq!(compare("four old lamps", &Secret::new("broken")), Comparison::Wrong);
        assert_ne!(hash, hash_password("four old lamps"), "each has a salt of its own");
    }

    #[test]
    fn a_hash_of_weaker_parameters_is_right_but_old() {
        let weak = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(64, 1, 1, None).unwrap());
        let hash = weak.hash_password_with_salt(b"four old lamps", b"salt-salt-salt").unwrap().to_string();
        assert_eq!(compare("four old lamps", &Secret::new(&hash)), Comparison::RightButOld);
    }
}
