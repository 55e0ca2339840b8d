//! The page of requests: filters, paging, the live tail, exports, and what clients sent being nothing but text.

use std::time::Duration;

use portcullis_testkit::{Client, Gateway, Request, Upstream, eventually};

use crate::in_front_of;
use crate::person::Person;

/// A gateway that has served the requests of a few clients.
fn visited(upstream: &Upstream) -> (Gateway, Person) {
    let gateway = in_front_of(upstream);
    for (client, target, agent) in [
        ("192.0.2.1", "/login?next=a", "curl/8.5.0"),
        ("192.0.2.2", "/products/7", "Mozilla/5.0"),
        ("198.51.100.9", "/missing", "sqlmap/1.8"),
        ("2001:db8::7", "/login", "Mozilla/5.0"),
    ] {
        visit(&gateway, client, target, agent);
    }
    gateway.cli_ok(&["block", "203.0.113.5"]);
    eventually("the block is in force", || {
        (gateway.client_of("203.0.113.5").get("/blocked").status() == 403).then_some(())
    });
    let mut person = Person::operator(&gateway);
    eventually("everything is logged", || person.page("/requests").contains("/blocked").then_some(()));
    (gateway, person)
}

fn visit(gateway: &Gateway, client: &str, target: &str, agent: &str) {
    let request = Request::get(target).header("User-Agent", agent);
    gateway.client_of(client).send(&request);
}

/// The decision IDs of a page or a part of it, from top to bottom.
fn ids(page: &str) -> Vec<String> {
    let after = page.split("href=\"/decision/").skip(1);
    after.map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
}

#[test]
fn every_filter_shows_what_matches_and_nothing_else() {
    let upstream = Upstream::start();
    let (_gateway, mut person) = visited(&upstream);
    for (filter, clients) in [
        ("ip=192.0.2.1", &["192.0.2.1"][..]),
        ("ip=192.0.2.0/24", &["192.0.2.1", "192.0.2.2"]),
        ("ip=2001:db8::/32", &["2001:db8::7"]),
        ("path=/login", &["192.0.2.1", "2001:db8::7"]),
        ("path=/prod*/7", &["192.0.2.2"]),
        ("verdict=blocked", &["203.0.113.5"]),
        ("status=403", &["203.0.113.5"]),
        ("method=post", &[]),
        ("agent=SQLMAP", &["198.51.100.9"]),
        ("query=next", &["192.0.2.1"]),
        ("reason=block:", &["203.0.113.5"]),
        ("user=alice", &[]),
        ("country=DE", &[]),
        ("asn=64496", &[]),
        ("since=1h&until=now&path=/missing", &["198.51.100.9"]),
        ("until=1h", &[]),
    ] {
        let page = person.page(&format!("/requests?{filter}"));
        let all = ["192.0.2.1", "192.0.2.2", "198.51.100.9", "2001:db8::7", "203.0.113.5"];
        let link = |client: &str| format!("href=\"/clients/{}\"", client.replace(':', "%3A"));
        let shown: Vec<&str> = all.into_iter().filter(|client| page.contains(&link(client))).collect();
        assert_eq!(shown, clients, "{filter}");
    }
    let suspicious = person.page("/requests?suspicious=yes");
    assert!(suspicious.contains("/blocked") && !suspicious.contains("/products/7"));
}

#[test]
fn what_is_wrong_with_a_filter_stands_beside_its_field() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let mut person = Person::operator(&gateway);
    let answer = person.get("/requests?ip=nonsense&status=4xx&since=soon");
    assert_eq!(answer.status(), 422);
    let page = answer.text();
    for (field, why) in [("ip", "expected an address or a prefix"), ("since", "expected a time ago")] {
        let (_, wrong) = page.split_once(&format!("id=\"wrong-{field}\"")).unwrap();
        assert!(wrong.split("</p>").next().unwrap().contains(why), "{field}: {page}");
    }
    assert!(page.contains("value=\"nonsense\""), "what was typed is still there");
    assert_eq!(person.get("/requests?before=x").status(), 422);
    assert_eq!(person.get("/requests/export.csv?ip=nonsense").status(), 422);
    assert_eq!(person.get("/requests/tail?ip=nonsense").status(), 422);
}

/// The numbers at the end of the paths `/old/NUMBER` of a page, from top to bottom.
fn numbers(page: &str) -> Vec<usize> {
    let after = page.split(">/old/").skip(1);
    after.map(|rest| rest.split('<').next().unwrap().parse().unwrap()).collect()
}

#[test]
fn paging_shows_each_request_exactly_once_while_others_are_added() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let mut person = Person::operator(&gateway);
    let mut client = gateway.client_of("192.0.2.1");
    (0..250).for_each(|n| drop(client.get(&format!("/old/{n}"))));
    eventually("everything is logged", || {
        (person.get("/requests/export.jsonl?path=/old/").text().lines().count() == 250).then_some(())
    });
    let mut seen = Vec::new();
    let mut place = "/requests?path=/old/".to_owned();
    let mut pages = 0;
    loop {
        let page = person.page(&place);
        seen.extend(numbers(&page));
        pages += 1;
        (0..30).for_each(|n| drop(client.get(&format!("/old/{}", 1_000 * pages + n))));
        let Some((before, _)) = page.split_once("\" rel=\"next\"") else { break };
        place = before.rsplit_once("href=\"").unwrap().1.replace("&amp;", "&");
    }
    assert_eq!(pages, 3);
    assert!(seen.into_iter().eq((0..250).rev()), "each once, the newest first");
}

#[test]
fn an_export_is_the_log_and_no_spreadsheet_computes_anything() {
    let upstream = Upstream::start();
    let (gateway, mut person) = visited(&upstream);
    visit(&gateway, "192.0.2.66", "/formula", "=cmd|' /C calc'!A0");
    eventually("it is logged", || person.page("/requests?path=/formula").contains("calc").then_some(()));
    let csv = person.get("/requests/export.csv");
    let disposition = csv.header("content-disposition").unwrap();
    assert!(disposition.starts_with("attachment; filename=\"requests-2"), "{disposition}");
    assert_eq!(csv.header("content-type"), Some("text/csv; charset=utf-8"));
    let text = csv.text();
    assert!(text.starts_with("id,time,ip,method,host,path,query,status,"), "{text}");
    assert!(text.contains(",\"'=cmd|' /C calc'!A0\","), "{text}");
    let of_csv: Vec<&str> = text.lines().skip(1).map(|line| line.split(',').next().unwrap()).collect();
    let json = person.get("/requests/export.jsonl").text();
    let json: Vec<serde_json::Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_json: Vec<&str> = json.iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert_eq!(of_csv, of_json);
    let of_cli = gateway.cli_ok(&["logs", "--json", "--limit", "1000"]);
    let mut of_cli: Vec<serde_json::Value> =
        of_cli.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    of_cli.reverse();
    assert_eq!(json, of_cli, "the same as at the command line");
    let few = person.get("/requests/export.csv?limit=2&path=/login").text();
    assert_eq!(few.lines().count(), 3, "{few}");
}

/// A connection that listens to a stream of the console.
fn listen(gateway: &Gateway, person: &Person, target: &str) -> Client {
    let mut client = Client::connect(gateway.console()).host(&gateway.console().to_string());
    client.patience(Duration::from_secs(10));
    client.write_request(&Request::get(target).header("Cookie", person.cookie.as_deref().unwrap()));
    client
}

#[test]
fn the_tail_tells_of_new_requests_that_match() {
    let upstream = Upstream::start();
    let (gateway, person) = visited(&upstream);
    let mut tail = listen(&gateway, &person, "/requests/tail?path=/new&column=id&column=path&column=agent");
    tail.read_until(": begins");
    // The first look finds the end of the log.
    std::thread::sleep(Duration::from_millis(1_500));
    visit(&gateway, "192.0.2.1", "/other", "curl");
    visit(&gateway, "192.0.2.1", "/new/1", "<script>alert(1)</script>");
    let told = tail.read_until("\"has_skipped\":false");
    assert!(told.contains("event: rows") && told.contains("id: 1-"), "{told}");
    assert!(told.contains("/new/") && !told.contains("/other"), "{told}");
    assert!(told.contains("&lt;script&gt;") && !told.contains("<script>"), "{told}");
}

#[test]
fn what_clients_send_is_text() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let mut person = Person::operator(&gateway);
    let hostile = "\"><img src=x onerror=alert(1)><script>alert(2)</script>";
    // The second is no valid target; the log has it all the same.
    for target in ["/%22%3E%3Cimg%20src=x%3E?a=%3Cscript%3E", "/<svg/onload=alert(3)>"] {
        let request =
            Request::get(target).header("User-Agent", hostile).header("Referer", "javascript:alert(4)");
        gateway.client_of("192.0.2.1").send(&request);
    }
    let columns = "column=path&column=agent&column=referer&column=host&column=id";
    let page = eventually("it is logged", || {
        let page = person.page(&format!("/requests?{columns}"));
        (page.contains("&lt;img src=x") && page.contains("&lt;svg")).then_some(page)
    });
    for raw in ["<img src=x", "<script>alert", "<svg/onload", "href=\"javascript:"] {
        assert!(!page.contains(raw), "{raw}: {page}");
    }
    let overview = person.page("/");
    assert!(overview.contains("&lt;img src=x") && !overview.contains("<img src=x"), "{overview}");
}

#[test]
fn the_field_in_the_head_leads_to_what_is_typed() {
    let upstream = Upstream::start();
    let (_gateway, mut person) = visited(&upstream);
    let page = person.page("/requests?verdict=blocked");
    let id = ids(&page).remove(0);
    for (typed, place) in [
        ("192.0.2.1", "/clients/192.0.2.1".to_owned()),
        (&*id, format!("/decision/{id}")),
        ("192.0.2.0%2F24", "/requests?ip=192.0.2.0%2F24".to_owned()),
        ("%2Flogin", "/requests?path=%2Flogin".to_owned()),
    ] {
        let answer = person.get(&format!("/find?q={typed}"));
        assert_eq!((answer.status(), answer.header("location")), (303, Some(&*place)), "{typed}");
    }
    let nothing = person.get("/find?q=%3Cscript%3E");
    assert_eq!(nothing.status(), 404);
    assert!(nothing.text().contains("&lt;script&gt;") && nothing.text().contains("a decision ID"));
}

#[test]
fn nobody_reads_the_log_without_having_signed_in() {
    let upstream = Upstream::start();
    let (gateway, _) = visited(&upstream);
    let mut stranger = Person::stranger(&gateway);
    for place in [
        "/",
        "/live",
        "/requests",
        "/requests/tail",
        "/requests/export.csv",
        "/requests/export.jsonl",
        "/find?q=1",
    ] {
        let answer = stranger.get(place);
        assert_eq!(answer.status(), 303, "{place}");
        assert!(answer.header("location").unwrap().starts_with("/login"), "{place}");
    }
}
