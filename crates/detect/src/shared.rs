//! Addresses that verified users share. Owns who counts as a neighbour and which user agents give an anonymous
//! culprit away; must not judge clients.

use std::collections::HashMap;
use std::net::IpAddr;

use portcullis_model::{Party, is_session_name};

use crate::SharedAddress;
use crate::client::{Client, Mark};
use crate::finding::Judged;
use crate::rules::{Context, Neighbours};

/// From so much evidence on a user agent gives a culprit away. Less may be a newcomer's mistyped password.
const MIN_EVIDENCE: u32 = 5;

/// Sessions of which nobody has said whose they are count half, and no more than so many: one account can have many.
const MAX_SESSIONS: u32 = 16;

/// The verified users of each address, those left out who are bad themselves.
pub(crate) struct Crowds<'a>(HashMap<IpAddr, Vec<&'a Client>>);

impl<'a> Crowds<'a> {
    pub(crate) fn of(clients: &'a [Client], context: &Context<'_>) -> Self {
        let mut crowds: HashMap<IpAddr, Vec<&Client>> = HashMap::new();
        for client in clients.iter().filter(|client| client.user.is_some() && !client.is_allowed) {
            // Without the forest, which never makes anybody bad by itself.
            if !context.is_bad(Judged::new(client, context, None, None).severity) {
                crowds.entry(client.key).or_default().push(client);
            }
        }
        Self(crowds)
    }

    /// The other users on the client's address.
    fn others(&self, client: &Client) -> Others<'_> {
        let crowd = self.0.get(&client.key).map_or(&[][..], Vec::as_slice);
        let others = crowd.iter().filter(|other| other.user != client.user);
        Others(others.map(|&now| Other { now, before: None }).collect())
    }

    /// Whether there is no other verified user on the client's address.
    pub(crate) fn is_alone(&self, client: &Client) -> bool {
        let crowd = self.0.get(&client.key).map_or(&[][..], Vec::as_slice);
        crowd.iter().all(|other| other.user == client.user)
    }

    pub(crate) fn neighbours(&self, client: &Client) -> Neighbours {
        if client.user.is_some() || !self.0.contains_key(&client.key) {
            return Neighbours::default();
        }
        self.others(client).neighbours_of(client)
    }

    /// What there is to say of the address that a flagged client shares; `None`: nobody shares it.
    pub(crate) fn shared(&self, client: &Client, names: &HashMap<u32, Box<str>>) -> Option<SharedAddress> {
        self.others(client).shared_with(client, |mark| names.get(&mark.agent).cloned())
    }
}

/// The verified users who share a client's address with it and are not bad themselves.
pub(crate) struct Others<'a>(pub(crate) Vec<Other<'a>>);

/// One of them: what it did lately, and before.
#[derive(Clone, Copy)]
pub(crate) struct Other<'a> {
    pub(crate) now: &'a Client,
    pub(crate) before: Option<&'a Client>,
}

impl Other<'_> {
    fn uses_agent(&self, agent: u32) -> bool {
        self.now.uses_agent(agent) || self.before.is_some_and(|before| before.uses_agent(agent))
    }
}

impl Others<'_> {
    pub(crate) fn neighbours_of(&self, client: &Client) -> Neighbours {
        // A user answers for itself, whoever is around; only who cannot be told apart shares its thresholds.
        if client.user.is_some() || self.0.is_empty() {
            return Neighbours::default();
        }
        let is_session = |other: &&Other<'_>| other.now.user.as_deref().is_some_and(is_session_name);
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let all = count(self.0.len());
        let sessions = count(self.0.iter().filter(is_session).count());
        let users = (all - sessions).saturating_add(sessions.min(MAX_SESSIONS).div_ceil(2));
        let strange_logins = self.strange(client).map(|mark| mark.logins).max().unwrap_or(0);
        Neighbours { users, strange_logins }
    }

    /// The evidence that came with user agents which none of the users has.
    fn strange<'b>(&'b self, client: &'b Client) -> impl Iterator<Item = &'b Mark> {
        let is_strange = |mark: &&Mark| self.0.iter().all(|other| !other.uses_agent(mark.agent));
        client.marks().iter().filter(is_strange)
    }

    /// What there is to say of the address that a flagged client shares; `None`: nobody shares it.
    pub(crate) fn shared_with(
        &self,
        client: &Client,
        name_of: impl Fn(&Mark) -> Option<Box<str>>,
    ) -> Option<SharedAddress> {
        if self.0.is_empty() {
            return None;
        }
        let mut marks: Vec<&Mark> = match client.user {
            None => self.strange(client).filter(|mark| mark.all() >= MIN_EVIDENCE).collect(),
            Some(_) => Vec::new(),
        };
        marks.sort_by_key(|mark| std::cmp::Reverse(mark.all()));
        let user_agents = marks.into_iter().filter_map(name_of);
        Some(SharedAddress {
            verified_users: u32::try_from(self.0.len()).unwrap_or(u32::MAX),
            user_agents: user_agents.take(Party::MAX_AGENTS).collect(),
        })
    }
}
