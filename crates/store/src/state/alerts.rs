//! What people are to be told: events that wait, how far each channel is, what was sent when.
//!
//! Owns the tables `alerts`, `alert_channels`, `alert_sends` and `alert_outbox`, and their bounds. Must not know
//! what an event is or how it is told: bodies are text to it.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;

use portcullis_model::{Severity, UnixMs};

use super::{State, findings, row_limit};
use crate::error::StoreError;

/// Rows of alerts, those that were told included. Beyond it what was told goes first, then the least severe and oldest.
pub const MAX_ALERTS: u64 = 2_000;
/// Whole messages that may wait for one channel.
pub const MAX_OUTBOX: u64 = 20;
/// Events that come within this time of the first of a row join it, as long as nobody is being told of that row.
const JOIN_MS: i64 = 300_000;

/// Events that were put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAlert {
    pub first_at: UnixMs,
    pub last_at: UnixMs,
    /// Of the worst.
    pub severity: Severity,
    pub events: u64,
    /// What they are, for whoever wrote it.
    pub body: String,
}

/// Events as recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAlert {
    pub id: i64,
    pub alert: NewAlert,
}

/// How it is with a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AlertChannel {
    pub channel: String,
    /// Every alert up to this number was told or given up.
    #[serde(skip)]
    pub done_id: i64,
    /// Tries in a row that failed.
    pub failures: u32,
    pub failing_since: Option<UnixMs>,
    pub next_try_at: Option<UnixMs>,
    pub last_error: Option<String>,
    /// Messages, reports included.
    pub sent: u64,
    pub last_sent_at: Option<UnixMs>,
    /// Events that nobody was told of: there were too many, or it took too long.
    pub lost: u64,
}

/// A whole message that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxMessage {
    pub id: i64,
    pub created_at: UnixMs,
    pub name: String,
    pub message: String,
}

/// A try to tell a channel of all alerts up to a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlertTry {
    send: i64,
    up_to: i64,
}

/// Why a try came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertFailure {
    pub error: String,
    pub next_try_at: UnixMs,
    /// The message may have arrived all the same, so it counts.
    pub may_have_arrived: bool,
}

impl State {
    /// Adds events for these channels. They join the newest ones if those are still fresh and nobody is being told of
    /// them: `join` makes one of a stored body and the new events, or says that it cannot. Returns how many events
    /// had to go because there were too many.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn add_alert(
        &mut self,
        channels: &[&str],
        alert: &NewAlert,
        join: &dyn Fn(&str) -> Option<NewAlert>,
    ) -> Result<u64, StoreError> {
        self.write("recording an alert", |transaction| {
            // A channel that nobody knew before is told of what comes from now on.
            for channel in channels {
                add_channel(transaction, channel)?;
            }
            let newest = joinable(transaction, alert)?;
            match newest.and_then(|stored| Some((stored.id, join(&stored.alert.body)?))) {
                Some((id, joined)) => update(transaction, id, &joined)?,
                None => insert(transaction, alert)?,
            }
            bound(transaction)
        })
    }

    /// How it is with a channel; one that nobody knew before begins here.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn alert_channel(&mut self, channel: &str) -> Result<AlertChannel, StoreError> {
        if let Some(known) = self.alert_channels()?.into_iter().find(|known| known.channel == channel) {
            return Ok(known);
        }
        self.write("adding a channel of alerts", |transaction| {
            add_channel(transaction, channel)?;
            let sql = format!("SELECT {CHANNEL} FROM alert_channels WHERE channel = ?1");
            transaction.query_row(&sql, [channel], channel_from)
        })
    }

    /// All channels that were ever told anything, or should have been.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn alert_channels(&self) -> Result<Vec<AlertChannel>, StoreError> {
        let sql = format!("SELECT {CHANNEL} FROM alert_channels ORDER BY channel");
        self.read("reading the channels of alerts", || {
            self.connection.prepare_cached(&sql)?.query_map([], channel_from)?.collect()
        })
    }

    /// The alerts after a number, oldest first.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn alerts_after(&self, id: i64) -> Result<Vec<StoredAlert>, StoreError> {
        let sql = format!("SELECT {ALERT} FROM alerts WHERE id > ?1 ORDER BY id LIMIT ?2");
        self.read("reading the alerts", || {
            self.connection
                .prepare_cached(&sql)?
                .query_map(params![id, stored(MAX_ALERTS)], alert_from)?
                .collect()
        })
    }

    /// When the first event after a number happened, and how many there are.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn alerts_waiting(&self, id: i64) -> Result<Option<(UnixMs, u64)>, StoreError> {
        let sql = "SELECT min(first_at), sum(events) FROM alerts WHERE id > ?1";
        self.read("reading what waits", || {
            self.connection.prepare_cached(sql)?.query_row([id], |row| {
                let oldest: Option<i64> = row.get(0)?;
                let events: Option<i64> = row.get(1)?;
                Ok(oldest.map(UnixMs).zip(Some(count(events.unwrap_or(0)))))
            })
        })
    }

    /// The newest alerts, newest first.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn recent_alerts(&self, since: UnixMs, limit: usize) -> Result<Vec<StoredAlert>, StoreError> {
        let sql = format!("SELECT {ALERT} FROM alerts WHERE last_at >= ?1 ORDER BY id DESC LIMIT ?2");
        self.read("reading the alerts", || {
            let parameters = params![since.0, row_limit(limit)];
            self.connection.prepare_cached(&sql)?.query_map(parameters, alert_from)?.collect()
        })
    }

    /// When a channel was told, from `since` on, the oldest first; those tries included of which nobody knows whether
    /// they arrived.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn alert_sends(&self, channel: &str, since: UnixMs) -> Result<Vec<UnixMs>, StoreError> {
        let sql = "SELECT at FROM alert_sends WHERE channel = ?1 AND at > ?2 ORDER BY at";
        self.read("reading what was sent", || {
            let mut statement = self.connection.prepare_cached(sql)?;
            let times = statement.query_map(params![channel, since.0], |row| row.get(0).map(UnixMs))?;
            times.collect()
        })
    }

    /// Notes, before anything is sent, that a channel is about to be told of all alerts up to a number: whatever
    /// becomes of this process, the message counts.
    ///
    /// # Errors
    /// SQLite fails; then nothing may be sent.
    pub fn begin_alert(
        &mut self,
        channel: &str,
        up_to: i64,
        events: u64,
        now: UnixMs,
    ) -> Result<AlertTry, StoreError> {
        self.write("noting an alert that is sent", |transaction| {
            transaction.execute(
                "INSERT INTO alert_sends (channel, at, events, sent) VALUES (?1, ?2, ?3, 0)",
                params![channel, now.0, stored(events)],
            )?;
            let send = transaction.last_insert_rowid();
            transaction.execute(
                "UPDATE alert_channels SET trying_id = max(coalesce(trying_id, 0), ?2) WHERE channel = ?1",
                params![channel, up_to],
            )?;
            Ok(AlertTry { send, up_to })
        })
    }

    /// Notes what became of a try: `None` is a success.
    ///
    /// # Errors
    /// SQLite fails; then the try stays one of which nobody knows.
    pub fn finish_alert(
        &mut self,
        channel: &str,
        tried: AlertTry,
        failure: Option<&AlertFailure>,
        now: UnixMs,
    ) -> Result<(), StoreError> {
        self.write("noting what became of an alert", |transaction| match failure {
            None => {
                transaction.execute("UPDATE alert_sends SET sent = 1 WHERE id = ?1", [tried.send])?;
                transaction.execute(
                    "UPDATE alert_channels SET done_id = max(done_id, ?2), trying_id = NULL WHERE channel = ?1",
                    params![channel, tried.up_to],
                )?;
                succeeded(transaction, channel, now)
            }
            Some(failure) => {
                if !failure.may_have_arrived {
                    transaction.execute("DELETE FROM alert_sends WHERE id = ?1", [tried.send])?;
                }
                failed(transaction, channel, failure, now)
            }
        })
    }

    /// Gives up what waits for a channel since before `before`; says how many events that were.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn give_up_alerts(&mut self, channel: &str, before: UnixMs) -> Result<u64, StoreError> {
        self.write("giving up alerts", |transaction| {
            let done: i64 = transaction.query_row(
                "SELECT done_id FROM alert_channels WHERE channel = ?1",
                [channel],
                |row| row.get(0),
            )?;
            let (last, events): (Option<i64>, Option<i64>) = transaction.query_row(
                "SELECT max(id), sum(events) FROM alerts WHERE id > ?1 AND last_at < ?2",
                params![done, before.0],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?;
            let Some(last) = last else { return Ok(0) };
            transaction.execute(
                "UPDATE alert_channels SET done_id = ?2, lost = lost + ?3 WHERE channel = ?1",
                params![channel, last, events],
            )?;
            Ok(count(events.unwrap_or(0)))
        })
    }

    /// Has a whole message wait for these channels. One of the same name that waits already is replaced; of more than
    /// [`MAX_OUTBOX`] the oldest go.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn add_to_outbox(
        &mut self,
        channels: &[&str],
        name: &str,
        message: &str,
        now: UnixMs,
    ) -> Result<(), StoreError> {
        self.write("recording a message", |transaction| {
            for channel in channels {
                add_channel(transaction, channel)?;
                transaction.execute(
                    "INSERT INTO alert_outbox (channel, created_at, name, message) VALUES (?1, ?2, ?3, ?4) \
                     ON CONFLICT (channel, name) DO UPDATE SET message = excluded.message",
                    params![channel, now.0, name, message],
                )?;
                transaction.execute(
                    "DELETE FROM alert_outbox WHERE channel = ?1 AND id NOT IN \
                     (SELECT id FROM alert_outbox WHERE channel = ?1 ORDER BY id DESC LIMIT ?2)",
                    params![channel, stored(MAX_OUTBOX)],
                )?;
            }
            Ok(())
        })
    }

    /// The message that waits longest for a channel.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn next_in_outbox(&self, channel: &str) -> Result<Option<OutboxMessage>, StoreError> {
        let sql =
            "SELECT id, created_at, name, message FROM alert_outbox WHERE channel = ?1 ORDER BY id LIMIT 1";
        self.read("reading the messages that wait", || {
            let mut statement = self.connection.prepare_cached(sql)?;
            let message = statement.query_row([channel], |row| {
                Ok(OutboxMessage {
                    id: row.get(0)?,
                    created_at: UnixMs(row.get(1)?),
                    name: row.get(2)?,
                    message: row.get(3)?,
                })
            });
            message.optional()
        })
    }

    /// Notes what became of a message of the outbox; with a `failure` it stays.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn finish_outbox(
        &mut self,
        channel: &str,
        id: i64,
        failure: Option<&AlertFailure>,
        now: UnixMs,
    ) -> Result<(), StoreError> {
        self.write("noting what became of a message", |transaction| match failure {
            None => {
                transaction.execute("DELETE FROM alert_outbox WHERE id = ?1", [id])?;
                succeeded(transaction, channel, now)
            }
            Some(failure) => failed(transaction, channel, failure, now),
        })
    }

    /// Takes a message out of the outbox that nobody will ever get.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn drop_from_outbox(&mut self, id: i64) -> Result<(), StoreError> {
        self.write("dropping a message", |transaction| {
            transaction.execute("DELETE FROM alert_outbox WHERE id = ?1", [id]).map(drop)
        })
    }
}

const CHANNEL: &str =
    "channel, done_id, failures, failing_since, next_try_at, last_error, sent, last_sent_at, lost";
const ALERT: &str = "id, first_at, last_at, severity, events, body";

fn channel_from(row: &Row<'_>) -> rusqlite::Result<AlertChannel> {
    let time = |column: usize| row.get::<_, Option<i64>>(column).map(|at| at.map(UnixMs));
    Ok(AlertChannel {
        channel: row.get(0)?,
        done_id: row.get(1)?,
        failures: row.get(2)?,
        failing_since: time(3)?,
        next_try_at: time(4)?,
        last_error: row.get(5)?,
        sent: count(row.get(6)?),
        last_sent_at: time(7)?,
        lost: count(row.get(8)?),
    })
}

fn alert_from(row: &Row<'_>) -> rusqlite::Result<StoredAlert> {
    let severity: i64 = row.get(3)?;
    let severity = usize::try_from(severity).ok().and_then(|n| Severity::ALL.get(n).copied());
    Ok(StoredAlert {
        id: row.get(0)?,
        alert: NewAlert {
            first_at: UnixMs(row.get(1)?),
            last_at: UnixMs(row.get(2)?),
            severity: severity.ok_or(rusqlite::Error::IntegralValueOutOfRange(3, row.get(3)?))?,
            events: count(row.get(4)?),
            body: row.get(5)?,
        },
    })
}

fn count(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

fn stored(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn add_channel(connection: &Connection, channel: &str) -> rusqlite::Result<()> {
    let sql = "INSERT INTO alert_channels (channel, done_id) \
               SELECT ?1, coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'alerts'), 0) \
               WHERE true ON CONFLICT (channel) DO NOTHING";
    connection.prepare_cached(sql)?.execute([channel]).map(drop)
}

/// The newest alert, if new events may join it.
fn joinable(transaction: &Connection, alert: &NewAlert) -> rusqlite::Result<Option<StoredAlert>> {
    let sql = format!(
        "SELECT {ALERT} FROM alerts WHERE id = (SELECT max(id) FROM alerts) \
         AND id > (SELECT coalesce(max(max(done_id, coalesce(trying_id, 0))), 0) FROM alert_channels) \
         AND first_at BETWEEN ?1 AND ?2"
    );
    let bounds = params![alert.last_at.0.saturating_sub(JOIN_MS), alert.last_at.0];
    transaction.prepare_cached(&sql)?.query_row(bounds, alert_from).optional()
}

fn insert(transaction: &Connection, alert: &NewAlert) -> rusqlite::Result<()> {
    let NewAlert { first_at, last_at, severity, events, body } = alert;
    transaction
        .prepare_cached(
            "INSERT INTO alerts (first_at, last_at, severity, events, body) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![first_at.0, last_at.0, findings::number(*severity), stored(*events), body])
        .map(drop)
}

fn update(transaction: &Connection, id: i64, alert: &NewAlert) -> rusqlite::Result<()> {
    let NewAlert { first_at, last_at, severity, events, body } = alert;
    transaction
        .prepare_cached(
            "UPDATE alerts SET first_at = ?2, last_at = ?3, severity = ?4, events = ?5, body = ?6 WHERE id = ?1",
        )?
        .execute(params![id, first_at.0, last_at.0, findings::number(*severity), stored(*events), body])
        .map(drop)
}

/// Keeps the number of rows within its bound; says how many events went that somebody still waits for.
fn bound(transaction: &Connection) -> rusqlite::Result<u64> {
    let rows: i64 = transaction.query_row("SELECT count(*) FROM alerts", [], |row| row.get(0))?;
    let mut lost = 0;
    for _ in MAX_ALERTS..count(rows) {
        let (id, events): (i64, i64) = transaction.query_row(
            "SELECT id, events FROM alerts ORDER BY \
             id > (SELECT coalesce(min(done_id), 0) FROM alert_channels), severity, id LIMIT 1",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let waiting = transaction
            .execute("UPDATE alert_channels SET lost = lost + ?2 WHERE done_id < ?1", params![id, events])?;
        transaction.execute("DELETE FROM alerts WHERE id = ?1", [id])?;
        lost += if waiting > 0 { count(events) } else { 0 };
    }
    Ok(lost)
}

fn succeeded(transaction: &Connection, channel: &str, now: UnixMs) -> rusqlite::Result<()> {
    let sql = "UPDATE alert_channels SET failures = 0, failing_since = NULL, next_try_at = NULL, last_error = NULL, \
               sent = sent + 1, last_sent_at = ?2 WHERE channel = ?1";
    transaction.execute(sql, params![channel, now.0]).map(drop)
}

fn failed(
    transaction: &Connection,
    channel: &str,
    failure: &AlertFailure,
    now: UnixMs,
) -> rusqlite::Result<()> {
    let sql = "UPDATE alert_channels SET failures = failures + 1, failing_since = coalesce(failing_since, ?2), \
               next_try_at = ?3, last_error = ?4, trying_id = NULL WHERE channel = ?1";
    transaction.execute(sql, params![channel, now.0, failure.next_try_at.0, failure.error]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(at: i64, severity: Severity, events: u64) -> NewAlert {
        let body = format!("{events} at {at}");
        NewAlert { first_at: UnixMs(at), last_at: UnixMs(at), severity, events, body }
    }

    fn never(_: &str) -> Option<NewAlert> {
        None
    }

    fn state() -> (tempfile::TempDir, State) {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        (folder, state)
    }

    #[test]
    fn a_channel_is_told_of_what_comes_after_it_was_set_up() {
        let (_folder, mut state) = state();
        state.add_alert(&["mail"], &alert(1_000, Severity::High, 3), &never).unwrap();
        let mail = state.alert_channel("mail").unwrap();
        assert_eq!(state.alerts_waiting(mail.done_id).unwrap(), Some((UnixMs(1_000), 3)));
        let chat = state.alert_channel("chat").unwrap();
        assert_eq!(state.alerts_waiting(chat.done_id).unwrap(), None, "it came later");
    }

    #[test]
    fn events_join_those_that_nobody_is_being_told_of() {
        let (_folder, mut state) = state();
        let join =
            |body: &str| Some(NewAlert { body: format!("{body}+"), ..alert(1_000, Severity::High, 5) });
        state.add_alert(&["mail"], &alert(1_000, Severity::Low, 2), &join).unwrap();
        state.add_alert(&["mail"], &alert(2_000, Severity::High, 3), &join).unwrap();
        let all = state.alerts_after(0).unwrap();
        assert_eq!((all.len(), all[0].alert.body.as_str(), all[0].alert.events), (1, "2 at 1000+", 5));
        let tried = state.begin_alert("mail", all[0].id, 5, UnixMs(3_000)).unwrap();
        state.add_alert(&["mail"], &alert(4_000, Severity::High, 1), &join).unwrap();
        assert_eq!(state.alerts_after(all[0].id).unwrap().len(), 1, "it must not join what is being told");
        state.finish_alert("mail", tried, None, UnixMs(5_000)).unwrap();
        let mail = state.alert_channel("mail").unwrap();
        assert_eq!((mail.done_id, mail.sent), (all[0].id, 1));
        assert_eq!(state.alerts_waiting(mail.done_id).unwrap(), Some((UnixMs(4_000), 1)));
        let late = alert(4_000 + JOIN_MS + 1, Severity::High, 1);
        state.add_alert(&["mail"], &late, &join).unwrap();
        assert_eq!(state.alerts_after(mail.done_id).unwrap().len(), 2, "too long ago");
    }

    #[test]
    fn a_try_counts_until_it_is_known_to_have_failed() {
        let (_folder, mut state) = state();
        state.add_alert(&["mail"], &alert(1_000, Severity::High, 2), &never).unwrap();
        let sends = |state: &State| state.alert_sends("mail", UnixMs(0)).unwrap().len();
        let failure = |may_have_arrived| AlertFailure {
            error: "refused".to_owned(),
            next_try_at: UnixMs(9_000),
            may_have_arrived,
        };
        let tried = state.begin_alert("mail", 1, 2, UnixMs(2_000)).unwrap();
        assert_eq!(sends(&state), 1, "a process that dies here has perhaps sent it");
        state.finish_alert("mail", tried, Some(&failure(false)), UnixMs(2_500)).unwrap();
        assert_eq!(sends(&state), 0);
        let tried = state.begin_alert("mail", 1, 2, UnixMs(3_000)).unwrap();
        state.finish_alert("mail", tried, Some(&failure(true)), UnixMs(3_500)).unwrap();
        assert_eq!(sends(&state), 1);
        let mail = state.alert_channel("mail").unwrap();
        assert_eq!(
            (mail.failures, mail.failing_since, mail.next_try_at),
            (2, Some(UnixMs(2_500)), Some(UnixMs(9_000)))
        );
        assert_eq!(state.alerts_waiting(mail.done_id).unwrap(), Some((UnixMs(1_000), 2)), "nothing is lost");
        assert_eq!(state.give_up_alerts("mail", UnixMs(1_000)).unwrap(), 0);
        assert_eq!(state.give_up_alerts("mail", UnixMs(1_001)).unwrap(), 2);
        let mail = state.alert_channel("mail").unwrap();
        assert_eq!((mail.lost, state.alerts_waiting(mail.done_id).unwrap()), (2, None));
    }

    #[test]
    fn too_many_alerts_cost_the_told_ones_then_the_least_severe() {
        let (_folder, mut state) = state();
        for n in 0..10 {
            state.add_alert(&["mail"], &alert(n, Severity::Critical, 1), &never).unwrap();
        }
        let tried = state.begin_alert("mail", 5, 5, UnixMs(0)).unwrap();
        state.finish_alert("mail", tried, None, UnixMs(0)).unwrap();
        let many = |transaction: &Connection| -> rusqlite::Result<()> {
            (10..MAX_ALERTS as i64 + 4).try_for_each(|n| insert(transaction, &alert(n, Severity::Low, 1)))
        };
        state.write("filling the table", many).unwrap();
        let lost = state.add_alert(&["mail"], &alert(9_998, Severity::Low, 1), &never).unwrap();
        assert_eq!(lost, 0, "what was told is gone");
        assert_eq!(state.alerts_after(0).unwrap()[0].id, 6);
        let lost = state.add_alert(&["mail"], &alert(9_999, Severity::High, 1), &never).unwrap();
        assert_eq!((lost, state.alert_channel("mail").unwrap().lost), (1, 1));
        let ids: Vec<i64> = state.alerts_after(0).unwrap().iter().map(|stored| stored.id).take(6).collect();
        assert_eq!(ids, [6, 7, 8, 9, 10, 12], "the oldest of the least severe went");
    }

    #[test]
    fn whole_messages_wait_once_and_not_without_bound() {
        let (_folder, mut state) = state();
        for day in 0..MAX_OUTBOX + 5 {
            state.add_to_outbox(&["mail", "chat"], &format!("report-{day}"), "{}", UnixMs(1)).unwrap();
            state.add_to_outbox(&["mail"], &format!("report-{day}"), "{2}", UnixMs(1)).unwrap();
        }
        let first = state.next_in_outbox("mail").unwrap().unwrap();
        assert_eq!((first.name.as_str(), first.message.as_str()), ("report-5", "{2}"));
        state.finish_outbox("mail", first.id, None, UnixMs(7)).unwrap();
        assert_eq!(state.next_in_outbox("mail").unwrap().unwrap().name, "report-6");
        assert_eq!(state.alert_channel("mail").unwrap().last_sent_at, Some(UnixMs(7)));
    }
}
