//! Lists: filters, and pages with whole URLs as links.

use axum::extract::{FromRequestParts, Json};
use axum::response::{IntoResponse, Response};
use http::header;
use http::request::Parts;
use serde_json::{Map, Value, json};

use super::errors::ApiError;

const PER_PAGE: usize = 20;
const PER_PAGE_MAX: usize = 200;

/// A list request's query.
pub(super) struct Query {
    url: String,
    pairs: Vec<(String, String)>,
    page: usize,
    per_page: usize,
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let query = parts.uri.query().unwrap_or_default();
        let pairs: Vec<(String, String)> =
            url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let number = |name: &str, default: usize, most: usize| match value(&pairs, name) {
            None => Ok(default),
            Some(text) => text
                .parse()
                .ok()
                .filter(|number| (1..=most).contains(number))
                .ok_or_else(|| ApiError::bad_request(format!("{name} is not valid"))),
        };
        let page = number("page", 1, usize::MAX)?;
        let per_page = number("per_page", PER_PAGE, PER_PAGE_MAX)?;
        let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        // The routes are nested, so the path here lacks the version.
        let url = format!("http://{}/v2{}", host.unwrap_or_default(), parts.uri.path());
        Ok(Self { url, page, per_page, pairs })
    }
}

fn value<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

impl Query {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        value(&self.pairs, name)
    }

    /// Whether a field's text is the one asked for, if any.
    pub(super) fn takes(&self, parameter: &str, text: &str) -> bool {
        self.get(parameter).is_none_or(|wanted| wanted == text)
    }

    /// One page of `items`. There are no links where one page holds all.
    pub(super) fn page(&self, key: &str, items: Vec<Value>) -> Response {
        let total = items.len();
        let last = total.div_ceil(self.per_page).max(1);
        let mut pages = Map::new();
        if self.page > 1 {
            pages.insert("first".to_owned(), self.link(1));
            pages.insert("prev".to_owned(), self.link(self.page - 1));
        }
        if self.page < last {
            pages.insert("next".to_owned(), self.link(self.page + 1));
            pages.insert("last".to_owned(), self.link(last));
        }
        let links = if pages.is_empty() { json!({}) } else { json!({"pages": pages}) };
        let start = (self.page - 1).saturating_mul(self.per_page);
        let shown: Vec<Value> = items.into_iter().skip(start).take(self.per_page).collect();
        Json(json!({key: shown, "links": links, "meta": {"total": total}})).into_response()
    }

    fn link(&self, page: usize) -> Value {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        for (key, value) in self.pairs.iter().filter(|(key, _)| key != "page") {
            query.append_pair(key, value);
        }
        query.append_pair("page", &page.to_string());
        format!("{}?{}", self.url, query.finish()).into()
    }
}
