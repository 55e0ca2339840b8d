//! Portcullis's storage: the request log (`log.db`) and the state (`state.db`) of a data folder.
//!
//! Owns everything that touches SQLite; no other crate knows it. Must not decide about requests, and
//! must never make one wait: the request path hands records to a bounded queue.

mod error;
mod fail2ban;
mod folder;
mod log;
mod read;
mod state;
mod subject;

pub use error::StoreError;
pub use fail2ban::{BanEnd, Fail2banBan, MAX_BANS, fail2ban_bans};
pub use log::{
    Enrich, ErasedFromLog, Eraser, FieldRetention, Flusher, Locator, Log, LogSettings, LogStats,
    NoEnrichment, Recorder,
};
pub use read::{
    BadCursor, Bucket, ClientReport, Coverage, Latencies, LogCursor, LogFilter, LogReader, LogRow,
    LoggedRequest, SensitiveHits, StatusCounts, StatusFilter, TopBy, TopRow,
};
pub use state::{
    AccessRefusal, ApiToken, AuditEntry, AuditFilter, BlockChange, Changes, ConsoleLink, ConsoleSession,
    ConsoleUser, Credentials, ErasedFromState, FindingFilter, Found, GeoAnswer, Imported, Lifted, LimitEvent,
    LimitEventCursor, LimitEventFilter, LimitTotal, MAX_API_TOKENS, MAX_CONSOLE_USERS, MAX_SESSIONS_PER_USER,
    MAX_TASK_RUNS, Never, NewApiToken, NewBlock, NewNever, NewPartyBlock, NewSession, NewTaskRun, NewUser,
    Noticed, PartyChange, Purged, Seq, Setting, State, StateWatcher, StoredAllow, StoredBlock, StoredFinding,
    StoredPartyBlock, TaskRun, TokenDigest,
};

pub use folder::give_to_owner;
pub use read::{
    LogSummary, LogTotals, MAX_BUCKETS, Overview, OverviewSpan, Page, SimilarClient, SimilarClients,
    TopCount, Traffic,
};
pub use state::{
    AlertChannel, AlertFailure, AlertTry, LimitSum, MAX_ALERTS, MAX_OUTBOX, NewAlert, OutboxMessage,
    StateSummary, StoredAlert,
};
pub use state::{Listing, MAX_NEVERS, MAX_OPT_OUTS, OptOut, Standing};
pub use subject::{ERASED, Subject};
