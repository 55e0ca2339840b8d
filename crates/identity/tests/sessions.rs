//! Which answers make a session known, keep it, rename it and end it.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::time::Duration;

use portcullis_identity::{
    Answer, CookieChange, CookieValue, HashKey, Known, Learned, MAX_SESSIONS, Named, SessionRules, Sessions,
    Step, cookie_change, cookie_value,
};
use portcullis_model::UnixMs;

const RULES: SessionRules =
    SessionRules { idle: Duration::from_secs(600), absolute: Duration::from_secs(3_600) };
const START: UnixMs = UnixMs(1_800_000_000_000);

fn after(seconds: u64) -> UnixMs {
    START.plus(Duration::from_secs(seconds))
}

fn sessions() -> Sessions {
    Sessions::new(HashKey::new(&[7; HashKey::BYTES]))
}

fn answer(step: Step, cookie: CookieChange<'_>) -> Answer<'_> {
    Answer {
        step,
        cookie,
        named: Named::Unsaid,
        looks_successful: step == Step::Login,
        looks_failed: false,
        is_done: true,
    }
}

fn named(user: &str) -> Named {
    Named::read(Some(user.as_bytes()), Some(b"staff, editor"))
}

fn find(sessions: &Sessions, cookie: &str, now: UnixMs) -> Option<Known> {
    sessions.find(cookie.as_bytes(), &RULES, now)
}

fn log_in(sessions: &Sessions, cookie: &str) -> Learned {
    sessions.learn(None, answer(Step::Login, CookieChange::Set(cookie.as_bytes())), START)
}

#[test]
fn only_a_cookie_of_a_successful_login_counts() {
    let sessions = sessions();
    assert!(find(&sessions, "made-up", START).is_none());
    // What every visitor gets.
    sessions.learn(None, answer(Step::Visit, CookieChange::Set(b"visitor")), START);
    assert!(find(&sessions, "visitor", START).is_none());
    let failed = Answer { looks_successful: false, ..answer(Step::Login, CookieChange::Set(b"failed")) };
    sessions.learn(None, failed, START);
    let refused = Answer { looks_failed: true, ..answer(Step::Login, CookieChange::Set(b"failed")) };
    assert!(sessions.learn(None, refused, START).login_failed);
    assert!(find(&sessions, "failed", START).is_none());
    let nothing = sessions.learn(None, answer(Step::Login, CookieChange::None), START);
    assert_eq!(nothing, Learned::default());
    log_in(&sessions, "good");
    let known = find(&sessions, "good", START).unwrap();
    assert!(known.identity().user.is_none() && known.identity().session.is_some());
}

#[test]
fn a_login_that_the_body_calls_failed_is_taken_back() {
    let sessions = sessions();
    let learned = log_in(&sessions, "early");
    assert!(find(&sessions, "early", START).is_some());
    sessions.take_back(learned);
    assert!(find(&sessions, "early", START).is_none());
}

#[test]
fn sessions_end_when_idle_and_in_any_case() {
    let sessions = sessions();
    log_in(&sessions, "a");
    log_in(&sessions, "b");
    for n in 1..=6 {
        assert!(find(&sessions, "a", after(n * 599)).is_some());
    }
    assert!(find(&sessions, "b", after(600)).is_none());
    assert!(find(&sessions, "a", after(3_599)).is_some());
    assert!(find(&sessions, "a", after(3_600)).is_none());
}

#[test]
fn a_new_value_carries_the_session_on_and_the_old_one_ends_soon() {
    let sessions = sessions();
    log_in(&sessions, "first");
    let first = find(&sessions, "first", START).unwrap();
    sessions.learn(Some(&first), answer(Step::Visit, CookieChange::Set(b"second")), START);
    let second = find(&sessions, "second", START).unwrap();
    assert_eq!(second.identity(), first.identity(), "the number in limits stays");
    assert!(find(&sessions, "first", after(29)).is_some());
    // Replacing it once more gains it no time.
    let again = find(&sessions, "first", after(29)).unwrap();
    sessions.learn(Some(&again), answer(Step::Visit, CookieChange::Set(b"third")), after(29));
    assert!(find(&sessions, "first", after(30)).is_none());
    assert!(
        find(&sessions, "second", after(599)).is_some() && find(&sessions, "third", after(599)).is_some()
    );
    // Rotation does not stretch the absolute end.
    for n in 1..=6 {
        assert!(find(&sessions, "second", after(n * 599)).is_some());
    }
    assert!(find(&sessions, "second", after(3_600)).is_none());
    // The same value once more is no rotation.
    log_in(&sessions, "same");
    let same = find(&sessions, "same", START).unwrap();
    sessions.learn(Some(&same), answer(Step::Visit, CookieChange::Set(b"same")), START);
    assert!(find(&sessions, "same", after(60)).is_some());
}

#[test]
fn logging_out_ends_the_session_in_each_way_there_is() {
    for out in [
        answer(Step::Visit, CookieChange::Removed),
        answer(Step::Logout, CookieChange::None),
        // As frameworks do that keep everything in the cookie: a stranger's session in the place of the user's.
        answer(Step::Logout, CookieChange::Set(b"stranger")),
        Answer { named: Named::Nobody, ..answer(Step::Visit, CookieChange::Set(b"stranger")) },
        Answer { named: Named::Nobody, ..answer(Step::Visit, CookieChange::None) },
    ] {
        let sessions = sessions();
        log_in(&sessions, "mine");
        let mine = find(&sessions, "mine", START).unwrap();
        sessions.learn(Some(&mine), out.clone(), START);
        assert!(find(&sessions, "mine", START).is_none(), "{out:?}");
        assert!(find(&sessions, "stranger", START).is_none(), "{out:?}");
    }
    // Not one that the site refuses.
    let sessions = sessions();
    log_in(&sessions, "mine");
    let mine = find(&sessions, "mine", START).unwrap();
    sessions.learn(Some(&mine), Answer { is_done: false, ..answer(Step::Logout, CookieChange::None) }, START);
    assert!(find(&sessions, "mine", START).is_some());
}

#[test]
fn an_answer_that_was_on_its_way_does_not_open_a_session_that_has_ended() {
    let late = [
        Answer { named: named("anna"), ..answer(Step::Visit, CookieChange::None) },
        answer(Step::Visit, CookieChange::Set(b"second")),
    ];
    for late in late {
        let sessions = sessions();
        log_in(&sessions, "first");
        let known = find(&sessions, "first", START).unwrap();
        sessions.learn(Some(&known), answer(Step::Logout, CookieChange::None), START);
        sessions.learn(Some(&known), late, START);
        assert!(["first", "second"].iter().all(|cookie| find(&sessions, cookie, START).is_none()));
    }
}

#[test]
fn logging_in_anew_ends_the_session_before() {
    let sessions = sessions();
    log_in(&sessions, "old");
    let old = find(&sessions, "old", START).unwrap();
    sessions.learn(Some(&old), answer(Step::Login, CookieChange::Set(b"new")), START);
    assert!(find(&sessions, "old", START).is_none());
    assert_ne!(find(&sessions, "new", START).unwrap().identity().session, old.identity().session);
}

#[test]
fn the_upstream_names_the_user_of_a_known_session_and_of_no_other() {
    let sessions = sessions();
    let says = |cookie| Answer { named: named("alice"), ..answer(Step::Visit, cookie) };
    sessions.learn(None, says(CookieChange::None), START);
    assert!(find(&sessions, "unknown", START).is_none());
    log_in(&sessions, "mine");
    let mine = find(&sessions, "mine", START).unwrap();
    sessions.learn(Some(&mine), says(CookieChange::None), START);
    let identity = find(&sessions, "mine", START).unwrap().identity().clone();
    assert_eq!((identity.user.as_deref(), identity.session), (Some("alice"), mine.identity().session));
    assert!(identity.has_role("staff") && identity.has_role("editor"));
    // Single sign-on: the cookie and the name in one answer.
    sessions.learn(None, says(CookieChange::Set(b"sso")), START);
    assert_eq!(find(&sessions, "sso", START).unwrap().identity().user.as_deref(), Some("alice"));
    // What cannot be a name names nobody, and takes nothing away.
    for odd in ["a\u{7}b", "session:1", &"x".repeat(129)] {
        assert_eq!(named(odd), Named::Unsaid);
    }
    assert_eq!(Named::read(Some(b"\xff"), None), Named::Unsaid);
    assert_eq!(sessions.close_user("alice"), 2);
    assert!(find(&sessions, "mine", START).is_none() && find(&sessions, "sso", START).is_none());
}

#[test]
fn saved_sessions_come_back_without_their_cookies() {
    let before = sessions();
    log_in(&before, "cookie-value");
    let known = find(&before, "cookie-value", START).unwrap();
    before.learn(
        Some(&known),
        Answer { named: named("alice"), ..answer(Step::Visit, CookieChange::None) },
        START,
    );
    log_in(&before, "idle");
    let saved = before.export();
    assert!(!String::from_utf8_lossy(&saved).contains("cookie-value"));

    let after_restart = sessions();
    find(&before, "cookie-value", after(500)).unwrap();
    assert_eq!(after_restart.import(&before.export(), &RULES, after(900)).unwrap(), 1);
    let found = find(&after_restart, "cookie-value", after(900)).unwrap();
    assert_eq!(found.identity(), find(&before, "cookie-value", after(900)).unwrap().identity());
    assert!(find(&after_restart, "idle", after(900)).is_none());
    // Nobody who has the file alone can use it, and a broken one is an error.
    let another_key = Sessions::new(HashKey::new(&[8; HashKey::BYTES]));
    another_key.import(&saved, &RULES, START).unwrap();
    assert!(find(&another_key, "cookie-value", START).is_none());
    for broken in [&saved[..saved.len() - 1], b"", b"{\"version\":2,\"sessions\":[]}"] {
        assert!(sessions().import(broken, &RULES, START).is_err());
    }
}

#[test]
fn a_few_sessions_more_than_there_may_be_do_not_cost_all_of_them() {
    let row = |n: usize| {
        let (began, hash) = (START.0, format!("{n:032x}"));
        serde_json::json!({ "hash": hash, "number": n, "began": began, "last_seen": began })
    };
    let rows: Vec<_> = (0..MAX_SESSIONS + 5).map(row).collect();
    let saved = serde_json::json!({ "version": 1, "sessions": rows }).to_string();
    let sessions = sessions();
    assert_eq!(sessions.import(saved.as_bytes(), &RULES, START).unwrap(), MAX_SESSIONS);
    assert_eq!(sessions.len(), MAX_SESSIONS);
}

#[test]
fn what_happens_in_an_old_process_reaches_the_new_one_and_nothing_else_does() {
    let (old, new) = (sessions(), sessions());
    log_in(&old, "kept");
    log_in(&old, "left-in-the-old-one");
    log_in(&old, "left-in-the-new-one");
    assert!(old.export_changes().is_none());
    old.note_changes();
    new.import(&old.export(), &RULES, START).unwrap();
    assert!(old.export_changes().is_none());
    let leave = |sessions: &Sessions, cookie: &str| {
        let known = find(sessions, cookie, START).unwrap();
        sessions.learn(Some(&known), answer(Step::Logout, CookieChange::None), START);
    };
    leave(&old, "left-in-the-old-one");
    leave(&new, "left-in-the-new-one");
    log_in(&old, "late");
    new.import(&old.export_changes().unwrap(), &RULES, START).unwrap();
    let known = ["kept", "late", "left-in-the-old-one", "left-in-the-new-one"]
        .map(|cookie| find(&new, cookie, START).is_some());
    assert_eq!(known, [true, true, false, false]);
    assert!(old.export_changes().is_none());
}

#[test]
fn a_value_that_the_old_process_saw_replaced_ends_in_the_new_one() {
    let (old, new) = (sessions(), sessions());
    log_in(&old, "first");
    old.note_changes();
    new.import(&old.export(), &RULES, START).unwrap();
    let known = find(&old, "first", START).unwrap();
    old.learn(Some(&known), answer(Step::Visit, CookieChange::Set(b"second")), START);
    new.import(&old.export_changes().unwrap(), &RULES, START).unwrap();
    assert!(find(&new, "first", after(29)).is_some(), "requests with it may be on their way");
    assert!(find(&new, "first", after(31)).is_none());
    assert!(find(&new, "second", after(31)).is_some());
}

#[test]
fn what_has_ended_is_swept() {
    let sessions = sessions();
    for n in 0..100 {
        log_in(&sessions, &n.to_string());
    }
    find(&sessions, "7", after(500)).unwrap();
    let changes = sessions.changes();
    sessions.sweep(&RULES, after(700));
    assert_eq!(sessions.len(), 1);
    assert!(sessions.changes() > changes);
}

#[test]
fn a_cookie_is_read_from_all_lines_and_two_values_are_none() {
    let of = |lines: &[&'static str]| cookie_value(lines.iter().map(|line| line.as_bytes()), b"sid");
    assert_eq!(of(&["a=1; sid=x; b=2"]), CookieValue::One(b"x"));
    assert_eq!(of(&["a=1", "sid=x", "b=2"]), CookieValue::One(b"x"));
    assert_eq!(of(&["sid = x=y ;sidx=z; xsid=w"]), CookieValue::One(b"x=y"));
    assert_eq!(of(&["sid=x; sid=x"]), CookieValue::One(b"x"));
    assert_eq!(of(&["sid=x; sid=y"]), CookieValue::Several);
    assert_eq!(of(&["sid=x", "sid=y"]), CookieValue::Several);
    assert_eq!(of(&["sid=; SID=x; sid"]), CookieValue::None);
    assert_eq!(of(&[]), CookieValue::None);
}

#[test]
fn set_cookie_sets_or_removes() {
    let of = |lines: &[&'static str]| cookie_change(lines.iter().map(|line| line.as_bytes()), b"sid", START);
    for (line, change) in [
        ("sid=abc; Path=/; HttpOnly", CookieChange::Set(b"abc")),
        ("sid=abc; Max-Age=1209600; expires=Thu, 01 Jan 1970 00:00:00 GMT", CookieChange::Set(b"abc")),
        ("sid=abc; Expires=Wed, 21 Oct 2099 07:28:00 GMT", CookieChange::Set(b"abc")),
        ("sid=abc; expires=never", CookieChange::Set(b"abc")),
        ("sid=abc; max-age=x", CookieChange::Set(b"abc")),
        // As Django, PHP and others remove one.
        ("sid=\"\"; expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; Path=/", CookieChange::Removed),
        ("sid=deleted; expires=Thu, 01-Jan-1970 00:00:01 GMT; Max-Age=0", CookieChange::Removed),
        ("sid=; expires=Thu, 01-Jan-1970 00:00:01 GMT", CookieChange::Removed),
        ("sid=x; max-age=-1", CookieChange::Removed),
        ("sid=", CookieChange::Removed),
        ("csrftoken=abc", CookieChange::None),
        ("SID=abc", CookieChange::None),
        ("sid", CookieChange::None),
    ] {
        assert_eq!(of(&[line]), change, "{line}");
    }
    assert_eq!(of(&["sid=a; path=/a; max-age=0", "sid=b"]), CookieChange::Set(b"b"));
    assert_eq!(of(&["sid=b", "sid=a; path=/a; max-age=0"]), CookieChange::Set(b"b"));
}
