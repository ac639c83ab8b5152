//! Payloads in every value that a person or a repo gives: refused, or nowhere in a file.

use super::*;
use crate::domain::names::{CommandLine, ProcessName};
use crate::domain::run_settings::{BuildVariable, ProcessSettings, Release};

const PAYLOADS: &[&str] = &[
    "<%= `id` %>",
    "a<%b",
    "${{ secrets.GITHUB_TOKEN }}",
    "x\" }\nevil: true",
    "x\nevil: true",
    "x\revil",
    "x: [y",
    "x #comment",
    "&anchor",
    "*alias",
    "!!ruby/object:Gem::Installer",
    "$(id)",
    "`id`",
    "$HOME",
    "x;id",
    "x|id",
    "x&&id",
    "x'y",
    "x\"y",
    "x\\y",
    "../../etc/passwd",
    "-rf",
    "@BRANCH@\u{0}",
    "\u{202e}x",
];

fn base() -> Setup {
    let mut setup =
        setup(dockerfile(), vec![environment("shop/production", Arch::Amd64, Some("203.0.113.7"))]);
    setup.processes = vec![process("worker", "bin/work")];
    setup.root = "svc".to_owned();
    setup.environments[0].domain = Some("shop.example.com".parse().expect("a domain"));
    let run = &mut setup.environments[0].run;
    run.processes.insert(name("worker"), ProcessSettings::default());
    run.processes.get_mut(&name("worker")).expect("just put").memory_mb = Some(64);
    run.volumes = [(name("data"), name("/data"))].into();
    run.release = Some(Release::Command(name("bin/migrate")));
    run.push_to_deploy = Some(name("main"));
    let variable = BuildVariable { secret: false, mark: String::new() };
    run.build_variables = [(name("NEXT_PUBLIC_API"), variable)].into();
    setup
}

fn name<T: std::str::FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    text.parse().expect("a good name")
}

/// A place for a payload in a setup; false where the domain type refuses it already.
type Place = fn(&mut Setup, &str) -> bool;

const PLACES: &[(&str, Place)] = &[
    ("repo", |setup, text| parsed(&mut setup.repo, &format!("octo/{text}"))),
    ("owner", |setup, text| parsed(&mut setup.repo, &format!("{text}/shop"))),
    ("root", |setup, text| set(&mut setup.root, text)),
    ("default branch", |setup, text| set(&mut setup.default_branch, text)),
    ("build setting", |setup, text| {
        setup.build_settings.insert("BP_GO_TARGETS".to_owned(), text.to_owned());
        true
    }),
    ("build setting's name", |setup, text| {
        setup.build_settings.insert(text.to_owned(), "x".to_owned());
        true
    }),
    ("Dockerfile", |setup, text| {
        setup.build = Build::Dockerfile { path: text.to_owned() };
        true
    }),
    ("process name", |setup, text| set(&mut setup.processes[0].name, text)),
    ("process command", |setup, text| set(&mut setup.processes[0].command, text)),
    ("chosen command", |setup, text| match text.parse() {
        Ok(line) => {
            let worker = name::<ProcessName>("worker");
            let chosen = setup.environments[0].run.processes.get_mut(&worker).expect("there");
            chosen.command = Some(line);
            true
        }
        Err(_) => false,
    }),
    ("volume", |setup, text| match text.parse() {
        Ok(volume) => {
            setup.environments[0].run.volumes = [(volume, name("/data"))].into();
            true
        }
        Err(_) => false,
    }),
    ("folder", |setup, text| match format!("/{text}").parse() {
        Ok(folder) => {
            setup.environments[0].run.volumes = [(name("data"), folder)].into();
            true
        }
        Err(_) => false,
    }),
    ("release", |setup, text| match text.parse() {
        Ok(line) => {
            setup.environments[0].run.release = Some(Release::Command(line));
            true
        }
        Err(_) => false,
    }),
    ("Procfile's release", |setup, text| {
        setup.environments[0].run.release = None;
        setup.release = Some(text.to_owned());
        true
    }),
    ("pushed branch", |setup, text| match text.parse() {
        Ok(branch) => {
            setup.environments[0].run.push_to_deploy = Some(branch);
            true
        }
        Err(_) => false,
    }),
    ("build variable", |setup, text| match text.parse() {
        Ok(key) => {
            let variable = BuildVariable { secret: true, mark: String::new() };
            setup.environments[0].run.build_variables = [(key, variable)].into();
            true
        }
        Err(_) => false,
    }),
    ("app", |setup, text| parsed(&mut setup.environments[0].path.app, text)),
    ("environment", |setup, text| parsed(&mut setup.environments[0].path.name, text)),
    ("health path", |setup, text| set(&mut setup.environments[0].health_path, &format!("/{text}"))),
    ("domain", |setup, text| match format!("{text}.example.com").parse() {
        Ok(domain) => {
            setup.environments[0].domain = Some(domain);
            true
        }
        Err(_) => false,
    }),
];

fn set(place: &mut String, text: &str) -> bool {
    text.clone_into(place);
    true
}

fn parsed<T: std::str::FromStr>(place: &mut T, text: &str) -> bool {
    text.parse().map(|value| *place = value).is_ok()
}

#[test]
fn every_payload_in_every_place_is_refused_or_inert() {
    // What may pass, because it says nothing in the place where it stands.
    let inert = [
        ("repo", "-rf"),
        ("owner", "-rf"),
        ("health path", "../../etc/passwd"),
        ("health path", "-rf"),
        ("process command", "../../etc/passwd"),
        ("process command", "-rf"),
        ("default branch", "../../etc/passwd"),
        ("build setting", "../../etc/passwd"),
        ("build setting", "-rf"),
        ("chosen command", "../../etc/passwd"),
        ("release", "../../etc/passwd"),
        ("folder", "-rf"),
    ];
    files(&base()).expect("without a payload it is made");
    for (place, put) in PLACES {
        for payload in PAYLOADS {
            let mut setup = base();
            if !put(&mut setup, payload) {
                continue;
            }
            match files(&setup) {
                // What the Procfile says is left out where it is no plain command.
                Ok(files) if *place == "Procfile's release" => {
                    let mut hooks = files.iter().filter(|file| file.executable);
                    let held = hooks.any(|file| file.content.contains(payload));
                    assert!(!held || payload.parse::<CommandLine>().is_ok(), "{payload:?}");
                }
                Ok(_) => {
                    assert!(inert.contains(&(*place, *payload)), "{payload:?} passed as {place}")
                }
                Err(error) => {
                    assert_eq!(error.code(), "pipeline_value", "{payload:?} as {place}");
                    assert!(!error.to_string().contains(char::is_control), "{error}");
                }
            }
        }
    }
}

#[test]
fn random_strings_never_change_the_shape_of_a_file() {
    let wanted: Vec<serde_json::Value> = shapes(&base());
    let alphabet: Vec<char> = "ab/-._ \"'\\$`{}[]()<>%#&*!|;:,=?@~^\n\r\t\u{0}é".chars().collect();
    let mut seed = 0x2545_F491_4F6C_DD1D_u64;
    let mut next = |bound: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % bound as u64).expect("small")
    };
    let mut made = 0;
    for round in 0..8_000 {
        let (place, put) = PLACES[round % PLACES.len()];
        let text: String = (0..1 + next(8)).map(|_| alphabet[next(alphabet.len())]).collect();
        let mut setup = base();
        if !put(&mut setup, &text) || files(&setup).is_err() {
            continue;
        }
        made += 1;
        let shapes = shapes(&setup);
        assert_eq!(shapes.len(), wanted.len());
        for (shape, wanted) in shapes.iter().zip(&wanted) {
            // These are keys of a file or decide whether one is there.
            let top = place == "root" && text == ".";
            if !top && !["process name", "build variable", "chosen command"].contains(&place) {
                assert_eq!(shape, wanted, "{text:?} as {place}");
            }
        }
        for file in files(&setup).expect("made above") {
            assert!(!file.content.contains("<%"), "{text:?} as {place}");
        }
    }
    assert!(made > 100, "only {made} of the strings were taken: the test proves little");
}

/// Every YAML file with its scalars emptied: keys, nesting and lengths.
fn shapes(setup: &Setup) -> Vec<serde_json::Value> {
    let yaml = |file: &GeneratedFile| file.path.ends_with(".yml");
    let files = files(setup).expect("a good setup");
    files
        .iter()
        .filter(|file| yaml(file))
        .map(|file| emptied(serde_saphyr::from_str(&file.content).expect("YAML")))
        .collect()
}

fn emptied(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Object(map) => {
            Value::Object(map.into_iter().map(|(key, value)| (key, emptied(value))).collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(emptied).collect()),
        Value::String(_) => Value::String(String::new()),
        Value::Number(_) => Value::from(0),
        other => other,
    }
}

#[test]
fn facts_that_do_not_fit_together_are_refused_by_name() {
    let code = |setup: &Setup| files(setup).expect_err("refused").code();
    let mut two = base();
    two.environments.push(environment("blog/staging", Arch::Amd64, None));
    assert_eq!(code(&two), "pipeline_two_apps");
    let mut twice = base();
    twice.environments.push(twice.environments[0].clone());
    assert_eq!(code(&twice), "pipeline_twice");
    let mut tls = base();
    tls.environments[0].domain = None;
    tls.environments[0].tls = true;
    assert_eq!(code(&tls), "pipeline_tls_without_domain");
    let mut arm = base();
    arm.build = Build::Buildpacks { language: Language::Python };
    arm.environments[0].arch = Arch::Arm64;
    assert_eq!(
        files(&arm).expect_err("refused").to_string(),
        "Python is built by Buildpacks for amd64 only, and the VM of `shop/production` is arm64; choose an amd64 size, or add a Dockerfile"
    );
    let mut port = base();
    port.environments[0].port = 0;
    assert_eq!(code(&port), "pipeline_value");
}
