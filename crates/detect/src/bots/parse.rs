//! Reads a table of bots; the opening comment of `bots.txt` describes the format. Must not skip what it does not
//! understand.

use std::sync::Arc;

use ipnet::IpNet;

use super::{Bot, BotKind, MAX_BOTS};

/// The longest name of a bot.
const MAX_NAME: usize = 60;

/// Why a table cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BotsError {
    #[error("line {line}: {what}")]
    Line { line: usize, what: String },
    #[error("{count} bots are more than the {MAX_BOTS} that a table may hold; remove some")]
    TooMany { count: usize },
    #[error("the user agents do not fit into one search ({0}); remove some")]
    Automaton(String),
}

/// Reads a table.
///
/// # Errors
/// The first line that does not fit, or a table that is too large.
pub fn read_bots(text: &str) -> Result<Vec<Bot>, BotsError> {
    let mut bots: Vec<Bot> = Vec::new();
    let mut open: Option<Draft> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let fail = |what: String| BotsError::Line { line: number, what };
        let line = line.trim();
        if line.starts_with('#') {
            continue;
        }
        if line.is_empty() {
            bots.extend(open.take().map(Draft::finish).transpose()?);
            continue;
        }
        let (key, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let value = value.trim();
        if value.is_empty() {
            return Err(fail(format!("expected `{key}` and a value")));
        }
        match (&mut open, key) {
            (None, "bot") if bots.iter().any(|bot| bot.name.eq_ignore_ascii_case(value)) => {
                return Err(fail(format!("another bot is named {value:?} already")));
            }
            (None, "bot") if value.len() > MAX_NAME => {
                return Err(fail(format!("expected a name of at most {MAX_NAME} bytes")));
            }
            (None, "bot") => open = Some(Draft::new(value, number)),
            (None, _) => return Err(fail(format!("expected `bot NAME` first, got `{key}`"))),
            (Some(_), "bot") => return Err(fail("expected an empty line before the next bot".to_owned())),
            (Some(draft), _) => draft.take(key, value).map_err(fail)?,
        }
        if bots.len() > MAX_BOTS {
            return Err(BotsError::TooMany { count: bots.len() });
        }
    }
    bots.extend(open.map(Draft::finish).transpose()?);
    Ok(bots)
}

/// A block that is being read.
struct Draft {
    line: usize,
    bot: Bot,
    kind: Option<BotKind>,
}

impl Draft {
    fn new(name: &str, line: usize) -> Self {
        let bot = Bot {
            name: Arc::from(name),
            kind: BotKind::Search,
            agents: Vec::new(),
            is_strict: false,
            dns: Vec::new(),
            urls: Vec::new(),
            networks: Vec::new(),
            is_complete: false,
            about: String::new(),
        };
        Self { line, bot, kind: None }
    }

    fn take(&mut self, key: &str, value: &str) -> Result<(), String> {
        let bot = &mut self.bot;
        match key {
            "kind" => {
                let kind = value.parse().map_err(|()| format!("expected a kind, got {value:?}"))?;
                self.kind = Some(kind);
            }
            "agent" => bot.agents.push(value.to_owned()),
            "claims" => {
                bot.is_strict = match value {
                    "strict" => true,
                    "loose" => false,
                    _ => return Err(format!("expected strict or loose, got {value:?}")),
                }
            }
            "dns" => {
                for name in value.split_whitespace() {
                    bot.dns.push(name.parse()?);
                }
            }
            "url" => bot.urls.push(value.to_owned()),
            "net" => {
                for network in value.split_whitespace() {
                    let network: IpNet =
                        network.parse().map_err(|_| format!("expected networks, got {network:?}"))?;
                    bot.networks.push(network.trunc());
                }
            }
            "about" => value.clone_into(&mut bot.about),
            _ => {
                return Err(format!(
                    "expected bot, kind, agent, claims, dns, url, net or about, got {key:?}"
                ));
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Bot, BotsError> {
        let Self { line, mut bot, kind } = self;
        let missing =
            |what: &str| BotsError::Line { line, what: format!("bot {:?} has no `{what}`", bot.name) };
        let kind = kind.ok_or_else(|| missing("kind"))?;
        if bot.agents.is_empty() {
            return Err(missing("agent"));
        }
        bot.kind = kind;
        Ok(bot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let good =
            "bot Example\nkind seo\nagent ExampleBot\nclaims strict\ndns example.com\nnet 192.0.2.1/24\n";
        let bots = read_bots(good).unwrap();
        assert_eq!((bots.len(), bots[0].kind, bots[0].is_strict), (1, BotKind::Seo, true));
        assert_eq!(bots[0].networks, ["192.0.2.0/24".parse::<IpNet>().unwrap()]);
        for (text, line) in [
            ("kind seo\n", 1),
            ("bot A\nagent A\n", 1),
            ("bot A\nkind seo\n", 1),
            ("bot A\nkind teapot\n", 2),
            ("bot A\nnet 300.1.1.1\n", 2),
            ("bot A\ndns com\n", 2),
            ("bot A\nbot B\n", 2),
            ("bot A\nkind\n", 2),
            ("bot A\ncolour red\n", 2),
            ("bot A\nkind ai\nagent A\n\nbot a\n", 5),
        ] {
            let error = read_bots(text).unwrap_err();
            assert!(matches!(error, BotsError::Line { line: at, .. } if at == line), "{text:?}: {error}");
        }
    }
}
