//! A person whose data is asked for, or has to go: where a text speaks of them.
//!
//! Owns what counts as a mention. Must not read or delete anything.

use std::borrow::Cow;

use portcullis_model::ClientIp;
use serde::{Deserialize, Serialize};

/// What stands for a mention that was erased.
pub const ERASED: &str = "[erased]";

/// Whose data it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// An address, and those that the log may hold in its place.
    Address(Vec<ClientIp>),
    /// A user's name, as the log has it.
    User(String),
}

impl Subject {
    /// The addresses that rows of the log may have.
    pub(crate) fn clients(&self) -> &[ClientIp] {
        match self {
            Self::Address(clients) => clients,
            Self::User(_) => &[],
        }
    }

    /// The name that rows of the log may have.
    pub(crate) fn user(&self) -> Option<&str> {
        match self {
            Self::Address(_) => None,
            Self::User(name) => Some(name),
        }
    }

    /// What to look for. An IPv6 address also goes by its /64, by which limits and blocks know it.
    pub(crate) fn texts(&self) -> Vec<String> {
        match self {
            Self::Address(clients) => {
                let mut texts: Vec<String> = clients
                    .iter()
                    .flat_map(|client| [client.to_string(), client.limit_key().to_string()])
                    .collect();
                texts.sort_unstable();
                texts.dedup();
                texts
            }
            Self::User(name) => {
                let spellings = spellings(name);
                // What holds a longer one holds the shorter one in it.
                let is_needed = |text: &String| {
                    !spellings.iter().any(|other| other != text && text.contains(other.as_str()))
                };
                spellings.iter().filter(|text| is_needed(text)).cloned().collect()
            }
        }
    }

    /// Whether the value means the subject and nothing else.
    pub(crate) fn is_whole(&self, value: &str) -> bool {
        match self {
            Self::Address(_) => self.texts().iter().any(|text| {
                value.strip_prefix(text.as_str()).is_some_and(|rest| match rest {
                    "" => true,
                    "/32" => !text.contains(':'),
                    "/64" | "/128" => text.contains(':'),
                    _ => false,
                })
            }),
            Self::User(name) => value == name,
        }
    }

    /// The text without its mentions of the subject. People choose their names, so a name counts only where a user is
    /// meant: behind the word "user" (also as an option of a command), and as the value of "user" in JSON. Elsewhere it
    /// is a word like others.
    pub(crate) fn without<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self {
            Self::Address(_) => {
                let mut left = Cow::Borrowed(text);
                for sought in self.texts() {
                    if let Some(replaced) = replaced(&left, &sought, ERASED, is_part_of_an_address) {
                        left = Cow::Owned(replaced);
                    }
                }
                left
            }
            Self::User(name) => {
                let mut left = Cow::Borrowed(text);
                for spelling in spellings(name) {
                    let (in_json, erased) =
                        (format!("\"user\":\"{spelling}\""), format!("\"user\":\"{ERASED}\""));
                    if let Some(replaced) = replaced(&left, &in_json, &erased, |_, _| false) {
                        left = Cow::Owned(replaced);
                    }
                    let (phrase, erased) = (format!("user {spelling}"), format!("user {ERASED}"));
                    if let Some(replaced) = replaced(&left, &phrase, &erased, is_part_of_a_word) {
                        left = Cow::Owned(replaced);
                    }
                }
                left
            }
        }
    }

    /// Whether the text speaks of the subject.
    pub(crate) fn is_in(&self, text: &str) -> bool {
        matches!(self.without(text), Cow::Owned(_))
    }
}

/// Replaces the mentions that are not part of something longer; `None` when there are none.
fn replaced(
    text: &str,
    sought: &str,
    by: &str,
    is_part: impl Fn(Option<char>, &str) -> bool,
) -> Option<String> {
    if sought.is_empty() {
        return None;
    }
    let mut out = String::new();
    let mut from = 0;
    let mut copied = 0;
    while let Some(found) = text[from..].find(sought) {
        let (start, end) = (from + found, from + found + sought.len());
        if is_part(text[..start].chars().next_back(), &text[end..]) {
            from = start + text[start..].chars().next().map_or(1, char::len_utf8);
            continue;
        }
        out.push_str(&text[copied..start]);
        out.push_str(by);
        (from, copied) = (end, end);
    }
    if copied == 0 {
        return None;
    }
    out.push_str(&text[copied..]);
    Some(out)
}

/// `203.0.113.9` in `203.0.113.90`, `::1` in `2001:db8::1`. A full stop behind an address may end a sentence.
fn is_part_of_an_address(before: Option<char>, after: &str) -> bool {
    let is_digit = |c: char| c.is_ascii_hexdigit();
    let mut after = after.chars();
    let (next, next_but_one) = (after.next(), after.next());
    let goes_on = match next {
        Some('.' | ':') => next_but_one.is_some_and(is_digit),
        Some(next) => is_digit(next),
        None => false,
    };
    // Behind a colon it may be the end of `::ffff:203.0.113.9`, or part of an IPv6 address: too much is erased then,
    // never too little.
    goes_on || before.is_some_and(|c| is_digit(c) || c == '.')
}

/// How texts write a name: as it is, as a shell reads it, and either of them inside of JSON.
fn spellings(name: &str) -> Vec<String> {
    let mut all = vec![name.to_owned(), format!("'{}'", name.replace('\'', "'\\''"))];
    for n in 0..all.len() {
        let quoted = serde_json::Value::from(all[n].as_str()).to_string();
        let inside = quoted[1..quoted.len() - 1].to_owned();
        if !all.contains(&inside) {
            all.push(inside);
        }
    }
    all
}

fn is_part_of_a_word(before: Option<char>, after: &str) -> bool {
    let is_letter = |c: char| c.is_alphanumeric() || c == '_';
    let is_word = |c: char| is_letter(c) || matches!(c, '-' | '@');
    before.is_some_and(is_letter) || after.chars().next().is_some_and(is_word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Subject {
        Subject::Address(vec![text.parse().unwrap()])
    }

    #[test]
    fn an_address_is_found_where_it_stands_alone() {
        let subject = address("203.0.113.9");
        for (text, want) in [
            ("203.0.113.9", "[erased]"),
            ("from 203.0.113.9, and 203.0.113.90", "from [erased], and 203.0.113.90"),
            ("203.0.113.9/32", "[erased]/32"),
            ("It was 203.0.113.9.", "It was [erased]."),
            ("::ffff:203.0.113.9", "::ffff:[erased]"),
            ("1203.0.113.9 203.0.113.9.4 3.203.0.113.9", "1203.0.113.9 203.0.113.9.4 3.203.0.113.9"),
            ("{\"ip\":\"203.0.113.9\"}", "{\"ip\":\"[erased]\"}"),
        ] {
            assert_eq!(subject.without(text), want);
        }
        assert!(subject.is_whole("203.0.113.9/32") && !subject.is_whole("203.0.113.9/24"));
        assert!(!address("2001:db8::").is_whole("2001:db8::/32"), "a provider's network is nobody's");
    }

    #[test]
    fn an_ipv6_address_goes_by_its_64_too() {
        let subject = address("2001:db8:1:2::5");
        assert!(subject.is_whole("2001:db8:1:2::/64") && subject.is_whole("2001:db8:1:2::5/128"));
        assert!(!subject.is_in("2001:db8:1:2::55") && !subject.is_in("2001:db8:1:2::6"));
        assert_eq!(subject.without("see 2001:db8:1:2::/64."), "see [erased]/64.");
    }

    #[test]
    fn a_name_is_no_mere_word() {
        let subject = Subject::User("admin".to_owned());
        assert!(subject.is_whole("admin"));
        for text in ["admin", "/admin/users", "{\"admin\":1,\"kind\":\"admin\"}"] {
            assert_eq!(subject.without(text), text);
        }
        assert_eq!(
            subject.without("{\"user\":\"admin\",\"path\":\"/admin\"}"),
            "{\"user\":\"[erased]\",\"path\":\"/admin\"}"
        );
        assert_eq!(subject.without("user admin, user administrator"), "user [erased], user administrator");
        assert_eq!(subject.without("portcullis unblock --user admin"), "portcullis unblock --user [erased]");
        assert_eq!(subject.texts(), ["admin"]);
    }

    #[test]
    fn a_name_with_odd_letters_is_found_as_a_shell_and_as_json_have_it() {
        let subject = Subject::User("o'ne \"two\"".to_owned());
        for (text, left) in [
            (r#"user o'ne "two" was blocked"#, "user [erased] was blocked"),
            (r#"unblock --user 'o'\''ne "two"'"#, "unblock --user [erased]"),
            (r#"{"user":"o'ne \"two\""}"#, r#"{"user":"[erased]"}"#),
            (r#"{"text":"unblock --user 'o'\\''ne \"two\"'"}"#, r#"{"text":"unblock --user [erased]"}"#),
        ] {
            assert_eq!(subject.without(text), left);
            assert!(subject.texts().iter().any(|sought| text.contains(sought.as_str())), "{text}");
        }
    }
}
