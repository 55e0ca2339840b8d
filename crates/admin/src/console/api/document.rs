//! Operations of the API: each is a route and an entry of the OpenAPI document at once, so that neither can be without
//! the other; and the failures that every operation may answer with.
//! Must not know what the operations do.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodFilter, on};
use utoipa::__dev::SchemaReferences;
use utoipa::openapi::path::{HttpMethod, Operation, Paths};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, Content, HeaderBuilder, InfoBuilder, ObjectBuilder, OpenApi, OpenApiBuilder, Ref,
    RefOr, Response, ResponseBuilder, Schema, Type,
};
use utoipa::{Path, ToSchema};

use super::problem::{CONTENT, FieldError, Kind, Problem};
use super::{PREFIX, words};
use crate::console::shared::Shared;

/// The scheme of the tokens, by its name in the document.
const TOKEN: &str = "token";

const ABOUT: &str = "Everything that the command line and the console's pages can do: read the log, block and allow, \
                     judge findings, change settings, run tasks. Every operation but this document needs a token of \
                     the console (Authorization: Bearer TOKEN); those that change something need one with the scope \
                     \"write\". Lists come in pages: pass `next` of an answer as `cursor`. Failures are problem \
                     documents (RFC 9457). Fields may be added to answers at any time; none is taken away or changes its \
                     meaning within /api/v1.";

/// The API while it is put together.
#[derive(Default)]
pub(super) struct Api {
    routes: Router<Arc<Shared>>,
    paths: Paths,
    schemas: BTreeMap<String, RefOr<Schema>>,
}

impl Api {
    /// Adds an operation. Utoipa makes `__path_NAME` for a handler with its attribute.
    pub(super) fn add<P, H, T>(mut self, _: P, handler: H) -> Self
    where
        P: Path + SchemaReferences,
        H: Handler<T, Arc<Shared>>,
        T: 'static,
    {
        let path = format!("{PREFIX}{}", P::path());
        let mut references = Vec::new();
        P::schemas(&mut references);
        self.schemas.extend(references);
        for method in P::methods() {
            self.routes = self.routes.route(&path, on(filter(&method), handler.clone()));
            self.paths.add_path_operation(&path, vec![method], complete(P::operation(), &path));
        }
        self
    }

    pub(super) fn finish(self) -> (Router<Arc<Shared>>, OpenApi) {
        let Self { routes, paths, schemas } = self;
        let mut components = ComponentsBuilder::new()
            .schemas_from_iter(schemas)
            .schema_from::<Problem>()
            .schema_from::<FieldError>()
            .security_scheme(
                TOKEN,
                SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build()),
            );
        components =
            words::all().into_iter().fold(components, |all, (name, schema)| all.schema(name, schema));
        components =
            Kind::ALL.into_iter().fold(components, |all, kind| all.response(kind.as_str(), failure(kind)));
        let document = OpenApiBuilder::new()
            .info(InfoBuilder::new().title("Portcullis").version("1").description(Some(ABOUT)).build())
            .paths(paths)
            .components(Some(components.build()))
            .security(Some([SecurityRequirement::new(TOKEN, Vec::<String>::new())]))
            .build();
        (routes, document)
    }
}

fn filter(method: &HttpMethod) -> MethodFilter {
    match method {
        HttpMethod::Get => MethodFilter::GET,
        HttpMethod::Put => MethodFilter::PUT,
        HttpMethod::Post => MethodFilter::POST,
        HttpMethod::Delete => MethodFilter::DELETE,
        HttpMethod::Options => MethodFilter::OPTIONS,
        HttpMethod::Head => MethodFilter::HEAD,
        HttpMethod::Patch => MethodFilter::PATCH,
        HttpMethod::Trace => MethodFilter::TRACE,
    }
}

/// What every operation has, however short its attribute: a name of its own, words for its answers, its failures.
fn complete(mut operation: Operation, path: &str) -> Operation {
    let resource = path[PREFIX.len()..].split('/').nth(1).unwrap_or_default().replace(['-', '.'], "_");
    let name = operation.operation_id.take().unwrap_or_default();
    operation.operation_id = Some(format!("{resource}_{name}"));
    let about = operation.summary.clone().unwrap_or_default();
    for response in operation.responses.responses.values_mut() {
        if let RefOr::T(response) = response
            && response.description.is_empty()
        {
            response.description.clone_from(&about);
        }
    }
    with_failures(operation, path)
}

/// The failures that follow from what the operation takes; those of its own stay.
fn with_failures(mut operation: Operation, path: &str) -> Operation {
    let is_open = operation.security.is_some();
    let mut kinds = vec![Kind::Forbidden, Kind::Misdirected];
    if !is_open {
        kinds.extend([Kind::Unauthorized, Kind::TooManyAttempts, Kind::Busy, Kind::Internal]);
    }
    if path.contains('{') {
        kinds.push(Kind::NotFound);
    }
    if operation.parameters.as_ref().is_some_and(|parameters| !parameters.is_empty()) {
        kinds.push(Kind::Invalid);
    }
    if operation.request_body.is_some() {
        kinds.extend([Kind::BadRequest, Kind::TooLarge, Kind::UnsupportedMediaType, Kind::Invalid]);
    }
    for kind in kinds {
        let status = kind.status().as_str().to_owned();
        let reference = RefOr::Ref(Ref::from_response_name(kind.as_str()));
        operation.responses.responses.entry(status).or_insert(reference);
    }
    operation
}

fn failure(kind: Kind) -> Response {
    let schema = Ref::from_schema_name(Problem::name());
    let response =
        ResponseBuilder::new().description(kind.about()).content(CONTENT, Content::new(Some(schema)));
    let header = |about: &str, type_: Type| {
        HeaderBuilder::new()
            .schema(Some(ObjectBuilder::new().schema_type(type_)))
            .description(Some(about))
            .build()
    };
    match kind {
        Kind::Unauthorized => response.header("WWW-Authenticate", header("Bearer", Type::String)),
        Kind::Busy | Kind::TooManyAttempts => {
            response.header("Retry-After", header("Seconds to wait", Type::Integer))
        }
        Kind::MethodNotAllowed => {
            response.header("Allow", header("The methods that there are", Type::String))
        }
        _ => response,
    }
    .build()
}
