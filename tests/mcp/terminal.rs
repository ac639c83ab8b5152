//! What a person does at a terminal beside the assistant: the first steps, a secret set unseen, and
//! a backup.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::rig::{Rig, eras, text, until};
use crate::story::{Client, Person, Stage, call, data};

fn fed(mut command: Command, input: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("a child");
    child.stdin.take().expect("stdin").write_all(input.as_bytes()).expect("written");
    child.wait_with_output().expect("it ends")
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

async fn variables(client: &Client) -> Value {
    let listed = call(client, "list_env", json!({"environment": "shop/staging"})).await;
    data(&listed)["variables"].clone()
}

#[tokio::test]
async fn a_secret_is_set_unseen_and_a_backup_brings_all_of_it_back() {
    let stage = Stage::new().await;
    let [_, modern] = eras();
    let client = stage.client(modern, Person::default()).await;
    stage.with_an_environment(&client).await;

    let set = ["env", "set", "shop/staging", "PAYMENT_KEY", "--stdin"];
    let done = fed(stage.command(&set), "it's $a \"long\" value\n");
    assert!(done.status.success(), "{}", said(&done.stderr));
    assert!(said(&done.stdout).contains("PAYMENT_KEY stored as revision 1, NOT APPLIED"));
    let whole = format!("{}{}", said(&done.stdout), said(&done.stderr));
    assert!(!whole.contains("long"), "{whole}");
    let plain = ["env", "set", "shop/staging", "LOG_LEVEL", "--stdin", "--plain"];
    assert!(fed(stage.command(&plain), "debug").status.success());
    let stored = variables(&client).await;
    let of = |key: &str| {
        let all = stored.as_array().expect("a list").iter();
        all.clone().find(|one| one["key"] == key).expect("the variable").clone()
    };
    assert_eq!(of("LOG_LEVEL")["value"], "debug");
    assert_eq!(of("PAYMENT_KEY")["value"], Value::Null, "{stored}");

    for (args, input, exit, word) in [
        (["env", "set", "shop/staging", "PORT", "--stdin"], "80", 1, "PORT"),
        (["env", "set", "shop/nowhere", "A", "--stdin"], "b", 1, "unknown_environment"),
        (["env", "set", "shop/staging", "A-B", "--stdin"], "b", 2, "A-B"),
        (["env", "set", "shop/staging", "A", "--plain"], "", 2, "no_terminal"),
    ] {
        let refused = fed(stage.command(&args), input);
        let why = said(&refused.stderr);
        assert_eq!(refused.status.code(), Some(exit), "{args:?}: {why}");
        assert!(why.contains(word), "{args:?}: {why}");
    }

    // The state is in use while it is copied.
    let file = stage.rig.home().join("copy.db");
    let file_name = file.to_str().expect("a name");
    let copied = stage.command(&["backup", file_name]).output().expect("it runs");
    assert!(copied.status.success(), "{}", said(&copied.stderr));
    let (told, key) = (said(&copied.stdout), stage.rig.home().join("master.key"));
    assert!(told.contains(key.to_str().expect("a name")), "{told}");
    assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
    let again = stage.command(&["backup", file_name]).output().expect("it runs");
    assert!(said(&again.stderr).contains("File exists"), "{}", said(&again.stderr));

    let elsewhere = Rig::new();
    let none = elsewhere.run(&["backup", file_name]);
    assert!(said(&none.stderr).contains("no_state"), "{}", said(&none.stderr));
    fs::copy(&file, elsewhere.home().join("vmkit.db")).expect("restored");
    let without = elsewhere.run(&["call", "get_overview"]);
    assert!(said(&without.stderr).contains("is not the one"), "{}", said(&without.stderr));
    fs::copy(&key, elsewhere.home().join("master.key")).expect("the key");
    let restored = elsewhere.mcp(eras()[1].clone()).await;
    let listed =
        crate::rig::call(&restored, "list_env", json!({"environment": "shop/staging"})).await;
    assert_eq!(
        listed.structured_content.as_ref().expect("data")["variables"],
        stored,
        "{}",
        text(&listed)
    );
    restored.cancel().await.expect("ended");
    until("the other worker ends", || elsewhere.workers().is_empty()).await;

    client.cancel().await.expect("ended");
    until("the worker ends", || stage.rig.workers().is_empty()).await;
    stage.sandbox.stop().await;
}

/// The program at a terminal of its own, which `script` gives it: each answer is typed when its
/// question is there. Tells the exit code and all that was shown.
fn typed(stage: &Stage, args: &[&str], answers: &[(&str, &str)]) -> (Option<i32>, String) {
    let program = stage.command(args);
    let words: Vec<&str> = std::iter::once(program.get_program())
        .chain(program.get_args())
        .map(|word| word.to_str().expect("text"))
        .collect();
    let mut terminal = Command::new("script");
    terminal.args(["--quiet", "--return", "--command", &words.join(" "), "/dev/null"]).env_clear();
    for (name, value) in program.get_envs() {
        let token = name.to_str().is_some_and(|name| name.ends_with("_TOKEN"));
        // The person has them in another window.
        if let (Some(value), false) = (value, token) {
            terminal.env(name, value);
        }
    }
    let mut child =
        terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a terminal");
    let mut keyboard = child.stdin.take().expect("stdin");
    let mut screen = child.stdout.take().expect("stdout");
    let (mut shown, mut seen) = (String::new(), 0);
    let mut piece = [0; 4096];
    for (question, answer) in answers {
        while !shown[seen..].contains(question) {
            let count = screen.read(&mut piece).expect("readable");
            assert!(count > 0, "it ended before `{question}`: {shown}");
            shown.push_str(&String::from_utf8_lossy(&piece[..count]));
        }
        seen = shown.len();
        writeln!(keyboard, "{answer}").expect("typed");
    }
    screen.read_to_string(&mut shown).expect("readable");
    (child.wait().expect("it ends").code(), shown)
}

// The sandbox is asked while this waits for the terminal.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_steps_end_with_a_good_check_and_the_lines_for_the_client() {
    let stage = Stage::new().await;
    let piped = stage.command(&["setup"]).output().expect("it runs");
    assert_eq!(piped.status.code(), Some(2));
    assert!(said(&piped.stderr).contains("--stdin"), "{}", said(&piped.stderr));

    let token = |name: &str| stage.setting(name).to_owned();
    let (hetzner, github) = (token("VMKIT_HETZNER_TOKEN"), token("VMKIT_GITHUB_TOKEN"));
    let answers = [
        ("[h/d]", "x"),
        ("[h/d]", "h"),
        ("not shown", "nonsense"),
        ("Try again?", "y"),
        ("not shown", &hetzner),
        ("Connect GitHub?", "y"),
        ("not shown", &github),
        ("Connect Cloudflare?", ""),
    ];
    let (code, shown) = typed(&stage, &["setup"], &answers);
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("does not accept this token"), "{shown}");
    for row in ["ok    hetzner", "ok    github", "ok    your SSH key", "ok    agent for VMs"] {
        assert!(shown.contains(row), "{row}: {shown}");
    }
    let program = env!("CARGO_BIN_EXE_vmkit");
    assert!(shown.contains(&format!("-- {program} mcp")), "{shown}");

    // What is there is not asked for again: one question is left, and Enter answers it.
    let (code, shown) = typed(&stage, &["setup"], &[("Connect Cloudflare?", "")]);
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("Hetzner is connected: token stored"), "{shown}");
    stage.sandbox.stop().await;
}
