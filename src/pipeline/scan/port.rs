//! On which port and address the app listens, where that is not left to `PORT`.

use std::sync::LazyLock;

use regex::Regex;

use super::{Build, Evidence, files};

/// What code or a command says: an address, a port, or that nothing was said and so the tool's
/// own address and port hold.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    port: Option<u16>,
    loopback: bool,
}

/// Listening calls with a literal. `h` is the host, `p` the port.
static LITERALS: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    [
        // Node.js
        r#"\.listen\(\s*(?P<p>\d{2,5})\b(?:\s*,\s*["'`](?P<h>[\w.:-]*)["'`])?"#,
        r#"\.listen\([^()]{0,60}(?:\([^()]*\))?[^()]{0,60},\s*["'`](?P<h>127\.0\.0\.1|localhost)["'`]"#,
        r#"\.listen\(\s*\{[^}]*\bhost:\s*["'`](?P<h>127\.0\.0\.1|localhost)["'`]"#,
        // Go
        r#"(?:ListenAndServe(?:TLS)?|\.Run|\.Start|\.Listen)\(\s*"(?P<h>[\w.]*):(?P<p>\d{2,5})""#,
        r#"\bAddr:\s*"(?P<h>[\w.]*):(?P<p>\d{2,5})""#,
        // Rust
        r#"\bbind\(\s*&?"(?P<h>[\w.]*):(?P<p>\d{2,5})""#,
        r#"\bbind\(\(\s*"(?P<h>[\w.]*)"\s*,\s*(?P<p>\d{2,5})\s*\)"#,
        // Java and Kotlin
        r#"embeddedServer\([^)]*\bport\s*=\s*(?P<p>\d{2,5})\b"#,
        // .NET
        r#"(?:UseUrls|app\.Run)\(\s*"http://(?P<h>[\w.*+]*):(?P<p>\d{2,5})""#,
        // Ruby
        r#"\bset\s+:port,\s*(?P<p>\d{2,5})\b"#,
    ]
    .iter()
    .map(|pattern| Regex::new(pattern).expect("a fixed pattern"))
    .collect()
});

/// An option of a command line with its value.
static OPTION: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?:^|\s)(--?[a-zA-Z][\w.-]*)(?:=|\s+)?(\S+)?").expect("a fixed pattern")
});

static SPRING: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?m)^\s*(?:server\.)?port\s*[=:]\s*(\d{2,5})\s*$").expect("a fixed pattern")
});

pub(super) fn look(evidence: &mut Evidence<'_>) {
    if evidence.is_worker_only() || evidence.scan.build.is_none() {
        return;
    }
    let dockerfile = matches!(evidence.scan.build, Some(Build::Dockerfile { .. }));
    let by_command = if dockerfile { None } else { command(evidence) };
    let (said, file) = match by_command {
        Some(found) => found,
        None => match code(evidence) {
            Some(found) => found,
            None => return,
        },
    };
    let known = evidence.scan.findings.iter().any(|finding| finding.what == "port");
    if let Some(port) = said.port
        && !known
        && port != 0
    {
        evidence.scan.port = port;
        evidence.found("port", port.to_string(), &file);
        if !dockerfile {
            let text = format!("the app listens on {port} whatever PORT says");
            evidence.note("hard_coded_port", text, "reading PORT is better", file.as_str());
        }
    }
    if said.loopback {
        let text = "the app listens on 127.0.0.1, where nothing outside its container reaches it";
        let fix = "listen on 0.0.0.0, at the port that PORT names";
        evidence.block("binds_loopback", text, fix, file.as_str());
    }
}

/// What the web process's own line says.
fn command(evidence: &Evidence<'_>) -> Option<(Said, String)> {
    let web = evidence.scan.processes.iter().find(|process| process.name == "web")?;
    let from = evidence
        .scan
        .findings
        .iter()
        .find(|finding| finding.what == "process" && finding.value.starts_with("web: "));
    let file = from.and_then(|finding| finding.from_file.clone())?;
    let file = files::below(evidence.root, &file)?.to_owned();
    Some((tool(&web.command)?, file))
}

/// Servers by their defaults: where they listen if their line says nothing, and whether they
/// heed PORT by themselves.
fn tool(command: &str) -> Option<Said> {
    const TOOLS: &[(&str, u16, bool)] = &[
        ("uvicorn", 8000, true),
        ("hypercorn", 8000, true),
        ("daphne", 8000, true),
        ("flask run", 5000, true),
        ("manage.py runserver", 8000, true),
        ("fastapi dev", 8000, true),
        ("fastapi run", 8000, false),
        ("streamlit run", 8501, false),
        ("vite preview", 4173, true),
        ("astro preview", 4321, true),
        ("artisan serve", 8000, true),
        ("gunicorn", 0, false),
        ("next start", 0, false),
        ("puma", 0, false),
        ("rails server", 0, false),
        ("rails s", 0, false),
        ("rackup", 0, false),
        ("serve ", 0, false),
    ];
    let words = command.split_whitespace().collect::<Vec<_>>().join(" ");
    // `gunicorn -k uvicorn.workers...` is gunicorn.
    let gunicorn = words.contains("gunicorn");
    let (name, port, loopback) = TOOLS
        .iter()
        .find(|(name, ..)| words.contains(name) && (!gunicorn || *name == "gunicorn"))?;
    let mut said = Said { port: Some(*port).filter(|port| *port != 0), loopback: *loopback };
    for hit in OPTION.captures_iter(&words) {
        let value = hit.get(2).map_or("", |value| value.as_str()).trim_matches(['"', '\'']);
        let puma = *name == "puma" || name.starts_with("rails") || *name == "rackup";
        match &hit[1] {
            "--host" | "--hostname" | "-H" | "--address" | "--server.address" => {
                said.loopback = is_loopback(value);
            }
            "-a" | "-o" if *name != "gunicorn" => said.loopback = is_loopback(value),
            "-b" | "--bind" | "--binding" => {
                let (host, port) = value.rsplit_once(':').unwrap_or((value, ""));
                let host = host.rsplit("//").next().unwrap_or(host);
                said.loopback = is_loopback(host);
                said.port = number(port).or(if *name == "gunicorn" { None } else { said.port });
                if port.contains('$') {
                    said.port = None;
                }
            }
            "-p" | "--port" | "--server.port" if value.contains('$') => said.port = None,
            "-p" | "--port" | "--server.port" => said.port = number(value).or(said.port),
            "-C" | "-c" if puma => {}
            _ => {}
        }
    }
    // `runserver 0.0.0.0:$PORT` has no option.
    if *name == "manage.py runserver"
        && let Some(at) = words.split("runserver").nth(1).map(str::trim)
        && let Some((host, port)) = at.split_once(':')
    {
        said = Said { port: number(port), loopback: is_loopback(host) };
    }
    Some(said)
}

fn is_loopback(host: &str) -> bool {
    matches!(host.trim_matches(['"', '\'']), "127.0.0.1" | "localhost" | "::1" | "[::1]")
}

fn number(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port != 0)
}

/// What the code says that begins to listen.
fn code(evidence: &Evidence<'_>) -> Option<(Said, String)> {
    let config = "src/main/resources/application.properties";
    for file in
        [config, "src/main/resources/application.yml", "src/main/resources/application.yaml"]
    {
        let hit = evidence.text(file).and_then(|text| SPRING.captures(text));
        if let Some(port) = hit.and_then(|hit| number(&hit[1])) {
            return Some((Said { port: Some(port), loopback: false }, file.to_owned()));
        }
    }
    evidence.code.iter().filter(|(file, _)| !files::is_aside(file)).find_map(|(file, text)| {
        let said = literal(text).or_else(|| fastify(evidence, text))?;
        Some((said, (*file).to_owned()))
    })
}

fn literal(text: &str) -> Option<Said> {
    let hit = LITERALS.iter().find_map(|pattern| pattern.captures(text))?;
    let port = hit.name("p").and_then(|port| number(port.as_str()));
    let loopback = hit.name("h").is_some_and(|host| is_loopback(host.as_str()));
    // The literal is what holds where PORT is not set.
    let heeds = ["env.PORT", "env[\"PORT\"]", "env['PORT']", "Getenv(\"PORT\")", "var(\"PORT\")"];
    if heeds.iter().any(|read| text.contains(read)) {
        return loopback.then_some(Said { port: None, loopback });
    }
    Some(Said { port, loopback })
}

/// Fastify listens on 127.0.0.1 unless it is told otherwise.
fn fastify(evidence: &Evidence<'_>, text: &str) -> Option<Said> {
    let bare = evidence.framework == Some("Fastify")
        && text.contains(".listen({")
        && !text.contains("host");
    bare.then_some(Said { port: None, loopback: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_own_line_says_where_it_listens() {
        let cases = [
            ("uvicorn main:app", Some((Some(8000), true))),
            ("uvicorn main:app --host 0.0.0.0 --port $PORT", Some((None, false))),
            ("uvicorn main:app --host=0.0.0.0 --port=9000", Some((Some(9000), false))),
            ("gunicorn shop.wsgi", Some((None, false))),
            ("gunicorn shop.wsgi --bind 0.0.0.0:$PORT", Some((None, false))),
            (
                "gunicorn -k uvicorn.workers.UvicornWorker app:app -b :8000",
                Some((Some(8000), false)),
            ),
            ("gunicorn app:app -b 127.0.0.1:8000", Some((Some(8000), true))),
            ("python manage.py runserver", Some((Some(8000), true))),
            ("python manage.py runserver 0.0.0.0:$PORT", Some((None, false))),
            ("next start -p 4000", Some((Some(4000), false))),
            ("bundle exec puma -C config/puma.rb", Some((None, false))),
            ("node server.js", None),
        ];
        for (line, wanted) in cases {
            let said = tool(line).map(|said| (said.port, said.loopback));
            assert_eq!(said, wanted, "{line}");
        }
    }

    #[test]
    fn a_literal_in_code_is_found() {
        let cases = [
            ("app.listen(4000)", Some((Some(4000), false))),
            ("app.listen(4000, '127.0.0.1')", Some((Some(4000), true))),
            ("app.listen(process.env.PORT || 3000)", None),
            ("app.listen(process.env.PORT || 3000, 'localhost')", Some((None, true))),
            ("http.ListenAndServe(\":8081\", mux)", Some((Some(8081), false))),
            ("r.Run(\"localhost:8081\")", Some((Some(8081), true))),
            ("TcpListener::bind(\"127.0.0.1:3000\")", Some((Some(3000), true))),
            ("HttpServer::new(f).bind((\"0.0.0.0\", 9000))?", Some((Some(9000), false))),
            ("app.Run(\"http://localhost:5005\")", Some((Some(5005), true))),
        ];
        for (text, wanted) in cases {
            let said = literal(text).map(|said| (said.port, said.loopback));
            assert_eq!(said, wanted, "{text}");
        }
    }
}
