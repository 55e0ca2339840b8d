//! What a running gateway does when a person's data is erased: its log, and what it has in memory.
//!
//! Owns the gateway's side; the command that asked (`cli/privacy/`) does the rest beside it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use portcullis_model::{ClientIp, Party};
use portcullis_proxy::Edge;
use portcullis_store::{Eraser, Noticed, Seq, State, Subject};

use super::Recording;
use crate::detection::Live;
use crate::identity::Copies;
use crate::sentence::sentence;
use crate::upgrade::{Answer, Asker, EraseOrder};

/// How long the live lists may take to hear of a lifted block: ten looks at the database, and then some.
const NOTICE_TIME: Duration = Duration::from_secs(5);
const NOTICE_POLL: Duration = Duration::from_millis(20);

/// The parts of the gateway that an erasure needs. None of them keeps it from ending.
pub(crate) struct Erasure {
    pub(crate) edge: Arc<Edge>,
    pub(crate) eraser: Eraser,
    pub(crate) recording: Arc<Recording>,
    pub(crate) detector: Arc<Live>,
    pub(crate) sessions: Arc<Copies>,
    pub(crate) data: PathBuf,
    /// How far the live lists have followed the database.
    pub(crate) noticed: Noticed,
}

impl Erasure {
    /// Erases, and tells whoever asked. Takes as long as the log is large.
    pub(crate) fn carry_out(&self, order: EraseOrder, asker: &mut Asker) {
        let EraseOrder { subject, lifted } = order;
        // Before the rows go, or it would write what it remembers.
        self.detector.forget(&subject);
        let sessions = match &subject {
            Subject::Address(clients) => {
                clients.iter().for_each(|client| self.recording.addresses().forget(*client));
                0
            }
            // First of all, so that the next request is nobody's.
            Subject::User(name) => match self.sessions.forget_user(&self.edge, &self.data, name) {
                Ok(sessions) => sessions,
                Err(error) => return asker.answer(&Answer::Failed { why: sentence(&error) }),
            },
        };
        if !self.wait_until_lifted(&subject, &lifted) {
            asker.progress(
                "the gateway has not noticed yet that the blocks are lifted; it does with its next look",
            );
        }
        let answer = match self.eraser.erase(subject) {
            Ok(erased) => Answer::Erased { erased, sessions },
            Err(error) => Answer::Failed { why: sentence(&error.into()) },
        };
        asker.answer(&answer);
    }

    /// Their rows are about to go, and then nothing would say of whom they were. That they are in no live list is not
    /// enough: one that was added just before may be on its way there.
    fn wait_until_lifted(&self, subject: &Subject, lifted: &[i64]) -> bool {
        let state = &self.edge.state;
        let parties: Vec<Party> = match subject {
            Subject::Address(clients) => clients.iter().map(|client| anonymous(*client)).collect(),
            Subject::User(name) => vec![Party::User(name.as_str().into())],
        };
        let clients = match subject {
            Subject::Address(clients) => clients.as_slice(),
            Subject::User(_) => &[],
        };
        let lifts = State::open_read_only(&self.data).and_then(|state| state.latest_change());
        let lifts = lifts.unwrap_or(Seq(i64::MAX));
        let is_known = || {
            let now = self.edge.clock.now();
            let mut in_force = clients.iter().filter_map(|client| state.blocks.find(*client, now));
            in_force.any(|block| lifted.contains(&block))
                || parties.iter().any(|party| state.parties.holds(party))
        };
        let until = Instant::now() + NOTICE_TIME;
        while self.noticed.up_to() < lifts || is_known() {
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(NOTICE_POLL);
        }
        true
    }
}

/// The anonymous clients of an address, however they are told apart.
fn anonymous(client: ClientIp) -> Party {
    Party::Anonymous { network: IpNet::from(client.limit_key()), agents: Vec::new() }
}
