//! Paths in the form in which rules compare them, and what kind of thing a path asks for.
//! Must not touch what is forwarded.

use std::borrow::Cow;

use portcullis_model::normalise_path;

use crate::Settings;

/// [`normalise_path`], with the final slash left where there was one: by it signatures tell a folder from
/// a file.
pub(crate) fn normalise(path: &str) -> Cow<'_, str> {
    let normal = normalise_path(path.as_bytes());
    match path.ends_with('/') && normal.len() > 1 {
        true => Cow::Owned(format!("{normal}/")),
        false => normal,
    }
}

/// Appends `text` to `out`: percent-decoded once, ASCII in lower case, and `+` as a blank if `plus`.
pub(crate) fn decode_lower(text: &[u8], plus: bool, out: &mut Vec<u8>) {
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        at += 1;
        let decoded = match byte {
            b'%' => match (hex(text.get(at)), hex(text.get(at + 1))) {
                (Some(high), Some(low)) => {
                    at += 2;
                    high << 4 | low
                }
                _ => byte,
            },
            b'+' if plus => b' ',
            _ => byte,
        };
        out.push(decoded.to_ascii_lowercase());
    }
}

fn hex(byte: Option<&u8>) -> Option<u8> {
    match byte? {
        digit @ b'0'..=b'9' => Some(digit - b'0'),
        letter @ b'a'..=b'f' => Some(letter - b'a' + 10),
        letter @ b'A'..=b'F' => Some(letter - b'A' + 10),
        _ => None,
    }
}

/// Whether the path is one of the configured sensitive paths or below one. Takes the path as it was sent.
pub fn is_sensitive(settings: &Settings, path: &str) -> bool {
    sensitive_entry(settings, &normalise(path)).is_some()
}

/// Which sensitive path the normalised path belongs to.
pub(crate) fn sensitive_entry(settings: &Settings, normal: &str) -> Option<usize> {
    settings.sensitive_paths.iter().position(|entry| is_at_or_below(normal, entry))
}

/// Whether a request sends a login, rather than asking for the form.
pub(crate) fn sends_login(settings: &Settings, method: &str, normal: &str) -> bool {
    let only_reads = ["GET", "HEAD", "OPTIONS"].iter().any(|reading| method.eq_ignore_ascii_case(reading));
    !only_reads && is_login(settings, normal)
}

/// Whether logins are sent to the normalised path.
pub(crate) fn is_login(settings: &Settings, normal: &str) -> bool {
    settings.login_paths.iter().any(|entry| is_at_or_below(normal, entry) || ends_with_path(normal, entry))
}

/// Whether a login path is one that programs use and that answers them with 2xx when all is well, unlike
/// a form, which answers a right password with a redirect.
pub(crate) fn is_login_api(normal: &str) -> bool {
    let name = normal.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    matches!(name, "xmlrpc.php" | "token" | "auth" | "session" | "sessions")
        || normal.split('/').any(|segment| segment == "api" || segment == "oauth")
}

pub(crate) fn is_at_or_below(normal: &str, entry: &str) -> bool {
    let entry = entry.trim_end_matches('/').as_bytes();
    let path = normal.as_bytes();
    match path.split_at_checked(entry.len()) {
        Some((head, rest)) => {
            head.eq_ignore_ascii_case(entry) && matches!(rest.first(), None | Some(b'/')) && !entry.is_empty()
        }
        None => false,
    }
}

fn ends_with_path(normal: &str, entry: &str) -> bool {
    let entry = entry.trim_end_matches('/').as_bytes();
    let path = normal.trim_end_matches('/').as_bytes();
    // An entry begins with a slash, so the match begins at a segment.
    entry.first() == Some(&b'/')
        && path.len() > entry.len()
        && path[path.len() - entry.len()..].eq_ignore_ascii_case(entry)
}

/// Style sheets, scripts, images, fonts and source maps: what a browser fetches by itself.
pub fn is_asset(normal: &str) -> bool {
    const EXTENSIONS: [&str; 22] = [
        "css",
        "js",
        "mjs",
        "map",
        "png",
        "jpg",
        "jpeg",
        "gif",
        "svg",
        "ico",
        "webp",
        "avif",
        "bmp",
        "woff",
        "woff2",
        "ttf",
        "eot",
        "otf",
        "cur",
        "wasm",
        "webmanifest",
        "less",
    ];
    let name = normal.rsplit('/').next().unwrap_or_default();
    name.rsplit_once('.').is_some_and(|(_, extension)| EXTENSIONS.contains(&extension))
}

/// Whether the path names a program of the kind that servers run, as scanners guess them.
pub(crate) fn is_script(normal: &str) -> bool {
    const EXTENSIONS: [&str; 14] = [
        "php", "php3", "php4", "php5", "php7", "phtml", "asp", "aspx", "ashx", "jsp", "jspx", "cgi", "pl",
        "cfm",
    ];
    let name = normal.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    name.rsplit_once('.').is_some_and(|(_, extension)| EXTENSIONS.contains(&extension))
}

/// Paths that browsers, phones, mail programs and crawlers ask for on every site, whether they are there
/// or not: their absence is nobody's error.
pub(crate) fn is_routine(normal: &str) -> bool {
    const NAMES: [&str; 13] = [
        "robots.txt",
        "ads.txt",
        "app-ads.txt",
        "humans.txt",
        "security.txt",
        "browserconfig.xml",
        "manifest.json",
        "crossdomain.xml",
        "clientaccesspolicy.xml",
        "wpad.dat",
        "autodiscover.xml",
        "llms.txt",
        "sellers.json",
    ];
    // What applications ask of themselves although it need not be there: previews, pictures of people, shares.
    const PREFIXES: [&str; 12] = [
        "/.well-known/",
        "/remote.php/",
        "/ocs/",
        "/index.php/apps/",
        "/apps/files",
        "/apps/mail/api/",
        "/core/preview",
        "/_matrix/",
        "/emby/",
        "/items/",
        "/library/metadata/",
        "/api/assets/",
    ];
    const PICTURES: [&str; 14] = [
        "avatar",
        "avatars",
        "image",
        "images",
        "thumbnail",
        "thumb",
        "preview",
        "publicpreview",
        "cover",
        "icon",
        "poster",
        "photo",
        "logo",
        "primary",
    ];
    if PREFIXES.iter().any(|prefix| normal.starts_with(prefix)) {
        return true;
    }
    let mut segments = normal.rsplit('/');
    let name = segments.next().unwrap_or_default();
    if PICTURES.contains(&name)
        || segments.next().is_some_and(|folder| matches!(folder, "avatar" | "avatars" | "cover"))
    {
        return true;
    }
    name.starts_with("favicon")
        || name.starts_with("apple-touch-icon")
        || name.starts_with("sitemap")
        || NAMES.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_path_compare_equal() {
        for spelling in
            ["/login", "//login", "/./login", "/x/../login", "/%6cogin", "/LOGIN", "/login;a=1", "\\login"]
        {
            assert_eq!(normalise(spelling), "/login", "{spelling}");
        }
        assert_eq!(normalise("/login/"), "/login/");
        assert_eq!(normalise("/a/../../.."), "/");
        assert_eq!(normalise(""), "/");
        assert_eq!(normalise("/%zz%2"), "/%zz%2");
        assert!(matches!(normalise("/plain/path.html"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_sensitive_path_is_exact_or_below() {
        let settings = Settings::default();
        for path in ["/admin", "/admin/", "/ADMIN/users", "/%61dmin", "/.git/config"] {
            assert!(is_sensitive(&settings, path), "{path}");
        }
        for path in ["/administration", "/blog/admin-tips", "/", "", "/loginpage"] {
            assert!(!is_sensitive(&settings, path), "{path}");
        }
        let odd = Settings { sensitive_paths: vec![String::new(), "/".into()], ..settings };
        assert!(!is_sensitive(&odd, "/anything"));
    }

    #[test]
    fn a_login_path_may_live_below_a_prefix() {
        let settings = Settings::default();
        for path in ["/login", "/blog/wp-login.php", "/api/v1/login/", "/login/step2"] {
            assert!(is_login(&settings, path), "{path}");
        }
        for path in ["/xlogin", "/login-help", "/author/x"] {
            assert!(!is_login(&settings, path), "{path}");
        }
    }

    #[test]
    fn kinds_of_paths_are_told_by_their_names() {
        assert!(
            is_asset("/a/b.min.css") && is_asset("/logo.png") && !is_asset("/css/") && !is_asset("/a.php")
        );
        assert!(is_routine("/favicon.ico") && is_routine("/.well-known/security.txt"));
        assert!(is_routine("/apps/bookmarks/bookmark/155/favicon") && is_routine("/people/7/avatar"));
        assert!(
            is_routine("/remote.php/dav/x.vcf") && is_routine("/cover/12") && !is_routine("/avatars.zip")
        );
        assert!(is_routine("/apple-touch-icon-120x120.png") && !is_routine("/icons"));
    }
}
