//! Forward-confirmed reverse DNS: the address has a name, the name is one of the operator's, and the name has the
//! address. Whoever owns an address can give it any name; only the owner of the name can point it back.
//! Must not ask DNS itself: it says what to ask next, and takes the answers. Every name is a stranger's text.

use std::net::IpAddr;
use std::str::FromStr;

/// Names of one address that are looked at.
pub const MAX_NAMES: usize = 4;
/// The longest name there is.
const MAX_NAME: usize = 253;

/// Which names an operator's addresses have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NamePattern {
    /// Before the `*`; `None`: any names below `end`, and `end` itself.
    start: Option<String>,
    end: String,
}

impl NamePattern {
    /// Whether a name, in any case and with or without its final dot, is one of them.
    pub fn matches(&self, name: &str) -> bool {
        let name = plain(name);
        match &self.start {
            Some(start) => {
                name.len() >= start.len() + self.end.len()
                    && name.starts_with(start.as_str())
                    && name.ends_with(self.end.as_str())
            }
            None => name
                .strip_suffix(self.end.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
        }
    }
}

impl FromStr for NamePattern {
    type Err = String;

    /// `example.com`, or `crawler-*.example.com`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected a domain such as \"bot.example.com\", got {text:?}");
        let lower = plain(text);
        let (start, end) = match lower.split_once('*') {
            Some((start, end)) => (Some(start.to_owned()), end.to_owned()),
            None => (None, lower),
        };
        let domain = end.strip_prefix('.').unwrap_or(&end);
        let is_name =
            |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
        // A whole top level domain proves nothing.
        let is_domain =
            domain.contains('.') && domain.split('.').all(|label| !label.is_empty()) && is_name(domain);
        let starts_well = match &start {
            Some(start) => end.starts_with('.') && is_name(start),
            None => !end.starts_with('.'),
        };
        if !is_domain || !starts_well || text.len() > MAX_NAME {
            return Err(wrong());
        }
        Ok(Self { start, end })
    }
}

impl std::fmt::Display for NamePattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.start {
            Some(start) => write!(f, "{start}*{}", self.end),
            None => f.write_str(&self.end),
        }
    }
}

fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// What DNS said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup<T> {
    Found(T),
    /// It said that there is nothing.
    Absent,
    /// It said nothing, or that it could not tell.
    Failed,
}

/// What is known in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Confirmed {
        name: String,
    },
    Refuted(Refusal),
    /// DNS did not answer: nothing is known.
    Unsettled,
}

/// Why an address is not the operator's. Names are the address owner's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    NoName,
    /// It has a name, and none that the operator uses.
    OtherName(String),
    /// It claims a name of the operator's that does not have the address.
    NotConfirmed(String),
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    Done(Outcome),
    /// Ask for the addresses of these names, at most [`MAX_NAMES`].
    AskAddresses(Vec<String>),
}

/// One check: made of the address and the operator's names, fed with the names of the address, then with the
/// addresses of those names.
#[derive(Clone, Debug)]
pub struct Reverse {
    client: IpAddr,
    patterns: Vec<NamePattern>,
}

impl Reverse {
    /// Ask for the names of `client` first.
    pub fn new(client: IpAddr, patterns: impl IntoIterator<Item = NamePattern>) -> Self {
        Self { client, patterns: patterns.into_iter().collect() }
    }

    pub fn client(&self) -> IpAddr {
        self.client
    }

    /// Takes the names of the address.
    pub fn named(&self, names: Lookup<Vec<String>>) -> Next {
        let names = match names {
            Lookup::Failed => return Next::Done(Outcome::Unsettled),
            Lookup::Absent => return Next::Done(Outcome::Refuted(Refusal::NoName)),
            Lookup::Found(names) => names,
        };
        let Some(first) = names.first() else {
            return Next::Done(Outcome::Refuted(Refusal::NoName));
        };
        let is_theirs = |name: &&String| {
            name.len() <= MAX_NAME + 1 && self.patterns.iter().any(|pattern| pattern.matches(name))
        };
        let theirs: Vec<String> = names.iter().filter(is_theirs).take(MAX_NAMES).cloned().collect();
        if theirs.is_empty() {
            let name: String = first.chars().take(MAX_NAME).collect();
            return Next::Done(Outcome::Refuted(Refusal::OtherName(name)));
        }
        Next::AskAddresses(theirs)
    }

    /// Takes the addresses of each name that was asked for.
    pub fn addressed(&self, answers: impl IntoIterator<Item = (String, Lookup<Vec<IpAddr>>)>) -> Outcome {
        let mut outcome = Outcome::Refuted(Refusal::NoName);
        for (name, answer) in answers {
            match answer {
                Lookup::Found(addresses) if addresses.iter().any(|ip| ip.to_canonical() == self.client) => {
                    return Outcome::Confirmed { name };
                }
                Lookup::Failed => outcome = Outcome::Unsettled,
                Lookup::Found(_) | Lookup::Absent => {
                    if outcome != Outcome::Unsettled {
                        outcome = Outcome::Refuted(Refusal::NotConfirmed(name));
                    }
                }
            }
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(patterns: &[&str]) -> Reverse {
        let patterns = patterns.iter().map(|pattern| pattern.parse().unwrap());
        Reverse::new("192.0.2.7".parse().unwrap(), patterns)
    }

    fn names(names: &[&str]) -> Lookup<Vec<String>> {
        Lookup::Found(names.iter().map(|&name| name.to_owned()).collect())
    }

    #[test]
    fn a_suffix_ends_at_a_dot_and_a_star_stands_for_anything() {
        let suffix: NamePattern = "googlebot.com".parse().unwrap();
        assert!(suffix.matches("crawl-1.googlebot.com.") && suffix.matches("CRAWL.GoogleBot.com"));
        assert!(!suffix.matches("evilgooglebot.com") && !suffix.matches("googlebot.com.evil.example"));
        let star: NamePattern = "proxy-*.google.com".parse().unwrap();
        assert!(star.matches("proxy-1-2-3-4.google.com"));
        assert!(!star.matches("google-proxy-1.google.com") && !star.matches("proxy-1.evilgoogle.com"));
        for wrong in
            ["com", ".com", "*.com", "a b.example.com", "", "*", "x*y.example.com", "a..", "é.example.com"]
        {
            assert!(wrong.parse::<NamePattern>().is_err(), "{wrong:?}");
        }
        for text in ["googlebot.com", "proxy-*.google.com"] {
            assert_eq!(text.parse::<NamePattern>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn only_a_name_that_points_back_confirms() {
        let check = check(&["bot.example.com"]);
        let asked = Next::AskAddresses(vec!["a.bot.example.com.".to_owned()]);
        assert_eq!(check.named(names(&["other.example.net", "a.bot.example.com."])), asked);
        let answer = |addresses: &[&str]| {
            let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
            [("a.bot.example.com.".to_owned(), Lookup::Found(addresses))]
        };
        let confirmed = check.addressed(answer(&["198.51.100.1", "192.0.2.7"]));
        assert!(matches!(confirmed, Outcome::Confirmed { .. }));
        assert!(matches!(check.addressed(answer(&["::ffff:192.0.2.7"])), Outcome::Confirmed { .. }));
        let poisoned = check.addressed(answer(&["198.51.100.1"]));
        assert!(matches!(poisoned, Outcome::Refuted(Refusal::NotConfirmed(_))));
    }

    #[test]
    fn silence_is_no_answer() {
        let check = check(&["bot.example.com"]);
        assert_eq!(check.named(Lookup::Failed), Next::Done(Outcome::Unsettled));
        let mixed = [
            ("a.bot.example.com".to_owned(), Lookup::Failed),
            ("b.bot.example.com".to_owned(), Lookup::Absent),
        ];
        assert_eq!(check.addressed(mixed), Outcome::Unsettled);
        assert_eq!(check.named(Lookup::Absent), Next::Done(Outcome::Refuted(Refusal::NoName)));
        let many: Vec<String> = (0..99).map(|n| format!("{n}.bot.example.com")).collect();
        assert!(
            matches!(check.named(Lookup::Found(many)), Next::AskAddresses(asked) if asked.len() == MAX_NAMES)
        );
    }
}
