//! What one request adds to what is known of its client: the same for a window of the log and at request time.
//! Must not judge, and must not know of other clients.

use std::borrow::Cow;
use std::cell::OnceCell;

use portcullis_model::{LoginOutcome, VerdictKind};

use crate::client::{Client, Login, Sample, SampleKind, Sensitive};
use crate::hash;
use crate::observation::{Answer, is_client_error, is_missing};
use crate::path::{is_asset, is_login_api, is_routine, is_script, normalise, sends_login, sensitive_entry};
use crate::scenarios::{Feed, Feeds};
use crate::signatures::{Class, Scratch, Signature, Signatures, Strength};
use crate::{BotStatus, Knowledge, Observation, Settings};

/// The longest path and query of a sample, in characters.
const SAMPLE_CHARS: usize = 200;
/// The longest method of a sample, in characters.
const METHOD_CHARS: usize = 32;
/// A client's first requests are no crawling yet.
const CRAWLS_FROM: u32 = 8;
/// Matches of one request beyond this many are not looked at.
const MAX_MATCHES: usize = 24;

/// What requests are read with.
#[derive(Clone, Copy)]
pub(crate) struct Tools<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) signatures: &'a Signatures,
    pub(crate) knowledge: &'a Knowledge,
}

/// A request with what is read from it once.
pub(crate) struct Request<'a> {
    pub(crate) seen: &'a Observation<'a>,
    normal: Cow<'a, str>,
    path: u64,
    is_asset: bool,
    answer: Answer,
    /// Whether the site owns the path, once somebody has asked.
    is_owned: OnceCell<bool>,
    agent_hash: u64,
    /// The short hash of the user agent, see [`Client::use_agent`].
    pub(crate) agent: u32,
}

/// What a request was evidence of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Evidence {
    /// It asked for a page that is not there.
    pub(crate) is_missing: bool,
    pub(crate) is_failed_login: bool,
    /// A login that was answered with a page: perhaps the form again.
    pub(crate) is_quiet_login: bool,
    /// It, or a user agent that was not seen before, is one of attacks.
    pub(crate) is_attack: bool,
    /// It came in the name of a crawler that its client is not.
    pub(crate) is_false_bot: bool,
    /// It touched a sensitive path that it had not touched, or been refused, before.
    pub(crate) is_new_touch: bool,
    /// A signature that had not matched before, or a bucket that ran over.
    pub(crate) is_step: bool,
}

impl Evidence {
    /// Whether it says something about the user agent that it came with.
    pub(crate) fn marks(self) -> bool {
        self.is_missing || self.is_failed_login || self.is_attack || self.is_false_bot
    }

    /// Whether the rules may see more than before.
    pub(crate) fn is_some(self) -> bool {
        self.marks() || self.is_quiet_login || self.is_new_touch || self.is_step
    }
}

/// How many samples there may be of all clients together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SampleRoom {
    left: usize,
}

impl SampleRoom {
    pub(crate) fn new(most: usize) -> Self {
        Self { left: most }
    }

    /// A client was forgotten with its samples.
    pub(crate) fn give_back(&mut self, samples: usize) {
        self.left += samples;
    }
}

impl<'a> Request<'a> {
    pub(crate) fn read(seen: &'a Observation<'a>) -> Self {
        let normal = normalise(seen.path);
        let agent_hash = hash::of(seen.user_agent);
        Self {
            path: hash::of(&normal),
            is_asset: is_asset(&normal),
            answer: Answer::of(seen.verdict, seen.status),
            agent_hash,
            agent: hash::short(agent_hash),
            is_owned: OnceCell::new(),
            seen,
            normal,
        }
    }

    /// Whether the path is one of the site's own: what it answers there is no error of the client's.
    fn is_owned(&self, tools: Tools<'_>) -> bool {
        let site = &tools.knowledge.site;
        *self.is_owned.get_or_init(|| site.owns(site.path_hash(self.seen.host, &self.normal)))
    }

    /// Whether the request is evidence for the rule.
    fn is_evidence(&self, tools: Tools<'_>, rule: &str) -> bool {
        tools.knowledge.suppressions.of_path(rule, &self.normal).is_none()
    }

    /// Adds the request to its client's state.
    pub(crate) fn count(
        &self,
        client: &mut Client,
        tools: Tools<'_>,
        scratch: &mut Scratch,
        room: &mut SampleRoom,
    ) -> Evidence {
        let mut feeds = Feeds::default();
        // Most clients leave before they could crawl, and need no bucket for it.
        let may_crawl = client.requests >= CRAWLS_FROM && !self.is_asset && self.answer != Answer::Refused;
        feeds.add_if(Feed::Page, may_crawl);
        self.count_plain(client);
        let is_garbage = self.count_garbage(client);
        let is_missing = self.count_missing(client, tools, room);
        feeds.add_if(Feed::Missing, is_missing);
        self.count_answer(client, tools, room);
        let is_failed_login = self.count_login(client, tools, room, &mut feeds);
        let is_quiet_login = (feeds.has(Feed::Login) || feeds.has(Feed::XmlRpc)) && !is_failed_login;
        let is_new_touch = self.count_sensitive(client, tools, room, &mut feeds);
        let (is_attack, is_new_hit) = self.match_signatures(client, tools, scratch, room, &mut feeds);
        let is_false_bot = self.count_false_name(client, room);
        let overflows = self.pour(client, tools, feeds);
        Evidence {
            is_missing,
            is_failed_login,
            is_quiet_login,
            is_attack,
            is_false_bot,
            is_new_touch,
            is_step: is_new_hit || overflows || is_garbage,
        }
    }

    /// True if a bucket ran over that says more than how much was asked for.
    fn pour(&self, client: &mut Client, tools: Tools<'_>, feeds: Feeds) -> bool {
        if feeds.is_empty() {
            return false;
        }
        let overflows = &mut client.overflows;
        let mut is_step = false;
        let buckets = client.buckets.get_or_insert_default();
        let what = (hash::short(self.path), self.seen.time);
        let is_silent = |scenario: &str| !self.is_evidence(tools, scenario);
        buckets.pour(feeds, what, is_silent, |scenario| {
            // Severities change with the first, and with a few more.
            is_step |= overflows.count(scenario).is_power_of_two();
        });
        is_step
    }

    fn count_plain(&self, client: &mut Client) {
        let seen = self.seen;
        client.arrive(seen.time, self.is_asset);
        client.come_from(seen.client);
        client.assets = client.assets.saturating_add(u32::from(self.is_asset));
        client.served = client.served.saturating_add(u32::from(self.answer == Answer::Served));
        client.without_referer = client.without_referer.saturating_add(u32::from(self.has_no_referer()));
        client.posts = client.posts.saturating_add(u32::from(seen.method == "POST"));
        if let Some(shape) = &mut client.shape {
            let depth = self.normal.split('/').filter(|segment| !segment.is_empty()).count();
            shape.depth_sum = shape.depth_sum.saturating_add(depth as u32);
            shape.bytes_out = shape.bytes_out.saturating_add(seen.bytes_out);
            shape.paths.insert(self.path);
        }
    }

    /// True if it was no HTTP request. Empty ones are those of browsers that connect ahead and then need nothing.
    fn count_garbage(&self, client: &mut Client) -> bool {
        let is_empty = matches!(self.seen.path, "" | "-" | "/") && self.seen.query.is_empty();
        let counts = self.seen.verdict == VerdictKind::Malformed && !is_empty;
        if counts {
            client.garbage.insert(hash::of(self.seen.path));
        }
        counts
    }

    /// Names no page that it came from. Programs that follow a redirect name what they were redirected from, which
    /// is the page itself; a browser does not.
    fn has_no_referer(&self) -> bool {
        let Observation { referer, method, path, query, .. } = *self.seen;
        let is_itself = || {
            let rest = referer
                .strip_suffix(query)
                .map(|rest| if query.is_empty() { rest } else { rest.trim_end_matches('?') });
            path.len() > 1 && method != "POST" && rest.is_some_and(|rest| rest.ends_with(path))
        };
        matches!(referer, "" | "-") || is_itself()
    }

    /// True if it asked for a page that is not there.
    fn count_missing(&self, client: &mut Client, tools: Tools<'_>, room: &mut SampleRoom) -> bool {
        let counts = self.answer == Answer::ClientError
            && is_missing(self.seen.status)
            // Others are those of protocols, such as WebDAV, in which it is ordinary that something is not there.
            && matches!(self.seen.method, "GET" | "HEAD" | "POST")
            && !self.is_asset
            && !is_routine(&self.normal)
            && !self.is_owned(tools)
            && self.is_evidence(tools, "path_probing");
        if counts {
            client.missing.insert(self.path);
            if is_script(&self.normal) {
                client.missing_scripts.insert(self.path);
            }
            self.sample(client, SampleKind::Missing, room);
        }
        counts
    }

    fn count_answer(&self, client: &mut Client, tools: Tools<'_>, room: &mut SampleRoom) {
        let is_error = match self.answer {
            // Many sites redirect everything, to themselves in another spelling: it says nothing of what is there.
            Answer::Refused | Answer::Redirected => return,
            Answer::ClientError if self.is_asset || is_routine(&self.normal) => return,
            Answer::ClientError if is_missing(self.seen.status) && self.is_owned(tools) => return,
            Answer::ClientError if !self.is_evidence(tools, "error_rate") => return,
            Answer::ClientError => is_client_error(self.seen.status),
            Answer::Served | Answer::Failed => false,
        };
        client.judged = client.judged.saturating_add(1);
        client.errors = client.errors.saturating_add(u32::from(is_error));
        if is_error {
            self.sample(client, SampleKind::Error, room);
        }
    }

    /// True if it is a login that failed.
    fn count_login(
        &self,
        client: &mut Client,
        tools: Tools<'_>,
        room: &mut SampleRoom,
        feeds: &mut Feeds,
    ) -> bool {
        let seen = self.seen;
        if seen.login.is_none() && !sends_login(tools.settings, seen.method, &self.normal) {
            return false;
        }
        if !self.is_evidence(tools, "login_failures") {
            return false;
        }
        let is_api = is_login_api(&self.normal);
        let login: &mut Login = client.login.get_or_insert_default();
        let (counter, is_failure) = match (seen.verdict, seen.status) {
            _ if seen.login == Some(LoginOutcome::Failed) => (&mut login.failures, true),
            // It got in, whatever the status.
            _ if seen.login == Some(LoginOutcome::Succeeded) => (&mut login.redirected, false),
            (VerdictKind::Limited, _) => (&mut login.limited, true),
            (VerdictKind::Blocked | VerdictKind::Malformed, _) => return false,
            (_, 400 | 401 | 403 | 422 | 429) => (&mut login.failures, true),
            // No such user.
            (_, 404) if is_api => (&mut login.failures, true),
            // To another spelling of the same place, where the client sends it again.
            (_, 307 | 308) => return false,
            // A right password is answered by 302 or 303.
            (_, 200..=299 | 301) => {
                feeds.add_if(Feed::Login, !is_api);
                login.quiet_api = login.quiet_api.saturating_add(u32::from(is_api));
                login.quiet_programs =
                    login.quiet_programs.saturating_add(u32::from(!is_api && self.is_program()));
                login.masked_calls = login.masked_calls.saturating_add(u32::from(self.is_masked_call()));
                (&mut login.quiet, false)
            }
            (_, 300..=399) => (&mut login.redirected, false),
            _ => return false,
        };
        *counter = counter.saturating_add(1);
        feeds.add_if(Feed::Login, is_failure);
        feeds.add_if(Feed::XmlRpc, self.normal.ends_with("/xmlrpc.php"));
        login.attempts = login.attempts.saturating_add(1);
        self.sample(client, SampleKind::Login, room);
        is_failure
    }

    /// A program that says so, at a path that need not be a form's: for all that is known it may use an API.
    fn is_program(&self) -> bool {
        !is_script(&self.normal) && !names_a_browser(self.seen.user_agent)
    }

    /// XML-RPC in the name of a browser, which never speaks it.
    fn is_masked_call(&self) -> bool {
        self.normal.ends_with("/xmlrpc.php") && names_a_browser(self.seen.user_agent)
    }

    /// True if it is the first touch of a sensitive path, or the first that was refused.
    fn count_sensitive(
        &self,
        client: &mut Client,
        tools: Tools<'_>,
        room: &mut SampleRoom,
        feeds: &mut Feeds,
    ) -> bool {
        let seen = self.seen;
        if matches!(seen.verdict, VerdictKind::Blocked | VerdictKind::Malformed) {
            return false;
        }
        let Some(entry) = sensitive_entry(tools.settings, &self.normal) else { return false };
        if self.is_owned(tools) || !self.is_evidence(tools, "sensitive_paths") {
            return false;
        }
        let bit = 1_u64 << entry.min(63);
        let sensitive: &mut Sensitive = &mut client.sensitive;
        sensitive.hits = sensitive.hits.saturating_add(1);
        let mut is_new = sensitive.touched & bit == 0;
        sensitive.touched |= bit;
        if !seen.verdict.is_refusal() && matches!(seen.status, 401 | 403 | 404) {
            is_new |= sensitive.denied & bit == 0;
            sensitive.denied |= bit;
            feeds.add_if(Feed::AdminDenied, matches!(seen.status, 403 | 404));
        }
        self.sample(client, SampleKind::Sensitive, room);
        is_new
    }

    /// Whether the request, or a user agent that was not seen before, is one of attacks; and whether a signature
    /// matched that had not matched before.
    fn match_signatures(
        &self,
        client: &mut Client,
        tools: Tools<'_>,
        scratch: &mut Scratch,
        room: &mut SampleRoom,
        feeds: &mut Feeds,
    ) -> (bool, bool) {
        let (seen, signatures) = (self.seen, tools.signatures);
        let all = signatures.all();
        let mut matches = Matches::default();
        signatures.in_path(seen.path, scratch, |n| {
            if !(all[n].class.may_be_the_sites() && (self.is_asset || self.is_owned(tools))) {
                matches.push_path(n, all);
            }
        });
        signatures.in_query(seen.query, scratch, |n, in_search_box| matches.push(n, in_search_box));
        if seen.verdict == VerdictKind::Malformed && matches.count == 0 {
            // Where the path would end in what was sent is anybody's guess.
            signatures.in_query(seen.path, scratch, |n, _| matches.push(n, false));
        }
        // Lookups are hidden wherever a server may log them; no page's address has that in it.
        if seen.referer.contains("${") {
            signatures.in_agent(seen.referer, scratch, |n| matches.push(n, false));
        }
        if matches.count > 0 && !self.is_evidence(tools, "sensitive_files") {
            matches = Matches::default();
        }
        let in_request = matches.count;
        // A user agent that was already looked at on this client is not searched again.
        if client.use_agent(self.agent) {
            let agent = signatures.agent(self.agent_hash, seen.user_agent, scratch);
            client.declares_bot &= agent.declares_bot;
            if agent.is_listed {
                signatures.in_agent(seen.user_agent, scratch, |n| matches.push(n, false));
            }
        }
        if matches.count == 0 {
            return (false, false);
        }
        let mut hits = client.signatures.take().unwrap_or_default();
        let (mut is_new, mut is_new_agent) = (false, false);
        for (n, &(signature, in_search_box)) in matches.found[..matches.count].iter().enumerate() {
            let strength = all[signature].class.strength(self.answer, seen.status);
            let is_new_hit = hits.add(signature, if in_search_box { strength.weakened() } else { strength });
            if strength == Strength::None {
                is_new |= hits.touch(signature);
                continue;
            }
            if n < in_request {
                self.feed(feeds, all[signature].class);
            }
            if n < in_request { is_new |= is_new_hit } else { is_new_agent |= is_new_hit }
        }
        hits.requests = hits.requests.saturating_add(u32::from(in_request > 0));
        client.signatures = (!hits.is_empty()).then_some(hits);
        if is_new {
            self.sample(client, SampleKind::Signature, room);
        }
        if is_new_agent {
            self.sample(client, SampleKind::Agent, room);
        }
        (client.signatures.as_ref().is_some_and(|hits| hits.is_evidence()), is_new || is_new_agent)
    }

    fn feed(&self, feeds: &mut Feeds, class: Class) {
        match class {
            Class::Traversal => feeds.add(Feed::Traversal),
            Class::Injection => feeds.add(Feed::Injection),
            Class::Webshell => {
                feeds.add_if(Feed::Backdoor, self.answer != Answer::Served);
                feeds.add(Feed::Scanned);
            }
            Class::Panel => {
                let is_denied = self.answer == Answer::ClientError && matches!(self.seen.status, 403 | 404);
                feeds.add_if(Feed::AdminDenied, is_denied);
                feeds.add(Feed::Scanned);
            }
            Class::Exploit
            | Class::Device
            | Class::Secret
            | Class::Script
            | Class::Cms
            | Class::Backup
            | Class::Archive => feeds.add(Feed::Scanned),
            Class::Proxy | Class::Scanner => {}
        }
    }

    /// True if it came in a false name.
    fn count_false_name(&self, client: &mut Client, room: &mut SampleRoom) -> bool {
        let is_false = self.seen.bot == BotStatus::False;
        if is_false && client.borrow_name(self.seen.user_agent) {
            self.sample(client, SampleKind::Agent, room);
        }
        is_false
    }

    fn sample(&self, client: &mut Client, kind: SampleKind, room: &mut SampleRoom) {
        if room.left == 0 || !client.wants_sample(kind) {
            return;
        }
        room.left -= 1;
        let seen = self.seen;
        client.keep_sample(
            kind,
            Sample {
                time: seen.time,
                method: cut(seen.method, METHOD_CHARS).into(),
                target: target(seen).into(),
                status: seen.status,
            },
        );
    }
}

/// Signatures of one request, and whether each lies in a search box's parameter.
#[derive(Default)]
struct Matches {
    found: [(usize, bool); MAX_MATCHES],
    count: usize,
    /// A bit for each class of which the path is no evidence.
    spared: u16,
}

impl Matches {
    /// One path is one piece of evidence of each class: of several signatures (`/.git/` and `/.git/config`)
    /// the weightiest counts, among equals the one that ends last.
    fn push_path(&mut self, signature: usize, all: &[Signature]) {
        let class = all[signature].class;
        if all[signature].weight == 0 {
            self.spare(class, all);
        }
        if self.spared & 1 << class as u16 != 0 {
            return;
        }
        let rivals = self.found[..self.count].iter_mut();
        match rivals.into_iter().find(|(rival, _)| all[*rival].class == all[signature].class) {
            Some((rival, _)) if all[*rival].weight <= all[signature].weight => *rival = signature,
            Some(_) => {}
            None => self.push(signature, false),
        }
    }

    /// The path is no evidence of this class, whatever else matches.
    fn spare(&mut self, class: Class, all: &[Signature]) {
        self.spared |= 1 << class as u16;
        let found = self.found;
        let count = std::mem::take(&mut self.count);
        for &(signature, in_search_box) in &found[..count] {
            if all[signature].class != class {
                self.push(signature, in_search_box);
            }
        }
    }

    fn push(&mut self, signature: usize, in_search_box: bool) {
        if let Some(place) = self.found.get_mut(self.count) {
            *place = (signature, in_search_box);
            self.count += 1;
        }
    }
}

fn target<'a>(seen: &Observation<'a>) -> Cow<'a, str> {
    if seen.query.is_empty() {
        return Cow::Borrowed(cut(seen.path, SAMPLE_CHARS));
    }
    let whole: String = seen.path.chars().chain(['?']).chain(seen.query.chars()).take(SAMPLE_CHARS).collect();
    Cow::Owned(whole)
}

fn cut(text: &str, chars: usize) -> &str {
    match text.char_indices().nth(chars) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

/// Whether the user agent is a browser's. Programs that write for blogs say who they are besides.
fn names_a_browser(agent: &str) -> bool {
    const WRITERS: [&str; 6] = ["wp-android", "wp-iphone", "Writer", "Jetpack", "WordPress", "+http"];
    agent.starts_with("Mozilla/") && !WRITERS.iter().any(|name| agent.contains(name))
}
