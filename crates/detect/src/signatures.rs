//! The table of what scanners ask for, and the automata that find its patterns. Owns the table's format and
//! how much a hit counts; must not look at clients.

use std::cell::OnceCell;

use aho_corasick::{AhoCorasick, MatchKind};

use crate::observation::Answer;
use crate::path::decode_lower;

/// The most signatures of a table: one bit each in the state of every client that matched any.
pub const MAX_SIGNATURES: usize = 512;
/// The most patterns that one line's alternatives may make.
const MAX_ALTERNATIVES: usize = 1_024;

/// User agents that need not be searched again.
const CACHED_AGENTS: usize = 128;

const BUILTIN: &str = include_str!("signatures.txt");

/// What kind of attack a signature belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    Exploit,
    Traversal,
    Injection,
    Device,
    Secret,
    Webshell,
    Script,
    Panel,
    Cms,
    Backup,
    /// Backups by names that no page has.
    Archive,
    Proxy,
    Scanner,
}

impl Class {
    const ALL: [Self; 13] = [
        Self::Exploit,
        Self::Traversal,
        Self::Injection,
        Self::Device,
        Self::Secret,
        Self::Webshell,
        Self::Script,
        Self::Panel,
        Self::Cms,
        Self::Backup,
        Self::Archive,
        Self::Proxy,
        Self::Scanner,
    ];

    /// The word in the table and in evidence.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exploit => "exploit",
            Self::Traversal => "traversal",
            Self::Injection => "injection",
            Self::Device => "device",
            Self::Secret => "secret",
            Self::Webshell => "webshell",
            Self::Script => "script",
            Self::Panel => "panel",
            Self::Cms => "cms",
            Self::Backup => "backup",
            Self::Archive => "archive",
            Self::Proxy => "proxy",
            Self::Scanner => "scanner",
        }
    }

    /// How much a hit counts, given the answer. A site that serves a panel owns it, and its visitors are
    /// its users; an injection is one whatever the site answered.
    pub(crate) fn strength(self, answer: Answer, status: u16) -> Strength {
        let gone = matches!(status, 400 | 404 | 410);
        match self {
            Self::Exploit | Self::Traversal | Self::Injection | Self::Scanner => Strength::Full,
            Self::Secret | Self::Webshell => match answer {
                Answer::Served => Strength::Half,
                Answer::Redirected | Answer::ClientError | Answer::Failed | Answer::Refused => Strength::Full,
            },
            Self::Device | Self::Archive | Self::Proxy => match answer {
                Answer::Served => Strength::None,
                Answer::Redirected | Answer::ClientError | Answer::Failed | Answer::Refused => Strength::Full,
            },
            // A panel redirects its own users, to its login page or to its folder.
            Self::Panel | Self::Cms if answer == Answer::Redirected => Strength::None,
            Self::Script | Self::Panel | Self::Cms | Self::Backup => match answer {
                Answer::ClientError if gone => Strength::Full,
                Answer::ClientError | Answer::Redirected | Answer::Refused => Strength::Half,
                Answer::Served | Answer::Failed => Strength::None,
            },
        }
    }

    /// Whether such a request is an attack whatever the site answers: no site's own pages are called like that.
    pub(crate) fn is_plain(self) -> bool {
        match self {
            Self::Exploit
            | Self::Traversal
            | Self::Injection
            | Self::Scanner
            | Self::Secret
            | Self::Webshell => true,
            Self::Device
            | Self::Script
            | Self::Panel
            | Self::Cms
            | Self::Backup
            | Self::Archive
            | Self::Proxy => false,
        }
    }

    /// Whether a site may well have such paths itself: then they prove nothing where it does, and a missing image or
    /// style sheet below one is an ordinary broken link.
    pub(crate) fn may_be_the_sites(self) -> bool {
        matches!(self, Self::Script | Self::Panel | Self::Cms | Self::Backup | Self::Archive)
    }
}

/// How much of a signature's weight a hit brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strength {
    None,
    Half,
    Full,
}

impl Strength {
    pub(crate) fn weakened(self) -> Self {
        match self {
            Self::None => Self::None,
            Self::Half | Self::Full => Self::Half,
        }
    }
}

/// Where a pattern is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Path,
    /// The path as it was sent, for spellings that only evade.
    Raw,
    Query,
    Agent,
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    pub name: String,
    pub class: Class,
    /// 2 is a hint, 4 ordinary evidence, 10 plain proof; 0: a path that matches is no evidence of this class.
    pub weight: u32,
    place: Place,
    at_start: bool,
    at_segment_end: bool,
    /// The alternatives, spelled out.
    patterns: Vec<String>,
    /// What else the text must end in, without a slash in between, if there are any.
    ends: Vec<String>,
    /// What the line must match, for its test.
    pub example: String,
}

/// Why a table cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error(
        "line {line}: expected `name  class  weight  where  pattern  example`, parted by two or more blanks; {what}"
    )]
    Line { line: usize, what: String },
    #[error("{count} signatures are more than the {MAX_SIGNATURES} that a table may hold; remove some")]
    TooMany { count: usize },
    #[error("the patterns do not fit into one automaton ({0}); remove some")]
    Automaton(String),
}

/// A table ready to search with.
#[derive(Debug)]
pub struct Signatures {
    all: Vec<Signature>,
    path: Automaton,
    raw: Automaton,
    query: Automaton,
    agent: Automaton,
}

#[derive(Debug)]
struct Automaton {
    search: AhoCorasick,
    /// From the pattern's number to the signature's.
    owners: Vec<u16>,
}

/// Buffers for decoded text, kept from one request to the next.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    text: Vec<u8>,
    spare: Vec<u8>,
    agents: AgentCache,
}

/// What the latest user agents are: most clients use one of a few, and searching one takes longer than all the rest.
/// Empty until it is first needed.
#[derive(Debug, Default)]
struct AgentCache(Vec<Option<(u64, Agent)>>);

/// What a user agent says by itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Agent {
    /// It calls itself a crawler, a feed reader or a monitor.
    pub(crate) declares_bot: bool,
    /// It matches a signature.
    pub(crate) is_listed: bool,
}

impl Signatures {
    /// What the user agent with this [`crate::hash::of`] is.
    pub(crate) fn agent(&self, hash: u64, text: &str, scratch: &mut Scratch) -> Agent {
        let place = hash as usize % CACHED_AGENTS;
        scratch.agents.0.resize(CACHED_AGENTS, None);
        match scratch.agents.0[place] {
            Some((known, agent)) if known == hash => agent,
            Some(_) | None => {
                let mut is_listed = false;
                self.in_agent(text, scratch, |_| is_listed = true);
                let agent = Agent { declares_bot: declares_bot(text), is_listed };
                scratch.agents.0[place] = Some((hash, agent));
                agent
            }
        }
    }

    /// The table that comes with this crate.
    pub fn builtin() -> Self {
        // The text is part of the binary, and a test parses it.
        Self::parse(BUILTIN).expect("the built-in signatures keep to their format")
    }

    /// Reads a table; its own opening comment describes the format.
    ///
    /// # Errors
    /// The first line that does not fit, or a table that is too large.
    pub fn parse(text: &str) -> Result<Self, SignatureError> {
        let mut all = Vec::new();
        for (n, line) in text.lines().enumerate() {
            if !line.trim().is_empty() && !line.starts_with('#') {
                all.push(parse_line(line).map_err(|what| SignatureError::Line { line: n + 1, what })?);
            }
        }
        if all.len() > MAX_SIGNATURES {
            return Err(SignatureError::TooMany { count: all.len() });
        }
        Ok(Self {
            path: automaton(&all, Place::Path)?,
            raw: automaton(&all, Place::Raw)?,
            query: automaton(&all, Place::Query)?,
            agent: automaton(&all, Place::Agent)?,
            all,
        })
    }

    /// All lines in their order.
    pub fn all(&self) -> &[Signature] {
        &self.all
    }

    /// The numbers of the signatures that the path matches.
    pub(crate) fn in_path(&self, path: &str, scratch: &mut Scratch, mut hit: impl FnMut(usize)) {
        scratch.decode(path.as_bytes(), false);
        self.matches(&self.path, &scratch.text, |signature, _| hit(signature));
        if path.contains('%') {
            scratch.lower(path);
            self.matches(&self.raw, &scratch.text, |signature, _| hit(signature));
        }
    }

    /// The numbers of the signatures that the query matches, and whether the match lies in a parameter
    /// that commonly carries what a person typed into a search box.
    pub(crate) fn in_query(&self, query: &str, scratch: &mut Scratch, mut hit: impl FnMut(usize, bool)) {
        if query.is_empty() {
            return;
        }
        scratch.decode(query.as_bytes(), true);
        let text = &scratch.text;
        let parameters = OnceCell::new();
        self.matches(&self.query, text, |signature, at| {
            let parameters = parameters.get_or_init(|| Parameters::of(text));
            hit(signature, parameters.is_search_box(at));
        });
    }

    /// The numbers of the signatures that the user agent matches.
    pub(crate) fn in_agent(&self, agent: &str, scratch: &mut Scratch, mut hit: impl FnMut(usize)) {
        scratch.lower(agent);
        self.matches(&self.agent, &scratch.text, |signature, _| hit(signature));
    }

    /// An attack in a query, told by the query alone: its pattern. What stands in a search box is none.
    pub fn attack_in_query(&self, query: &str) -> Option<&str> {
        let mut found = None;
        self.in_query(query, &mut Scratch::default(), |number, in_search_box| {
            found = found.or(self.proof(number).filter(|_| !in_search_box));
        });
        found
    }

    /// An attack in a user agent, told by that alone: its pattern.
    pub fn attack_in_agent(&self, agent: &str) -> Option<&str> {
        let mut found = None;
        self.in_agent(agent, &mut Scratch::default(), |number| found = found.or(self.proof(number)));
        found
    }

    /// The pattern of a signature that counts whatever the answer was, and wherever the pattern stands.
    fn proof(&self, number: usize) -> Option<&str> {
        let Signature { class, at_start, at_segment_end, patterns, ends, .. } = &self.all[number];
        let counts = matches!(class, Class::Exploit | Class::Traversal | Class::Injection | Class::Scanner);
        let [pattern] = &patterns[..] else { return None };
        (counts && !at_start && !at_segment_end && ends.is_empty()).then_some(pattern.as_str())
    }

    fn matches(&self, automaton: &Automaton, text: &[u8], mut hit: impl FnMut(usize, usize)) {
        for found in automaton.search.find_overlapping_iter(text) {
            let number = usize::from(automaton.owners[found.pattern().as_usize()]);
            let signature = &self.all[number];
            let ends_segment = matches!(text.get(found.end()), None | Some(b'/' | b';' | b'?'));
            let is_in_place = (!signature.at_start || found.start() == 0)
                && (!signature.at_segment_end || ends_segment)
                && signature.ends_well(&text[found.end()..]);
            if is_in_place {
                hit(number, found.start());
            }
        }
    }
}

fn parse_line(line: &str) -> Result<Signature, String> {
    let mut fields = line.splitn(2, "  ").map(str::trim);
    let name = fields.next().unwrap_or_default().to_owned();
    let mut rest = fields.next().unwrap_or_default();
    let mut field = || {
        let (head, tail) = rest.split_once("  ").unwrap_or((rest, ""));
        rest = tail.trim();
        head
    };
    let (class, weight, place, pattern) = (field(), field(), field(), field());
    let class =
        Class::ALL.into_iter().find(|c| c.as_str() == class).ok_or(format!("unknown class {class:?}"))?;
    let weight = weight.parse().map_err(|_| format!("expected a number as the weight, got {weight:?}"))?;
    let place = match place {
        "path" => Place::Path,
        "raw" => Place::Raw,
        "query" => Place::Query,
        "agent" => Place::Agent,
        other => return Err(format!("expected path, raw, query or agent, got {other:?}")),
    };
    let (at_start, pattern) = pattern.strip_prefix('^').map_or((false, pattern), |p| (true, p));
    let (at_segment_end, pattern) = pattern.strip_suffix('$').map_or((false, pattern), |p| (true, p));
    if pattern.is_empty() || rest.is_empty() {
        return Err("the pattern or the example is missing".to_owned());
    }
    if pattern.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("a pattern is in lower case".to_owned());
    }
    let (pattern, ends) = match pattern.split_once('*') {
        Some((pattern, ends)) => (pattern, alternatives(ends)?),
        None => (pattern, Vec::new()),
    };
    let patterns = alternatives(pattern)?;
    let example = rest.to_owned();
    Ok(Signature { name, class, weight, place, at_start, at_segment_end, patterns, ends, example })
}

impl Signature {
    /// Whether the text behind the pattern ends as the signature wants it.
    fn ends_well(&self, rest: &[u8]) -> bool {
        self.ends.is_empty()
            || !rest.contains(&b'/') && self.ends.iter().any(|end| rest.ends_with(end.as_bytes()))
    }
}

/// `/{a,b}.php` as `/a.php` and `/b.php`; every pair of braces that holds a comma is one choice.
fn alternatives(pattern: &str) -> Result<Vec<String>, String> {
    let choice = pattern.match_indices('{').find_map(|(open, _)| {
        let close = open + pattern[open..].find('}')?;
        pattern[open..close].contains(',').then_some((open, close))
    });
    let Some((open, close)) = choice else { return Ok(vec![pattern.to_owned()]) };
    let mut all = Vec::new();
    for rest in alternatives(&pattern[close + 1..])? {
        for word in pattern[open + 1..close].split(',') {
            all.push(format!("{}{word}{rest}", &pattern[..open]));
        }
    }
    if all.iter().any(String::is_empty) {
        return Err("one of the alternatives is empty".to_owned());
    }
    if all.len() > MAX_ALTERNATIVES {
        return Err(format!("its braces make {} patterns, at most {MAX_ALTERNATIVES} may be", all.len()));
    }
    Ok(all)
}

fn automaton(all: &[Signature], place: Place) -> Result<Automaton, SignatureError> {
    let chosen = all.iter().enumerate().filter(|(_, signature)| signature.place == place);
    let (owners, patterns): (Vec<u16>, Vec<&str>) = chosen
        .flat_map(|(n, signature)| signature.patterns.iter().map(move |pattern| (n as u16, pattern.as_str())))
        .unzip();
    let search = AhoCorasick::builder()
        .match_kind(MatchKind::Standard)
        .build(patterns)
        .map_err(|e| SignatureError::Automaton(e.to_string()))?;
    Ok(Automaton { search, owners })
}

impl Scratch {
    /// Leaves the text in lower case, as it was sent.
    fn lower(&mut self, raw: &str) {
        self.text.clear();
        self.text.extend(raw.bytes().map(|byte| byte.to_ascii_lowercase()));
    }

    /// Leaves the text in lower case, decoded up to twice (scanners encode twice to get past filters that
    /// decode once), with `\` as `/`, and in queries with SQL comments and runs of blanks as one blank.
    fn decode(&mut self, raw: &[u8], is_query: bool) {
        self.text.clear();
        decode_lower(raw, is_query, &mut self.text);
        if self.text.contains(&b'%') {
            std::mem::swap(&mut self.text, &mut self.spare);
            self.text.clear();
            decode_lower(&self.spare, is_query, &mut self.text);
        }
        if is_query {
            squeeze_blanks(&mut self.text);
        } else {
            self.text.iter_mut().filter(|byte| **byte == b'\\').for_each(|byte| *byte = b'/');
        }
    }
}

fn squeeze_blanks(text: &mut Vec<u8>) {
    let mut write = 0;
    let mut read = 0;
    while read < text.len() {
        let is_comment = text[read..].starts_with(b"/**/");
        let byte = if is_comment || text[read].is_ascii_whitespace() { b' ' } else { text[read] };
        read += if is_comment { 4 } else { 1 };
        if byte != b' ' || write == 0 || text[write - 1] != b' ' {
            text[write] = byte;
            write += 1;
        }
    }
    text.truncate(write);
}

/// Whether the user agent calls itself a crawler, a feed reader or a monitor.
fn declares_bot(agent: &str) -> bool {
    const WORDS: [&str; 9] = ["bot", "crawl", "spider", "slurp", "feed", "rss", "monitor", "uptime", "+http"];
    let lower = agent.to_ascii_lowercase();
    WORDS.iter().any(|word| lower.contains(word))
}

/// Where the parameters of a query begin, so that thousands of matches in a long query cost no more than it is long.
struct Parameters<'a> {
    text: &'a [u8],
    begins: Vec<usize>,
}

impl<'a> Parameters<'a> {
    fn of(text: &'a [u8]) -> Self {
        let after = text.iter().enumerate().filter(|(_, byte)| **byte == b'&').map(|(at, _)| at + 1);
        Self { text, begins: after.collect() }
    }

    /// Whether what is at this place was typed into a search box: people search for the oddest things.
    fn is_search_box(&self, at: usize) -> bool {
        const NAMES: [&[u8]; 9] =
            [b"q", b"s", b"search", b"query", b"text", b"keyword", b"keywords", b"term", b"title"];
        const LONGEST: usize = 8;
        let before = self.begins.partition_point(|&begin| begin <= at);
        let begin = before.checked_sub(1).map_or(0, |n| self.begins[n]);
        let name = self.text[begin..at].iter().take(LONGEST + 1).position(|&byte| byte == b'=');
        name.is_some_and(|end| NAMES.contains(&&self.text[begin..begin + end]))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn names(table: &Signatures, target: &str) -> Vec<String> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut scratch = Scratch::default();
        let mut hits = Vec::new();
        table.in_path(path, &mut scratch, |n| hits.push(n));
        table.in_query(query, &mut scratch, |n, _| hits.push(n));
        hits.into_iter().map(|n| table.all()[n].name.clone()).collect()
    }

    fn agent_names(table: &Signatures, agent: &str) -> Vec<String> {
        let mut hits = Vec::new();
        table.in_agent(agent, &mut Scratch::default(), |n| hits.push(n));
        hits.into_iter().map(|n| table.all()[n].name.clone()).collect()
    }

    #[test]
    fn every_line_matches_its_own_example_and_has_its_own_name() {
        let table = Signatures::builtin();
        assert!(table.all().len() > 150);
        let mut seen = HashSet::new();
        let mut unmatched = Vec::new();
        for signature in table.all() {
            assert!(seen.insert(signature.name.clone()), "{} is there twice", signature.name);
            let found = match signature.place {
                Place::Agent => agent_names(&table, &signature.example),
                Place::Path | Place::Raw | Place::Query => names(&table, &signature.example),
            };
            if !found.contains(&signature.name) {
                unmatched.push((&signature.name, &signature.example));
            }
        }
        assert!(unmatched.is_empty(), "{unmatched:?}");
    }

    #[test]
    fn benign_look_alikes_match_nothing() {
        let table = Signatures::builtin();
        for target in [
            "/",
            "/environment",
            "/docs/.environment-guide",
            "/blog/gitignore-explained",
            "/github/config",
            "/products/shell-jacket",
            "/wsop-results.html",
            "/alfa-romeo/giulia.html",
            "/cars/c99-coupe",
            "/reviews/vpns/best.html",
            "/backup-services.html",
            "/downloads/backup.zip.html",
            "/help/backup.zip",
            "/administration/contact",
            "/blog/mysql-tips",
            "/docs/actuator",
            "/en/adventures/",
            "/files/report..final.pdf",
            "/a/../b",
            "/search?q=select+shoes+from+our+union+shop",
            "/search?q=how+to+sleep",
            "/?page=2&sort=order+by+price",
            "/item?id=1+and+2",
            "/?text=rock+%26+roll",
            "/?next=/account/settings",
            "/?file=report.pdf",
            "/?redirect=https://example.com/a?b=c",
            "/?tags[]=script",
            "/?q=ecosystem",
            "/api/java.lang.String.html",
            "/users/alert",
            "/javadoc?class=java.lang.Runtime",
            "/?utm_source=x&utm_campaign=onload",
            "/static/jquery-1.php-tutorial.html",
            "/cgi/search",
            "/wiki/Wait%2E%2E%2E",
            "/%C0%AF%B8%AE",
            "/a/%24%7BimageUrl%7D",
            "/hordes-of-orcs/",
            "/telescopes/",
            "/archive/october/",
            "/proc/2018/paper.pdf",
            "/data/wiki.de.tar.gz",
            "/?color=(#fff)",
            "/?address=0x7e5f4552091a69125d5dfcb7b8c2659029395bdf",
            "/?type=varchar(20)",
            "/?topic=powershell",
            "/?pkg=busybox",
            "/?page=whoami",
            "/api.js?onload=start&render=explicit",
            "/?function=passthru",
            "/moonlight",
            "/web-fonts.zip",
        ] {
            assert_eq!(names(&table, target), Vec::<String>::new(), "{target}");
        }
        for agent in [
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36",
            "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
            "curl/8.5.0",
            "python-requests/2.31.0",
            "Go-http-client/1.1",
            "okhttp/4.12.0",
            "",
        ] {
            assert_eq!(agent_names(&table, agent), Vec::<String>::new(), "{agent}");
        }
    }

    #[test]
    fn braces_with_commas_are_alternatives_of_one_signature() {
        let table = Signatures::parse(
            "x  cms  4  path  ^/{a,b}.{php,asp}$  /a.php\ny  exploit  9  query  ${x}  /?${x}",
        )
        .unwrap();
        for target in ["/a.php", "/B.asp", "/b.php/x"] {
            assert_eq!(names(&table, target), ["x"], "{target}");
        }
        assert!(names(&table, "/c.php").is_empty() && names(&table, "/a.phps").is_empty());
        assert_eq!(names(&table, "/?${x}"), ["y"]);
        let table = Signatures::parse("x  cms  4  path  ^/{old,bak}/*.{zip,rar}  /old/a.zip").unwrap();
        assert_eq!(names(&table, "/bak/site.2024.RAR"), ["x"]);
        assert!(names(&table, "/bak/a/b.zip").is_empty() && names(&table, "/bak/a.zip.html").is_empty());
        let table = Signatures::parse("x  cms  4  raw  %2e%2e  /%2e%2E/").unwrap();
        assert_eq!(names(&table, "/a/%2E%2e/b"), ["x"]);
        assert!(names(&table, "/a/../b").is_empty());
    }

    #[test]
    fn encodings_do_not_hide_an_attack() {
        let table = Signatures::builtin();
        for target in ["/.ENV", "/%2eenv", "/%252eenv", "/a/%2Fx\\.env", "/app/.env/"] {
            assert!(names(&table, target).contains(&"env_file".to_owned()), "{target}");
        }
        for query in
            ["UnIoN/**/SeLeCt", "union%20%20select", "union%2520select", "union%0aselect", "union+select"]
        {
            assert!(
                names(&table, &format!("/?id=1+{query}+1")).contains(&"union_select".to_owned()),
                "{query}"
            );
        }
    }

    #[test]
    fn what_a_person_types_into_a_search_box_is_recognised() {
        let is_typed = |before: &[u8]| {
            let text = [before, b"sleep("].concat();
            Parameters::of(&text).is_search_box(before.len())
        };
        assert!(is_typed(b"page=2&q=how to ") && is_typed(b"s=") && is_typed(b"keywords=a b "));
        assert!(!is_typed(b"q=x&id=1 ") && !is_typed(b"nothing") && !is_typed(b"") && !is_typed(b"q=x&"));
    }

    #[test]
    fn a_broken_table_names_its_line() {
        let error = |text: &str| Signatures::parse(text).unwrap_err().to_string();
        assert!(error("# a\nx  nonsense  4  path  /a  /a").starts_with("line 2: "));
        assert!(error("x  cms  many  path  /a  /a").contains("weight"));
        assert!(error("x  cms  4  body  /a  /a").contains("path, raw, query or agent"));
        assert!(error("x  cms  4  path  /a").contains("missing"));
        assert!(error("x  cms  4  path  /A  /A").contains("lower case"));
        let many = "{a,b,c,d,e,f,g,h,i,j,k,l}".repeat(3);
        assert!(error(&format!("x  cms  4  path  /{many}  /a")).contains("1728 patterns"));
        assert!(error("x  cms  4  path  {a,}  /a").contains("empty"));
        assert!(error(&"x  cms  4  path  /a  /a\n".repeat(MAX_SIGNATURES + 1)).contains("more than"));
    }
}
