//! Who the client is: the peer, or what a trusted proxy says of it, and never what a client says of itself.

use crate::ground::Ground;
use crate::suite::{Case, Who, run};

const LINE: &str = "GET /who HTTP/1.1";

fn request(lines: &[&str]) -> String {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    format!("{LINE}\r\nHost: a\r\n{lines}\r\n")
}

/// Headers with which clients say who they are, or where they came in.
const CLAIMS: &[&str] = &[
    "X-Forwarded-For",
    "X-Real-IP",
    "CF-Connecting-IP",
    "CF-Connecting-IPv6",
    "True-Client-IP",
    "X-Client-IP",
    "X-Cluster-Client-IP",
    "Fastly-Client-IP",
    "X-Original-Forwarded-For",
    "X-Forwarded",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-Server",
    "X-Forwarded-Ssl",
    "X-Forwarded-Scheme",
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-Request-Id",
    "Forwarded",
];

/// What the gateway writes itself, so that the name is there but not the claim.
const OURS: &[&str] =
    &["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "x-request-id"];

fn of_strangers() -> Vec<Case> {
    let mut cases = Vec::new();
    for name in CLAIMS {
        let lower = name.to_ascii_lowercase();
        let case = |label: String, bytes: String| {
            let case = Case::served(label, bytes, LINE).by_stranger();
            match OURS.contains(&&*lower) {
                // Compared for every case.
                true => case.header("x-forwarded-host", &["a"]),
                false => case.header(&lower, &[]),
            }
        };
        let claim = format!("{name}: 203.0.113.66");
        cases.push(case(format!("{name} of a stranger"), request(&[&claim])));
        cases.push(case(format!("{name} in capitals"), request(&[&claim.to_uppercase()])));
        cases.push(case(format!("{name} twice"), request(&[&claim, &claim])));
        let connection = format!("Connection: {name}");
        // Pingora will not drop these, whoever asks for it, and refuses the request.
        let is_protected = ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"].contains(&&*lower);
        for (label, bytes) in [
            (format!("{name}, named by Connection"), request(&[&connection, &claim])),
            (format!("Connection: {name} alone"), request(&[&connection])),
        ] {
            cases.push(match is_protected {
                true => Case::refused(label, bytes, "bad_request").by_stranger(),
                false => case(label, bytes),
            });
        }
        let underscored = name.replace('-', "_");
        if underscored != *name {
            let bytes = request(&[&format!("{underscored}: 203.0.113.66")]);
            cases.push(case(underscored.clone(), bytes).header(&underscored.to_ascii_lowercase(), &[]));
        }
    }
    let all: Vec<String> = CLAIMS.iter().map(|name| format!("{name}: 203.0.113.66")).collect();
    let all: Vec<&str> = all.iter().map(|line| &**line).collect();
    cases.push(
        Case::served("all at once", request(&all), LINE).by_stranger().header("x-forwarded-host", &["a"]),
    );
    cases
}

/// Lines of X-Forwarded-For from a trusted peer, and the client that they name.
const CHAINS: &[(&str, &[&str], Who)] = &[
    ("one client", &["@CLIENT@"], Who::Client),
    ("blanks around it", &["  @CLIENT@\t "], Who::Client),
    ("a client behind a trusted hop", &["@CLIENT@, 10.0.0.1"], Who::Client),
    ("a forged entry before it", &["203.0.113.66, @CLIENT@, 10.0.0.1"], Who::Client),
    ("garbage before it", &["evil, @CLIENT@"], Who::Client),
    ("markup before it", &["<script>, @CLIENT@"], Who::Client),
    ("no blanks", &["203.0.113.66,@CLIENT@,10.0.0.1"], Who::Client),
    ("two lines", &["203.0.113.66", "@CLIENT@"], Who::Client),
    ("two lines, the last a hop", &["203.0.113.66, @CLIENT@", "10.0.0.1"], Who::Client),
    ("three lines", &["203.0.113.66", "@CLIENT@", "10.0.0.1, 10.0.0.2"], Who::Client),
    ("a line of a trusted network before it", &["10.1.1.1", "@CLIENT@"], Who::Client),
    ("IPv6", &["@CLIENT6@"], Who::Client6),
    ("IPv6 behind a hop", &["203.0.113.66, @CLIENT6@, 10.0.0.1"], Who::Client6),
    ("IPv4 in IPv6", &["::ffff:@CLIENT@"], Who::Client),
    ("IPv4 in NAT64", &["64:ff9b::@CLIENT@"], Who::Client),
    ("IPv6 in capitals, with zeros", &["2001:0DB8:0000:@HEX@:0000:0000:0000:0001"], Who::Client6),
    ("a port", &["@CLIENT@:5000"], Who::Client),
    ("IPv6 in brackets", &["[@CLIENT6@]"], Who::Client6),
    ("IPv6 with a port", &["[@CLIENT6@]:5000"], Who::Client6),
    ("a port behind a hop with one", &["203.0.113.66, @CLIENT@:1, 10.0.0.1:2"], Who::Client),
    ("a port that is none", &["@CLIENT@:http"], Who::Peer),
    ("a port too large", &["@CLIENT@:65536"], Who::Peer),
    ("a port with a sign", &["@CLIENT@:+80"], Who::Peer),
    ("an empty port", &["@CLIENT@:"], Who::Peer),
    ("brackets around IPv4", &["[@CLIENT@]"], Who::Peer),
    ("a zone", &["fe80::1%eth0"], Who::Peer),
    ("an empty entry at the end", &["@CLIENT@,"], Who::Peer),
    ("an empty line at the end", &["@CLIENT@", ""], Who::Peer),
    ("a quoted address", &["\"@CLIENT@\""], Who::Peer),
    ("two addresses with a blank", &["@CLIENT@ 10.0.0.1"], Who::Peer),
    ("nobody", &[""], Who::Peer),
    ("nothing but a comma", &[","], Who::Peer),
    ("a word", &["unknown"], Who::Peer),
    ("a hidden name", &["_hidden"], Who::Peer),
    ("garbage", &["%00%0a"], Who::Peer),
    ("a number", &["3325256704"], Who::Peer),
    ("a short address", &["192.1"], Who::Peer),
    ("octal digits", &["0306.022.1.1"], Who::Peer),
    ("hexadecimal digits", &["0xc6.18.1.1"], Who::Peer),
    ("five numbers", &["192.0.2.1.5"], Who::Peer),
    ("a number too large", &["192.0.2.256"], Who::Peer),
    ("a prefix", &["192.0.2.0/24"], Who::Peer),
    ("a name", &["localhost"], Who::Peer),
    ("a quoted word", &["\"unknown\""], Who::Peer),
    ("half an IPv6 address", &["[2001:db8::1"], Who::Peer),
    ("three colons", &["2001:::1"], Who::Peer),
    ("garbage after a hop: the hop", &["@CLIENT@, junk, @HOP@"], Who::Hop),
    ("a word after a hop: the hop", &["unknown, @HOP@"], Who::Hop),
    ("garbage last: the peer", &["@CLIENT@, junk"], Who::Peer),
    ("hops alone: the first", &["@HOP@, 10.0.0.1"], Who::Hop),
];

fn of_proxies() -> Vec<Case> {
    let mut cases = Vec::new();
    for &(name, values, who) in CHAINS {
        let lines: Vec<String> = values.iter().map(|value| format!("X-Forwarded-For: {value}")).collect();
        let lines: Vec<&str> = lines.iter().map(|line| &**line).collect();
        cases.extend(Case::served(name, request(&lines), LINE).who(who).and_over_tls());
        let stranger = Case::served(format!("{name}, from a stranger"), request(&lines), LINE).by_stranger();
        cases.push(stranger);
    }
    let hops = |count: usize| (0..count).map(|_| "10.0.0.1").collect::<Vec<_>>().join(", ");
    let of = |name: &str, value: String, who: Who| {
        Case::served(name, request(&[&format!("X-Forwarded-For: {value}")]), LINE).who(who)
    };
    cases.push(of(
        "10,000 forged entries before the client",
        format!("{}, @CLIENT@", ["1.1.1.1"; 3_000].join(",")),
        Who::Client,
    ));
    cases.push(of("the client behind 30 hops", format!("@CLIENT@, {}", hops(30)), Who::Client));
    // Thirty-two hops are looked at: the client may be the last of them, and no further away.
    let far = |behind: usize| format!("@CLIENT@, {}", hops(behind));
    cases.push(of("the client behind 31 hops", far(31), Who::Client));
    let too_far = |before: usize| format!("@CLIENT@, {}, @HOP@, {}", hops(before), hops(31));
    cases.push(of("the client behind 33 hops: the thirty-second", too_far(1), Who::Hop));
    cases.push(of("the client behind 1,000 hops: the thirty-second", too_far(968), Who::Hop));
    cases.push(of("3,000 words", ["x"; 3_000].join(","), Who::Peer));
    // Other headers say nothing here, from whomever they come.
    for name in CLAIMS.iter().filter(|name| **name != "X-Forwarded-For") {
        let bytes = request(&[&format!("{name}: 203.0.113.66"), "X-Forwarded-For: @CLIENT@"]);
        let case = Case::served(format!("{name} beside X-Forwarded-For"), bytes, LINE).who(Who::Client);
        cases.push(if *name == "X-Forwarded-Proto" || *name == "X-Forwarded-Host" {
            case.header("host", &["a"])
        } else {
            case
        });
    }
    let https = request(&["X-Forwarded-For: @CLIENT@", "X-Forwarded-Proto: https"]);
    cases.push(
        Case::served("https at the proxy", https.clone(), LINE)
            .who(Who::Client)
            .header("x-forwarded-proto", &["https"]),
    );
    cases.push(Case::served("https by a stranger's word", https, LINE).by_stranger());
    // A block of 198.19.0.0/16 counts for every spelling of its addresses.
    for (name, value) in [
        ("a blocked client", "@BLOCKED@"),
        ("a blocked client in IPv6", "::ffff:@BLOCKED@"),
        ("a blocked client in NAT64", "64:ff9b::@BLOCKED@"),
        ("a blocked client with a port", "@BLOCKED@:5000"),
        ("a blocked client behind a hop", "@BLOCKED@, 10.0.0.1"),
        ("a blocked client that forges", "203.0.113.66, @BLOCKED@"),
        ("a blocked client that forges a hop", "10.0.0.9, @BLOCKED@"),
    ] {
        let case = of(name, value.to_owned(), Who::Blocked).blocked();
        cases.extend(case.and_over_tls());
    }
    cases.push(of("a blocked address that is only claimed", "@BLOCKED@, @CLIENT@".to_owned(), Who::Client));
    let claimed = request(&["X-Forwarded-For: @BLOCKED@"]);
    cases.push(Case::served("a blocked address that a stranger claims", claimed, LINE).by_stranger());
    cases
}

/// With `client_ip_header = "cf-connecting-ip"`.
fn of_a_header() -> Vec<Case> {
    let of = |name: &str, lines: &[&str], who: Who| {
        Case::served(name, request(lines), LINE).who(who).and_over_tls()
    };
    let mut cases = Vec::new();
    cases.extend(of("the header", &["CF-Connecting-IP: @CLIENT@"], Who::Client));
    cases.extend(of("in capitals", &["CF-CONNECTING-IP: @CLIENT@"], Who::Client));
    cases.extend(of("IPv6", &["CF-Connecting-IP: @CLIENT6@"], Who::Client6));
    cases.extend(of("IPv4 in IPv6", &["CF-Connecting-IP: ::ffff:@CLIENT@"], Who::Client));
    cases.extend(of("none", &[], Who::Peer));
    cases.extend(of("an empty one", &["CF-Connecting-IP:"], Who::Peer));
    cases.extend(of("a word", &["CF-Connecting-IP: unknown"], Who::Peer));
    cases.extend(of("X-Forwarded-For alone", &["X-Forwarded-For: 203.0.113.66"], Who::Peer));
    cases.extend(of(
        "X-Forwarded-For beside it",
        &["X-Forwarded-For: 203.0.113.66", "CF-Connecting-IP: @CLIENT@"],
        Who::Client,
    ));
    for (name, lines) in [
        ("twice the same", ["CF-Connecting-IP: @CLIENT@", "CF-Connecting-IP: @CLIENT@"]),
        ("two different", ["CF-Connecting-IP: @CLIENT6@", "CF-Connecting-IP: @CLIENT@"]),
        ("two, one empty", ["CF-Connecting-IP:", "CF-Connecting-IP: @CLIENT@"]),
    ] {
        cases.extend(Case::refused(name, request(&lines), "bad_request").any_client().and_over_tls());
        let ignored = Case::served(format!("{name}, from a stranger"), request(&lines), LINE);
        cases.push(ignored.by_stranger());
    }
    for value in ["@CLIENT@", "203.0.113.66", "127.0.0.1", "10.0.0.1", "unknown", "@BLOCKED@"] {
        let bytes = request(&[&format!("CF-Connecting-IP: {value}")]);
        cases.push(Case::served(format!("{value} by a stranger's word"), bytes, LINE).by_stranger());
    }
    let blocked = Case::served("a blocked client", request(&["CF-Connecting-IP: @BLOCKED@"]), LINE);
    cases.push(blocked.who(Who::Blocked).blocked());
    cases
}

/// Values of `Forwarded` (RFC 7239), and the client that they name.
const FORWARDED: &[(&str, &[&str], Who)] = &[
    ("for", &["for=@CLIENT@"], Who::Client),
    ("For in capitals", &["FOR=@CLIENT@"], Who::Client),
    ("for in quotes", &["for=\"@CLIENT@\""], Who::Client),
    ("for with a port", &["for=\"@CLIENT@:5000\""], Who::Client),
    ("IPv6", &["for=\"[@CLIENT6@]\""], Who::Client6),
    ("IPv6 with a port", &["for=\"[@CLIENT6@]:5000\""], Who::Client6),
    ("with other pairs", &["by=10.0.0.1;for=@CLIENT@;host=a;proto=http"], Who::Client),
    ("blanks around pairs", &["proto=http; for=@CLIENT@ ;by=_x"], Who::Client),
    ("a hop behind", &["for=@CLIENT@, for=10.0.0.1"], Who::Client),
    ("forged before", &["for=203.0.113.66, for=@CLIENT@, for=10.0.0.1"], Who::Client),
    ("two lines", &["for=203.0.113.66", "for=@CLIENT@"], Who::Client),
    ("a quote left open before", &["for=\"203.0.113.66, for=@CLIENT@"], Who::Client),
    ("a comma in quotes before", &["for=\"1.2.3.4, for=5.6.7.8\", for=@CLIENT@"], Who::Client),
    ("unknown", &["for=unknown"], Who::Peer),
    ("a hidden name", &["for=_hidden"], Who::Peer),
    ("unknown before a hop", &["for=unknown, for=@HOP@"], Who::Hop),
    ("no for", &["by=@CLIENT@"], Who::Peer),
    ("two for in one element", &["for=203.0.113.66;for=@CLIENT@"], Who::Peer),
    ("no pair", &["@CLIENT@"], Who::Peer),
    ("empty", &[""], Who::Peer),
    ("an empty for", &["for="], Who::Peer),
    ("for without a value", &["for"], Who::Peer),
    ("IPv6 without brackets in a quote", &["for=\"@CLIENT6@\""], Who::Client6),
    ("a forged for in host", &["for=@CLIENT@;host=\"for=203.0.113.66\""], Who::Client),
];

/// With `client_ip_header = "forwarded"`.
fn of_forwarded() -> Vec<Case> {
    let mut cases = Vec::new();
    for &(name, values, who) in FORWARDED {
        let lines: Vec<String> = values.iter().map(|value| format!("Forwarded: {value}")).collect();
        let lines: Vec<&str> = lines.iter().map(|line| &**line).collect();
        cases.extend(Case::served(name, request(&lines), LINE).who(who).and_over_tls());
        cases.push(Case::served(format!("{name}, from a stranger"), request(&lines), LINE).by_stranger());
    }
    let other = request(&["X-Forwarded-For: 203.0.113.66"]);
    cases.push(Case::served("X-Forwarded-For alone", other, LINE));
    let both = request(&["X-Forwarded-For: 203.0.113.66", "Forwarded: for=@CLIENT@"]);
    cases.push(Case::served("X-Forwarded-For beside it", both, LINE).who(Who::Client));
    let https = request(&["Forwarded: for=@CLIENT@;proto=https"]);
    let https = |name: &str| Case::served(name, https.clone(), LINE);
    cases.push(https("https at the proxy").who(Who::Client).header("x-forwarded-proto", &["https"]));
    cases.push(https("https by a stranger's word").by_stranger());
    let blocked = Case::served("a blocked client", request(&["Forwarded: for=@BLOCKED@"]), LINE);
    cases.push(blocked.who(Who::Blocked).blocked());
    cases
}

const TRUSTED: &str = "trusted_proxies = [\"127.9.0.0/16\", \"10.0.0.0/8\"]";
const BLOCK: &str = "[[block]]\nnetwork = \"198.19.0.0/16\"\nreason = \"test\"";

#[test]
fn a_stranger_is_whoever_connects() {
    run("strangers", &Ground::with(|config| config.server(TRUSTED)), &of_strangers());
}

#[test]
fn a_trusted_proxy_names_the_client() {
    run("proxies", &Ground::with(|config| config.server(TRUSTED).section(BLOCK)), &of_proxies());
}

#[test]
fn a_header_of_the_cdn_names_the_client() {
    let header = "client_ip_header = \"cf-connecting-ip\"";
    let ground = Ground::with(|config| config.server(TRUSTED).server(header).section(BLOCK));
    run("cdn", &ground, &of_a_header());
}

#[test]
fn forwarded_of_a_trusted_proxy_names_the_client() {
    let header = "client_ip_header = \"forwarded\"";
    let ground = Ground::with(|config| config.server(TRUSTED).server(header).section(BLOCK));
    run("forwarded", &ground, &of_forwarded());
}
