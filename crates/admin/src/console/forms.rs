//! Forms that change something: read, and held to session, role and token before a page acts on them.
//! Must not know what the forms are for.

use std::sync::Arc;

use axum::extract::{FromRequest, RawForm, Request};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::actions::MAX_AT_ONCE;
use super::error::PageError;
use super::shared::Shared;
use super::visitor::Visitor;

/// The field of the token.
pub(super) const TOKEN_FIELD: &str = "form_token";

/// A change that an operator asks for.
pub(super) struct Change<T> {
    pub(super) visitor: Visitor,
    pub(super) form: T,
}

/// A form that is nothing but a button.
#[derive(Deserialize)]
pub(super) struct Nothing {}

/// A change that everybody may make: of what is their own.
pub(super) struct OwnChange<T> {
    pub(super) visitor: Visitor,
    pub(super) form: T,
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    form_token: String,
}

impl<T: DeserializeOwned> FromRequest<Arc<Shared>> for Change<T> {
    type Rejection = PageError;

    async fn from_request(request: Request, shared: &Arc<Shared>) -> Result<Self, PageError> {
        let OwnChange { visitor, form } = OwnChange::from_request(request, shared).await?;
        visitor.require_operator()?;
        Ok(Self { visitor, form })
    }
}

impl<T: DeserializeOwned> FromRequest<Arc<Shared>> for OwnChange<T> {
    type Rejection = PageError;

    async fn from_request(request: Request, shared: &Arc<Shared>) -> Result<Self, PageError> {
        let visitor = request.extensions().get::<Visitor>().cloned().ok_or(PageError::SignedOut)?;
        let RawForm(body) = RawForm::from_request(request, shared)
            .await
            .map_err(|error| PageError::Invalid(format!("The form cannot be read: {error}.")))?;
        let Token { form_token } = read(&body)?;
        if !visitor.has_token(&form_token) {
            return Err(PageError::Forbidden(
                "The form is from another session, so nothing was changed. Load the page again and repeat it."
                    .to_owned(),
            ));
        }
        Ok(Self { visitor, form: read(&body)? })
    }
}

/// The fields of a form by name, also those that come more than once.
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    pub(super) fn new(fields: Vec<(String, String)>) -> Self {
        Self(fields)
    }

    /// The first value, without blanks around it; empty when there is none.
    pub(super) fn text(&self, name: &str) -> &str {
        self.all(name).next().unwrap_or("").trim()
    }

    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn is_ticked(&self, name: &str) -> bool {
        self.all(name).next().is_some()
    }

    /// The numbers of what was ticked in a list, or of the one whose own button was pressed.
    pub(super) fn chosen(&self) -> Result<Vec<i64>, PageError> {
        let name = if self.is_ticked("only") { "only" } else { "id" };
        let ids: Result<Vec<i64>, _> = self.all(name).map(str::parse).collect();
        let ids =
            ids.map_err(|_| PageError::Invalid("The form names something that is no number.".to_owned()))?;
        match ids.len() {
            0 => Err(PageError::Invalid(
                "Nothing was ticked, so nothing was changed. Tick the rows first.".to_owned(),
            )),
            1..=MAX_AT_ONCE => Ok(ids),
            _ => Err(PageError::Invalid(format!("At most {MAX_AT_ONCE} at once: nothing was changed."))),
        }
    }
}

/// Fields that come more than once are for a form that is a list of names and values.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, PageError> {
    serde_urlencoded::from_bytes(body)
        .map_err(|error| PageError::Invalid(format!("The form cannot be read: {error}.")))
}
