//! The sample repo (`octo/shop`): a small app with a Dockerfile, as its owner would have it.

use crate::github::git::{FileContent, Files};

/// The sample repo's owner.
pub const OWNER: &str = "octo";
/// The sample repo's name.
pub const NAME: &str = "shop";

const DOCKERFILE: &str = r#"# The sample app needs nothing but its own program.
FROM scratch
WORKDIR /app
COPY . .
EXPOSE 8080
CMD ["vmkit", "sample-app"]
"#;

const README: &str = r#"# shop

A small web app that listens on `$PORT`.

- `GET /` shows the text of `sample.toml`, the version and `$GREETING`.
- `GET /up` answers 200 when the app is well.

Set `GREETING` and, if you like, `LOG_LEVEL=debug` (the log then says how long each request took; see `.env.example`).
"#;

const ENV_EXAMPLE: &str =
    "# Shown on the front page\nGREETING=Hello\n# info or debug\nLOG_LEVEL=info\n";

/// The commit's files.
pub fn files() -> Files {
    let plain = |text: &str| FileContent::plain(text.as_bytes());
    Files::from([
        (".dockerignore".to_owned(), plain(".git\n.env\n")),
        (".env.example".to_owned(), plain(ENV_EXAMPLE)),
        (".gitignore".to_owned(), plain(".env\n")),
        ("Dockerfile".to_owned(), plain(DOCKERFILE)),
        ("README.md".to_owned(), plain(README)),
        ("sample.toml".to_owned(), plain(&sample_toml("Welcome to the shop", None))),
    ])
}

/// A `sample.toml` with this text, and with a fault (`crash`, `unhealthy` or `fragile`) for a broken version.
pub fn sample_toml(text: &str, fault: Option<&str>) -> String {
    let fault = fault.map(|fault| format!("fault = \"{fault}\"\n")).unwrap_or_default();
    let text = text.replace(['"', '\\', '\n'], " ");
    format!(
        "# What this version shows, and how it behaves.\ntext = \"{text}\"\nhealth_path = \"/up\"\n{fault}"
    )
}
