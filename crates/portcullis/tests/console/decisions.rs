//! An ID leads to the whole story of a decision, and its buttons do what the advice says.

use portcullis_testkit::{Gateway, Request, Response, Upstream, eventually};

use crate::person::Person;
use crate::{config, in_front_of};

/// Enough to be blocked by the detector at once.
fn attack(gateway: &Gateway, client: &str) -> Response {
    let mut connection = gateway.client_of(client);
    let paths =
        ["/.env", "/.git/config", "/wp-login.php", "/cgi-bin/luci", "/backup.sql", "/.aws/credentials"];
    for path in paths.iter().cycle().take(60) {
        let answer = connection.send(&Request::get(path).header("User-Agent", "sqlmap/1.8"));
        if answer.status() == 403 {
            return answer;
        }
    }
    panic!("{client} was not blocked");
}

fn story(person: &mut Person, refusal: &Response) -> String {
    let path = format!("/decision/{}", refusal.decision_id());
    // The row is written a moment after the answer.
    eventually("the story", || Some(person.get(&path)).filter(|page| page.status() == 200)).text()
}

#[test]
fn a_block_is_explained_and_lifted_and_the_lift_undone() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let mut alice = Person::operator(&gateway);
    gateway.cli_ok(&["block", "203.0.113.9", "--reason", "scans us <b>badly</b>"]);
    let mut client = gateway.client_of("203.0.113.9");
    let refusal =
        eventually("the block", || Some(client.get("/shop")).filter(|answer| answer.status() == 403));
    let page = story(&mut alice, &refusal);
    for part in ["Refused with 403", "203.0.113.9", "at the command line", "scans us &lt;b&gt;badly", "/shop"]
    {
        assert!(page.contains(part), "{part:?} is not in\n{page}");
    }
    let back = format!("/decision/{}", refusal.decision_id());
    let page = alice.change("/blocks/lift", &[("network", "203.0.113.9"), ("back", &back)]);
    assert!(page.contains("Undo") && page.contains("over: "), "{page}");
    eventually("the client is let in", || (client.get("/shop").status() == 200).then_some(()));
    let key = crate::person::field(&page, "key");
    alice.change("/undo", &[("key", &key)]);
    eventually("the client is refused", || (client.get("/shop").status() == 403).then_some(()));
}

#[test]
fn a_limit_is_explained_with_what_was_counted_before() {
    let upstream = Upstream::start();
    let gateway =
        Gateway::start(config().upstream(&upstream).behind_local_proxy().limit("tight", "rate = \"2/1m\""));
    let mut alice = Person::operator(&gateway);
    let mut client = gateway.client_of("203.0.113.9");
    client.get("/one");
    client.get("/two");
    let refusal = client.get("/three");
    assert_eq!(refusal.status(), 429);
    let page = story(&mut alice, &refusal);
    for part in
        ["tight", "admits 2 requests", "/one", "/two", "action=\"/allows\"", "rate = &quot;2/1m&quot;"]
    {
        assert!(page.contains(part), "{part:?} is not in\n{page}");
    }
    let back = format!("/decision/{}", refusal.decision_id());
    alice.change("/allows", &[("network", "203.0.113.9"), ("reason", "a decision"), ("back", &back)]);
    eventually("the client is let in", || (client.get("/four").status() == 200).then_some(()));
}

#[test]
fn whom_the_detector_caught_is_explained_with_its_evidence_and_dismissed() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let mut alice = Person::operator(&gateway);
    let refusal = attack(&gateway, "203.0.113.9");
    let page = eventually("the evidence", || {
        Some(story(&mut alice, &refusal)).filter(|page| page.contains("Evidence"))
    });
    for part in ["/.env", "Dismiss the finding", "action=\"/blocks/lift\"", "prevented"] {
        assert!(page.contains(part), "{part:?} is not in\n{page}");
    }
    let finding = page.split_once("/findings/").unwrap().1.split('"').next().unwrap().to_owned();
    let back = format!("/decision/{}", refusal.decision_id());
    alice.change("/findings", &[("id", &finding), ("deed", "dismiss"), ("back", &back)]);
    let stored = gateway.data().state().finding(finding.parse().unwrap()).unwrap().unwrap();
    assert_eq!(stored.status.as_str(), "dismissed");
}

#[test]
fn an_id_that_leads_nowhere_says_why() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let mut alice = Person::operator(&gateway);
    gateway.get("/");
    gateway.data().wait_for_count(1);
    for (asked, status, says) in [
        ("/decision/06GZFMEMAFNN3DTJ", 404, "the log in"),
        ("/decision/ZZZZZZZZZZZZZZZZ", 404, "cannot be right"),
        ("/decision/nonsense", 422, "neither a decision ID"),
        ("/decision?id=%3Cscript%3E", 422, "neither a decision ID"),
        ("/decision?id=", 200, "Decision ID"),
    ] {
        let page = alice.get(asked);
        assert_eq!(page.status(), status, "{asked}: {}", page.text());
        assert!(page.text().contains(says), "{asked}: {}", page.text());
        assert!(!page.text().contains("<script>"), "{asked}");
    }
    let way = alice.get("/decision?id=203.0.113.9");
    assert_eq!((way.status(), way.header("location")), (303, Some("/clients/203.0.113.9")));
    let way = alice.get("/decision?id=+06GZFMEMAFNN3DTJ+");
    assert_eq!((way.status(), way.header("location")), (303, Some("/decision/06GZFMEMAFNN3DTJ")));
}

#[test]
fn a_viewer_reads_the_story_and_gets_no_buttons() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let mut alice = Person::operator(&gateway);
    let mut bob = Person::viewer(&gateway, &mut alice);
    gateway.cli_ok(&["block", "203.0.113.9"]);
    let mut client = gateway.client_of("203.0.113.9");
    let refusal = eventually("the block", || Some(client.get("/")).filter(|answer| answer.status() == 403));
    let page = story(&mut bob, &refusal);
    assert!(page.contains("unblock 203.0.113.9") && !page.contains("action=\"/blocks/lift\""), "{page}");
    assert_eq!(bob.post("/blocks/lift", &[("network", "203.0.113.9")]).status(), 403);
}
