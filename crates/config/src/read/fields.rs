//! Typed readers for tables and values of a TOML document. Each reports what is wrong with its value and
//! goes on, so that one pass finds everything. Must not know single settings.

use std::cell::RefCell;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::units::{format_duration, format_size, parse_duration, parse_size};

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// The file as a whole.
    File,
    /// A byte of the file.
    Offset(usize),
    /// An option of the command line.
    Option(&'static str),
}

/// A setting's full name and where its value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) origin: Origin,
    pub(super) key: String,
}

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub(super) origin: Origin,
    pub(super) message: String,
}

/// What all readers of one document share.
pub(super) struct Context<'a> {
    /// Relative paths start here.
    pub(super) base: &'a Path,
    /// Settings of the document's top, which people write below a `[table]` by mistake.
    top_settings: &'static [&'static str],
    problems: RefCell<Vec<Problem>>,
}

impl<'a> Context<'a> {
    pub(super) fn new(base: &'a Path, top_settings: &'static [&'static str]) -> Self {
        Self { base, top_settings, problems: RefCell::new(Vec::new()) }
    }

    /// Notes a problem with the setting at `place`.
    pub(super) fn report(&self, place: &Place, message: impl Display) {
        let message = match place.key.as_str() {
            "" => message.to_string(),
            key => format!("{key}: {message}"),
        };
        self.problems.borrow_mut().push(Problem { origin: place.origin, message });
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }
}

/// A table, of which every key has to be asked for: those that nobody asked for are unknown.
pub(super) struct Section<'a> {
    pub(super) place: Place,
    /// `None` when the document does not have it: everything in it has its default.
    table: Option<&'a DeTable<'a>>,
    context: &'a Context<'a>,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// The document's outermost table.
    pub(super) fn root(table: &'a DeTable<'a>, context: &'a Context<'a>) -> Self {
        let place = Place { origin: Origin::File, key: String::new() };
        Self { place, table: Some(table), context, known: Vec::new() }
    }

    /// Calls the section `name` in messages from now on.
    pub(super) fn rename(&mut self, name: String) {
        self.place.key = name;
    }

    /// The value of `key`, which is a known one from now on.
    pub(super) fn get(&mut self, key: &'static str) -> Option<Value<'a>> {
        self.known.push(key);
        let raw = self.table?.get(key)?;
        Some(Value {
            place: self.place_of(key, Origin::Offset(raw.span().start)),
            raw: raw.get_ref(),
            context: self.context,
        })
    }

    /// Whether the document has `key`, right or wrong.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// The value of `key` as `read` understands it; `default` when it is absent (or wrong, which `read`
    /// has reported).
    pub(super) fn read<T>(
        &mut self,
        key: &'static str,
        default: T,
        read: impl FnOnce(&Value<'a>) -> Option<T>,
    ) -> T {
        self.get(key).and_then(|value| read(&value)).unwrap_or(default)
    }

    /// The value of `key`, which must be there. `example` is what to write.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        example: &str,
        read: impl FnOnce(&Value<'a>) -> Option<T>,
    ) -> Option<T> {
        match self.get(key) {
            Some(value) => read(&value),
            None => {
                let place = self.place_of(key, self.place.origin);
                self.context.report(&place, format!("is missing; expected for example {key} = {example}"));
                None
            }
        }
    }

    /// The table under `key`, empty when it is absent.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'a> {
        self.get(key)
            .and_then(|value| value.section(format_args!("a table [{}]", value.place.key)))
            .unwrap_or_else(|| Section {
                place: self.place_of(key, self.place.origin),
                table: None,
                context: self.context,
                known: Vec::new(),
            })
    }

    /// The tables under `[[key]]`, at most `max`.
    pub(super) fn sections(&mut self, key: &'static str, max: usize) -> Vec<Section<'a>> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let DeValue::Array(_) = value.raw else {
            value.fail(format!("expected one or more [[{}]] tables, got {}", value.place.key, value.got()));
            return Vec::new();
        };
        let mut sections = value.list(max, |item| item.section("a table")).unwrap_or_default();
        for (n, section) in sections.iter_mut().enumerate() {
            section.place.key = format!("{}[{}]", value.place.key, n + 1);
        }
        sections
    }

    /// Notes a problem with the section itself.
    pub(super) fn report(&self, message: impl Display) {
        self.context.report(&self.place, message);
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(self) {
        let keys = self.table.into_iter().flat_map(DeTable::keys);
        for key in keys.filter(|key| !self.known.contains(&key.get_ref().as_ref())) {
            let place = self.place_of(key.get_ref(), Origin::Offset(key.span().start));
            self.context.report(&place, self.unknown(key.get_ref()));
        }
    }

    fn unknown(&self, key: &str) -> String {
        if self.context.top_settings.contains(&key) {
            return "belongs to the top of the file, above the first [table]".to_owned();
        }
        match nearest(key, self.known.iter().copied()) {
            Some(near) => format!("unknown setting; did you mean {near:?}?"),
            None => format!("unknown setting; those known here are: {}", self.known.join(", ")),
        }
    }

    fn place_of(&self, key: &str, origin: Origin) -> Place {
        let key = printable(key);
        let key = if self.place.key.is_empty() { key } else { format!("{}.{key}", self.place.key) };
        Place { origin, key }
    }
}

/// A value and its place.
#[derive(Clone)]
pub(super) struct Value<'a> {
    pub(super) place: Place,
    raw: &'a DeValue<'a>,
    context: &'a Context<'a>,
}

impl<'a> Value<'a> {
    /// Notes a problem with this value.
    pub(super) fn fail(&self, message: impl Display) {
        self.context.report(&self.place, message);
    }

    /// Notes that something else was expected.
    pub(super) fn expected<T>(&self, what: impl Display) -> Option<T> {
        self.fail(format!("expected {what}, got {}", self.got()));
        None
    }

    /// The value as messages show it.
    fn got(&self) -> String {
        match self.raw {
            DeValue::String(text) => quoted(text),
            DeValue::Integer(number) => format!("the number {}", printable(&number.to_string())),
            DeValue::Float(number) => format!("the number {}", printable(&number.to_string())),
            DeValue::Boolean(truth) => truth.to_string(),
            DeValue::Datetime(_) => "a date".to_owned(),
            DeValue::Array(_) => "a list".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        }
    }

    /// Text; `what` says what it should be, with an example.
    pub(super) fn text(&self, what: impl Display) -> Option<&'a str> {
        match self.raw {
            DeValue::String(text) => Some(text),
            _ => self.expected(what),
        }
    }

    /// Text that is shown to people: so many characters, none of them a control character.
    pub(super) fn label(&self, length: RangeInclusive<usize>) -> Option<String> {
        let text = self.text("text in quotes")?;
        if !length.contains(&text.chars().count()) || text.chars().any(char::is_control) {
            return self.expected(format!("one line of {} to {} characters", length.start(), length.end()));
        }
        Some(text.to_owned())
    }

    /// A name for metrics, headers and commands.
    pub(super) fn name(&self) -> Option<&'a str> {
        const WHAT: &str = "a name of at most 64 letters, digits, \"-\", \"_\" or \".\"";
        let text = self.text(WHAT)?;
        if is_name(text) { Some(text) } else { self.expected(WHAT) }
    }

    /// Text that `parse` understands; its error says what was expected.
    pub(super) fn parse_with<T, E: Display>(
        &self,
        what: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        parse(self.text(what)?).map_err(|error| self.fail(error)).ok()
    }

    /// Text that has a `FromStr`.
    pub(super) fn parse<T: FromStr<Err: Display>>(&self, what: &str) -> Option<T> {
        self.parse_with(what, str::parse)
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, all: &[T], word: impl Fn(T) -> &'static str) -> Option<T> {
        let words: Vec<String> = all.iter().map(|&item| format!("{:?}", word(item))).collect();
        let what = words.join(" or ");
        let text = self.text(&what)?;
        match all.iter().copied().find(|&item| word(item) == text) {
            Some(item) => Some(item),
            None => self.expected(what),
        }
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        match *self.raw {
            DeValue::Boolean(truth) => Some(truth),
            _ => self.expected("true or false"),
        }
    }

    /// A whole number within `range`.
    pub(super) fn integer(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let number = match self.raw {
            DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        match number.filter(|number| range.contains(number)) {
            Some(number) => Some(number),
            None => self.expected(format!("a whole number from {} to {}", range.start(), range.end())),
        }
    }

    /// `integer` for counts in memory.
    pub(super) fn count(&self, range: RangeInclusive<usize>) -> Option<usize> {
        let number = self.integer(*range.start() as u64..=*range.end() as u64)?;
        usize::try_from(number).ok()
    }

    /// `integer` of 32 bits, from 1.
    pub(super) fn positive(&self) -> Option<u32> {
        u32::try_from(self.integer(1..=u64::from(u32::MAX))?).ok()
    }

    /// A share from 0 to 1.
    pub(super) fn share(&self) -> Option<f64> {
        let number: Option<f64> = match self.raw {
            DeValue::Float(number) => number.as_str().parse().ok(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().parse().ok(),
            _ => None,
        };
        match number.filter(|share| (0.0..=1.0).contains(share)) {
            Some(share) => Some(share),
            None => self.expected("a share from 0.0 to 1.0"),
        }
    }

    /// A duration within `range`.
    pub(super) fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        const WHAT: &str = "a duration with its unit (ms, s, m, h or d) such as \"10s\"";
        match parse_duration(self.text(WHAT)?) {
            None => self.expected(WHAT),
            Some(duration) if !range.contains(&duration) => self.expected(format!(
                "a duration from {} to {}",
                format_duration(*range.start()),
                format_duration(*range.end())
            )),
            Some(duration) => Some(duration),
        }
    }

    /// A number of bytes within `range`.
    pub(super) fn size(&self, range: RangeInclusive<u64>) -> Option<u64> {
        const WHAT: &str = "a size with its unit (B, KiB, MiB, GiB, KB, MB or GB) such as \"64KiB\"";
        match parse_size(self.text(WHAT)?) {
            None => self.expected(WHAT),
            Some(bytes) if !range.contains(&bytes) => self.expected(format!(
                "a size from {} to {}",
                format_size(*range.start()),
                format_size(*range.end())
            )),
            Some(bytes) => Some(bytes),
        }
    }

    /// A path; a relative one starts at the file's folder.
    pub(super) fn path(&self) -> Option<PathBuf> {
        match self.text("a path in quotes")? {
            "" => self.expected("a path"),
            text => Some(self.context.base.join(text)),
        }
    }

    /// At most `max` items. Every item is read, also after a wrong one, which is left out.
    pub(super) fn list<T>(
        &self,
        max: usize,
        mut read: impl FnMut(&Value<'a>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let DeValue::Array(items) = self.raw else { return self.expected("a list in [ ]") };
        if items.len() > max {
            self.fail(format!("at most {max} are possible, got {}", items.len()));
            return None;
        }
        Some(items.iter().filter_map(|item| read(&self.item(item))).collect())
    }

    fn item(&self, item: &'a Spanned<DeValue<'a>>) -> Value<'a> {
        let place = Place { origin: Origin::Offset(item.span().start), key: self.place.key.clone() };
        Value { place, raw: item.get_ref(), context: self.context }
    }

    /// The value as a table; `what` says which one, with an example.
    pub(super) fn section(&self, what: impl Display) -> Option<Section<'a>> {
        match self.raw {
            DeValue::Table(table) => {
                let place = self.place.clone();
                Some(Section { place, table: Some(table), context: self.context, known: Vec::new() })
            }
            _ => self.expected(what),
        }
    }

    /// Whether it is a text without any character.
    pub(super) fn is_empty_text(&self) -> bool {
        self.raw.as_str().is_some_and(str::is_empty)
    }

    /// Whether it is a list without any item.
    pub(super) fn is_empty_list(&self) -> bool {
        self.raw.as_array().is_some_and(|items| items.is_empty())
    }

    /// Whether it is a table, for the few settings that have a short and a long form.
    pub(super) fn is_table(&self) -> bool {
        self.raw.is_table()
    }

    /// Whether it is text, for the few settings that take text or a number.
    pub(super) fn is_text(&self) -> bool {
        self.raw.is_str()
    }
}

/// Whether the text can be a name in metrics, headers and commands.
pub(super) fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// The known word that somebody probably meant.
pub(super) fn nearest<'w>(text: &str, known: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    const LONGEST: usize = 64;
    if text.len() > LONGEST {
        return None;
    }
    let text = text.to_ascii_lowercase().replace('-', "_");
    known
        .map(|word| (strsim::osa_distance(&text, &word.to_ascii_lowercase().replace('-', "_")), word))
        .filter(|(distance, word)| *distance <= (word.len() / 3).max(1))
        .min()
        .map(|(_, word)| word)
}

/// Text in quotes, shortened, without control characters.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 80;
    match text.char_indices().nth(LONGEST) {
        Some((cut, _)) => format!("{:?}...", &text[..cut]),
        None => format!("{text:?}"),
    }
}

fn printable(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}
