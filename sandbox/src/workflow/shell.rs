//! A small bash, for the `run:` steps of a workflow: enough of its language for scripts that write
//! files, test values and call a few programs. Nothing of the machine is touched: files are those
//! of a runner in memory, and programs are the player's own. What it does not know fails aloud.

mod builtins;
mod expand;
mod reader;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;

use reader::{Node, Redirect, Simple, Target};

/// The home of the runner's user.
pub const HOME: &str = "/home/runner";
/// Commands that one script may run.
const COMMANDS_MAX: u32 = 10_000;

/// What a command wrote, and its exit code.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// The exit code.
    pub code: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Output {
    /// Success with this output.
    pub fn ok(out: impl Into<String>) -> Self {
        Self { out: out.into(), ..Self::default() }
    }

    /// A failure with this text on standard error.
    pub fn fail(code: i32, err: impl Into<String>) -> Self {
        Self { code, err: err.into(), ..Self::default() }
    }
}

/// Programs that a script may call besides the shell's own commands.
pub trait Programs: Send + Sync {
    /// Runs one; `None` where there is no such program.
    fn run<'a>(
        &'a self,
        shell: &'a mut Shell,
        argv: &'a [String],
        stdin: &'a str,
    ) -> BoxFuture<'a, Option<Output>>;
}

/// A shell on a runner: environment, files, folder.
#[derive(Debug, Clone, Default)]
pub struct Shell {
    /// Variables, exported or not: no program here looks at the difference.
    pub env: BTreeMap<String, String>,
    /// The working directory, absolute.
    pub cwd: String,
    /// The runner's files by absolute path.
    pub files: BTreeMap<String, Arc<[u8]>>,
    /// Settings of `git config --global`.
    pub git: BTreeMap<String, String>,
    last: i32,
    nounset: bool,
    commands: u32,
    /// What `exec > >(...)` sends all later output through.
    filter: Option<Node>,
}

/// How a script goes on behind a command.
enum Flow {
    On(i32),
    Exit(i32),
}

/// Where the output of running commands goes.
type Sink<'a> = &'a (dyn Fn(&Output) + Send + Sync);

impl Shell {
    /// Runs a script as `bash -eo pipefail` would; `sink` is given each command's output as it
    /// ends. Answers the exit code.
    pub async fn script(&mut self, text: &str, programs: &dyn Programs, sink: Sink<'_>) -> i32 {
        let nodes = match reader::parse(text) {
            Ok(nodes) => nodes,
            Err(reason) => {
                sink(&Output::fail(2, format!("bash: {reason}\n")));
                return 2;
            }
        };
        match self.list(&nodes, programs, sink, true).await {
            Flow::On(code) | Flow::Exit(code) => code,
        }
    }

    /// Runs a script as a program of its own would be: strict only where it says so itself.
    pub async fn program(&mut self, text: &str, programs: &dyn Programs, sink: Sink<'_>) -> i32 {
        let asks = |line: &str| {
            line.trim_start().strip_prefix("set -").is_some_and(|rest| {
                rest.starts_with("o errexit") || rest.split(' ').next().unwrap_or("").contains('e')
            })
        };
        let strict = text.lines().any(asks);
        match reader::parse(text) {
            Ok(nodes) => match self.list(&nodes, programs, sink, strict).await {
                Flow::On(code) | Flow::Exit(code) => code,
            },
            Err(reason) => {
                sink(&Output::fail(2, format!("sh: {reason}\n")));
                2
            }
        }
    }

    /// A path made absolute.
    pub fn absolute(&self, path: &str) -> String {
        let joined =
            if path.starts_with('/') { path.to_owned() } else { format!("{}/{path}", self.cwd) };
        let mut parts: Vec<&str> = Vec::new();
        for part in joined.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                name => parts.push(name),
            }
        }
        format!("/{}", parts.join("/"))
    }

    /// A file's text, if it is there.
    pub fn read(&self, path: &str) -> Option<String> {
        self.files
            .get(&self.absolute(path))
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    /// Writes (or appends to) a file.
    pub fn write(&mut self, path: &str, text: &str, append: bool) {
        let path = self.absolute(path);
        if path.starts_with("/dev/") {
            return;
        }
        let before = if append { self.read(&path).unwrap_or_default() } else { String::new() };
        self.files.insert(path, Arc::from(format!("{before}{text}").into_bytes()));
    }

    fn list<'a>(
        &'a mut self,
        nodes: &'a [Node],
        programs: &'a dyn Programs,
        sink: Sink<'a>,
        strict: bool,
    ) -> BoxFuture<'a, Flow> {
        Box::pin(async move {
            let mut code = 0;
            for node in nodes {
                match self.node(node, programs, sink, strict).await {
                    Flow::Exit(code) => return Flow::Exit(code),
                    Flow::On(now) => code = now,
                }
                self.last = code;
                // `a && b` whose first part fails does not end a strict script; nor does `! a`.
                let forgiven = matches!(
                    node,
                    Node::And(..) | Node::Not(_) | Node::If(..) | Node::For(..) | Node::Case(..)
                );
                if strict && code != 0 && !forgiven {
                    return Flow::Exit(code);
                }
            }
            Flow::On(code)
        })
    }

    fn node<'a>(
        &'a mut self,
        node: &'a Node,
        programs: &'a dyn Programs,
        sink: Sink<'a>,
        strict: bool,
    ) -> BoxFuture<'a, Flow> {
        Box::pin(async move {
            match node {
                Node::Simple(simple) => self.simple(simple, programs, sink, "").await,
                Node::Pipe(parts) => self.pipe(parts, programs, sink).await,
                Node::Group(nodes, redirects) => {
                    self.group(nodes, redirects, programs, sink, strict).await
                }
                Node::Not(inner) => match self.node(inner, programs, sink, false).await {
                    Flow::On(code) => Flow::On(i32::from(code == 0)),
                    exit => exit,
                },
                Node::And(left, right) => match self.node(left, programs, sink, false).await {
                    Flow::On(0) => self.last_of(right, programs, sink, strict).await,
                    other => other,
                },
                Node::Or(left, right) => match self.node(left, programs, sink, false).await {
                    Flow::On(code) if code != 0 => self.node(right, programs, sink, strict).await,
                    other => other,
                },
                Node::If(branches, otherwise) => {
                    for (condition, then) in branches {
                        match self.list(condition, programs, sink, false).await {
                            Flow::On(0) => return self.list(then, programs, sink, strict).await,
                            Flow::On(_) => {}
                            exit => return exit,
                        }
                    }
                    self.list(otherwise, programs, sink, strict).await
                }
                Node::For(name, words, body) => {
                    let mut code = 0;
                    for value in self.words(words, programs).await {
                        self.env.insert(name.clone(), value);
                        match self.list(body, programs, sink, strict).await {
                            Flow::On(now) => code = now,
                            exit => return exit,
                        }
                    }
                    Flow::On(code)
                }
                Node::Case(word, arms) => {
                    let given = self.text(word, programs).await;
                    for (patterns, body) in arms {
                        for pattern in patterns {
                            if self.fits(&given, pattern, programs).await {
                                return self.list(body, programs, sink, strict).await;
                            }
                        }
                    }
                    Flow::On(0)
                }
            }
        })
    }

    /// The right side of `&&`: its own failure does end a strict script.
    async fn last_of(
        &mut self,
        node: &Node,
        programs: &dyn Programs,
        sink: Sink<'_>,
        strict: bool,
    ) -> Flow {
        match self.node(node, programs, sink, strict).await {
            Flow::On(code)
                if code != 0 && strict && !matches!(node, Node::And(..) | Node::Not(_)) =>
            {
                Flow::Exit(code)
            }
            flow => flow,
        }
    }

    async fn pipe(&mut self, parts: &[Node], programs: &dyn Programs, sink: Sink<'_>) -> Flow {
        let mut input = String::new();
        let mut failed = 0;
        for (at, part) in parts.iter().enumerate() {
            let is_last = at + 1 == parts.len();
            let (flow, output) = self.captured(part, programs, &input).await;
            let code = match flow {
                Flow::On(code) | Flow::Exit(code) => code,
            };
            if code != 0 {
                failed = code;
            }
            let shown = Output {
                code,
                out: if is_last { output.out.clone() } else { String::new() },
                err: output.err,
            };
            sink(&shown);
            input = output.out;
        }
        Flow::On(failed)
    }

    /// Runs a node and keeps its output instead of showing it.
    async fn captured(
        &mut self,
        node: &Node,
        programs: &dyn Programs,
        input: &str,
    ) -> (Flow, Output) {
        let kept = std::sync::Mutex::new(Output::default());
        let keep = |output: &Output| {
            let mut kept = kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            kept.out.push_str(&output.out);
            kept.err.push_str(&output.err);
        };
        let flow = match node {
            Node::Simple(simple) => self.simple(simple, programs, &keep, input).await,
            Node::Group(nodes, _) if let [Node::Simple(simple)] = nodes.as_slice() => {
                self.simple(simple, programs, &keep, input).await
            }
            other => self.node(other, programs, &keep, false).await,
        };
        (flow, kept.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    async fn group(
        &mut self,
        nodes: &[Node],
        redirects: &[Redirect],
        programs: &dyn Programs,
        sink: Sink<'_>,
        strict: bool,
    ) -> Flow {
        if redirects.is_empty() {
            return self.list(nodes, programs, sink, strict).await;
        }
        let kept = std::sync::Mutex::new(Output::default());
        let keep = |output: &Output| {
            let mut kept = kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            kept.out.push_str(&output.out);
            kept.err.push_str(&output.err);
        };
        let flow = self.list(nodes, programs, &keep, strict).await;
        let output = kept.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let shown = self.redirected(output, redirects, programs).await;
        sink(&shown);
        flow
    }

    async fn simple(
        &mut self,
        simple: &Simple,
        programs: &dyn Programs,
        sink: Sink<'_>,
        piped: &str,
    ) -> Flow {
        self.commands += 1;
        if self.commands > COMMANDS_MAX {
            sink(&Output::fail(1, "bash: the script runs too many commands\n"));
            return Flow::Exit(1);
        }
        let mut argv = self.words(&simple.words, programs).await;
        if let Some(name) = self.unset(simple) {
            sink(&Output::fail(1, format!("bash: {name}: unbound variable\n")));
            return Flow::Exit(1);
        }
        let before = self.env.clone();
        for (name, word) in &simple.assignments {
            let value = self.text(word, programs).await;
            self.env.insert(name.clone(), value);
        }
        if argv.is_empty() {
            // `x=$(command)` has the exit code of the command.
            let substituted = simple.assignments.iter().any(|(_, word)| word.has_command());
            return Flow::On(if substituted { self.last } else { 0 });
        }
        let mut stdin = piped.to_owned();
        for redirect in &simple.redirects {
            match &redirect.target {
                Target::Text(word) => stdin = self.text(word, programs).await,
                Target::Input(word) => {
                    let path = self.text(word, programs).await;
                    stdin = self.read(&path).unwrap_or_default();
                }
                Target::Through(nodes) if argv == ["exec"] => {
                    self.filter = Some(Node::Group(nodes.clone(), Vec::new()));
                }
                Target::File { .. } | Target::Merge { .. } | Target::Through(_) => {}
            }
        }
        if argv == ["exec"] {
            return Flow::On(0);
        }
        let execs = argv.first().is_some_and(|word| word == "exec") && argv.len() > 1;
        if execs {
            argv.remove(0);
        }
        let (output, exits) = self.command(&argv, &stdin, programs).await;
        let code = output.code;
        let shown = self.redirected(output, &simple.redirects, programs).await;
        let shown = self.filtered(shown, programs).await;
        sink(&shown);
        if !simple.assignments.is_empty() && !matches!(argv[0].as_str(), "export" | "set") {
            // Assignments in front of a command last only for it.
            for (name, _) in &simple.assignments {
                match before.get(name) {
                    Some(value) => drop(self.env.insert(name.clone(), value.clone())),
                    None => drop(self.env.remove(name)),
                }
            }
        }
        if execs || exits { Flow::Exit(code) } else { Flow::On(code) }
    }

    /// Sends what is left to show through `exec > >(...)`, if the script asked for that.
    async fn filtered(&mut self, output: Output, programs: &dyn Programs) -> Output {
        let Some(filter) = self.filter.take() else { return output };
        let text = format!("{}{}", output.out, output.err);
        let (_, filtered) = Box::pin(self.captured(&filter, programs, &text)).await;
        self.filter = Some(filter);
        Output { code: output.code, ..filtered }
    }

    async fn command(
        &mut self,
        argv: &[String],
        stdin: &str,
        programs: &dyn Programs,
    ) -> (Output, bool) {
        if let Some(output) = builtins::run(self, argv, stdin) {
            return (output, argv[0] == "exit");
        }
        match programs.run(self, argv, stdin).await {
            Some(output) => (output, false),
            None => {
                let text = format!(
                    "bash: {}: command not found (the sandbox does not play it)\n",
                    argv[0]
                );
                (Output::fail(127, text), false)
            }
        }
    }

    /// Sends output where the redirections say; answers what is left to show.
    async fn redirected(
        &mut self,
        mut output: Output,
        redirects: &[Redirect],
        programs: &dyn Programs,
    ) -> Output {
        for redirect in redirects {
            match &redirect.target {
                // `> file 2>&1`: both go to the file, whatever the order of their writing was.
                Target::File { path, append } => {
                    let path = self.text(path, programs).await;
                    let merged = redirects
                        .iter()
                        .any(|other| matches!(other.target, Target::Merge { from: 2, to: 1 }));
                    let mut text = String::new();
                    if redirect.from != 2 {
                        text.push_str(&std::mem::take(&mut output.out));
                    }
                    if redirect.from == 2 || redirect.from == -1 || merged {
                        text.push_str(&std::mem::take(&mut output.err));
                    }
                    self.write(&path, &text, *append);
                }
                Target::Merge { from: 2, to: 1 } => {
                    let text = std::mem::take(&mut output.err);
                    output.out.push_str(&text);
                }
                Target::Merge { from: 1, to: 2 } => {
                    let text = std::mem::take(&mut output.out);
                    output.err.push_str(&text);
                }
                Target::Merge { .. } | Target::Text(_) | Target::Input(_) | Target::Through(_) => {}
            }
        }
        output
    }
}
