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
    ("worker.js", "work()"),
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
    assert_eq!(codes(&top), ["choose_root"]);
    assert_eq!(top.roots, ["apps/shop"]);
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
    assert_eq!(scan.stack, "Node.js (Express)");
    assert_eq!(scan.build, Some(Build::Dockerfile { path: "Dockerfile".to_owned() }));
    assert_eq!((scan.port, scan.health_path.as_str()), (3000, "/api/health"));
    // No package speaks to the redis that it is developed beside.
    assert_eq!(scan.services, ["postgres"]);
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
    assert!(scan.checklist[0].fix.contains("uvicorn main:app"), "{}", scan.checklist[0].fix);

    let poetry = "[tool.poetry.dependencies]\npython = \"^3.12\"\nFlask = \"^3\"\n";
    let scan = scanned(&[("pyproject.toml", poetry), ("poetry.lock", "")], ".");
    assert_eq!(scan.stack, "Python (Flask)");
}

#[test]
fn what_cannot_be_deployed_says_why() {
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[], "nothing_there"),
        (&[("README.md", "")], "no_app_found"),
        (&[("Gemfile", ""), ("config.ru", "")], "no_start_command"),
        (&[("go.mod", ""), ("lib.go", "")], "no_start_command"),
        (&[("Cargo.toml", ""), ("src/main.rs", "")], "unsupported_stack"),
        (&[("mix.exs", "")], "unsupported_stack"),
        (&[("deno.json", "{}"), ("main.ts", "")], "unsupported_stack"),
        (&[("src/Shop.csproj", ""), ("Program.cs", "")], "no_start_command"),
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
                r#"{"scripts":{"start":"node server.js"},"dependencies":{"next":"15"},"packageManager":"yarn@4"}"#,
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

#[test]
fn a_scan_of_an_earlier_version_is_read() {
    let old = r#"{"stack":"Python","build":{"by":"buildpacks","language":"python"},"processes":[],
        "port":8080,"health_path":"/","env_keys":{"runtime":["A"],"build":[]},"services":[],
        "state_on_disk":["SQLite"],"package_manager":null,
        "checklist":[{"code":"state_on_disk","blocking":true,"text":"move it","from_file":null}],
        "findings":[]}"#;
    let scan: Scan = serde_json::from_str(old).expect("a scan");
    assert_eq!(scan.checklist[0].told(), "move it");
    assert!(scan.flags.is_empty() && scan.migrations.is_none() && scan.build_settings.is_empty());
}

#[test]
fn at_most_sixty_files_and_two_mebibytes_are_asked_for() {
    let entry = |path: String, size| Entry { path, size: Some(size) };
    let many: Vec<Entry> = (0..500)
        .map(|i| entry(format!("cmd/tool{i}/main.go"), 10))
        .chain((0..500).map(|i| entry(format!("apps/a{i}/package.json"), 10)))
        .collect();
    assert!(wanted_files(&many, ".").len() <= 60);
    let large: Vec<Entry> =
        (0..60).map(|i| entry(format!("cmd/tool{i}/main.go"), 200 * 1024)).collect();
    assert_eq!(wanted_files(&large, ".").len(), 10);
    let unknown: Vec<Entry> =
        (0..60).map(|i| Entry { path: format!("cmd/tool{i}/main.go"), size: None }).collect();
    assert_eq!(wanted_files(&unknown, ".").len(), 60);
}

#[test]
fn a_cut_tree_says_so() {
    let mut scan = scanned(EXPRESS, ".");
    scan.tree_was_cut(100_000);
    let row = scan.checklist.last().expect("a row");
    assert_eq!((row.code.as_str(), row.blocking), ("tree_truncated", false));
}

/// Pieces of which hostile files are made: nesting, broken ends, what other formats mean.
const PIECES: &[&str] = &[
    "[",
    "{",
    "(",
    "<a>",
    "</a>",
    "<a b=\"",
    "]]>",
    "<!--",
    "<?xml?>",
    "&x;",
    "\"",
    "'",
    "`",
    "\n",
    "\r\n",
    "\u{0}",
    "\u{feff}",
    "\u{202e}",
    "\\",
    "\\\n",
    "#",
    "//",
    "/*",
    "---\n",
    "&a ",
    "*a",
    "!!x ",
    "key: ",
    "- ",
    "a = ",
    "[a.b]\n",
    "[[x]]\n",
    "FROM a AS b\n",
    "FROM b\n",
    "RUN <<E\n",
    "EXPOSE 99999\n",
    "ARG X\n",
    "CMD [\n",
    "web: ",
    "release: $(id)\n",
    "gem \"rails\"\n",
    "group :test do\n",
    "end\n",
    "require (\n",
    "go 1\n",
    "{:phoenix, \"1\"}",
    "implementation(\"a:b:c\")\n",
    "<project>",
    "<modules>",
    "<PackageReference Include=\"",
    "{\"scripts\":",
    "{\"start\":\"",
    "null",
    "1e999",
    "app.listen(",
    "process.env.",
    "${",
    "<%= id %>",
    "${{ x }}",
    "\u{1b}[2J",
    "é",
    "=",
    ":",
    ",",
    " ",
    "\t",
];

#[test]
fn whatever_the_files_hold_a_scan_ends_well() {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    let mut random = StdRng::seed_from_u64(4);
    let names: Vec<String> = files::NAMED
        .iter()
        .map(|name| name.replace('*', "x"))
        .chain(["server.js".into()])
        .collect();
    for round in 0..150 {
        let mut read: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for _ in 0..random.random_range(1..12) {
            let name = names[random.random_range(0..names.len())].clone();
            let mut bytes: Vec<u8> = (0..random.random_range(0..60))
                .flat_map(|_| {
                    let piece = PIECES[random.random_range(0..PIECES.len())];
                    let times = if random.random_range(0..20) == 0 { 2000 } else { 1 };
                    piece.repeat(times).into_bytes()
                })
                .collect();
            if random.random_range(0..4) == 0 {
                let at = random.random_range(0..=bytes.len());
                bytes.splice(at..at, [0xff, 0xfe, 0xc3, 0x28]);
            }
            bytes.truncate(100_000);
            read.insert(name, bytes);
        }
        let tree: Vec<Entry> =
            read.keys().map(|path| Entry { path: path.clone(), size: None }).collect();
        let scan = scan(&tree, &read, ".");
        let text = serde_json::to_string(&scan).expect("JSON");
        assert_eq!(serde_json::from_str::<Scan>(&text).expect("a scan"), scan, "round {round}");
        assert!(text.len() < 200_000, "round {round}: {} bytes", text.len());
        assert_ne!(scan.port, 0, "round {round}");
        assert!(
            scan.build.is_some() || scan.blocking().next().is_some(),
            "round {round}: {scan:?}"
        );
    }
}

#[test]
fn long_and_deep_files_are_survived() {
    let deep = 200_000;
    let files = [
        ("package.json", "{\"a\":".repeat(deep / 5)),
        ("pnpm-workspace.yaml", "[".repeat(deep)),
        ("config/database.yml", "- ".repeat(deep / 2)),
        ("compose.yml", "{a: ".repeat(deep / 4)),
        ("pyproject.toml", format!("a = {}", "[".repeat(deep))),
        ("pom.xml", "<a>".repeat(deep / 3)),
        ("x.csproj", "<Project Sdk=\"".repeat(deep / 14)),
        ("Gemfile", "group :test do\n".repeat(deep / 15)),
        ("mix.exs", "{:a, ".repeat(deep / 5)),
        ("Dockerfile", "FROM a AS a\nFROM a\n".repeat(deep / 20)),
        ("go.mod", "require (\n".repeat(deep / 11)),
    ];
    for (name, text) in &files {
        let scan = scanned(&[(name, text), ("README.md", "")], ".");
        assert_ne!(scan.port, 0, "{name}");
    }
}
