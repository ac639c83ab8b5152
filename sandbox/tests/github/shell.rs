//! The small bash, as a table: script, exit code, output.

use futures::future::BoxFuture;
use std::sync::Mutex;

use vmkit_sandbox::workflow::shell::{Output, Programs, Shell};

struct NoPrograms;

impl Programs for NoPrograms {
    fn run<'a>(
        &'a self,
        _: &'a mut Shell,
        argv: &'a [String],
        _: &'a str,
    ) -> BoxFuture<'a, Option<Output>> {
        Box::pin(async move {
            (argv[0] == "kamal").then(|| Output {
                code: 3,
                out: format!("{}\n2026-01-02T03:04:05.6Z secret\n", argv.join("|")),
                err: "broken\n".into(),
            })
        })
    }
}

async fn run(script: &str) -> (i32, String) {
    let mut shell = Shell::default();
    shell.cwd = "/work".to_owned();
    shell.env.insert("NAME".to_owned(), "two words".to_owned());
    shell.env.insert("BLANK".to_owned(), " \n ".to_owned());
    shell.env.insert("SHA".to_owned(), "0123456789abcdef0123456789abcdef01234567".to_owned());
    let shown = Mutex::new(String::new());
    let code = {
        let sink = |output: &Output| {
            let mut shown = shown.lock().unwrap();
            shown.push_str(&output.out);
            shown.push_str(&output.err);
        };
        shell.script(script, &NoPrograms, &sink).await
    };
    (code, shown.into_inner().unwrap())
}

#[tokio::test]
async fn scripts() {
    let table = [
        ("echo a; echo b # not this\necho 'c d' \"$NAME\"", 0, "a\nb\nc d two words\n"),
        ("printf '%s\\n' $NAME", 0, "two\nwords\n"),
        ("x=1 y=\"$NAME\"\necho $x-$y-${z:-none}", 0, "1-two words-none\n"),
        (
            "printf '%s\\n' \"$NAME\" > ~/.ssh/id\ncat ~/.ssh/id && rm -f ~/.ssh/id\n[ -f ~/.ssh/id ] || echo gone",
            0,
            "two words\ngone\n",
        ),
        ("false\necho no", 1, ""),
        ("false || true\necho yes", 0, "yes\n"),
        (
            "case \"$SHA\" in\n  abc|\"$NAME\") echo no ;;\n  012*) echo yes;;\n  *) echo no;;\nesac",
            0,
            "yes\n",
        ),
        ("case '*' in a) echo no ;; '*')\n    echo star\n    ;;\nesac; echo on", 0, "star\non\n"),
        ("case x in x) false; echo no;; esac\necho no", 1, ""),
        ("case x in y) echo no;; esac\necho none", 0, "none\n"),
        ("false && echo no\necho yes", 0, "yes\n"),
        ("true && false\necho no", 1, ""),
        ("if grep -q two <<<\"$NAME\"; then echo found; else echo not; fi", 0, "found\n"),
        ("if false; then echo a; elif [ \"$NAME\" = 'two words' ]; then echo b; fi", 0, "b\n"),
        (
            "status=$(kamal lock status 2>/dev/null || true)\necho \"$status\" | head -n 1",
            0,
            "kamal|lock|status\n",
        ),
        (
            "[ -n \"${BLANK//[[:space:]]/}\" ] || { echo '::error::empty'; exit 1; }\necho no",
            1,
            "::error::empty\n",
        ),
        ("[[ \"$SHA\" =~ ^[0-9a-f]{40}$ ]] || exit 9\necho fine", 0, "fine\n"),
        ("[[ \"$NAME\" =~ ^[0-9a-f]{40}$ ]] || { echo bad; exit 9; }", 9, "bad\n"),
        (
            "exec > >(sed -uE 's/^[0-9]{4}-.*Z (.*)/hidden \\1?/') 2>&1\nexec kamal deploy --version=\"$SHA\"\necho no",
            3,
            "kamal|deploy|--version=0123456789abcdef0123456789abcdef01234567\nhidden secret?\nbroken\n",
        ),
        ("exec kamal \\\n  deploy -c \"config/deploy.$NAME.yml\" >/dev/null 2>&1", 3, ""),
        (
            "cat > f <<'EOF'\n$NAME\nEOF\ncat f; cat <<EOF\n$NAME \"q\"\nEOF",
            0,
            "$NAME\ntwo words \"q\"\n",
        ),
        ("for x in a b; do echo $x; done", 0, "a\nb\n"),
        ("! false\necho ok", 0, "ok\n"),
        ("set -eu\necho $MISSING", 1, "bash: MISSING: unbound variable\n"),
        (
            "nonsense --flag",
            127,
            "bash: nonsense: command not found (the sandbox does not play it)\n",
        ),
        (
            "umask 077\nmkdir -p ~/.ssh\ninstall -m 0600 /dev/null ~/.ssh/key\n[ -f ~/.ssh/key ] && echo made",
            0,
            "made\n",
        ),
        ("(echo sub; exit 4)", 4, "sub\n"),
        ("echo \"a\" | tr '[:lower:]' '[:upper:]'", 0, "A\n"),
    ];
    for (script, code, output) in table {
        assert_eq!(run(script).await, (code, output.to_owned()), "{script}");
    }
    for bad in [
        "echo 'open",
        "if true; then echo a",
        "while true; do echo a; done",
        "echo $(",
        "cat <<EOF\nnever",
    ] {
        let (code, output) = run(bad).await;
        assert_eq!(code, 2, "{bad}: {output}");
    }
}
