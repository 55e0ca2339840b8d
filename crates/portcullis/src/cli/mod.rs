//! The command line: what can be asked, in which words, and with which exit code it ends.
//!
//! Owns the arguments, the options that every command understands, and the mapping of failures to exit
//! codes. Must not do what a command does: there is a file for each.

mod alerts;
mod allow;
mod analyze;
mod block;
mod bots;
mod certs;
mod check;
mod completions;
mod console;
mod context;
mod demo;
mod detect;
pub(crate) mod doctor;
pub(crate) mod explained;
mod export;
pub(crate) mod feeds;
mod geo;
mod health;
mod identity;
mod import;
mod init;
mod limits;
mod logs;
mod migrate;
mod output;
mod party;
pub(crate) mod privacy;
mod replay;
mod report;
pub(crate) mod rule_words;
mod run;
mod settings;
mod site;
mod suspicious;
mod tasks;
mod time;
mod top;
mod upgrade;
pub(crate) mod why;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, ColorChoice, Parser, Subcommand};

use portcullis_config::ConfigErrors;
use portcullis_model::UnixMs;

use crate::sentence::sentence;

pub(crate) use context::{Context, open_state, quoted};

use context::Misuse;
use output::{Screen, tell};

pub(crate) use output::count;
pub(crate) use time::{iso, relative};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Yellow.on_default().bold())
    .usage(AnsiColor::Yellow.on_default().bold())
    .literal(AnsiColor::Green.on_default())
    .placeholder(AnsiColor::Cyan.on_default());

const ABOUT: &str = "A security gateway in front of any web site: one reverse proxy that remembers every request \
                     and keeps bad clients out.";

const AFTER_HELP: &str = "\
Start in one line, in front of a site on port 8000:
  portcullis run --upstream http://127.0.0.1:8000

Somebody was refused and has an ID from the page:
  portcullis why 06GZFMEMAFNN3DTJ

\"portcullis help COMMAND\" shows examples for each command.

Also known by the names of the original projects:
  block_ip, unblock_ip, list_blocked_ips, analyze_ip, detect_anomalies_now

Exit codes:
  0  done
  1  failed; \"health\": not ready; \"demo\": something did not go as it should;
     \"doctor\": warnings
  2  wrong usage or configuration; \"doctor\": errors
  3  nothing found or nothing to do (an empty list is no failure: that is 0)";

/// What was typed.
#[derive(Debug, Parser)]
#[command(
    name = "portcullis",
    version,
    about = ABOUT,
    after_help = AFTER_HELP,
    styles = STYLES,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// What every command understands.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options of every command")]
struct Globals {
    /// The folder of the databases; without it, the one of the configuration, or ./portcullis-data
    #[arg(long, global = true, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    data: Option<PathBuf>,

    /// The configuration; without it, ./portcullis.toml if there is one
    #[arg(long, global = true, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    config: Option<PathBuf>,

    /// Colours: on a terminal, always or never (NO_COLOR is respected)
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", hide_possible_values = true)]
    color: ColorChoice,
}

/// For the commands that print data.
#[derive(Clone, Copy, Debug, Args)]
struct Format {
    /// Print JSON, for scripts
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway
    Run(run::Run),
    /// Write a commented configuration to start from
    Init(init::Init),
    /// Report every mistake in the configuration, or what would run
    Check(check::Check),
    /// List the certificates that clients get, and when they expire
    Certs(certs::Certs),
    /// Block an address or a prefix
    #[command(alias = "block_ip")]
    Block(block::Block),
    /// Lift a block
    #[command(alias = "unblock_ip")]
    Unblock(block::Unblock),
    /// List the blocks
    #[command(alias = "list_blocked_ips")]
    Blocks(block::Blocks),
    /// Block all addresses of a list
    Import(import::Import),
    /// Print the blocks as a list
    Export(export::Export),
    /// List the feeds of blocked addresses, or fetch them now
    Feeds(feeds::Feeds),
    /// List the crawlers that are known, or say whether a client is one
    Bots(bots::Bots),
    /// Let an address or a prefix in, whatever blocks and limits say
    Allow(allow::Allow),
    /// Remove an allow
    Disallow(allow::Disallow),
    /// List the allows
    Allows(allow::Allows),
    /// List the limits, what they refused, and which ones a request would meet
    Limits(limits::Limits),
    /// Show requests from the log
    Logs(logs::Logs),
    /// Sum up what one address did
    #[command(alias = "analyze_ip")]
    Analyze(analyze::Analyze),
    /// Show who and what comes most often
    Top(top::Top),
    /// List what the detector found, or show one finding
    Suspicious(suspicious::Suspicious),
    /// Show what the detector has learned of the site, or take it back
    Site(site::SiteCommand),
    /// Run the detector now
    #[command(alias = "detect_anomalies_now")]
    Detect(detect::Detect),
    /// Try a policy on access logs: who would have been flagged, blocked and limited
    Replay(replay::Replay),
    /// Show what people are told of, or try whether messages arrive
    Alerts(alerts::Alerts),
    /// Show the report of a day, or send it
    Report(report::Report),
    /// What can be changed while the gateway runs
    Settings(settings::Settings),
    /// List what the gateway does by itself and when, or do it now
    Tasks(tasks::Tasks),
    /// Explain a decision, or how an address stands
    Why(why::Why),
    /// Show where an address is and who says so, how it is with files and sources, or bring both up to date
    Geo(geo::GeoCommand),
    /// Export or erase what is kept about an address or a user
    Privacy(privacy::Privacy),
    /// Say what is wrong with the configuration, the machine and the last hour's traffic
    Doctor(doctor::Doctor),
    /// Show how requests are known, and what became of sessions, logins and tokens
    Identity(identity::Identity),
    /// Say where the console is, and who gets in
    Console(console::ConsoleCommand),
    /// Ask whether the gateway is ready
    Health(health::Health),
    /// Put a new binary in the place of the running gateway, without a dropped request
    Upgrade(upgrade::Upgrade),
    /// Bring the databases to the schema of this version, as every start does
    Migrate(migrate::Migrate),
    /// Show the gateway at work, with a sample site, visitors and attackers
    Demo(demo::Demo),
    /// Print completions for a shell
    Completions(completions::Completions),
}

/// How a command ended when nothing went wrong with the command itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    /// The answer is bad news: not ready, not as it should be.
    Failed,
    /// There is nothing to show or to do.
    Nothing,
    /// The doctor has warnings only.
    Warned,
    /// The doctor has errors.
    Bad,
}

const FAILED: u8 = 1;
const MISUSED: u8 = 2;
const NOTHING: u8 = 3;

impl Outcome {
    fn code(self) -> ExitCode {
        match self {
            Self::Done => ExitCode::SUCCESS,
            Self::Failed => ExitCode::from(FAILED),
            Self::Nothing => ExitCode::from(NOTHING),
            Self::Warned => ExitCode::from(FAILED),
            Self::Bad => ExitCode::from(MISUSED),
        }
    }
}

impl Cli {
    /// Reads the arguments. Help and wrong usage are printed here, and give the exit code to end with.
    pub(crate) fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, ExitCode> {
        Self::try_parse_from(arguments).map_err(|answer| {
            // A reader that has gone away, as in `portcullis --help | head -1`, is no failure.
            let _ = answer.print();
            if answer.use_stderr() { ExitCode::from(MISUSED) } else { ExitCode::SUCCESS }
        })
    }

    /// Whether the program's own log lines are for the person at the terminal: those of a server are,
    /// those of a command that prints an answer would be in the way.
    pub(crate) fn is_server(&self) -> bool {
        matches!(self.command, Command::Run(_))
    }

    /// Whether coloured text may be written to standard error.
    pub(crate) fn colours_stderr(&self) -> bool {
        output::wants_colour(self.globals.color, io::IsTerminal::is_terminal(&io::stderr()))
    }

    /// Does what was asked.
    pub(crate) fn run(self, now: UnixMs) -> ExitCode {
        let mut screen = Screen::stdout(self.globals.color);
        let context = Context::new(self.globals, now);
        let result = dispatch(self.command, &context, &mut screen)
            .and_then(|outcome| screen.flush().map_err(Into::into).map(|()| outcome));
        match result {
            Ok(outcome) => outcome.code(),
            Err(error) => report(&error),
        }
    }
}

fn dispatch(command: Command, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
    match command {
        Command::Run(command) => command.run(context),
        Command::Init(command) => command.run(context, screen),
        Command::Check(command) => command.run(context, screen),
        Command::Certs(command) => command.run(context, screen),
        Command::Block(command) => command.run(context, screen),
        Command::Unblock(command) => command.run(context, screen),
        Command::Blocks(command) => command.run(context, screen),
        Command::Import(command) => command.run(context, screen),
        Command::Export(command) => command.run(context, screen),
        Command::Feeds(command) => command.run(context, screen),
        Command::Bots(command) => command.run(context, screen),
        Command::Allow(command) => command.run(context, screen),
        Command::Disallow(command) => command.run(context, screen),
        Command::Allows(command) => command.run(context, screen),
        Command::Limits(command) => command.run(context, screen),
        Command::Logs(command) => command.run(context, screen),
        Command::Analyze(command) => command.run(context, screen),
        Command::Top(command) => command.run(context, screen),
        Command::Suspicious(command) => command.run(context, screen),
        Command::Site(command) => command.run(context, screen),
        Command::Detect(command) => command.run(context, screen),
        Command::Replay(command) => command.run(context, screen),
        Command::Alerts(command) => command.run(context, screen),
        Command::Report(command) => command.run(context, screen),
        Command::Settings(command) => command.run(context, screen),
        Command::Tasks(command) => command.run(context, screen),
        Command::Why(command) => command.run(context, screen),
        Command::Geo(command) => command.run(context, screen),
        Command::Privacy(command) => command.run(context, screen),
        Command::Doctor(command) => command.run(context, screen),
        Command::Identity(command) => command.run(context, screen),
        Command::Console(command) => command.run(context, screen),
        Command::Health(command) => command.run(context, screen),
        Command::Upgrade(command) => command.run(context, screen),
        Command::Migrate(command) => command.run(context, screen),
        Command::Demo(command) => command.run(context),
        Command::Completions(command) => command.run(screen),
    }
}

/// Prints a failure and chooses its exit code.
fn report(error: &anyhow::Error) -> ExitCode {
    if is_broken_pipe(error) {
        return ExitCode::SUCCESS;
    }
    if let Some(errors) = error.downcast_ref::<ConfigErrors>() {
        // Each line names its place and reads like a compiler's, so that editors can jump there.
        tell("", &errors.to_string());
        return ExitCode::from(MISUSED);
    }
    tell("error: ", &sentence(error));
    if error.is::<Misuse>() { ExitCode::from(MISUSED) } else { ExitCode::from(FAILED) }
}

/// Whether whoever read the output has gone away, as `head` does.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let is_pipe = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    error.downcast_ref::<io::Error>().is_some_and(is_pipe)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("portcullis "), "{} has no example", command.get_name());
            for line in help.lines() {
                assert!(line.chars().count() <= 80, "{} would be wrapped: {line}", command.get_name());
            }
        }
    }

    #[test]
    fn only_a_broken_pipe_of_our_own_output_ends_quietly() {
        let pipe = io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(is_broken_pipe(&anyhow::Error::from(pipe)));
        assert!(!is_broken_pipe(&anyhow::Error::from(io::Error::from(io::ErrorKind::NotFound))));
        assert!(!is_broken_pipe(&anyhow::anyhow!("other")));
    }
}
