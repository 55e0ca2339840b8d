//! The key set of an issuer: from a file, or from a server that is slow, huge, broken, gone, or has new keys.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis_testkit::{Gateway, GatewayConfig, Request, Signer, Upstream, eventually, key_set};
use serde_json::Value;

use crate::config;
use crate::identity::{claims, now};

/// What the issuer's server does next.
#[derive(Clone)]
enum Answer {
    Keys(String),
    Status(u16),
    /// A body of so many bytes.
    Huge(u64),
    Silence,
    /// These keys, as soon as somebody says so.
    Later(String, Arc<Mutex<()>>),
}

/// A server that publishes keys. Its thread ends with the test.
struct Issuer {
    address: SocketAddr,
    answer: Arc<Mutex<Answer>>,
    asked: Arc<AtomicUsize>,
}

impl Issuer {
    fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (answer, asked) = (Arc::new(Mutex::new(answer)), Arc::new(AtomicUsize::new(0)));
        let (next, count) = (Arc::clone(&answer), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                let answer = next.lock().unwrap().clone();
                std::thread::spawn(move || serve(stream, answer));
            }
        });
        Self { address, answer, asked }
    }

    fn set(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    fn url(&self) -> String {
        format!("http://{}/.well-known/jwks.json", self.address)
    }
}

fn serve(mut stream: TcpStream, answer: Answer) {
    let mut head = [0; 4_096];
    let _ = stream.read(&mut head);
    let head = |status: u16, length: u64| {
        format!("HTTP/1.1 {status} OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")
    };
    // The gateway may hang up in the middle of it.
    let _ = match answer {
        Answer::Keys(keys) => stream.write_all(format!("{}{keys}", head(200, keys.len() as u64)).as_bytes()),
        Answer::Status(status) => stream.write_all(head(status, 0).as_bytes()),
        Answer::Huge(length) => {
            let chunk = [b' '; 64 << 10];
            let mut result = stream.write_all(head(200, length).as_bytes());
            for _ in 0..length / chunk.len() as u64 {
                result = result.and_then(|()| stream.write_all(&chunk));
            }
            result
        }
        Answer::Silence => {
            std::thread::sleep(Duration::from_secs(60));
            Ok(())
        }
        Answer::Later(keys, gate) => {
            drop(gate.lock().unwrap());
            stream.write_all(format!("{}{keys}", head(200, keys.len() as u64)).as_bytes())
        }
    };
}

fn published(signers: &[(&str, &Signer)]) -> Answer {
    let keys: Vec<Value> = signers.iter().map(|(kid, signer)| signer.jwk(kid)).collect();
    Answer::Keys(key_set(&keys))
}

fn jwt(jwks: &str, more: &str) -> String {
    format!("[identity.jwt]\njwks = \"{jwks}\"\n{more}\n")
}

fn in_front_of(upstream: &Upstream, jwks: &str) -> GatewayConfig {
    config().upstream(upstream).section(&jwt(jwks, ""))
}

/// Whether the gateway knows alice by this token.
fn knows(gateway: &Gateway, token: &str) -> bool {
    let path = format!("/echo/{}", gateway.data().count());
    let request = Request::get(&path).header("Authorization", &format!("Bearer {token}"));
    assert_eq!(gateway.client().send(&request).status(), 200);
    gateway.data().row_of(&path).user == "alice"
}

fn eventually_knows(gateway: &Gateway, token: &str) {
    eventually("the key is known", || knows(gateway, token).then_some(()));
}

fn reload(gateway: &Gateway, from: &str, to: &str) {
    let text = fs::read_to_string(gateway.config_file()).unwrap();
    assert!(text.contains(from), "{text}");
    gateway.write_config(&text.replace(from, to));
    gateway.hang_up();
}

fn failed_reads(gateway: &Gateway) -> f64 {
    gateway.metric("portcullis_identity_key_reads_total{outcome=\"failed\"}")
}

#[test]
fn published_keys_verify_tokens_and_go_when_the_issuer_takes_them_away() {
    let upstream = Upstream::start();
    let (rsa, es, ed) = (Signer::rs("RS256"), Signer::es("ES256"), Signer::ed());
    let issuer = Issuer::start(published(&[("r", &rsa), ("e", &es)]));
    let gateway =
        Gateway::start(config().upstream(&upstream).section(&jwt(&issuer.url(), "jwks_refresh = \"1h\"")));
    let (by_rsa, by_es, by_ed) = (
        rsa.token_of_key("r", &claims("alice")),
        es.token_of_key("e", &claims("alice")),
        ed.token_of_key("d", &claims("alice")),
    );
    eventually_knows(&gateway, &by_rsa);
    assert!(knows(&gateway, &by_es) && !knows(&gateway, &by_ed));
    // The issuer was asked moments ago: strangers' tokens do not make the gateway ask again.
    for _ in 0..5 {
        assert!(!knows(&gateway, &by_ed));
    }
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 1);
    issuer.set(published(&[("e", &es), ("d", &ed)]));
    // Another interval is another start.
    reload(&gateway, "\"1h\"", "\"2h\"");
    eventually_knows(&gateway, &by_ed);
    assert!(knows(&gateway, &by_es));
    assert!(!knows(&gateway, &by_rsa), "remembered tokens go with their key");
}

#[test]
fn the_last_good_keys_stay_whatever_the_issuer_does_and_across_a_restart() {
    let upstream = Upstream::start();
    let signer = Signer::es("ES256");
    let token = signer.token_of_key("k", &claims("alice"));
    let issuer = Issuer::start(published(&[("k", &signer)]));
    let gateway =
        Gateway::start(config().upstream(&upstream).section(&jwt(&issuer.url(), "jwks_refresh = \"1h\"")));
    eventually_knows(&gateway, &token);
    let mut last = "\"1h\"".to_owned();
    for (n, (answer, says)) in [
        (Answer::Huge(100 << 20), "larger"),
        (Answer::Status(500), "500"),
        (Answer::Keys("<html>".to_owned()), "no JSON Web Key Set"),
        (Answer::Keys(key_set(&[])), "none of the 0 keys"),
    ]
    .into_iter()
    .enumerate()
    {
        issuer.set(answer);
        let next = format!("\"{}h\"", n + 2);
        reload(&gateway, &last, &next);
        eventually("the failure is counted", || (failed_reads(&gateway) == (n + 1) as f64).then_some(()));
        assert!(knows(&gateway, &token));
        let stderr = gateway.stderr();
        assert!(stderr.lines().last().unwrap().contains(says), "{says}: {stderr}");
        last = next;
    }
    eventually("the command says what is wrong", || {
        let shown = gateway.cli_ok(&["identity"]);
        (shown.contains("the last try failed") && shown.contains("1 key, read")).then_some(())
    });
    issuer.set(Answer::Silence);
    let gateway = gateway.terminate().start_again();
    assert!(knows(&gateway, &token), "at once, from the copy on disk");
}

#[test]
fn an_answer_that_comes_when_the_configuration_names_another_issuer_counts_for_nothing() {
    let upstream = Upstream::start();
    let (old, new) = (Signer::ed(), Signer::ed());
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock().unwrap();
    let slow = Issuer::start(Answer::Later(key_set(&[old.jwk("old")]), Arc::clone(&gate)));
    let quick = Issuer::start(published(&[("new", &new)]));
    let gateway = Gateway::start(in_front_of(&upstream, &slow.url()));
    eventually("the first issuer is asked", || (slow.asked.load(Ordering::SeqCst) == 1).then_some(()));
    reload(&gateway, &slow.url(), &quick.url());
    let by_new = new.token_of_key("new", &claims("alice"));
    eventually_knows(&gateway, &by_new);
    drop(closed);
    // Nothing shows that an answer was thrown away; that it is not in force shows after a moment.
    std::thread::sleep(Duration::from_millis(1_500));
    assert!(knows(&gateway, &by_new));
    assert!(!knows(&gateway, &old.token_of_key("old", &claims("alice"))));
    let copy = fs::read_to_string(gateway.data().folder().join("jwks.json")).unwrap();
    assert!(copy.contains(&quick.url()) && !copy.contains(&slow.url()), "{copy}");
}

#[test]
fn a_key_set_of_a_file_is_read_again_when_it_changes_and_a_broken_one_changes_nothing() {
    let upstream = Upstream::start();
    let (old, new) = (Signer::ed(), Signer::ed());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    let write = |text: &str| {
        let beside = folder.path().join("new");
        fs::write(&beside, text).unwrap();
        fs::rename(beside, &file).unwrap();
    };
    write(&key_set(&[old.jwk("old")]));
    let gateway = Gateway::start(in_front_of(&upstream, &file.display().to_string()));
    let (by_old, by_new) =
        (old.token_of_key("old", &claims("alice")), new.token_of_key("new", &claims("alice")));
    assert!(knows(&gateway, &by_old) && !knows(&gateway, &by_new));
    write("{ \"keys\": ");
    eventually("the failure is counted", || (failed_reads(&gateway) == 1.0).then_some(()));
    assert!(knows(&gateway, &by_old));
    write(&key_set(&[new.jwk("new"), old.jwk("old")]));
    eventually_knows(&gateway, &by_new);
    assert!(knows(&gateway, &by_old));
    let expired = new.token_of_key("new", &serde_json::json!({ "sub": "alice", "exp": now() - 60 }));
    assert!(!knows(&gateway, &expired));
}
