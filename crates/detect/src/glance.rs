//! What one request looks like by itself, before it is answered. Owns which signatures prove an attack whatever the
//! answer; must not look at clients.

use crate::Settings;
use crate::path::{normalise, sends_login};
use crate::signatures::{Scratch, Signatures};

/// Signatures with less weight are hints.
const LEAST_WEIGHT: u32 = 4;

/// What a request looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Like anybody's.
    Ordinary,
    /// It sends a login.
    Login,
    /// It asks for what attacks ask for, and no site's own pages are called like that.
    Attack,
}

/// One request, as it came. Every text is the client's.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub method: &'a str,
    pub path: &'a str,
    /// Without the `?`.
    pub query: &'a str,
    pub user_agent: &'a str,
}

/// Looks at one request.
pub fn glance(settings: &Settings, signatures: &Signatures, asked: &Asked<'_>) -> Look {
    let all = signatures.all();
    let mut is_attack = false;
    let mut hit = |n: usize| {
        is_attack |= all.get(n).is_some_and(|found| found.weight >= LEAST_WEIGHT && found.class.is_plain());
    };
    let mut scratch = Scratch::default();
    signatures.in_path(asked.path, &mut scratch, &mut hit);
    signatures.in_query(asked.query, &mut scratch, |n, in_search_box| {
        if !in_search_box {
            hit(n);
        }
    });
    signatures.in_agent(asked.user_agent, &mut scratch, &mut hit);
    if is_attack {
        Look::Attack
    } else if sends_login(settings, asked.method, &normalise(asked.path)) {
        Look::Login
    } else {
        Look::Ordinary
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attacks_logins_and_ordinary_requests_are_told_apart() {
        let (settings, signatures) = (Settings::default(), Signatures::builtin());
        let look = |method: &str, path: &str, query: &str, user_agent: &str| {
            glance(&settings, &signatures, &Asked { method, path, query, user_agent })
        };
        let browser = "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0";
        for (method, path, query, expected) in [
            ("GET", "/", "", Look::Ordinary),
            ("GET", "/login", "", Look::Ordinary),
            ("GET", "/admin/", "", Look::Ordinary),
            ("GET", "/wp-login.php", "", Look::Ordinary),
            ("POST", "/login", "", Look::Login),
            ("post", "/blog/wp-login.php", "", Look::Login),
            ("POST", "/comments", "", Look::Ordinary),
            ("GET", "/.env", "", Look::Attack),
            ("GET", "/static/..%2f..%2fetc/passwd", "", Look::Attack),
            ("GET", "/item", "id=1%20union%20select%20password%20from%20users", Look::Attack),
        ] {
            assert_eq!(look(method, path, query, browser), expected, "{method} {path}?{query}");
        }
        assert_eq!(look("GET", "/", "", "sqlmap/1.8"), Look::Attack);
    }
}
