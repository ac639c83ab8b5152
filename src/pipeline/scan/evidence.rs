//! What the parts of the scan look at, and what they have found so far.

use std::collections::{BTreeMap, BTreeSet};

use super::files::{self, MAX_BYTES};
use super::{Build, Check, DEFAULT_PORT, Entry, EnvKeys, Finding, Flag, Process, Scan, UNKNOWN};

/// The longest value that a finding keeps, in characters.
const VALUE_MAX: usize = 200;

pub(super) struct Evidence<'a> {
    pub(super) root: &'a str,
    /// Paths below the root.
    pub(super) paths: BTreeSet<&'a str>,
    /// Paths outside the root, of the top folder only.
    pub(super) outside: BTreeSet<&'a str>,
    /// Texts of the fetched files below the root, by path below it.
    pub(super) texts: BTreeMap<&'a str, String>,
    /// The same of source files, without the lines that are comments.
    pub(super) code: BTreeMap<&'a str, String>,
    /// The web framework.
    pub(super) framework: Option<&'static str>,
    /// The file that shows that it waits for work instead of requests.
    pub(super) works: Option<String>,
    pub(super) scan: Scan,
}

impl<'a> Evidence<'a> {
    pub(super) fn new(
        tree: &'a [Entry],
        files: &'a BTreeMap<String, Vec<u8>>,
        root: &'a str,
    ) -> Self {
        let texts: BTreeMap<&str, String> = files
            .iter()
            .filter(|(_, bytes)| bytes.len() as u64 <= MAX_BYTES)
            .filter_map(|(path, bytes)| {
                let text = String::from_utf8_lossy(bytes);
                let text = text.trim_start_matches('\u{feff}');
                Some((files::below(root, path)?, text.to_owned()))
            })
            .collect();
        let code = texts
            .iter()
            .filter(|(path, _)| files::is_code(path))
            .map(|(path, text)| (*path, without_comments(text)))
            .collect();
        let top = |entry: &&Entry| root != "." && !entry.path.contains('/');
        Self {
            root,
            paths: tree.iter().filter_map(|entry| files::below(root, &entry.path)).collect(),
            outside: tree.iter().filter(top).map(|entry| entry.path.as_str()).collect(),
            texts,
            code,
            framework: None,
            works: None,
            scan: Scan {
                stack: UNKNOWN.to_owned(),
                build: None,
                processes: Vec::new(),
                port: DEFAULT_PORT,
                health_path: "/".to_owned(),
                env_keys: EnvKeys::default(),
                services: Vec::new(),
                state_on_disk: Vec::new(),
                package_manager: None,
                version: None,
                migrations: None,
                build_settings: BTreeMap::new(),
                flags: Vec::new(),
                roots: Vec::new(),
                checklist: Vec::new(),
                findings: Vec::new(),
            },
        }
    }

    pub(super) fn text(&self, path: &str) -> Option<&str> {
        self.texts.get(path).map(String::as_str)
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.paths.contains(path)
    }

    /// Whether a folder has anything in it.
    pub(super) fn has_folder(&self, folder: &str) -> bool {
        let within = |path: &&str| path.strip_prefix(folder).is_some_and(|p| p.starts_with('/'));
        self.paths.range(folder..).take_while(|path| path.starts_with(folder)).any(within)
    }

    /// The first path that ends so, the shallowest first.
    pub(super) fn ending(&self, end: &str) -> Option<&'a str> {
        let fits = self.paths.iter().copied().filter(|path| path.ends_with(end));
        fits.min_by_key(|path| path.matches('/').count())
    }

    /// The first source file that has one of these words outside comments.
    pub(super) fn code_with(&self, words: &[&str]) -> Option<&'a str> {
        let has = |text: &String| words.iter().any(|word| text.contains(word));
        self.code.iter().find(|(_, text)| has(text)).map(|(path, _)| *path)
    }

    /// The path from the top of the repo.
    pub(super) fn full(&self, path: &str) -> String {
        if self.root == "." { path.to_owned() } else { format!("{}/{path}", self.root) }
    }

    pub(super) fn found(&mut self, what: &str, value: impl Into<String>, file: &str) {
        let value: String = value.into();
        let finding = Finding {
            what: what.to_owned(),
            value: value.chars().take(VALUE_MAX).collect(),
            from_file: Some(self.full(file)),
        };
        if !self.scan.findings.contains(&finding) {
            self.scan.findings.push(finding);
        }
    }

    /// Something that stands in the way of a first deploy.
    pub(super) fn block<'f>(
        &mut self,
        code: &str,
        text: impl Into<String>,
        fix: impl Into<String>,
        file: impl Into<Option<&'f str>>,
    ) {
        self.row(code, true, text.into(), fix.into(), file.into());
    }

    /// Something that is good to know.
    pub(super) fn note<'f>(
        &mut self,
        code: &str,
        text: impl Into<String>,
        fix: impl Into<String>,
        file: impl Into<Option<&'f str>>,
    ) {
        self.row(code, false, text.into(), fix.into(), file.into());
    }

    fn row(&mut self, code: &str, blocking: bool, text: String, fix: String, file: Option<&str>) {
        if self.scan.checklist.iter().any(|check| check.code == code) {
            return;
        }
        let from_file = file.map(|file| self.full(file));
        self.scan.checklist.push(Check { code: code.to_owned(), blocking, text, fix, from_file });
    }

    /// Names the stack, where nothing named it before.
    pub(super) fn is(&mut self, stack: &str, file: &str) {
        if self.scan.stack == UNKNOWN {
            stack.clone_into(&mut self.scan.stack);
        }
        self.found("stack", stack, file);
    }

    /// Names the framework of the stack `language`.
    pub(super) fn framework(&mut self, language: &str, name: &str, file: &str) {
        if self.scan.stack == language {
            self.scan.stack = format!("{language} ({name})");
        }
        self.found("framework", name, file);
    }

    pub(super) fn manager(&mut self, name: &str, file: &str) {
        self.found("package_manager", name, file);
        self.scan.package_manager.get_or_insert_with(|| name.to_owned());
    }

    pub(super) fn version(&mut self, text: &str, file: &str) {
        let text = text.trim();
        if text.is_empty() || text.len() > 40 || self.scan.version.is_some() {
            return;
        }
        self.found("version", text, file);
        self.scan.version = Some(text.to_owned());
    }

    /// A command that brings the database up to date and that the image can run.
    pub(super) fn migrates(&mut self, command: &str, file: &str) {
        self.found("migrations", command, file);
        if self.scan.migrations.is_none() {
            self.scan.migrations = Some(command.to_owned());
            self.unrun_migrations(format!("`{command}` is not run by a deploy"), file);
        }
    }

    /// Migrations that nothing runs.
    pub(super) fn unrun_migrations(&mut self, text: impl Into<String>, file: &str) {
        let fix = "have `configure_app` run them as `release`, or run them when the app starts";
        self.note("migrations", text, fix, file);
    }

    pub(super) fn service(&mut self, name: &str, file: &str) {
        self.found("service", name, file);
        if !self.scan.services.iter().any(|service| service == name) {
            self.scan.services.push(name.to_owned());
        }
    }

    pub(super) fn keeps_on_disk(&mut self, what: &str, file: &str) {
        self.found("state_on_disk", what, file);
        if !self.scan.state_on_disk.iter().any(|state| state == what) {
            self.scan.state_on_disk.push(what.to_owned());
        }
    }

    pub(super) fn flag(&mut self, flag: Flag, file: &str) {
        self.found("flag", flag.as_str(), file);
        if !self.scan.flags.contains(&flag) {
            self.scan.flags.push(flag);
        }
    }

    pub(super) fn streams(&mut self, what: &str, file: &str) {
        self.flag(Flag::Streaming, file);
        let text = format!("answers come piece by piece ({what})");
        let fix =
            "the proxy must not hold them back, and long ones need a longer response time-out";
        self.note("streaming", text, fix, file);
    }

    pub(super) fn infers(&mut self, what: &str, file: &str) {
        self.flag(Flag::Inference, file);
        let text = format!("it runs a model ({what})");
        let fix =
            "choose a size with memory for it, and a long response time-out; these VMs have no GPU";
        self.note("inference", text, fix, file);
    }

    pub(super) fn builds_with(&mut self, build: Build) {
        self.scan.build = Some(build);
    }

    /// A stack that no builder builds here.
    pub(super) fn no_builder(&mut self, stack: &str, file: &str) {
        let text = format!("{stack} is not built by Buildpacks here");
        let fix = "add a Dockerfile, and it will be deployed from that";
        self.block("unsupported_stack", text, fix, file);
    }

    pub(super) fn static_site(&mut self, file: &str) {
        self.flag(Flag::StaticSite, file);
        let text = "this makes files for browsers and starts no server: a static host is cheaper than a VM";
        let fix = "to serve it from a VM all the same, add a Dockerfile with a web server";
        self.block("static_site", text, fix, file);
    }

    pub(super) fn process(&mut self, name: &str, command: &str, file: &str) {
        self.found("process", format!("{name}: {command}"), file);
        let process = Process { name: name.to_owned(), command: command.to_owned() };
        if name == "web" {
            self.scan.processes.insert(0, process);
        } else {
            self.scan.processes.push(process);
        }
    }

    pub(super) fn has_web(&self) -> bool {
        self.scan.processes.iter().any(|process| process.name == "web")
    }

    /// Whether it only does work that comes by a queue or a bot's connection.
    pub(super) fn is_worker_only(&self) -> bool {
        self.scan.flags.contains(&Flag::WorkerOnly)
    }

    pub(super) fn worker_only(&mut self, file: &str) {
        self.flag(Flag::WorkerOnly, file);
        let text = "nothing of it listens, so there is no web address and no health path";
        self.note("worker_only", text, "nothing to do if that is meant", file);
    }

    /// The scan, its checklist in order.
    pub(super) fn end(mut self) -> Scan {
        self.scan.flags.sort_unstable();
        self.scan.checklist.sort_by_key(|check| !check.blocking);
        self.scan
    }
}

/// The lines that are no comments: what was once so is not what is.
fn without_comments(text: &str) -> String {
    let comment = |line: &&str| {
        let line = line.trim_start();
        line.starts_with("//")
            || line.starts_with('*')
            || line.starts_with("/*")
            || line.starts_with("--")
            || (line.starts_with('#') && !line.starts_with("#["))
    };
    let mut kept = String::with_capacity(text.len());
    for line in text.lines().filter(|line| !comment(line)) {
        kept.push_str(line);
        kept.push('\n');
    }
    kept
}
