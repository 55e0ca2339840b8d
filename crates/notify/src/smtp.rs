//! Mails over SMTP, one connection each. Blocks for as long as the server takes, at most `timeout` per answer.
//! Must not send a password or a mail in the clear unless the settings say so.

use std::error::Error as _;
use std::time::SystemTime;

use lettre::address::Envelope;
use lettre::message::header::{ContentType, Header, HeaderName, HeaderValue};
use lettre::message::{MessageBuilder, MultiPart, SinglePart};
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{SmtpTransport, Transport as _};

use crate::escape::line;
use crate::{Message, NotifyError, Smtp, SmtpTls};

/// Of what a server says, in characters.
const MAX_SAID: usize = 300;
/// Of a subject, in characters.
pub(crate) const MAX_SUBJECT: usize = 300;
/// A file of certificates larger than this is something else.
const MAX_CA_BYTES: u64 = 4 << 20;

/// Sends mails as the settings say.
pub struct Mailer {
    transport: SmtpTransport,
    settings: Smtp,
    place: String,
}

impl Mailer {
    /// Connects to nobody yet.
    ///
    /// # Errors
    /// The file of certificates cannot be used.
    pub fn new(settings: &Smtp) -> Result<Self, NotifyError> {
        let place = place(settings);
        let mut builder = SmtpTransport::builder_dangerous(settings.host.as_str())
            .port(settings.port)
            .hello_name(hello(settings))
            .timeout(Some(settings.timeout))
            .tls(tls(settings, &place)?);
        if let Some((user, password)) = &settings.login {
            builder = builder
                .credentials(Credentials::new(user.clone(), password.expose().to_owned()))
                .authentication(vec![Mechanism::Plain, Mechanism::Login]);
        }
        Ok(Self { transport: builder.build(), settings: settings.clone(), place })
    }

    /// Sends one mail to everybody who is named; done when the server has taken it. A server that does not want one of
    /// the receivers takes it for none: then each gets a mail of their own. Returns who got nothing and why.
    ///
    /// # Errors
    /// Nobody has got it.
    pub fn send(&self, message: &Message, now: SystemTime) -> Result<Vec<String>, NotifyError> {
        let mail = self.mail(message, now)?;
        let Err(error) = self.transport.send(&mail) else { return Ok(Vec::new()) };
        let refused = self.explain(&error);
        let (from, receivers) = (mail.envelope().from(), mail.envelope().to());
        if receivers.len() < 2 || !matches!(refused, NotifyError::Refused { is_permanent: true, .. }) {
            return Err(refused);
        }
        let mut left_out = Vec::new();
        for receiver in receivers {
            let alone = Envelope::new(from.cloned(), vec![receiver.clone()])
                .map_err(|error| NotifyError::Message { problem: error.to_string() })?;
            if let Err(error) = self.transport.send_raw(&alone, &mail.formatted()) {
                left_out.push(format!("{receiver}: {}", self.explain(&error)));
            }
        }
        if left_out.len() == receivers.len() { Err(refused) } else { Ok(left_out) }
    }

    fn mail(&self, message: &Message, now: SystemTime) -> Result<lettre::Message, NotifyError> {
        let Smtp { from, to, .. } = &self.settings;
        let domain = from.0.email.domain();
        let builder = lettre::Message::builder()
            .from(from.0.clone())
            .date(now)
            // One line: whatever is in it becomes no header of its own.
            .subject(line(&message.subject, MAX_SUBJECT))
            .message_id(Some(format!("<{}@{domain}>", message.id)))
            // Keeps holiday replies from being sent (RFC 3834).
            .header(AutoSubmitted);
        let builder = to.iter().fold(builder, |builder, to| MessageBuilder::to(builder, to.0.clone()));
        let part = |kind, text: &str| SinglePart::builder().header(kind).body(text.to_owned());
        builder
            .multipart(
                MultiPart::alternative()
                    .singlepart(part(ContentType::TEXT_PLAIN, &message.text))
                    .singlepart(part(ContentType::TEXT_HTML, &message.html)),
            )
            .map_err(|error| NotifyError::Message { problem: error.to_string() })
    }

    /// What went wrong, in words for the person who wrote the settings.
    fn explain(&self, error: &lettre::transport::smtp::Error) -> NotifyError {
        let place = self.place.clone();
        let said = line(&innermost(error), MAX_SAID);
        // The name of this kind is all that tells it from a connection that broke later.
        if error.to_string().starts_with("Connection error") && !is_about_tls(&said) {
            return NotifyError::Unreachable { place, problem: said };
        }
        if error.is_timeout() || said.contains("timed out") || said.contains("temporarily unavailable") {
            return NotifyError::Timeout { place };
        }
        if let Some(code) = error.status() {
            let said = line(&format!("{code} {said}"), MAX_SAID);
            return match (u16::from(code), &self.settings.login) {
                (530 | 534 | 535 | 538, Some((user, _))) => {
                    NotifyError::Login { place, user: line(user, MAX_SAID), said }
                }
                _ => NotifyError::Refused { place, said, is_permanent: error.is_permanent() },
            };
        }
        let problem = said;
        if problem.contains("STARTTLS is not supported") {
            NotifyError::NoStartTls { place }
        } else if problem.contains("No compatible authentication") {
            NotifyError::NoLogin { place }
        } else if error.is_tls() || is_about_tls(&problem) {
            NotifyError::Tls { place, problem }
        } else if error.is_response() || error.is_client() {
            NotifyError::Protocol { place, problem }
        } else {
            NotifyError::Broken { place, problem }
        }
    }
}

fn is_about_tls(problem: &str) -> bool {
    ["certificate", "TLS", "corrupt message", "HandshakeFailure"].iter().any(|word| problem.contains(word))
}

/// HOST:PORT.
fn place(settings: &Smtp) -> String {
    match settings.host.contains(':') {
        true => format!("[{}]:{}", settings.host, settings.port),
        false => format!("{}:{}", settings.host, settings.port),
    }
}

/// What is said in EHLO: the domain that the mails come from, which is a name that is known there.
fn hello(settings: &Smtp) -> ClientId {
    ClientId::Domain(settings.from.0.email.domain().to_owned())
}

fn tls(settings: &Smtp, place: &str) -> Result<Tls, NotifyError> {
    let parameters = || {
        let mut builder = TlsParameters::builder(settings.host.clone());
        if let Some(path) = &settings.ca {
            let wrong = |problem: String| NotifyError::Certificates { path: path.clone(), problem };
            let size = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
            if size > MAX_CA_BYTES {
                return Err(wrong(format!("it is larger than {MAX_CA_BYTES} bytes")));
            }
            let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
            let certificate = Certificate::from_pem(&pem).map_err(|error| wrong(error.to_string()))?;
            builder = builder.certificate_store(CertificateStore::None).add_root_certificate(certificate);
        }
        builder.build().map_err(|error| NotifyError::Tls {
            place: place.to_owned(),
            problem: line(&innermost(&error), MAX_SAID),
        })
    };
    Ok(match settings.tls {
        SmtpTls::StartTls => Tls::Required(parameters()?),
        SmtpTls::StartTlsOptional => Tls::Opportunistic(parameters()?),
        SmtpTls::Tls => Tls::Wrapper(parameters()?),
        SmtpTls::None => Tls::None,
    })
}

/// The last cause: those before it only say where it was noticed.
fn innermost(error: &lettre::transport::smtp::Error) -> String {
    let mut cause = error.source();
    let mut text = error.to_string();
    while let Some(inner) = cause {
        text = inner.to_string();
        cause = inner.source();
    }
    text
}

/// `Auto-Submitted: auto-generated` (RFC 3834).
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn mailer() -> Mailer {
        Mailer::new(&Smtp {
            host: "localhost".to_owned(),
            port: 25,
            tls: SmtpTls::None,
            login: None,
            from: "Gate <gateway@example.com>".parse().unwrap(),
            to: vec!["a@example.com".parse().unwrap(), "Ä Person <b@example.com>".parse().unwrap()],
            ca: None,
            timeout: Duration::from_secs(1),
        })
        .unwrap()
    }

    #[test]
    fn a_hostile_subject_stays_one_header() {
        let message = Message {
            id: "1.mail".to_owned(),
            subject: "x\r\nBcc: victim@example.net\r\n\r\nbody \u{202e}".to_owned(),
            text: "text\n.\nend".to_owned(),
            html: "<p>html</p>".to_owned(),
            data: None,
        };
        let mail = mailer().mail(&message, SystemTime::UNIX_EPOCH).unwrap();
        let text = String::from_utf8(mail.formatted()).unwrap();
        let (head, _) = text.split_once("\r\n\r\n").unwrap();
        assert!(!head.lines().any(|line| line.to_lowercase().starts_with("bcc")), "{head}");
        assert_eq!(head.lines().filter(|line| line.starts_with("Subject: ")).count(), 1, "{head}");
        assert!(
            head.contains("Auto-Submitted: auto-generated") && head.contains("<1.mail@example.com>"),
            "{head}"
        );
        assert!(text.contains("multipart/alternative") && text.contains("<p>html</p>"));
        let receivers: Vec<String> = mail.envelope().to().iter().map(ToString::to_string).collect();
        assert_eq!(receivers, ["a@example.com", "b@example.com"]);
    }
}
