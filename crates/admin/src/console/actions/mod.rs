//! What people have done, without how they ask for it: pages and the JSON API call the same functions.
//! Must not know forms, pages or JSON.

pub(super) mod settings;
