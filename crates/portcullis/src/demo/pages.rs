//! The HTML of the sample shop: its catalogue, its layout and its pages.
//! Owns the texts and the escaping; must not know about sockets, sessions or status codes.

use std::fmt::{self, Write as _};

/// One thing that the shop sells.
#[derive(Debug)]
pub(super) struct Product {
    pub(super) id: u32,
    name: &'static str,
    price_cents: u32,
    text: &'static str,
}

/// The catalogue, in the order of its IDs, which begin at 1.
pub(super) const PRODUCTS: [Product; 12] = [
    product(1, "Brass padlock", 1890, "Four pins, two keys, and a shackle that stays shiny."),
    product(2, "Storm lantern", 3450, "Burns for eleven hours and shrugs at the wind."),
    product(3, "Oak key rack", 2700, "Room for nine keys and one good intention."),
    product(4, "Iron door knocker", 4200, "A visitor can be heard in the attic."),
    product(5, "Bell for the porch", 2150, "Tuned to a friendly F sharp."),
    product(6, "Letter box", 5600, "Takes a newspaper without folding its corners."),
    product(7, "Boot scraper", 1990, "Cast in one piece; two screws hold it for ever."),
    product(8, "Coir doormat", 2480, "Says nothing at all, politely."),
    product(9, "Window latch", 990, "Opens from the inside only."),
    product(10, "Hinge oil", 650, "Three drops, and the gate stops telling everybody."),
    product(11, "Chalk signboard", 3900, "For opening hours that change with the weather."),
    product(12, "Watchman's whistle", 1250, "Carries across two fields."),
];

const fn product(id: u32, name: &'static str, price_cents: u32, text: &'static str) -> Product {
    Product { id, name, price_cents, text }
}

/// What the footer tells visitors about their own request.
pub(super) struct Visit<'a> {
    /// `X-Request-Id`, as the gateway wrote it.
    pub(super) request_id: &'a str,
    /// `X-Forwarded-For`, as the gateway wrote it.
    pub(super) forwarded_for: &'a str,
    pub(super) signed_in: bool,
}

/// Writes text so that no browser takes it for markup, neither in content nor in a quoted attribute.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                _ => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

struct Price(u32);

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "€ {}.{:02}", self.0 / 100, self.0 % 100)
    }
}

fn layout(title: &str, body: &str, visit: &Visit<'_>) -> String {
    let account = if visit.signed_in { ("/account", "Account") } else { ("/login", "Log in") };
    let shown = |text: &str| if text.is_empty() { "none".to_owned() } else { Escaped(text).to_string() };
    format!(
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} · Gatehouse Goods</title>
<link rel="icon" href="/assets/logo.svg" type="image/svg+xml">
<link rel="stylesheet" href="/assets/style.css">
<link rel="alternate" href="/feed.xml" type="application/atom+xml">
</head>
<body>
<header>
<a class="brand" href="/"><img src="/assets/logo.svg" alt="" width="40" height="40">Gatehouse Goods</a>
<nav><a href="/products">Products</a><a href="/search">Search</a><a href="{}">{}</a><a href="/admin">Admin</a>
<a href="/rate-limit-test">Rate limit test</a></nav>
</header>
<main>
{body}
</main>
<footer>A sample shop; nothing here is for sale. Your request: <code>{}</code>, forwarded for <code>{}</code>.</footer>
</body>
</html>
"#,
        account.0,
        account.1,
        shown(visit.request_id),
        shown(visit.forwarded_for),
        title = Escaped(title),
    )
}

fn cards<'a>(products: impl Iterator<Item = &'a Product>) -> String {
    let mut out = String::from("<ul class=\"grid\">\n");
    for Product { id, name, price_cents, .. } in products {
        out.push_str(&format!(
            "<li class=\"card\"><a href=\"/products/{id}\"><img src=\"/assets/products/{id}.svg\" alt=\"\" \
             width=\"240\" height=\"160\">{name}</a><br><span class=\"price\">{}</span></li>\n",
            Price(*price_cents)
        ));
    }
    out.push_str("</ul>");
    out
}

/// What is new, for feed readers (RFC 4287).
pub(super) fn feed() -> String {
    let mut out = String::from(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<feed xmlns=\"http://www.w3.org/2005/Atom\">\n<title>Gatehouse \
         Goods</title>\n<id>urn:gatehouse-goods</id>\n<updated>2026-11-01T08:00:00Z</updated>\n",
    );
    for Product { id, name, text, .. } in &PRODUCTS {
        out.push_str(&format!(
            "<entry><id>urn:gatehouse-goods:{id}</id><title>{}</title><link href=\"/products/{id}\"/>\
             <updated>2026-11-01T08:00:00Z</updated><summary>{}</summary></entry>\n",
            Escaped(name),
            Escaped(text)
        ));
    }
    out.push_str("</feed>\n");
    out
}

/// The catalogue, for programs.
pub(super) fn catalogue() -> String {
    let one = |product: &Product| serde_json::json!({ "id": product.id, "name": product.name, "price_cents": product.price_cents });
    serde_json::json!({ "products": PRODUCTS.iter().map(one).collect::<Vec<_>>() }).to_string()
}

pub(super) fn home(visit: &Visit<'_>) -> String {
    let body = format!(
        "<h1>Small things for careful people</h1>\n<p>Locks, lanterns and everything between the gate and \
         the door.</p>\n{}\n<p><a href=\"/products\">All twelve products</a></p>",
        cards(PRODUCTS.iter().take(6))
    );
    layout("Home", &body, visit)
}

pub(super) fn products(visit: &Visit<'_>) -> String {
    layout("Products", &format!("<h1>Products</h1>\n{}", cards(PRODUCTS.iter())), visit)
}

pub(super) fn product_page(product: &Product, visit: &Visit<'_>) -> String {
    let Product { id, name, price_cents, text } = product;
    let next = id % PRODUCTS.len() as u32 + 1;
    let body = format!(
        "<h1>{name}</h1>\n<img class=\"large\" src=\"/assets/products/{id}.svg\" alt=\"\" width=\"240\" \
         height=\"160\">\n<p>{text}</p>\n<p class=\"price\">{}</p>\n<p><a href=\"/products\">All \
         products</a> · <a href=\"/products/{next}\">Next one</a></p>",
        Price(*price_cents)
    );
    layout(name, &body, visit)
}

/// A picture of a product: a coloured tile with its initial, different for each ID.
pub(super) fn picture(product: &Product) -> String {
    let hue = product.id * 30 % 360;
    let initial = product.name.chars().next().unwrap_or('?');
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 240 160" width="240" height="160">
<rect width="240" height="160" fill="hsl({hue} 35% 82%)"/>
<circle cx="120" cy="80" r="52" fill="hsl({hue} 40% 42%)"/>
<text x="120" y="98" font-family="sans-serif" font-size="52" text-anchor="middle" fill="#fff">{initial}</text>
</svg>
"##
    )
}

/// `problem` is shown above the form after a failed attempt.
pub(super) fn login(problem: Option<&str>, visit: &Visit<'_>) -> String {
    let problem = problem.map_or(String::new(), |text| format!("<p class=\"bad\">{}</p>\n", Escaped(text)));
    let body = format!(
        "<h1>Log in</h1>\n{problem}<form method=\"post\" action=\"/login\">\n<label>Name <input \
         name=\"username\" autocomplete=\"username\" required></label>\n<label>Password <input \
         name=\"password\" type=\"password\" autocomplete=\"current-password\" required></label>\n\
         <button>Log in</button>\n</form>\n<p class=\"quiet\">The one customer is <code>ada</code> with \
         the password <code>lovelace</code>.</p>"
    );
    layout("Log in", &body, visit)
}

pub(super) fn account(visit: &Visit<'_>) -> String {
    let body = "<h1>Welcome back, Ada</h1>\n<table><tr><th>Order</th><th>Product</th><th>State</th></tr>\n\
                <tr><td>1042</td><td>Storm lantern</td><td>on its way</td></tr>\n\
                <tr><td>1017</td><td>Hinge oil</td><td>delivered</td></tr></table>";
    layout("Account", body, visit)
}

pub(super) fn rate_limit_test(visit: &Visit<'_>) -> String {
    let body = "<h1>Rate limit test</h1>\n<p>This page has a tight limit. Each press asks for it once \
                more and shows what came back.</p>\n<p><button id=\"ask\">Ask again</button></p>\n\
                <table><thead><tr><th>#</th><th>Status</th><th>RateLimit</th><th>Retry after, s</th>\
                <th>Decision</th></tr></thead><tbody id=\"answers\"></tbody></table>\n\
                <script src=\"/assets/rate-limit-test.js\" defer></script>";
    layout("Rate limit test", body, visit)
}

/// Products whose name or text contains `query`, whatever its case; all of them for an empty one.
pub(super) fn search(query: &str, visit: &Visit<'_>) -> String {
    let wanted = query.to_lowercase();
    let found = || {
        PRODUCTS
            .iter()
            .filter(|p| p.name.to_lowercase().contains(&wanted) || p.text.to_lowercase().contains(&wanted))
    };
    let count = found().count();
    let result = if query.is_empty() {
        String::new()
    } else {
        format!("<p>{count} found for “{}”.</p>\n{}", Escaped(query), cards(found()))
    };
    let body = format!(
        "<h1>Search</h1>\n<form action=\"/search\"><label>What are you looking for? <input name=\"q\" \
         value=\"{}\"></label><button>Search</button></form>\n{result}",
        Escaped(query)
    );
    layout("Search", &body, visit)
}

/// A page with a title and one paragraph.
pub(super) fn plain(title: &str, text: &str, visit: &Visit<'_>) -> String {
    layout(title, &format!("<h1>{}</h1>\n<p>{}</p>", Escaped(title), Escaped(text)), visit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VISIT: Visit<'_> = Visit { request_id: "<id>", forwarded_for: "", signed_in: false };

    #[test]
    fn whatever_is_echoed_is_escaped() {
        let page = search("\"><script>alert('1')</script>&", &VISIT);
        assert!(!page.contains("<script>"));
        assert!(page.contains("&quot;&gt;&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&amp;"));
        assert!(page.contains("&lt;id&gt;"));
    }

    #[test]
    fn products_are_numbered_from_one_without_a_gap() {
        for (n, product) in PRODUCTS.iter().enumerate() {
            assert_eq!(product.id as usize, n + 1);
        }
    }

    #[test]
    fn search_finds_by_name_and_text_whatever_the_case() {
        assert!(search("LANTERN", &VISIT).contains("/products/2\""));
        assert!(search("two fields", &VISIT).contains("/products/12\""));
        assert!(search("submarine", &VISIT).contains("0 found"));
    }
}
