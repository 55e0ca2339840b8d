//! `[identity]`: tokens, observed sessions, logins. Keys are read here, so that a wrong one is an error with its
//! line. Must not fetch anything.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use portcullis_identity::{
    Algorithm, ClaimPath, ClaimRules, Key, KeySet, MAX_JWKS_BYTES, MAX_KEYS, MAX_TRIES, SessionRules,
    TokenRules,
};
use portcullis_policy::PathPattern;
use url::Url;

use crate::{
    Identity, KeySetSettings, KeySetSource, LoginSettings, SessionSettings, TokenSettings, TokenSource,
};

use super::fields::{Section, Value, quoted};
use super::{DAY, HOUR, SECOND, files, secret, upstream};

const MAX_PATHS: usize = 100;
const MAX_SOURCES: usize = 10;
const MAX_NAMES: usize = 20;
const MAX_PEM_BYTES: u64 = 64 << 10;
const MAX_LEEWAY: Duration = Duration::from_secs(600);
const MAX_SESSION: Duration = Duration::from_secs(365 * 86_400);
/// The most often that an issuer is asked.
const MIN_REFRESH: Duration = Duration::from_secs(60);
const LOGOUT_PATHS: [&str; 4] = ["*/logout", "*/log-out", "*/signout", "*/sign-out"];

pub(super) fn read(root: &mut Section<'_>) -> Identity {
    let mut identity = root.section("identity");
    let cookie = identity.get("session_cookie");
    let name = cookie.as_ref().and_then(|value| optional(value, cookie_name)).flatten();
    let idle = identity.read("session_idle", 7 * DAY, |value| value.duration(SECOND..=MAX_SESSION));
    let absolute = identity.read("session_absolute", 30 * DAY, |value| value.duration(SECOND..=MAX_SESSION));
    let logins = logins(&mut identity);
    let user = identity.get("user_header");
    let user_header = user.as_ref().and_then(|value| optional(value, header_name)).flatten();
    let (has_cookie, has_user_header) = (is_given(cookie.as_ref()), is_given(user.as_ref()));
    if let Some(value) = user.filter(|_| has_user_header && !has_cookie) {
        value.fail("needs session_cookie: the user is that of a session");
    }
    let roles_header = identity.read("roles_header", None, |value| {
        let name = optional(value, header_name)?;
        if name.is_some() && !has_user_header {
            value.fail("needs user_header: roles are those of a user");
            return None;
        }
        Some(name)
    });
    if let Some(value) = cookie.filter(|_| name.is_some() && logins.paths.is_empty() && !has_user_header) {
        value.fail(
            "needs login_paths, or a user_header that the site sends: a session counts only if the gateway saw it \
             begin with a login",
        );
    }
    let sessions = name.map(|cookie| SessionSettings { cookie, rules: SessionRules { idle, absolute } });
    let tokens = match identity.has("jwt") {
        true => tokens(identity.section("jwt")),
        false => {
            identity.section("jwt");
            None
        }
    };
    identity.finish();
    Identity { tokens, sessions, logins, user_header, roles_header }
}

fn logins(identity: &mut Section<'_>) -> LoginSettings {
    let logout = || LOGOUT_PATHS.iter().filter_map(|path| path.parse().ok()).collect();
    let written = identity.get("login_paths");
    let has_paths = written.as_ref().is_some_and(|value| !value.is_empty_list());
    LoginSettings {
        paths: written.as_ref().and_then(paths).unwrap_or_default(),
        logout_paths: identity.get("logout_paths").and_then(|value| paths(&value)).unwrap_or_else(logout),
        success: identity.read("login_success", vec![300..=399], upstream::statuses),
        failure: identity.read("login_failure", vec![401..=401, 403..=403], upstream::statuses),
        failure_text: identity.read("login_failure_text", None, |value| {
            let text = optional(value, |value| value.label(4..=200))?;
            if text.is_some() && !has_paths {
                value.fail("has no effect without login_paths");
            }
            Some(text)
        }),
    }
}

fn paths(value: &Value<'_>) -> Option<Vec<PathPattern>> {
    value.list(MAX_PATHS, |item| item.parse("a path such as \"/login\""))
}

/// Whether something is written there, right or wrong.
fn is_given(value: Option<&Value<'_>>) -> bool {
    value.is_some_and(|value| !value.is_empty_text())
}

/// "" is none.
fn optional<'a, T>(value: &Value<'a>, read: impl FnOnce(&Value<'a>) -> Option<T>) -> Option<Option<T>> {
    match value.text("text in quotes")? {
        "" => Some(None),
        _ => read(value).map(Some),
    }
}

fn tokens(mut jwt: Section<'_>) -> Option<TokenSettings> {
    let from = vec![TokenSource::Authorization];
    let sources = jwt.read("from", from, |value| {
        if value.is_empty_list() {
            value.fail("expected at least one, for example [\"authorization\"]");
        }
        value.list(MAX_SOURCES, |item| item.parse_with(SOURCE, source))
    });
    let keys = jwt.sections("keys", MAX_KEYS);
    let has_keys = !keys.is_empty();
    let keys: Vec<Key> = keys.into_iter().filter_map(key).collect();
    if let Some(algorithm) = too_many_without_id(&keys) {
        jwt.report(format!(
            "more than {MAX_TRIES} keys for {algorithm} have no id, and of those at most {MAX_TRIES} are tried: give \
             them the ids that tokens name in kid"
        ));
    }
    let key_set = key_set(&mut jwt);
    if !has_keys && !jwt.has("jwks") {
        jwt.report(
            "needs a key to verify tokens with: jwks = \"https://ISSUER/.well-known/jwks.json\", or keys = [{ algorithm \
             = \"RS256\", file = \"public.pem\" }]",
        );
    }
    let names = |value: &Value<'_>| value.list(MAX_NAMES, |item| item.label(1..=300));
    let claims = ClaimRules {
        issuers: jwt.read("issuers", Vec::new(), names),
        audiences: jwt.read("audiences", Vec::new(), names),
        leeway: jwt.read("leeway", 30 * SECOND, |value| value.duration(Duration::ZERO..=MAX_LEEWAY)),
        user: jwt.read("user_claim", ClaimPath::new("sub"), |value| {
            value.label(1..=200).map(|path| ClaimPath::new(&path))
        }),
        roles: jwt.read("roles_claim", None, |value| {
            optional(value, |value| value.label(1..=200).map(|path| ClaimPath::new(&path)))
        }),
    };
    jwt.finish();
    Some(TokenSettings { sources, rules: TokenRules { keys, claims }, key_set })
}

/// The algorithm of so many keys that the last of them would never be tried.
fn too_many_without_id(keys: &[Key]) -> Option<Algorithm> {
    let fitting = |algorithm| keys.iter().filter(|key| key.id().is_none() && key.can(algorithm)).count();
    Algorithm::ALL.into_iter().find(|&algorithm| fitting(algorithm) > MAX_TRIES)
}

const SOURCE: &str = "\"authorization\", \"header:NAME\" or \"cookie:NAME\"";

fn source(text: &str) -> Result<TokenSource, String> {
    let named = |name: &str| is_token(name).then(|| name.to_owned());
    let source = match text.split_once(':') {
        None if text == "authorization" => Some(TokenSource::Authorization),
        Some(("header", name)) => named(name).map(|name| TokenSource::Header(name.to_ascii_lowercase())),
        Some(("cookie", name)) => named(name).map(TokenSource::Cookie),
        _ => None,
    };
    source.ok_or_else(|| format!("expected {SOURCE}, got {}", quoted(text)))
}

fn key(mut key: Section<'_>) -> Option<Key> {
    let algorithm =
        key.required("algorithm", "\"RS256\"", |value| value.choice(&Algorithm::ALL, Algorithm::as_str));
    let id = key.read("id", None, |value| optional(value, |value| value.label(1..=200)));
    let secret = key.get("secret");
    let file = key.get("file");
    let algorithm = match algorithm {
        Some(algorithm) => algorithm,
        None => {
            key.finish();
            return None;
        }
    };
    let id = id.as_deref();
    let made = match (secret, file) {
        (Some(value), None) => {
            secret::line(&value).and_then(|text| told(&value, Key::secret(algorithm, text.expose(), id)))
        }
        (None, Some(value)) => files::text(&value, MAX_PEM_BYTES)
            .and_then(|pem| told(&value, Key::from_pem(algorithm, &pem, id))),
        (Some(_), Some(_)) | (None, None) => {
            let example = match algorithm.is_symmetric() {
                true => "secret = { file = \"jwt.secret\" }",
                false => "file = \"public.pem\"",
            };
            key.report(format!("{algorithm} needs {example}"));
            None
        }
    };
    key.finish();
    made
}

fn told<T, E: Display>(value: &Value<'_>, made: Result<T, E>) -> Option<T> {
    made.map_err(|error| value.fail(error)).ok()
}

fn key_set(jwt: &mut Section<'_>) -> Option<KeySetSettings> {
    let source = jwt.read("jwks", None, |value| optional(value, key_set_source));
    let ca = jwt.read("jwks_ca", None, |value| optional(value, files::certificates));
    let refresh = jwt.read("jwks_refresh", HOUR, |value| value.duration(MIN_REFRESH..=30 * DAY));
    source.map(|source| KeySetSettings { source, ca, refresh })
}

fn key_set_source(value: &Value<'_>) -> Option<KeySetSource> {
    let text = value.text("a URL or the path of a file")?;
    if !text.contains("://") {
        let path: PathBuf = value.path()?;
        let set = files::text(value, MAX_JWKS_BYTES)?;
        return told(value, KeySet::parse(set.as_bytes())).map(|_| KeySetSource::File(path));
    }
    match Url::from_str(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
            Some(KeySetSource::Url(text.to_owned()))
        }
        Ok(_) | Err(_) => value.expected("a URL such as \"https://issuer.example/.well-known/jwks.json\""),
    }
}

fn cookie_name(value: &Value<'_>) -> Option<String> {
    const WHAT: &str = "the name of a cookie such as \"sessionid\"";
    let text = value.text(WHAT)?;
    if is_token(text) { Some(text.to_owned()) } else { value.expected(WHAT) }
}

fn header_name(value: &Value<'_>) -> Option<String> {
    const WHAT: &str = "the name of a header such as \"X-Portcullis-User\"";
    /// What the gateway or HTTP itself needs; a user name in them would break answers.
    const TAKEN: [&str; 7] = [
        "set-cookie",
        "content-length",
        "transfer-encoding",
        "connection",
        "location",
        "date",
        "content-type",
    ];
    let text = value.text(WHAT)?.to_ascii_lowercase();
    if !is_token(&text) || TAKEN.contains(&text.as_str()) {
        return value.expected(WHAT);
    }
    Some(text)
}

/// RFC 9110, 5.6.2.
fn is_token(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}
