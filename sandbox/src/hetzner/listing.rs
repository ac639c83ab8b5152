//! Lists: filters, order, pages.

use axum::extract::{FromRequestParts, Json};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderValue, header};
use serde_json::{Value, json};

use super::errors::ApiError;
use super::input::Labels;
use super::selector::Selector;

const PER_PAGE: usize = 25;
const PER_PAGE_MAX: usize = 50;

/// In the extensions of a request: its path with `/v1`, for links.
#[derive(Clone)]
pub(super) struct WholePath(pub(super) String);

/// A list request's query.
pub(super) struct Query {
    origin: String,
    pairs: Vec<(String, String)>,
    page: usize,
    per_page: usize,
    selector: Selector,
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let query = parts.uri.query().unwrap_or_default();
        let pairs: Vec<(String, String)> =
            url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let number = |name: &str, default: usize| match value(&pairs, name) {
            None => Ok(default),
            Some(text) => text
                .parse()
                .ok()
                .filter(|number| *number > 0)
                .ok_or_else(|| ApiError::field(name, "must be a positive number")),
        };
        let selector = Selector::parse(value(&pairs, "label_selector").unwrap_or_default())?;
        let page = number("page", 1)?;
        let per_page = number("per_page", PER_PAGE)?.min(PER_PAGE_MAX);
        let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let whole = parts.extensions.get::<WholePath>();
        let path = whole.map_or(parts.uri.path(), |path| &path.0);
        let origin = format!("http://{}{path}", host.unwrap_or_default());
        Ok(Self { origin, page, per_page, selector, pairs })
    }
}

fn value<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

impl Query {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        value(&self.pairs, name)
    }

    /// All values of a parameter that may be repeated.
    pub(super) fn all(&self, name: &str) -> Vec<&str> {
        self.pairs.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
    }

    /// Whether a resource passes `name`, `label_selector` and `status`.
    pub(super) fn takes(&self, name: &str, labels: &Labels) -> bool {
        self.get("name").is_none_or(|wanted| wanted == name) && self.selector.matches(labels)
    }

    /// Whether a field's text is one of the values asked for, if any.
    pub(super) fn one_of(&self, parameter: &str, text: &str) -> bool {
        let wanted = self.all(parameter);
        wanted.is_empty() || wanted.contains(&text)
    }

    /// One page of `items`, in the order asked for.
    pub(super) fn page(&self, key: &str, mut items: Vec<Value>) -> Response {
        for order in self.all("sort").into_iter().rev() {
            let (field, direction) = order.split_once(':').unwrap_or((order, "asc"));
            items.sort_by(|a, b| compare(&a[field], &b[field]));
            if direction == "desc" {
                items.reverse();
            }
        }
        let total = items.len();
        let last = total.div_ceil(self.per_page).max(1);
        let next = (self.page < last).then_some(self.page + 1);
        let previous = (self.page > 1).then(|| self.page - 1);
        let start = (self.page - 1).saturating_mul(self.per_page);
        let shown: Vec<Value> = items.into_iter().skip(start).take(self.per_page).collect();
        let pagination = json!({
            "page": self.page, "per_page": self.per_page, "previous_page": previous,
            "next_page": next, "last_page": last, "total_entries": total,
        });
        let body = json!({key: shown, "meta": {"pagination": pagination}});
        let links: Vec<String> = [("prev", previous), ("next", next), ("last", Some(last))]
            .into_iter()
            .filter_map(|(rel, page)| page.map(|page| self.link(rel, page)))
            .collect();
        let mut response = Json(body).into_response();
        if let Ok(links) = HeaderValue::try_from(links.join(", ")) {
            response.headers_mut().insert(header::LINK, links);
        }
        response
    }

    fn link(&self, rel: &str, page: usize) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        for (key, value) in self.pairs.iter().filter(|(key, _)| key != "page") {
            query.append_pair(key, value);
        }
        query.append_pair("page", &page.to_string());
        format!("<{}?{}>; rel=\"{rel}\"", self.origin, query.finish())
    }
}

fn compare(a: &Value, b: &Value) -> std::cmp::Ordering {
    match (a.as_u64(), b.as_u64()) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => a.as_str().cmp(&b.as_str()),
    }
}
