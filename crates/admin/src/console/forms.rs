//! Forms that change something: read, and held to session, role and token before a page acts on them.
//! Must not know what the forms are for.

use std::sync::Arc;

use axum::extract::{FromRequest, RawForm, Request};
use serde::Deserialize;
use serde::de::DeserializeOwned;

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

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    form_token: String,
}

impl<T: DeserializeOwned> FromRequest<Arc<Shared>> for Change<T> {
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
        if !visitor.is_operator() {
            return Err(PageError::Forbidden(
                "Viewers look and do not change. Ask an operator to do it.".to_owned(),
            ));
        }
        Ok(Self { visitor, form: read(&body)? })
    }
}

/// Fields that come more than once are for a form that is a list of names and values.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, PageError> {
    serde_urlencoded::from_bytes(body)
        .map_err(|error| PageError::Invalid(format!("The form cannot be read: {error}.")))
}
