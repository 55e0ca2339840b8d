//! What a running gateway does when a person's data is erased: its log, and what it has in memory.
//!
//! Owns the gateway's side; the command that asked (`cli/privacy/`) does the rest beside it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_model::ClientIp;
use portcullis_proxy::Edge;
use portcullis_store::{Eraser, Subject};

use super::Recording;
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
}

impl Erasure {
    /// Erases, and tells whoever asked. Takes as long as the log is large.
    pub(crate) fn carry_out(&self, order: EraseOrder, asker: &mut Asker) {
        let EraseOrder { subject, lifted } = order;
        if let (Subject::User(name), Some(sessions)) = (&subject, self.edge.identities.sessions()) {
            // The copy on disk follows within seconds; the command looks at it last.
            sessions.close_user(name);
        }
        if let Subject::Address(clients) = &subject {
            clients.iter().for_each(|client| self.recording.addresses().forget(*client));
            if !self.wait_until_lifted(clients, &lifted) {
                asker.progress(
                    "the gateway has not noticed yet that the blocks are lifted; it does with its next look",
                );
            }
        }
        let answer = match self.eraser.erase(subject) {
            Ok(erased) => Answer::Erased { erased },
            Err(error) => Answer::Failed { why: sentence(&error.into()) },
        };
        asker.answer(&answer);
    }

    /// Their rows are about to go, and then nothing would say of whom they were.
    fn wait_until_lifted(&self, clients: &[ClientIp], lifted: &[i64]) -> bool {
        let is_known = || {
            let now = self.edge.clock.now();
            let in_force = clients.iter().filter_map(|client| self.edge.state.blocks.find(*client, now));
            in_force.into_iter().any(|block| lifted.contains(&block))
        };
        let until = Instant::now() + NOTICE_TIME;
        while is_known() {
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(NOTICE_POLL);
        }
        true
    }
}
