//! One call as a client describes it.

use reqwest::Method;
use serde_json::Value;
use url::Url;

const BODY_MAX: usize = 32 << 20;

/// What to ask for, and what may be done with it.
pub(crate) struct Call {
    pub(super) method: Method,
    segments: Vec<String>,
    query: Vec<(&'static str, String)>,
    pub(super) body: Option<Value>,
    pub(super) repeatable: bool,
    pub(super) leaves_host: bool,
    pub(super) body_max: usize,
    pub(super) keeps_tail: bool,
    pub(super) known: Option<String>,
}

impl Call {
    fn new(method: Method, path: &str, repeatable: bool) -> Self {
        let call = Self {
            method,
            segments: Vec::new(),
            query: Vec::new(),
            body: None,
            repeatable,
            leaves_host: false,
            body_max: BODY_MAX,
            keeps_tail: false,
            known: None,
        };
        call.under(path)
    }

    /// Reads `path`.
    pub(crate) fn get(path: &str) -> Self {
        Self::new(Method::GET, path, true)
    }

    /// Makes something under `path`: sent once, since a second one might make a second thing.
    pub(crate) fn post(path: &str) -> Self {
        Self::new(Method::POST, path, false)
    }

    /// Sets what is at `path`.
    pub(crate) fn put(path: &str) -> Self {
        Self::new(Method::PUT, path, true)
    }

    /// Changes fields of what is at `path` to the values given.
    pub(crate) fn patch(path: &str) -> Self {
        Self::new(Method::PATCH, path, true)
    }

    /// Deletes what is at `path`.
    pub(crate) fn delete(path: &str) -> Self {
        Self::new(Method::DELETE, path, true)
    }

    /// One more part of the path, whatever characters it has.
    pub(crate) fn at(mut self, part: impl ToString) -> Self {
        self.segments.push(part.to_string());
        self
    }

    /// More parts of the path, parted by slashes.
    pub(crate) fn under(mut self, path: &str) -> Self {
        self.segments.extend(path.split('/').filter(|part| !part.is_empty()).map(str::to_owned));
        self
    }

    /// A parameter of the query.
    pub(crate) fn query(mut self, name: &'static str, value: impl ToString) -> Self {
        self.query.push((name, value.to_string()));
        self
    }

    /// The JSON body.
    pub(crate) fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    /// Says that sending it twice does what sending it once does.
    pub(crate) fn repeatable(mut self) -> Self {
        self.repeatable = true;
        self
    }

    /// Follows a redirect to another host, where neither our token nor our headers go.
    pub(crate) fn leaves_host(mut self) -> Self {
        self.leaves_host = true;
        self
    }

    /// Asks for an answer only if it is another than the known one with this ETag: else the status
    /// is 304, the body is empty, and GitHub counts nothing.
    pub(crate) fn unless(mut self, etag: Option<String>) -> Self {
        self.known = etag;
        self
    }

    /// Keeps the last `bytes` of a longer body, instead of refusing it.
    pub(crate) fn keep_tail(mut self, bytes: usize) -> Self {
        self.keeps_tail = true;
        self.body_max = bytes;
        self
    }

    /// Refuses a body of more than `bytes`.
    pub(crate) fn at_most(mut self, bytes: usize) -> Self {
        self.body_max = bytes;
        self
    }

    /// How it is sent.
    pub(crate) fn method(&self) -> &Method {
        &self.method
    }

    /// The parts of its path.
    pub(crate) fn path(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().map(String::as_str)
    }

    /// The path and query that it asks for, as a name of the answer.
    pub(crate) fn name(&self) -> String {
        format!("{:?}?{:?}", self.segments, self.query)
    }

    /// The call's URL: every part is encoded, so none can leave its place.
    pub(super) fn url(&self, base: &Url) -> Url {
        let mut url = base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(&self.segments);
        }
        if !self.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.query);
        }
        url
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_path_stays_in_its_place() {
        let base: Url = "http://127.0.0.1:1/v1/".parse().expect("a URL");
        let call = Call::get("repos").at("a/b?c#d%2f").under("git/ref").query("ref", "a&b=c");
        assert_eq!(
            call.url(&base).as_str(),
            "http://127.0.0.1:1/v1/repos/a%2Fb%3Fc%23d%252f/git/ref?ref=a%26b%3Dc"
        );
    }
}
