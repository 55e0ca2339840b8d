//! Whatever stands in the file, the answer is a configuration or a list of errors.

use std::path::Path;

use portcullis_config::{Overrides, TEMPLATE, parse};
use proptest::prelude::*;

/// Reads the text; every error must be printable and every position inside of the text.
fn survives(text: &str) {
    if let Err(errors) = parse(text, "f.toml", Path::new("/nonexistent"), &Overrides::default()) {
        assert!(!errors.errors().is_empty());
        let lines = text.matches('\n').count() + 1;
        for error in errors.errors() {
            assert!(error.position.is_none_or(|p| (1..=lines).contains(&p.line) && p.column >= 1), "{error}");
            assert!(!error.to_string().contains('\n'), "{error:?}");
        }
    }
}

/// The template with all settings in force.
fn full_template() -> String {
    let is_setting = |rest: &str| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == ']');
    TEMPLATE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if is_setting(rest) || rest.starts_with("    \"") => format!("{rest}\n"),
            Some(rest) if rest.starts_with("   ") => format!("{}\n", rest.trim_start()),
            _ => format!("{line}\n"),
        })
        .collect()
}

/// Values of every type, some of them extreme.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("-9223372036854775808".to_owned()),
        Just("18446744073709551616".to_owned()),
        Just("0x_ff".to_owned()),
        Just("nan".to_owned()),
        Just("1979-05-27T07:32:00Z".to_owned()),
        Just("[[], {}, \"\", [1]]".to_owned()),
        Just("{ url = 1, weight = \"x\" }".to_owned()),
        Just("\"18446744073709551615TiB\"".to_owned()),
        Just("\"18446744073709551615d\"".to_owned()),
        Just("\"4294967295/18446744073709551615d\"".to_owned()),
        Just("\"::ffff:0:0/95\"".to_owned()),
        Just("[\"**\", \"/*/*\", \"*\", \"[]\", \"*.\"]".to_owned()),
        "\"[^\"\\\\\\x00-\\x1f]{0,20}\"",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn random_text_is_answered(text in "\\PC{0,200}") {
        survives(&text);
    }

    #[test]
    fn random_toml_is_answered(
        lines in prop::collection::vec(("[a-z_]{1,10}|\\[{1,2}(server|upstream|limit|block|log)\\]{1,2}", value()), 0..20)
    ) {
        let text: String = lines
            .iter()
            .map(|(key, value)| if key.starts_with('[') { format!("{key}\n") } else { format!("{key} = {value}\n") })
            .collect();
        survives(&text);
    }

    #[test]
    fn a_template_with_any_value_replaced_is_answered(line in any::<prop::sample::Index>(), value in value()) {
        let template = full_template();
        let mut lines: Vec<String> = template.lines().map(str::to_owned).collect();
        let settings: Vec<usize> = (0..lines.len()).filter(|&n| lines[n].contains(" = ")).collect();
        let chosen = *line.get(&settings);
        let key = lines[chosen].split(" = ").next().unwrap_or_default().to_owned();
        lines[chosen] = format!("{key} = {value}");
        survives(&lines.join("\n"));
    }

    #[test]
    fn a_template_with_a_piece_cut_out_is_answered(from in any::<prop::sample::Index>(), length in 1usize..200) {
        let template = full_template();
        let cut: String =
            template.chars().enumerate().filter(|(n, _)| {
                let from = from.index(template.len());
                !(from..from + length).contains(n)
            }).map(|(_, c)| c).collect();
        survives(&cut);
    }
}
