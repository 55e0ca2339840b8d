//! Well-known crawlers, monitors and feed readers: which one a user agent names, and whether the client is it.
//! Must not ask DNS or fetch anything; what was asked and fetched is handed in.

mod judge;
mod parse;
mod ranges;
mod reverse;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind};
use ipnet::IpNet;

pub use judge::{How, Judgement, Proof};
pub use parse::{BotsError, read_bots};
pub use reverse::{Lookup, MAX_NAMES, NamePattern, Next, Outcome, Refusal, Reverse};

use ranges::Ranges;

/// The most bots of one table.
pub const MAX_BOTS: usize = 1_000;
/// The most bots that one user agent can name.
pub const MAX_CLAIMS: usize = 4;
/// Bytes of a user agent that are looked at.
pub const MAX_AGENT: usize = 512;

const BUILTIN: &str = include_str!("bots.txt");

/// What a bot is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BotKind {
    Search,
    Ai,
    Seo,
    Social,
    Monitor,
    Feed,
    Archive,
    /// It fetches what strangers ask it for: being the real one excuses nothing.
    Fetch,
}

impl BotKind {
    pub const ALL: [Self; 8] = [
        Self::Search,
        Self::Ai,
        Self::Seo,
        Self::Social,
        Self::Monitor,
        Self::Feed,
        Self::Archive,
        Self::Fetch,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Search => "search",
            Self::Ai => "ai",
            Self::Seo => "seo",
            Self::Social => "social",
            Self::Monitor => "monitor",
            Self::Feed => "feed",
            Self::Archive => "archive",
            Self::Fetch => "fetch",
        }
    }
}

impl fmt::Display for BotKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for BotKind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(())
    }
}

/// One bot, and how it is told from somebody who borrows its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bot {
    pub name: Arc<str>,
    pub kind: BotKind,
    /// Texts of its user agent, any of them, in upper or lower case.
    pub agents: Vec<String>,
    /// Whether the name without the proof is a false one.
    pub is_strict: bool,
    /// The names of its addresses.
    pub dns: Vec<NamePattern>,
    /// Where its operator publishes its networks.
    pub urls: Vec<String>,
    pub networks: Vec<IpNet>,
    /// Whether `networks` are all that there are, as who configures a bot says of his own.
    pub is_complete: bool,
    /// A page about it; empty when there is none.
    pub about: String,
}

/// The bots that one user agent names, as places in the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Claims {
    count: u8,
    bots: [u16; MAX_CLAIMS],
}

impl Claims {
    pub fn is_empty(self) -> bool {
        self.count == 0
    }

    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.bots[..usize::from(self.count)].iter().map(|&bot| usize::from(bot))
    }

    fn add(&mut self, bot: u16) {
        let count = usize::from(self.count);
        if count < MAX_CLAIMS && !self.bots[..count].contains(&bot) {
            self.bots[count] = bot;
            self.count += 1;
        }
    }
}

/// A table of bots, ready to be asked.
#[derive(Clone, Debug)]
pub struct KnownBots {
    bots: Vec<Bot>,
    ranges: Vec<Ranges>,
    search: AhoCorasick,
    /// The bot of each text that is searched.
    owners: Vec<u16>,
}

impl KnownBots {
    /// The table that comes with the program.
    ///
    /// # Panics
    /// Never: the text is part of the binary, and a test reads it.
    pub fn builtin() -> Self {
        Self::new(builtin_bots()).expect("the built-in bots keep to their format")
    }

    /// A table of these bots.
    ///
    /// # Errors
    /// There are too many of them.
    pub fn new(bots: Vec<Bot>) -> Result<Self, BotsError> {
        if bots.len() > MAX_BOTS {
            return Err(BotsError::TooMany { count: bots.len() });
        }
        let mut owners = Vec::new();
        let mut texts = Vec::new();
        for (place, bot) in (0_u16..).zip(&bots) {
            for text in bot.agents.iter().filter(|text| !text.is_empty()) {
                owners.push(place);
                texts.push(text.as_str());
            }
        }
        let search = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .ascii_case_insensitive(true)
            .build(texts)
            .map_err(|error| BotsError::Automaton(error.to_string()))?;
        let ranges = bots.iter().map(|bot| bot.networks.iter().collect()).collect();
        Ok(Self { bots, ranges, search, owners })
    }

    pub fn bots(&self) -> &[Bot] {
        &self.bots
    }

    /// Takes other networks for one bot, in the place of those of the table.
    pub fn set_networks<'a>(
        &mut self,
        bot: usize,
        networks: impl IntoIterator<Item = &'a IpNet>,
        is_complete: bool,
    ) {
        if let (Some(bot), Some(ranges)) = (self.bots.get_mut(bot), self.ranges.get_mut(bot)) {
            bot.is_complete = is_complete;
            *ranges = networks.into_iter().collect();
        }
    }

    /// Which bots a user agent names. A name counts as a word by itself: `cubot` is no bot.
    pub fn claims(&self, user_agent: &str) -> Claims {
        let bytes = user_agent.as_bytes();
        let text = &bytes[..bytes.len().min(MAX_AGENT)];
        let mut claims = Claims::default();
        for found in self.search.find_iter(text) {
            let is_letter = |at: usize| text.get(at).is_some_and(u8::is_ascii_alphanumeric);
            let begins = found.start().checked_sub(1).is_none_or(|before| !is_letter(before));
            if begins && !is_letter(found.end()) {
                claims.add(self.owners[found.pattern().as_usize()]);
            }
        }
        claims
    }
}

/// The bots that come with the program, for a table with others among them.
///
/// # Panics
/// Never: the text is part of the binary, and a test reads it.
pub fn builtin_bots() -> Vec<Bot> {
    read_bots(BUILTIN).expect("the built-in bots keep to their format")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_builtin_table_is_read_and_every_bot_can_be_named() {
        let known = KnownBots::builtin();
        assert!(known.bots().len() > 40);
        for (place, bot) in known.bots().iter().enumerate() {
            for agent in &bot.agents {
                let claims = known.claims(&format!("Mozilla/5.0 (compatible; {agent}/1.0)"));
                assert!(claims.iter().any(|claimed| claimed == place), "{agent}");
            }
            // What can be neither proven nor refuted would be false for ever.
            assert!(!bot.is_strict || !bot.dns.is_empty() || !bot.urls.is_empty(), "{}", bot.name);
            assert!(!bot.is_complete, "{}: shipped networks grow old", bot.name);
        }
    }

    #[test]
    fn a_name_counts_as_a_word_by_itself() {
        let known = KnownBots::builtin();
        let named = |agent: &str| -> Vec<String> {
            known.claims(agent).iter().map(|bot| known.bots()[bot].name.to_string()).collect()
        };
        assert_eq!(named("Mozilla/5.0 (compatible; GOOGLEBOT/2.1)"), ["Googlebot"]);
        assert_eq!(named("Googlebot-Image/1.0"), ["Googlebot"]);
        assert!(named("Mozilla/5.0 (Linux; Android 9; NotGooglebot2)").is_empty());
        assert!(named("").is_empty());
        assert_eq!(named("TelegramBot (like TwitterBot)"), ["TelegramBot", "Twitterbot"]);
        let iphone = "Mozilla/5.0 (Macintosh) Safari/601.2.4 facebookexternalhit/1.1 Facebot Twitterbot/1.0";
        assert_eq!(named(iphone), ["Facebook", "Twitterbot"]);
        let everybody = "Googlebot bingbot YandexBot Applebot Baiduspider GPTBot".repeat(200);
        assert_eq!(known.claims(&everybody).iter().count(), MAX_CLAIMS);
        let late = format!("{}Googlebot", " ".repeat(MAX_AGENT));
        assert!(known.claims(&late).is_empty());
    }
}
