//! HTML that mail programs show: tables and inline styles, no images, nothing from elsewhere.
//! Every text that goes in is escaped here.

use portcullis_model::Severity;

use crate::escape::html;

const FONT: &str = "font-family:-apple-system,Segoe UI,Roboto,Helvetica,Arial,sans-serif";
const MONO: &str = "font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace";
const CELL: &str = "padding:6px 12px 6px 0;border-bottom:1px solid #e5e7eb;font-size:14px;vertical-align:top";

/// A page that is being written.
pub(crate) struct Page {
    title: String,
    body: String,
}

impl Page {
    pub(crate) fn new(title: &str) -> Self {
        Self { title: html(title), body: String::new() }
    }

    /// The first line, in the colour of its severity.
    pub(crate) fn severity(&mut self, severity: Severity, text: &str) {
        let colour = colour(severity);
        self.body += &format!(
            "<tr><td style=\"padding:16px 24px;background:{colour};color:#ffffff;border-radius:8px 8px 0 0\">\
             <div style=\"font-size:12px;letter-spacing:.08em;text-transform:uppercase\">{severity}</div>\
             <div style=\"font-size:20px;font-weight:600;line-height:1.3\">{}</div></td></tr>\n",
            html(text)
        );
    }

    /// The first line of what is no alarm.
    pub(crate) fn banner(&mut self, above: &str, text: &str) {
        self.body += &format!(
            "<tr><td style=\"padding:16px 24px;background:#1f2937;color:#ffffff;border-radius:8px 8px 0 0\">\
             <div style=\"font-size:12px;letter-spacing:.08em;text-transform:uppercase;color:#d1d5db\">{}</div>\
             <div style=\"font-size:20px;font-weight:600;line-height:1.3\">{}</div></td></tr>\n",
            html(above),
            html(text)
        );
    }

    /// Figures and how they differ from earlier ones: the first column names them.
    pub(crate) fn figures(&mut self, columns: &[&str], rows: &[Vec<String>]) {
        let mut table =
            "<table role=\"presentation\" style=\"border-collapse:collapse;width:100%\"><tr>".to_owned();
        for (n, name) in columns.iter().enumerate() {
            let align = if n == 0 { "left" } else { "right" };
            table += &format!(
                "<th style=\"{CELL};text-align:{align};font-weight:600;color:#6b7280;font-size:12px\">{}</th>",
                html(name)
            );
        }
        table += "</tr>";
        for row in rows {
            table += "<tr>";
            for (n, cell) in row.iter().enumerate() {
                let style = match n {
                    0 => CELL.to_owned(),
                    1 => format!("{CELL};text-align:right;white-space:nowrap;font-weight:600"),
                    _ => format!("{CELL};text-align:right;white-space:nowrap;color:#6b7280"),
                };
                table += &format!("<td style=\"{style}\">{}</td>", html(cell));
            }
            table += "</tr>";
        }
        self.row(&(table + "</table>"));
    }

    fn row(&mut self, inner: &str) {
        self.body += &format!("<tr><td style=\"padding:8px 24px\">{inner}</td></tr>\n");
    }

    pub(crate) fn paragraph(&mut self, text: &str) {
        self.row(&format!("<p style=\"margin:8px 0;font-size:15px;line-height:1.5\">{}</p>", html(text)));
    }

    pub(crate) fn heading(&mut self, text: &str) {
        self.row(&format!(
            "<h2 style=\"margin:16px 0 4px;font-size:16px;font-weight:600;color:#111827\">{}</h2>",
            html(text)
        ));
    }

    /// Columns after the first hold figures.
    pub(crate) fn table(&mut self, columns: &[&str], rows: &[Vec<String>]) {
        let align = |n: usize| if n == 0 { "left" } else { "right" };
        let mut table =
            "<table role=\"presentation\" style=\"border-collapse:collapse;width:100%\"><tr>".to_owned();
        for (n, name) in columns.iter().enumerate() {
            table += &format!(
                "<th style=\"{CELL};text-align:{};font-weight:600;color:#6b7280;font-size:12px\">{}</th>",
                align(n),
                html(name)
            );
        }
        table += "</tr>";
        for row in rows {
            table += "<tr>";
            for (n, cell) in row.iter().enumerate() {
                let style = match n {
                    0 => format!("{CELL};{MONO};font-size:13px;word-break:break-all"),
                    _ => format!("{CELL};text-align:right;white-space:nowrap"),
                };
                table += &format!("<td style=\"{style}\">{}</td>", html(cell));
            }
            table += "</tr>";
        }
        self.row(&(table + "</table>"));
    }

    pub(crate) fn event(&mut self, at: &str, severity: Severity, title: &str, text: &str) {
        let colour = colour(severity);
        self.row(&format!(
            "<div style=\"border-left:4px solid {colour};padding:2px 0 2px 12px;margin:4px 0\">\
             <div style=\"font-size:12px;color:#6b7280\">{} &middot; {severity}</div>\
             <div style=\"font-size:15px;font-weight:600;word-break:break-word\">{}</div>\
             <div style=\"font-size:14px;line-height:1.5;color:#374151;word-break:break-word\">{}</div></div>",
            html(at),
            html(title),
            html(text)
        ));
    }

    pub(crate) fn commands(&mut self, commands: &[&str]) {
        let commands: Vec<String> = commands
            .iter()
            .map(|command| {
                format!(
                    "<code style=\"{MONO};font-size:13px;background:#f3f4f6;padding:2px 6px\">{}</code>",
                    html(command)
                )
            })
            .collect();
        self.row(&format!("<p style=\"margin:8px 0;font-size:14px\">More: {}</p>", commands.join(" ")));
    }

    /// The whole document.
    pub(crate) fn finish(self, footer: &str) -> String {
        let Self { title, body } = self;
        let footer = html(footer);
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>{title}</title></head>\n\
             <body style=\"margin:0;padding:24px 8px;background:#f3f4f6;color:#111827;{FONT}\">\n\
             <table role=\"presentation\" align=\"center\" style=\"width:100%;max-width:680px;margin:0 auto;\
             background:#ffffff;border-radius:8px;border-collapse:separate;border-spacing:0\">\n{body}\
             <tr><td style=\"padding:16px 24px;color:#6b7280;font-size:12px\">{footer}</td></tr>\n\
             </table>\n</body></html>\n"
        )
    }
}

fn colour(severity: Severity) -> &'static str {
    match severity {
        Severity::Low => "#4b5563",
        Severity::Medium => "#b45309",
        Severity::High => "#c2410c",
        Severity::Critical => "#b91c1c",
    }
}
