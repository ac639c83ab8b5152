//! Answers in GitHub's shapes: errors with their `message`, `errors` and `documentation_url`, JSON
//! bodies, pages with `Link` headers.

use axum::body::Bytes;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

/// A request that GitHub would refuse.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    status: StatusCode,
    message: String,
    errors: Option<Box<Value>>,
    permissions: Option<String>,
    retry_after: Option<u64>,
}

/// What a handler answers.
pub(crate) type Answer = Result<Response, Refusal>;

impl Refusal {
    /// Any status with a plain message.
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), errors: None, permissions: None, retry_after: None }
    }

    /// 404, which also hides what the token may not see.
    pub(crate) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "Not Found")
    }

    /// 422 with a plain message, as the git endpoints answer.
    pub(crate) fn unprocessable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, message)
    }

    /// 409.
    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }

    /// 422 `Validation Failed` about one field; `code` as in GitHub's list of codes.
    pub(crate) fn field(resource: &str, field: &str, code: &str) -> Self {
        let errors = json!([{ "resource": resource, "field": field, "code": code }]);
        Self { errors: Some(Box::new(errors)), ..Self::unprocessable("Validation Failed") }
    }

    /// 422 `Validation Failed` of the custom kind, with a sentence.
    pub(crate) fn custom(resource: &str, message: &str) -> Self {
        let errors = json!([{ "resource": resource, "code": "custom", "message": message }]);
        Self { errors: Some(Box::new(errors)), ..Self::unprocessable("Validation Failed") }
    }

    /// 403 that names the missing permission, as `contents=write`.
    pub(crate) fn permission(needed: impl Into<String>) -> Self {
        let refusal =
            Self::new(StatusCode::FORBIDDEN, "Resource not accessible by personal access token");
        Self { permissions: Some(needed.into()), ..refusal }
    }
}

impl Refusal {
    /// 403 with a hint how long to wait, though calls remain.
    pub(crate) fn secondary_limit(seconds: u64) -> Self {
        let message = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.";
        Self { retry_after: Some(seconds), ..Self::new(StatusCode::FORBIDDEN, message) }
    }

    /// 403 as an App gets it, naming the missing permission.
    pub(crate) fn integration(needed: impl Into<String>) -> Self {
        let refusal = Self::new(StatusCode::FORBIDDEN, "Resource not accessible by integration");
        Self { permissions: Some(needed.into()), ..refusal }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut body = Map::new();
        body.insert("message".into(), self.message.into());
        if let Some(errors) = self.errors {
            body.insert("errors".into(), *errors);
        }
        body.insert("documentation_url".into(), "https://docs.github.com/rest".into());
        body.insert("status".into(), self.status.as_u16().to_string().into());
        let mut response = json_answer(self.status, &Value::Object(body));
        if let Some(value) = self.permissions.and_then(|text| HeaderValue::from_str(&text).ok()) {
            let name = HeaderName::from_static("x-accepted-github-permissions");
            response.headers_mut().insert(name, value);
        }
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(http::header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// A JSON body with GitHub's content type.
pub(crate) fn json_answer(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json; charset=utf-8")], body.to_string())
        .into_response()
}

/// 200 with a body.
pub(crate) fn ok(body: &Value) -> Answer {
    Ok(json_answer(StatusCode::OK, body))
}

/// 201 with a body.
pub(crate) fn created(body: &Value) -> Answer {
    Ok(json_answer(StatusCode::CREATED, body))
}

/// 204 without one.
pub(crate) fn no_content() -> Answer {
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Reads a JSON object, or refuses as GitHub does.
pub(crate) fn object(bytes: &Bytes) -> Result<Value, Refusal> {
    if bytes.is_empty() {
        return Ok(json!({}));
    }
    match serde_json::from_slice(bytes) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(Refusal::new(StatusCode::BAD_REQUEST, "Body should be a JSON object")),
        Err(_) => Err(Refusal::new(StatusCode::BAD_REQUEST, "Problems parsing JSON")),
    }
}

/// A text field that must be there.
pub(crate) fn required<'a>(
    body: &'a Value,
    resource: &str,
    field: &str,
) -> Result<&'a str, Refusal> {
    match body.get(field) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        None | Some(Value::Null) => Err(Refusal::field(resource, field, "missing_field")),
        Some(_) => Err(Refusal::field(resource, field, "invalid")),
    }
}

/// The part of a list that `page` and `per_page` ask for, and the `Link` header that goes with it.
pub(crate) struct Page {
    /// The items of this page.
    pub(crate) items: Vec<Value>,
    /// How many there are in all.
    pub(crate) total: usize,
    link: Option<String>,
}

impl Page {
    /// Cuts `all` by the request's query; `url` is the list's own address without a query.
    pub(crate) fn cut(all: Vec<Value>, query: &Query, url: &str) -> Self {
        let per_page = query.number("per_page").unwrap_or(30).clamp(1, 100);
        let page = query.number("page").unwrap_or(1).max(1);
        let total = all.len();
        let start = (page - 1).saturating_mul(per_page);
        let items: Vec<Value> = all.into_iter().skip(start).take(per_page).collect();
        let last = total.div_ceil(per_page).max(1);
        let at = |page: usize, rel: &str| {
            format!("<{url}?{}page={page}&per_page={per_page}>; rel=\"{rel}\"", query.others())
        };
        let mut links = Vec::new();
        if page > 1 {
            links.push(at(page - 1, "prev"));
            links.push(at(1, "first"));
        }
        if page < last {
            links.push(at(page + 1, "next"));
            links.push(at(last, "last"));
        }
        Self { items, total, link: (!links.is_empty()).then(|| links.join(", ")) }
    }

    /// 200 with the items alone.
    pub(crate) fn answer(self) -> Answer {
        let body = Value::Array(self.items.clone());
        self.linked(&body)
    }

    /// 200 with `total_count` and the items under `name`.
    pub(crate) fn counted(self, name: &str) -> Answer {
        let body = json!({ "total_count": self.total, name: self.items.clone() });
        self.linked(&body)
    }

    fn linked(self, body: &Value) -> Answer {
        let mut response = json_answer(StatusCode::OK, body);
        if let Some(link) = self.link.and_then(|text| HeaderValue::from_str(&text).ok()) {
            response.headers_mut().insert(header::LINK, link);
        }
        Ok(response)
    }
}

/// The query of a request, decoded.
#[derive(Debug, Default, Clone)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads what stands behind the question mark.
    pub(crate) fn parse(text: Option<&str>) -> Self {
        Self(
            url::form_urlencoded::parse(text.unwrap_or_default().as_bytes()).into_owned().collect(),
        )
    }

    /// A parameter's value, if it is there and not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, value)| key == name && !value.is_empty());
        found.map(|(_, value)| value.as_str())
    }

    fn number(&self, name: &str) -> Option<usize> {
        self.get(name)?.parse().ok()
    }

    fn others(&self) -> String {
        let mut text = url::form_urlencoded::Serializer::new(String::new());
        let others = self.0.iter().filter(|(key, _)| key != "page" && key != "per_page");
        for (key, value) in others {
            text.append_pair(key, value);
        }
        let text = text.finish();
        if text.is_empty() { text } else { format!("{text}&") }
    }
}
