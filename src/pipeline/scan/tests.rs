//! Small repos in the shape of real ones, and what is concluded of them.

use super::*;

fn scanned(files: &[(&str, &str)], root: &str) -> Scan {
    let tree: Vec<Entry> = files
        .iter()
        .map(|(path, text)| Entry { path: (*path).to_owned(), size: Some(text.len() as u64) })
        .collect();
    let wanted = wanted_files(&tree, root);
    // Only what was asked for is given, as from GitHub.
    let read = files
        .iter()
        .filter(|(path, _)| wanted.iter().any(|wanted| wanted == path))
        .map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec()))
        .collect();
    scan(&tree, &read, root)
}

fn codes(scan: &Scan) -> Vec<&str> {
    scan.blocking().map(|check| check.code.as_str()).collect()
}

fn names(keys: &[EnvKey]) -> Vec<&str> {
    keys.iter().map(EnvKey::as_str).collect()
}

const EXPRESS: &[(&str, &str)] = &[
    (
        "package.json",
        r#"{"name":"shop","scripts":{"start":"node server.js","test":"jest"},
            "dependencies":{"express":"^5","pg":"^8"},"devDependencies":{"sqlite3":"^5","vite":"^6"}}"#,
    ),
    ("package-lock.json", "{}"),
    (
        "server.js",
        "app.get('/healthz', ok); const k = process.env.STRIPE_KEY; app.listen(process.env.PORT || 3000)",
    ),
    (
        ".env.example",
        "# comment\nDATABASE_URL=postgres://localhost\nexport LOG_LEVEL=info\nPORT=3000\n",
    ),
    ("Procfile", "web: node server.js\nworker: node worker.js\nrelease: npm run migrate\n"),
    ("examples/Dockerfile", "FROM scratch"),
    ("README.md", "# shop\n`GET /ping` is what it was called once"),
];

#[test]
fn an_express_app_is_read_whole() {
    let scan = scanned(EXPRESS, ".");
    assert_eq!(scan.stack, "Node.js (Express)");
    assert_eq!(scan.build, Some(Build::Buildpacks { language: Language::Node }));
    assert_eq!((scan.port, scan.health_path.as_str()), (8080, "/healthz"));
    let processes: Vec<&str> = scan.processes.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(processes, ["web", "worker"]);
    assert_eq!(names(&scan.env_keys.runtime), ["DATABASE_URL", "LOG_LEVEL", "STRIPE_KEY"]);
    assert_eq!(scan.services, ["postgres"]);
    assert_eq!(scan.package_manager.as_deref(), Some("npm"));
    // SQLite is a development dependency only: not state on disk.
    assert!(codes(&scan).is_empty(), "{:?}", scan.checklist);
    assert!(scan.checklist.iter().any(|check| check.code == "release_command"));
    let port = scan.findings.iter().find(|finding| finding.what == "health_path");
    assert_eq!(port.and_then(|finding| finding.from_file.as_deref()), Some("server.js"));
}

#[test]
fn the_same_app_is_found_in_a_folder_of_a_monorepo() {
    let moved: Vec<(String, &str)> =
        EXPRESS.iter().map(|(path, text)| (format!("apps/shop/{path}"), *text)).collect();
    let moved: Vec<(&str, &str)> =
        moved.iter().map(|(path, text)| (path.as_str(), *text)).collect();
    let scan = scanned(&moved, "apps/shop");
    assert_eq!(scan.stack, "Node.js (Express)");
    assert!(codes(&scan).is_empty());
    let file =
        scan.findings.iter().find(|f| f.what == "framework").and_then(|f| f.from_file.as_deref());
    assert_eq!(file, Some("apps/shop/package.json"));
    let top = scanned(&moved, ".");
    assert_eq!(codes(&top), ["no_app_found"]);
    assert!(top.checklist[0].text.contains("`apps/shop`"), "{}", top.checklist[0].text);
    assert_eq!(codes(&scanned(&moved, "apps/none")), ["nothing_there"]);
}

#[test]
fn a_dockerfile_is_the_repos_own_word() {
    let dockerfile = "FROM node:22 AS build\nEXPOSE 9999\nRUN npm ci \\\n  && npm run build\nFROM node:22-slim\n\
        ENV NODE_ENV=production\nEXPOSE 3000/tcp\nUSER node\n\
        HEALTHCHECK --interval=5s CMD curl -fsS http://localhost:3000/api/health || exit 1\nCMD [\"node\", \"server.js\"]\n";
    let scan = scanned(
        &[
            ("Dockerfile", dockerfile),
            EXPRESS[0],
            ("compose.yml", "services:\n  cache:\n    image: redis:7\n"),
        ],
        ".",
    );
    assert_eq!(scan.stack, "Dockerfile");
    assert_eq!(scan.build, Some(Build::Dockerfile { path: "Dockerfile".to_owned() }));
    assert_eq!((scan.port, scan.health_path.as_str()), (3000, "/api/health"));
    assert_eq!(scan.services, ["postgres", "redis"]);
    assert!(scan.checklist.iter().all(|check| !check.blocking && check.code != "runs_as_root"));
}

#[test]
fn the_sample_app_of_the_demo_can_be_deployed_at_once() {
    let scan = scanned(
        &[
            ("Dockerfile", "FROM scratch\nEXPOSE 8080\nCMD [\"vmkit\", \"sample-app\"]\n"),
            (".env.example", "GREETING=hello\nLOG_LEVEL=info\n"),
            ("README.md", "# Shop\n- `GET /update` is another page.\n- `GET /up` answers 200.\n"),
            ("sample.toml", "text = \"Hello\"\nhealth_path = \"/up\"\n"),
        ],
        ".",
    );
    assert!(codes(&scan).is_empty(), "{:?}", scan.checklist);
    assert_eq!((scan.port, scan.health_path.as_str()), (8080, "/up"));
    assert_eq!(names(&scan.env_keys.runtime), ["GREETING", "LOG_LEVEL"]);
}

#[test]
fn python_apps_are_told_apart_and_need_a_start() {
    let django = [
        ("requirements.txt", "Django>=5,<6  # web\npsycopg2-binary==2.9\n-r other.txt\ngunicorn\n"),
        ("manage.py", "os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'shop.settings')"),
        ("shop/settings.py", "SECRET_KEY = os.environ['SECRET_KEY']\nDEBUG = os.getenv('DEBUG')\n"),
        (
            "package.json",
            r#"{"scripts":{"build":"vite build","start":"vite"},"devDependencies":{"vite":"6"}}"#,
        ),
        ("Procfile", "web: gunicorn shop.wsgi --bind 0.0.0.0:$PORT\n"),
    ];
    let scan = scanned(&django, ".");
    assert_eq!(scan.stack, "Python (Django)");
    assert_eq!(scan.build, Some(Build::Buildpacks { language: Language::Python }));
    assert_eq!(scan.services, ["postgres"]);
    assert_eq!(names(&scan.env_keys.runtime), ["SECRET_KEY"]);
    assert!(codes(&scan).is_empty(), "{:?}", scan.checklist);

    let project = "[project]\nname = \"api\"\ndependencies = [\"fastapi[standard]>=0.110\", \"redis\", \"aiosqlite\"]\n";
    let scan = scanned(
        &[("pyproject.toml", project), ("uv.lock", ""), ("main.py", "@app.get(\"/health\")")],
        ".",
    );
    assert_eq!(scan.stack, "Python (FastAPI)");
    assert_eq!(scan.package_manager.as_deref(), Some("uv"));
    assert_eq!(scan.health_path, "/health");
    assert_eq!(scan.services, ["redis"]);
    assert_eq!(codes(&scan), ["no_start_command", "state_on_disk"]);
    assert!(scan.checklist[0].text.contains("uvicorn main:app"), "{}", scan.checklist[0].text);

    let poetry = "[tool.poetry.dependencies]\npython = \"^3.12\"\nFlask = \"^3\"\n";
    let scan = scanned(&[("pyproject.toml", poetry), ("poetry.lock", "")], ".");
    assert_eq!(scan.stack, "Python (Flask)");
}

#[test]
fn what_cannot_be_deployed_says_why() {
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[], "nothing_there"),
        (&[("README.md", "")], "no_app_found"),
        (&[("Gemfile", ""), ("config.ru", "")], "unsupported_stack"),
        (&[("go.mod", ""), ("main.go", "")], "unsupported_stack"),
        (&[("src/Shop.csproj", ""), ("Program.cs", "")], "unsupported_stack"),
        (&[("index.html", ""), ("style.css", "")], "static_site"),
        (
            &[(
                "package.json",
                r#"{"scripts":{"dev":"vite","build":"vite build"},"devDependencies":{"vite":"6"}}"#,
            )],
            "static_site",
        ),
        (&[("package.json", "{not json"), ("server.js", "")], "broken_manifest"),
        (
            &[("package.json", r#"{"dependencies":{"express":"5"}}"#), ("yarn.lock", "")],
            "no_start_command",
        ),
        (
            &[("package.json", r#"{"scripts":{"start":"x"}}"#), ("pnpm-lock.yaml", "")],
            "package_manager",
        ),
        (
            &[
                (
                    "package.json",
                    r#"{"scripts":{"start":"x"},"dependencies":{"better-sqlite3":"11"}}"#,
                ),
                ("yarn.lock", ""),
            ],
            "state_on_disk",
        ),
        (
            &[
                ("package.json", r#"{"scripts":{"start":"x"}}"#),
                ("yarn.lock", ""),
                ("prisma/schema.prisma", "datasource db {\n  provider = \"sqlite\"\n}"),
            ],
            "state_on_disk",
        ),
        (&[("Dockerfile", "FROM scratch\nCOPY a /a\n")], "no_start_command"),
    ];
    for (files, code) in cases {
        let scan = scanned(files, ".");
        assert_eq!(codes(&scan), [*code], "{files:?}");
        assert!(!scan.checklist[0].text.ends_with('.'));
    }
}

#[test]
fn small_things_are_told_and_block_nothing() {
    let scan = scanned(
        &[
            (
                "package.json",
                r#"{"scripts":{"start":"next start"},"dependencies":{"next":"15"},"packageManager":"yarn@4"}"#,
            ),
            ("yarn.lock", ""),
            ("pnpm-lock.yaml", ""),
            ("server.js", "http.createServer(f).listen(4000); fetch(process.env.NEXT_PUBLIC_API)"),
            (".env.production", "X=1"),
            ("config/deploy.yml", "service: x"),
        ],
        ".",
    );
    assert!(codes(&scan).is_empty(), "{:?}", scan.checklist);
    assert_eq!(scan.package_manager.as_deref(), Some("yarn"));
    assert_eq!(scan.port, 4000);
    assert_eq!(names(&scan.env_keys.build), ["NEXT_PUBLIC_API"]);
    let told: Vec<&str> = scan.checklist.iter().map(|check| check.code.as_str()).collect();
    for code in
        ["hard_coded_port", "committed_env_file", "existing_kamal", "build_env", "no_health_path"]
    {
        assert!(told.contains(&code), "{code} in {told:?}");
    }
}

#[test]
fn only_a_few_small_files_are_asked_for() {
    let mut tree: Vec<Entry> = (0..5000)
        .map(|i| Entry { path: format!("src/pages/page{i}.tsx"), size: Some(10) })
        .chain(
            (0..500)
                .map(|i| Entry { path: format!("node_modules/a{i}/package.json"), size: Some(10) }),
        )
        .collect();
    tree.push(Entry { path: "package.json".to_owned(), size: Some(10) });
    tree.push(Entry { path: "src/index.ts".to_owned(), size: Some(10) });
    tree.push(Entry { path: "server.js".to_owned(), size: Some(10_000_000) });
    assert_eq!(wanted_files(&tree, "."), ["package.json", "src/index.ts"]);
}

#[test]
fn a_scan_survives_its_stored_form() {
    let scan = scanned(EXPRESS, ".");
    let text = serde_json::to_string(&scan).expect("JSON");
    assert_eq!(serde_json::from_str::<Scan>(&text).expect("a scan"), scan);
}

#[test]
fn hostile_files_are_data() {
    let deep = "[".repeat(100_000);
    let cases: &[&[(&str, &str)]] = &[
        &[("package.json", &deep)],
        &[("pyproject.toml", &deep), ("requirements.txt", "\u{0}\n<%= id %>\n${{ x }}")],
        &[(
            "Dockerfile",
            "FROM a\\\n\\\n\\\nEXPOSE 70000 $PORT 0\nHEALTHCHECK CMD curl http://\nHEALTHCHECK CMD http://x",
        )],
        &[("Procfile", "we b: x\n<%: y\n:\nWEB_2: $(id)\n"), ("package.json", "[]")],
        &[(".env.example", "A B=1\n<%=1\n=x\nOK=1\n"), ("Dockerfile", "CMD x")],
    ];
    for files in cases {
        let scan = scanned(files, ".");
        assert!(
            scan.processes
                .iter()
                .all(|p| p.name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'))
        );
        assert_ne!(scan.port, 0);
    }
}
