//! What is done about a finding, whoever found it: the run of every hour, or the engine a moment after the request. It
//! is written down, and the least is blocked that stops the culprit: a user by its name; on an address that verified
//! users share, those who are none; else the address. Must not judge clients.

use std::time::Duration;

use ipnet::IpNet;

use portcullis_detect::{Action, Settings, SharedAddress};
use portcullis_model::{Block, BlockSource, ClientIp, Finding, Party, PartyBlock, UnixMs};
use portcullis_policy::Culprit;
use portcullis_store::{NewBlock, NewPartyBlock, State};

use super::spare::{Guard, Ours, Spared};
use super::{TASK, block_step};

/// What was done.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// Each finding with its ID in the database.
    pub(crate) saved: Vec<(i64, Finding)>,
    /// The blocks that were added.
    pub(crate) blocked: Vec<Block>,
    /// Those of somebody behind an address.
    pub(crate) blocked_parties: Vec<PartyBlock>,
    /// Findings that were severe enough to block, by their IDs, and why that was not done.
    pub(crate) spared: Vec<(i64, ClientIp, Spared)>,
}

/// A finding that something may have to be done about.
#[derive(Clone, Copy)]
pub(super) struct Found<'a> {
    /// As it is written down.
    pub(super) finding: &'a Finding,
    /// The address behind it; `None`: nobody knows.
    pub(super) client: Option<ClientIp>,
    /// Who else is on that address.
    pub(super) shared: Option<&'a SharedAddress>,
    /// How long a block lasts that does not follow the steps.
    span: Option<Duration>,
}

impl<'a> Found<'a> {
    pub(super) fn new(
        finding: &'a Finding,
        client: Option<ClientIp>,
        shared: Option<&'a SharedAddress>,
    ) -> Self {
        Self { finding, client, shared, span: None }
    }
}

/// How it is acted.
pub(super) struct Acting<'a> {
    pub(super) settings: &'a Settings,
    pub(super) guard: &'a Guard,
    /// IPv6 prefixes that this run has blocked as a whole.
    pub(super) prefixes: &'a [Block],
    pub(super) now: UnixMs,
}

impl Acting<'_> {
    /// Writes the finding down, and blocks who is behind it if it is severe enough.
    pub(super) fn act(&self, state: &mut State, done: &mut Done, found: &Found<'_>) -> anyhow::Result<()> {
        let id = state.save_finding(found.finding)?;
        let decided = self.settings.actions.of(found.finding);
        if let Action::Block(span) = decided.action {
            let spared = match self.guard.spares(state, id, found.finding, found.client)? {
                Some(why) => Some(why),
                None if decided.is_dry_run => Some(Spared::DryRun),
                None => {
                    let found = &Found { span, ..*found };
                    match &found.finding.user {
                        Some(user) => self.act_on_user(state, done, id, found, user)?,
                        None => self.act_on_address(state, done, id, found)?,
                    }
                }
            };
            done.spared.extend(spared.map(|why| (id, found.finding.client, why)));
        }
        done.saved.push((id, found.finding.clone()));
        Ok(())
    }

    fn act_on_user(
        &self,
        state: &mut State,
        done: &mut Done,
        id: i64,
        found: &Found<'_>,
        user: &str,
    ) -> anyhow::Result<Option<Spared>> {
        if state.block_of_user(user, self.now)?.is_some() {
            return Ok(Some(Spared::AlreadyBlocked));
        }
        let block = self.block_party(state, id, found, Party::User(user.into()))?;
        // With no other user on it the address goes too, or the next account would be made from there.
        if let Some(client) = found.client
            && found.shared.is_none()
            && self.stands(state, client)?.is_none()
        {
            done.blocked.push(self.block(state, id, found, client)?);
            // What a person says about the user is what counts.
            state.link_block(id, block.id)?;
        }
        done.blocked_parties.push(block);
        Ok(None)
    }

    fn act_on_address(
        &self,
        state: &mut State,
        done: &mut Done,
        id: i64,
        found: &Found<'_>,
    ) -> anyhow::Result<Option<Spared>> {
        let Some(client) = found.client else { return Ok(Some(Spared::Anonymous)) };
        if let Some(why) = self.stands(state, client)? {
            let of_prefix = self.prefixes.iter().find(|block| block.network.contains(&client.ip()));
            return match (why, of_prefix) {
                (Spared::AlreadyBlocked, Some(block)) => {
                    state.link_block(id, block.id)?;
                    Ok(None)
                }
                (why, _) => Ok(Some(why)),
            };
        }
        let Some(shared) = found.shared else {
            done.blocked.push(self.block(state, id, found, client)?);
            return Ok(None);
        };
        match self.anonymous(state, client, &shared.user_agents)? {
            None => Ok(Some(Spared::AlreadyBlocked)),
            Some(party) => {
                done.blocked_parties.push(self.block_party(state, id, found, party)?);
                Ok(None)
            }
        }
    }

    /// Why the address is not blocked: it is one of ours, or a block covers it.
    fn stands(&self, state: &State, client: ClientIp) -> anyhow::Result<Option<Spared>> {
        if let Some(ours) = self.guard.ours.has(client) {
            return Ok(Some(ours));
        }
        let is_covered = !state.covering(client, self.now)?.is_empty();
        Ok(is_covered.then_some(Spared::AlreadyBlocked))
    }

    /// The anonymous clients of a shared address, with the user agents that gave the culprit away, those of the
    /// standing block too. `None`: that block says it all.
    fn anonymous(&self, state: &State, client: ClientIp, new: &[Box<str>]) -> anyhow::Result<Option<Party>> {
        let standing = state.block_of_anonymous(client, self.now)?;
        let known = match standing.as_ref().map(|block| &block.party) {
            Some(Party::Anonymous { agents, .. }) => agents.as_slice(),
            Some(Party::User(_)) | None => &[],
        };
        if standing.is_some() && new.iter().all(|agent| known.contains(agent)) {
            return Ok(None);
        }
        let mut agents = new.to_vec();
        agents.extend(known.iter().filter(|agent| !new.contains(agent)).cloned());
        agents.truncate(Party::MAX_AGENTS);
        Ok(Some(anonymous(client, agents)))
    }

    fn block(
        &self,
        state: &mut State,
        id: i64,
        found: &Found<'_>,
        client: ClientIp,
    ) -> anyhow::Result<Block> {
        let network = self.guard.ours.network(client);
        let earlier = state.earlier_blocks(&network, self.remembers())?;
        let (step, span) = self.step(found, earlier);
        let block = state.add_block(
            NewBlock {
                network,
                reason: reason(found.finding) + &step,
                source: BlockSource::Detector,
                created_at: self.now,
                expires_at: span.map(|span| self.now.plus(span)),
                finding_id: Some(id),
            },
            TASK,
        )?;
        state.link_block(id, block.id)?;
        Ok(block)
    }

    fn block_party(
        &self,
        state: &mut State,
        id: i64,
        found: &Found<'_>,
        party: Party,
    ) -> anyhow::Result<PartyBlock> {
        let earlier = match &party {
            Party::User(user) => state.earlier_blocks_of_user(user, self.remembers())?,
            // Made anew as evidence comes, which is not another offence; and whoever is there next is not the same.
            Party::Anonymous { .. } => 0,
        };
        let (step, span) = self.step(found, earlier);
        let block = state.add_party_block(
            NewPartyBlock {
                party,
                reason: reason(found.finding) + &step,
                source: BlockSource::Detector,
                created_at: self.now,
                expires_at: span.map(|span| self.now.plus(span)),
                finding_id: Some(id),
            },
            TASK,
        )?;
        state.link_block(id, block.id)?;
        Ok(block)
    }

    /// How long a block lasts, and the words for it when it is not the first one.
    fn step(&self, found: &Found<'_>, earlier: usize) -> (String, Option<Duration>) {
        match found.span {
            Some(span) => (String::new(), Some(span)),
            None => block_step(self.settings, earlier),
        }
    }

    /// Since when earlier blocks count.
    fn remembers(&self) -> UnixMs {
        self.now.minus(self.settings.block_memory)
    }
}

/// Whom a finding about a true client will have blocked, unless that is spared: as [`Acting::act`] does it.
pub(super) fn culprits(finding: &Finding, shared: Option<&SharedAddress>, ours: &Ours) -> Vec<Culprit> {
    let client = finding.client;
    let is_ours = ours.has(client).is_some();
    let address = || Culprit::Address(ours.network(client));
    match (&finding.user, shared) {
        (Some(user), shared) => {
            let user = Culprit::Party(Party::User(user.as_str().into()));
            std::iter::once(user).chain((shared.is_none() && !is_ours).then(address)).collect()
        }
        (None, _) if is_ours => Vec::new(),
        (None, None) => vec![address()],
        (None, Some(shared)) => vec![Culprit::Party(anonymous(client, shared.user_agents.clone()))],
    }
}

/// Those on an address who are no verified users.
pub(super) fn anonymous(client: ClientIp, agents: Vec<Box<str>>) -> Party {
    let key = client.limit_key();
    Party::Anonymous { network: IpNet::new_assert(key, if key.is_ipv4() { 32 } else { 64 }), agents }
}

fn reason(finding: &Finding) -> String {
    format!("{} ({})", finding.reason, finding.severity)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use portcullis_config::{Config, Overrides, parse};
    use portcullis_model::{Protocol, Reason, RecordText, RequestId, RequestRecord, TextFields, VerdictKind};
    use portcullis_store::{Log, LogSettings, NoEnrichment};

    use super::*;

    const NOW: UnixMs = UnixMs(1_795_157_485_000);
    const ADDRESS: &str = "203.0.113.9";
    const BROWSER: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0";

    struct Asked<'a> {
        user: &'a str,
        agent: &'a str,
        method: &'a str,
        path: &'a str,
        status: u16,
    }

    /// A page that a user reads.
    const READS: Asked<'_> = Asked { user: "", agent: BROWSER, method: "GET", path: "/inbox", status: 200 };

    fn record(n: u32, asked: &Asked<'_>) -> RequestRecord {
        RequestRecord {
            id: RequestId::new(
                NOW.minus(Duration::from_secs(1_800)).plus(Duration::from_millis(n.into())),
                n,
            ),
            client: ADDRESS.parse().unwrap(),
            protocol: Protocol::Http11,
            status: asked.status,
            bytes_in: 0,
            bytes_out: 100,
            latency_us: 1,
            verdict: VerdictKind::Admitted,
            reason: Reason::None,
            login: None,
            text: RecordText::new(TextFields {
                method: asked.method.as_bytes(),
                host: b"shop.example",
                path: asked.path.as_bytes(),
                user_agent: asked.agent.as_bytes(),
                user: asked.user.as_bytes(),
                ..TextFields::default()
            }),
        }
    }

    fn config(data: &Path) -> Config {
        let text =
            "[[upstream]]\nname = \"a\"\nservers = [\"http://127.0.0.1:1\"]\n[detection]\nforest = false\n";
        let overrides = Overrides { data: Some(data.to_owned()), ..Overrides::default() };
        parse(text, "test", Path::new(""), &overrides).unwrap()
    }

    /// What a run makes of these requests after those of 199 users who share the address.
    fn run(users: bool, asked: &[Asked<'_>]) -> (tempfile::TempDir, crate::detection::Outcome) {
        let folder = tempfile::tempdir().unwrap();
        State::open(folder.path()).unwrap();
        let log = Log::start(folder.path(), LogSettings::default(), Box::new(NoEnrichment)).unwrap();
        let mut n = 0;
        let mut offer = |asked: &Asked<'_>| {
            n += 1;
            assert!(log.recorder().offer(record(n, asked)));
        };
        for user in 0..if users { 199 } else { 0 } {
            let user = format!("user-{user}");
            (0..3).for_each(|_| offer(&Asked { user: &user, ..READS }));
        }
        asked.iter().for_each(&mut offer);
        log.flusher().flush().unwrap();
        drop(log);
        let outcome = super::super::run(&config(folder.path()), NOW, &Arc::default()).unwrap();
        (folder, outcome)
    }

    fn scan(user: &'static str, agent: &'static str) -> Vec<Asked<'static>> {
        let paths = ["/.env", "/.git/config", "/.aws/credentials", "/wp-config.php.bak", "/id_rsa"];
        paths.iter().map(|path| Asked { user, agent, method: "GET", path, status: 404 }).collect()
    }

    fn guess(agent: &'static str, times: usize) -> Vec<Asked<'static>> {
        (0..times).map(|_| Asked { user: "", agent, method: "POST", path: "/login", status: 401 }).collect()
    }

    #[test]
    fn a_repeat_offender_is_blocked_longer_each_time_until_that_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = State::open(folder.path()).unwrap();
        let config = config(folder.path());
        let mut n = 0;
        // Scans so many hours after the first time; returns how long the block lasts in hours, and why.
        let mut scan_at = |hours: u32| {
            let now = NOW.plus(Duration::from_secs(3_600) * hours);
            let log = Log::start(folder.path(), LogSettings::default(), Box::new(NoEnrichment)).unwrap();
            for asked in &scan("", "scanner/1") {
                n += 1;
                let id = RequestId::new(now.minus(Duration::from_secs(60)), n);
                assert!(log.recorder().offer(RequestRecord { id, ..record(n, asked) }));
            }
            log.flusher().flush().unwrap();
            drop(log);
            let outcome = super::super::run(&config, now, &Arc::default()).unwrap();
            let [block] = &outcome.done.blocked[..] else { panic!("{:?}", outcome.done.spared) };
            (block.expires_at.unwrap().since(now).as_secs() / 3_600, block.reason.clone())
        };
        let (first, reason) = scan_at(0);
        assert!(first == 1 && !reason.contains("step"), "{reason}");
        let (second, reason) = scan_at(2);
        assert!(second == 4 && reason.contains("blocked 1 times before: step 2 of 4"), "{reason}");
        // What a person lifts was a mistake and does not count.
        let network = ADDRESS.parse::<std::net::IpAddr>().unwrap().into();
        assert_eq!(
            state
                .remove_block(&network, "cli:alice", NOW.plus(Duration::from_secs(3 * 3_600)))
                .unwrap()
                .len(),
            1
        );
        assert_eq!(scan_at(4).0, 4);
        assert_eq!((scan_at(10).0, scan_at(40).0, scan_at(300).0), (24, 168, 168));
        assert_eq!(scan_at(300 + 32 * 24).0, 1, "a month later all is forgotten");
    }

    #[test]
    fn a_user_who_offends_again_is_blocked_longer_from_any_address() {
        let folder = tempfile::tempdir().unwrap();
        State::open(folder.path()).unwrap();
        let config = config(folder.path());
        let mut n = 0;
        let mut scan_at = |hours: u32, address: &str| {
            let now = NOW.plus(Duration::from_secs(3_600) * hours);
            let log = Log::start(folder.path(), LogSettings::default(), Box::new(NoEnrichment)).unwrap();
            for asked in &scan("mallory", BROWSER) {
                n += 1;
                let id = RequestId::new(now.minus(Duration::from_secs(60)), n);
                let client = address.parse().unwrap();
                assert!(log.recorder().offer(RequestRecord { id, client, ..record(n, asked) }));
            }
            log.flusher().flush().unwrap();
            drop(log);
            let outcome = super::super::run(&config, now, &Arc::default()).unwrap();
            let [block] = &outcome.done.blocked_parties[..] else { panic!("{:?}", outcome.done.spared) };
            assert_eq!(block.party, Party::User("mallory".into()));
            block.expires_at.unwrap().since(now).as_secs() / 3_600
        };
        assert_eq!(scan_at(0, ADDRESS), 1);
        assert_eq!((scan_at(2, "198.51.100.7"), scan_at(10, ADDRESS)), (4, 24));
        assert_eq!(scan_at(32 * 24, ADDRESS), 1, "a month later all is forgotten");
    }

    #[test]
    fn a_user_who_scans_from_a_shared_address_is_blocked_alone() {
        let (folder, outcome) = run(true, &scan("mallory", BROWSER));
        assert_eq!(outcome.done.blocked, []);
        let [block] = &outcome.done.blocked_parties[..] else { panic!("{:?}", outcome.done.blocked_parties) };
        assert_eq!(block.party, Party::User("mallory".into()));
        let state = State::open(folder.path()).unwrap();
        let finding = state.finding(block.finding_id.unwrap()).unwrap().unwrap();
        assert_eq!((finding.finding.user.as_deref(), finding.block_id), (Some("mallory"), Some(block.id)));
    }

    #[test]
    fn the_address_of_a_user_who_is_alone_on_it_is_blocked_too() {
        let (folder, outcome) = run(false, &scan("mallory", BROWSER));
        let networks: Vec<String> =
            outcome.done.blocked.iter().map(|block| block.network.to_string()).collect();
        assert_eq!(networks, [format!("{ADDRESS}/32")]);
        let user = outcome.done.blocked_parties[0].clone();
        assert_eq!(user.party, Party::User("mallory".into()));
        // A person's word about the user counts more than the same evidence once more.
        let mut state = State::open(folder.path()).unwrap();
        state.remove_party_block(&user.party, "ana", NOW).unwrap();
        drop(state);
        let again = super::super::run(&config(folder.path()), NOW, &Arc::default()).unwrap();
        assert_eq!(again.done.blocked_parties, []);
        assert_eq!(again.done.spared.iter().map(|(_, _, why)| *why).collect::<Vec<_>>(), [Spared::Unblocked]);
    }

    #[test]
    fn an_anonymous_guesser_on_a_shared_address_is_blocked_by_what_gives_it_away() {
        let (folder, outcome) = run(true, &guess("guesser/1", 20));
        assert_eq!(outcome.done.blocked, []);
        let [block] = &outcome.done.blocked_parties[..] else { panic!("{:?}", outcome.done.blocked_parties) };
        let network = format!("{ADDRESS}/32").parse().unwrap();
        assert_eq!(block.party, Party::Anonymous { network, agents: vec!["guesser/1".into()] });
        // The same again says nothing new.
        let again = super::super::run(&config(folder.path()), NOW, &Arc::default()).unwrap();
        assert_eq!(again.done.blocked_parties, []);
        assert_eq!(again.done.spared.len(), 1);
    }

    #[test]
    fn a_guesser_who_looks_like_the_users_leaves_them_their_user_agent() {
        let (_folder, outcome) = run(true, &guess(BROWSER, 100));
        let [block] = &outcome.done.blocked_parties[..] else { panic!("{:?}", outcome.done.blocked_parties) };
        assert!(matches!(&block.party, Party::Anonymous { agents, .. } if agents.is_empty()));
    }

    #[test]
    fn nobody_is_blocked_where_users_mistype_their_passwords() {
        let mut asked = guess(BROWSER, 30);
        asked.extend((0..100).map(|_| Asked { method: "POST", path: "/login", status: 302, ..READS }));
        let (_folder, outcome) = run(true, &asked);
        assert!(outcome.done.blocked.is_empty() && outcome.done.blocked_parties.is_empty());
    }
}
