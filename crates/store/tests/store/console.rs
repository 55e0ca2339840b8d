//! Users, sessions, links and tokens of the console, to the millisecond.

use std::net::IpAddr;
use std::time::Duration;

use portcullis_model::{ClientIp, Role, Scope, Secret, UnixMs};
use portcullis_store::{
    AccessRefusal, AuditFilter, ConsoleLink, ConsoleUser, ERASED, MAX_API_TOKENS, MAX_CONSOLE_USERS,
    MAX_SESSIONS_PER_USER, NewApiToken, NewSession, NewUser, State, Subject, TokenDigest,
};
use tempfile::TempDir;

const NOW: UnixMs = UnixMs(1_800_000_000_000);
const HOUR: Duration = Duration::from_secs(3_600);
const IDLE: Duration = Duration::from_secs(600);

fn state() -> (TempDir, State) {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(dir.path()).unwrap();
    (dir, state)
}

fn digest(number: u8) -> TokenDigest {
    TokenDigest([number; 32])
}

fn from() -> IpAddr {
    "192.0.2.1".parse().unwrap()
}

fn add(state: &mut State, name: &str, role: Role) -> ConsoleUser {
    let hash = Secret::new("$argon2id$hash");
    state.add_console_user(&NewUser { name, role, password: Some(&hash) }, "cli:test", NOW).unwrap().unwrap()
}

fn sign_in(state: &mut State, user: &ConsoleUser, number: u8, at: UnixMs) {
    let session = NewSession {
        digest: digest(number),
        user_id: user.id,
        expires_at: at.plus(HOUR),
        address: from(),
        user_agent: &"ä".repeat(300),
    };
    state.begin_session(&session, &user.name, at).unwrap();
}

fn is_in(state: &State, number: u8, at: UnixMs) -> bool {
    state.session(&digest(number), IDLE, at).unwrap().is_some()
}

#[test]
fn a_session_ends_at_its_end_and_when_nobody_used_it() {
    let (_dir, mut state) = state();
    let alice = add(&mut state, "alice", Role::Operator);
    sign_in(&mut state, &alice, 1, NOW);
    let session = state.session(&digest(1), IDLE, NOW).unwrap().unwrap();
    assert_eq!((session.user.as_str(), session.role), ("alice", Role::Operator));
    assert_eq!(session.user_agent.chars().count(), 200);
    assert!(is_in(&state, 1, UnixMs(NOW.0 + 599_999)));
    assert!(!is_in(&state, 1, UnixMs(NOW.0 + 600_000)));
    for minute in (0..=55).step_by(5) {
        state.touch_session(session.id, UnixMs(NOW.0 + minute * 60_000)).unwrap();
    }
    assert!(is_in(&state, 1, UnixMs(NOW.0 + 3_599_999)));
    assert!(!is_in(&state, 1, UnixMs(NOW.0 + 3_600_000)));
    assert!(!is_in(&state, 2, NOW));
    assert_eq!(state.purge(UnixMs(NOW.0 + 3_600_001)).unwrap().console, 1);
}

#[test]
fn one_person_has_so_many_sessions_and_no_more() {
    let (_dir, mut state) = state();
    let alice = add(&mut state, "alice", Role::Operator);
    let bob = add(&mut state, "bob", Role::Viewer);
    sign_in(&mut state, &bob, 255, NOW);
    for number in 0..30 {
        sign_in(&mut state, &alice, number, UnixMs(NOW.0 + i64::from(number)));
    }
    let sessions = state.sessions_of(alice.id, IDLE, UnixMs(NOW.0 + 30)).unwrap();
    assert_eq!(sessions.len(), MAX_SESSIONS_PER_USER);
    assert!(!is_in(&state, 9, UnixMs(NOW.0 + 30)) && is_in(&state, 10, UnixMs(NOW.0 + 30)));
    assert!(is_in(&state, 255, UnixMs(NOW.0 + 30)), "others keep theirs");
}

#[test]
fn sessions_end_with_password_role_and_access() {
    let (_dir, mut state) = state();
    add(&mut state, "alice", Role::Operator);
    let bob = add(&mut state, "bob", Role::Operator);
    let hash = Secret::new("$argon2id$other");
    let mut number = 0;
    let mut ends = |change: &dyn Fn(&mut State)| {
        number += 1;
        sign_in(&mut state, &bob, number, NOW);
        assert!(is_in(&state, number, NOW));
        change(&mut state);
        assert!(!is_in(&state, number, NOW), "change {number}");
    };
    ends(&|state| state.set_console_password(bob.id, Some(&hash), "t", NOW).unwrap().unwrap());
    ends(&|state| state.set_console_role(bob.id, Role::Viewer, "t", NOW).unwrap().unwrap());
    ends(&|state| state.set_console_user_disabled(bob.id, true, "t", NOW).unwrap().unwrap());
}

#[test]
fn there_is_always_an_operator_and_only_so_many_users() {
    let (_dir, mut state) = state();
    let alice = add(&mut state, "alice", Role::Operator);
    let bob = add(&mut state, "bob", Role::Operator);
    state.set_console_user_disabled(bob.id, true, "t", NOW).unwrap().unwrap();
    let role = state.set_console_role(alice.id, Role::Viewer, "t", NOW).unwrap();
    assert_eq!(role, Err(AccessRefusal::LastOperator));
    let access = state.set_console_user_disabled(alice.id, true, "t", NOW).unwrap();
    assert_eq!(access, Err(AccessRefusal::LastOperator));
    let same = NewUser { name: "ALICE", role: Role::Viewer, password: None };
    assert_eq!(state.add_console_user(&same, "t", NOW).unwrap(), Err(AccessRefusal::NameTaken));
    for number in 2..MAX_CONSOLE_USERS {
        add(&mut state, &format!("user{number}"), Role::Viewer);
    }
    let more = NewUser { name: "more", role: Role::Viewer, password: None };
    assert_eq!(state.add_console_user(&more, "t", NOW).unwrap(), Err(AccessRefusal::TooManyUsers));
}

#[test]
fn a_link_is_used_once_in_time_and_by_whom_it_is_for() {
    let (_dir, mut state) = state();
    let (end, hash) = (NOW.plus(HOUR), Secret::new("$argon2id$hash"));
    state.make_link(&digest(1), None, end, "gateway", NOW).unwrap().unwrap();
    state.make_link(&digest(2), None, end, "gateway", NOW).unwrap().unwrap();
    assert_eq!(state.link(&digest(1), NOW).unwrap(), None, "a newer one ends it");
    assert_eq!(state.link(&digest(2), NOW).unwrap(), Some(ConsoleLink::Setup));
    assert_eq!(state.link(&digest(2), end).unwrap(), None);
    assert_eq!(state.use_link(&digest(2), Some(&hash), NOW).unwrap(), Err(AccessRefusal::LinkEnded));
    let alice = state.add_first_user(&digest(2), "alice", &hash, NOW).unwrap().unwrap();
    assert_eq!(alice.role, Role::Operator);
    let again = state.add_first_user(&digest(2), "eve", &hash, NOW).unwrap();
    assert_eq!(again, Err(AccessRefusal::LinkEnded));
    // Also one that was made meanwhile.
    state.make_link(&digest(3), None, end, "gateway", NOW).unwrap().unwrap();
    assert_eq!(state.link(&digest(3), NOW).unwrap(), None);

    let bob = add(&mut state, "bob", Role::Viewer);
    state.make_link(&digest(4), Some(bob.id), end, "t", NOW).unwrap().unwrap();
    state.set_console_user_disabled(bob.id, true, "t", NOW).unwrap().unwrap();
    assert_eq!(state.link(&digest(4), NOW).unwrap(), None);
    state.set_console_user_disabled(bob.id, false, "t", NOW).unwrap().unwrap();
    state.make_link(&digest(5), Some(bob.id), end, "t", NOW).unwrap().unwrap();
    assert_eq!(state.use_link(&digest(5), None, NOW).unwrap().unwrap().name, "bob");
    assert_eq!(state.use_link(&digest(5), None, NOW).unwrap(), Err(AccessRefusal::LinkEnded));
}

#[test]
fn a_token_ends_with_its_time_its_revocation_and_its_owner() {
    let (_dir, mut state) = state();
    add(&mut state, "alice", Role::Operator);
    let bob = add(&mut state, "bob", Role::Operator);
    let end = NOW.plus(HOUR);
    let make = |state: &mut State, number: u8, scope, user_id| {
        let name = format!("token{number}");
        let new = NewApiToken { digest: digest(number), name: &name, scope, user_id, expires_at: end };
        state.add_api_token(&new, "t", NOW).unwrap()
    };
    make(&mut state, 1, Scope::Write, None).unwrap();
    make(&mut state, 2, Scope::Write, Some(bob.id)).unwrap();
    make(&mut state, 3, Scope::Read, Some(bob.id)).unwrap();
    assert_eq!(make(&mut state, 3, Scope::Read, None), Err(AccessRefusal::TokenNameTaken));
    let works = |state: &State, number: u8, at| state.api_token(&digest(number), at).unwrap().is_some();
    assert!(works(&state, 1, UnixMs(end.0 - 1)) && !works(&state, 1, end));
    state.set_console_role(bob.id, Role::Viewer, "t", NOW).unwrap().unwrap();
    assert!(!works(&state, 2, NOW) && works(&state, 3, NOW));
    state.set_console_user_disabled(bob.id, true, "t", NOW).unwrap().unwrap();
    assert!(!works(&state, 3, NOW));
    assert!(state.revoke_api_token("TOKEN1", "t", NOW).unwrap());
    assert!(!state.revoke_api_token("token1", "t", NOW).unwrap());
    assert!(!works(&state, 1, NOW));
}

#[test]
fn there_are_only_so_many_tokens_at_once() {
    let (_dir, mut state) = state();
    let mut make = |number: usize| {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&(number as u64).to_le_bytes());
        let (digest, name) = (TokenDigest(bytes), format!("token{number}"));
        let expires_at = NOW.plus(HOUR);
        let new = NewApiToken { digest, name: &name, scope: Scope::Read, user_id: None, expires_at };
        state.add_api_token(&new, "t", NOW).unwrap()
    };
    for number in 0..MAX_API_TOKENS {
        make(number).unwrap();
    }
    assert_eq!(make(MAX_API_TOKENS), Err(AccessRefusal::TooManyTokens));
}

#[test]
fn the_audit_trail_is_read_in_pages_by_who_and_what_and_says_from_where() {
    let (dir, mut state) = state();
    for number in 0..5 {
        state.note_act("console:alice", "block", &format!("n{number}"), "", NOW).unwrap();
        state.note_act("cli:root", "unblock", &format!("n{number}"), "", NOW).unwrap();
    }
    let mut remote = State::open_existing(dir.path()).unwrap().acting_from(from());
    remote.note_act("console:al", "block", "last", "", NOW).unwrap();
    let filter = |actor: &str, action: &str, before| AuditFilter {
        actor: (!actor.is_empty()).then(|| actor.to_owned()),
        action: (!action.is_empty()).then(|| action.to_owned()),
        before,
    };
    let subjects = |filter: &AuditFilter, limit| -> Vec<String> {
        state.audit_page(filter, limit).unwrap().into_iter().map(|entry| entry.subject).collect()
    };
    assert_eq!(subjects(&filter("console:alice", "", None), 2), ["n4", "n3"]);
    assert_eq!(subjects(&filter("cli:%", "", None), 10), Vec::<String>::new());
    assert_eq!(subjects(&filter("console:al", "block", None), 1), ["last"]);
    let first = state.audit_page(&filter("", "unblock", None), 2).unwrap();
    assert_eq!(subjects(&filter("", "unblock", first.last().map(|entry| entry.id)), 10), ["n2", "n1", "n0"]);
    let all = state.audit_page(&AuditFilter::default(), 100).unwrap();
    assert_eq!(all[0].origin.as_deref(), Some("192.0.2.1"));
    assert!(all[1..].iter().all(|entry| entry.origin.is_none()), "{all:?}");
}

#[test]
fn hashes_and_digests_do_not_show_themselves() {
    let (_dir, mut state) = state();
    add(&mut state, "alice", Role::Operator);
    let shown = format!("{:?} {:?}", state.credentials("Alice").unwrap().unwrap(), digest(7));
    assert!(!shown.contains("argon2id") && !shown.contains("7, 7") && shown.contains("***"), "{shown}");
}

#[test]
fn erasing_an_address_ends_the_sessions_that_began_there_and_leaves_the_users() {
    let (_dir, mut state) = state();
    let alice = add(&mut state, "alice", Role::Operator);
    sign_in(&mut state, &alice, 1, NOW);
    let mut state = state.acting_from(from());
    state.unlock_console_user(alice.id, "console:alice", NOW).unwrap().unwrap();
    let subject = Subject::Address(vec![ClientIp::new(from())]);
    let shown = serde_json::to_string(&state.rows_about(&subject).unwrap()).unwrap();
    assert!(shown.contains("console_sessions") && !shown.contains("argon2id"), "{shown}");
    state.erase(&subject, &[], ("cli:test", NOW), |_| Default::default()).unwrap();
    assert!(!is_in(&state, 1, NOW));
    assert!(state.credentials("alice").unwrap().is_some());
    let audit = state.audit_page(&AuditFilter::default(), 100).unwrap();
    // The receipt is the newest, and was asked for there.
    let origins: Vec<_> = audit.iter().skip(1).filter_map(|entry| entry.origin.as_deref()).collect();
    assert_eq!(origins, [ERASED]);
}
