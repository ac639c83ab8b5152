//! The commands that the shell plays itself: those that look at values or at the runner's files.

use regex::RegexBuilder;

use super::{HOME, Output, Shell};

/// Runs a command of the shell's own; `None` where it is none.
pub(super) fn run(shell: &mut Shell, argv: &[String], stdin: &str) -> Option<Output> {
    let arguments: Vec<&str> = argv[1..].iter().map(String::as_str).collect();
    let output = match argv[0].as_str() {
        ":" | "true" | "umask" | "mkdir" | "chmod" | "chown" | "trap" | "sync" | "sleep"
        | "shopt" | "ulimit" => Output::default(),
        "false" => Output::fail(1, ""),
        "exit" => Output {
            code: arguments.first().map_or(shell.last, |code| code.parse().unwrap_or(2)),
            ..Output::default()
        },
        "echo" => echo(&arguments),
        "printf" => printf(&arguments),
        "set" => {
            shell.nounset |= arguments
                .iter()
                .any(|flag| flag.starts_with('-') && !flag.starts_with("--") && flag.contains('u'));
            Output::default()
        }
        "export" | "local" | "declare" | "readonly" => {
            for (name, value) in arguments.iter().filter_map(|word| word.split_once('=')) {
                shell.env.insert(name.to_owned(), value.to_owned());
            }
            Output::default()
        }
        "unset" => {
            for name in arguments {
                shell.env.remove(name);
            }
            Output::default()
        }
        "cd" => {
            shell.cwd = shell.absolute(arguments.first().copied().unwrap_or(HOME));
            Output::default()
        }
        "pwd" => Output::ok(format!("{}\n", shell.cwd)),
        "touch" => {
            for path in arguments.iter().filter(|word| !word.starts_with('-')) {
                shell.write(path, "", true);
            }
            Output::default()
        }
        "rm" => remove(shell, &arguments),
        "cp" | "mv" | "install" => copy(shell, &argv[0], &arguments),
        "cat" => cat(shell, &arguments, stdin),
        "tee" => {
            let append = arguments.contains(&"-a");
            for path in arguments.iter().filter(|word| !word.starts_with('-')) {
                shell.write(path, stdin, append);
            }
            Output::ok(stdin)
        }
        "head" | "tail" => cut_lines(shell, &argv[0], &arguments, stdin),
        "tr" => translate(&arguments, stdin),
        "sed" => sed(&arguments, stdin),
        "grep" => grep(shell, &arguments, stdin),
        "test" => test(shell, &arguments),
        "[" => test(shell, arguments.strip_suffix(&["]"]).unwrap_or(&arguments)),
        "[[" => test(shell, arguments.strip_suffix(&["]]"]).unwrap_or(&arguments)),
        _ => return None,
    };
    Some(output)
}

fn echo(arguments: &[&str]) -> Output {
    let (text, end) = match arguments {
        ["-n", rest @ ..] => (rest.join(" "), ""),
        ["-e", rest @ ..] => (escaped(&rest.join(" ")), "\n"),
        rest => (rest.join(" "), "\n"),
    };
    Output::ok(format!("{text}{end}"))
}

fn escaped(text: &str) -> String {
    text.replace("\\n", "\n").replace("\\t", "\t").replace("\\r", "\r").replace("\\\\", "\\")
}

fn printf(arguments: &[&str]) -> Output {
    let Some((format, values)) = arguments.split_first() else {
        return Output::fail(2, "bash: printf: usage: printf format [arguments]\n");
    };
    let format = escaped(format);
    let mut values = values.iter();
    let mut text = String::new();
    // As in bash, the format is used again until all values are.
    loop {
        let left = values.len();
        let mut letters = format.chars().peekable();
        while let Some(letter) = letters.next() {
            match (letter, letters.peek()) {
                ('%', Some('%')) => {
                    letters.next();
                    text.push('%');
                }
                ('%', Some('s' | 'd' | 'q')) => {
                    letters.next();
                    text.push_str(values.next().copied().unwrap_or_default());
                }
                ('%', Some('b')) => {
                    letters.next();
                    text.push_str(&escaped(values.next().copied().unwrap_or_default()));
                }
                _ => text.push(letter),
            }
        }
        if values.len() == 0 || values.len() == left {
            return Output::ok(text);
        }
    }
}

fn remove(shell: &mut Shell, arguments: &[&str]) -> Output {
    let forced = arguments.iter().any(|word| word.starts_with('-') && word.contains('f'));
    for path in arguments.iter().filter(|word| !word.starts_with('-')) {
        let path = shell.absolute(path);
        let below = format!("{path}/");
        let before = shell.files.len();
        shell.files.retain(|name, _| *name != path && !name.starts_with(&below));
        if shell.files.len() == before && !forced {
            return Output::fail(
                1,
                format!("rm: cannot remove '{path}': No such file or directory\n"),
            );
        }
    }
    Output::default()
}

fn copy(shell: &mut Shell, name: &str, arguments: &[&str]) -> Output {
    let mut words = Vec::new();
    let mut folders = false;
    let mut skip = false;
    for word in arguments {
        if std::mem::take(&mut skip) {
            continue;
        }
        match *word {
            "-m" | "-o" | "-g" => skip = true,
            flag if flag.starts_with('-') => folders |= flag.contains('d'),
            path => words.push(path),
        }
    }
    if folders && name == "install" {
        return Output::default();
    }
    let [from, to] = words.as_slice() else {
        return Output::fail(1, format!("{name}: the sandbox plays it with two paths only\n"));
    };
    let bytes = if *from == "/dev/null" {
        Some(Vec::new().into())
    } else {
        shell.files.get(&shell.absolute(from)).cloned()
    };
    let Some(bytes) = bytes else {
        return Output::fail(
            1,
            format!("{name}: cannot stat '{from}': No such file or directory\n"),
        );
    };
    let to = shell.absolute(to);
    shell.files.insert(to, bytes);
    if name == "mv" {
        let from = shell.absolute(from);
        shell.files.remove(&from);
    }
    Output::default()
}

fn cat(shell: &Shell, arguments: &[&str], stdin: &str) -> Output {
    let paths: Vec<&&str> = arguments.iter().filter(|word| !word.starts_with('-')).collect();
    if paths.is_empty() {
        return Output::ok(stdin);
    }
    let mut text = String::new();
    for path in paths {
        match shell.read(path) {
            Some(content) => text.push_str(&content),
            None => return Output::fail(1, format!("cat: {path}: No such file or directory\n")),
        }
    }
    Output::ok(text)
}

fn cut_lines(shell: &Shell, name: &str, arguments: &[&str], stdin: &str) -> Output {
    let mut count = 10;
    let mut text = stdin.to_owned();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.strip_prefix('-') {
            Some("n") => count = words.next().and_then(|count| count.parse().ok()).unwrap_or(count),
            Some(flag) => count = flag.trim_start_matches('n').parse().unwrap_or(count),
            None => text = shell.read(word).unwrap_or_default(),
        }
    }
    let lines: Vec<&str> = text.lines().collect();
    let kept = if name == "head" {
        &lines[..count.min(lines.len())]
    } else {
        &lines[lines.len().saturating_sub(count)..]
    };
    Output::ok(kept.iter().map(|line| format!("{line}\n")).collect::<String>())
}

fn translate(arguments: &[&str], stdin: &str) -> Output {
    match arguments {
        ["[:upper:]", "[:lower:]"] | ["A-Z", "a-z"] => Output::ok(stdin.to_lowercase()),
        ["[:lower:]", "[:upper:]"] | ["a-z", "A-Z"] => Output::ok(stdin.to_uppercase()),
        ["-d", letters] => {
            let letters = escaped(letters);
            Output::ok(
                stdin.chars().filter(|letter| !letters.contains(*letter)).collect::<String>(),
            )
        }
        _ => Output::fail(1, "tr: the sandbox plays only a change of case and -d\n"),
    }
}

/// `sed -E '[/address/[!]]s/pattern/instead/[g]'` on standard input.
fn sed(arguments: &[&str], stdin: &str) -> Output {
    let words: Vec<&&str> = arguments.iter().filter(|word| !word.starts_with('-')).collect();
    let refused = || {
        Output::fail(1, "sed: the sandbox plays only `[/address/[!]]s/a/b/[g]` on standard input\n")
    };
    let [expression] = words.as_slice() else { return refused() };
    let mut rest: &str = expression;
    let mut address = None;
    if let Some(inner) = rest.strip_prefix('/') {
        let Some((pattern, after)) = inner.split_once('/') else { return refused() };
        let (inverted, after) =
            after.strip_prefix('!').map_or((false, after), |after| (true, after));
        let Ok(pattern) = regex::Regex::new(pattern) else { return refused() };
        address = Some((pattern, inverted));
        rest = after;
    }
    let Some(separator) = rest.strip_prefix('s').and_then(|rest| rest.chars().next()) else {
        return refused();
    };
    let parts: Vec<&str> = rest[1..].split(separator).collect();
    let ["", pattern, instead, flags] = parts.as_slice() else { return refused() };
    let Ok(pattern) = regex::Regex::new(pattern) else { return refused() };
    let instead = (1..=9).fold(instead.replace('$', "$$"), |text, group| {
        text.replace(&format!("\\{group}"), &format!("${{{group}}}"))
    });
    let mut text = String::new();
    for line in stdin.lines() {
        let chosen =
            address.as_ref().is_none_or(|(address, inverted)| address.is_match(line) != *inverted);
        let times = if flags.contains('g') { 0 } else { 1 };
        text.push_str(&if chosen {
            pattern.replacen(line, times, instead.as_str())
        } else {
            line.into()
        });
        text.push('\n');
    }
    Output::ok(text)
}

fn grep(shell: &Shell, arguments: &[&str], stdin: &str) -> Output {
    let mut flags = String::new();
    let mut words = Vec::new();
    let mut literal = false;
    for word in arguments {
        match word.strip_prefix('-') {
            Some("-") if !literal => literal = true,
            Some("e") if !literal => {}
            Some(given) if !literal && !given.is_empty() => flags.push_str(given),
            _ => words.push(*word),
        }
    }
    let Some((pattern, paths)) = words.split_first() else {
        return Output::fail(2, "grep: a pattern is missing\n");
    };
    let has = |flag: char| flags.contains(flag);
    let mut regex = if has('F') { regex::escape(pattern) } else { (*pattern).to_owned() };
    if has('x') {
        regex = format!("^(?:{regex})$");
    }
    let Ok(regex) = RegexBuilder::new(&regex).case_insensitive(has('i')).build() else {
        return Output::fail(2, "grep: the pattern cannot be read\n");
    };
    let text = match paths.first() {
        None => stdin.to_owned(),
        Some(path) => match shell.read(path) {
            Some(text) => text,
            None => return Output::fail(2, format!("grep: {path}: No such file or directory\n")),
        },
    };
    let found: Vec<&str> = text.lines().filter(|line| regex.is_match(line) != has('v')).collect();
    let code = i32::from(found.is_empty());
    let out = match () {
        () if has('q') => String::new(),
        () if has('c') => format!("{}\n", found.len()),
        () => found.iter().map(|line| format!("{line}\n")).collect(),
    };
    Output { code, out, err: String::new() }
}

fn test(shell: &Shell, words: &[&str]) -> Output {
    match holds(shell, words) {
        Some(true) => Output::default(),
        Some(false) => Output::fail(1, ""),
        None => Output::fail(2, format!("bash: the sandbox cannot test `{}`\n", words.join(" "))),
    }
}

fn holds(shell: &Shell, words: &[&str]) -> Option<bool> {
    for (sign, both) in [("||", false), ("-o", false), ("&&", true), ("-a", true)] {
        if let Some(at) = words.iter().position(|word| *word == sign).filter(|at| *at > 0) {
            let (left, right) = (holds(shell, &words[..at])?, holds(shell, &words[at + 1..])?);
            return Some(if both { left && right } else { left || right });
        }
    }
    match words {
        [] => Some(false),
        ["!", rest @ ..] => holds(shell, rest).map(|value| !value),
        ["-z", text] => Some(text.is_empty()),
        ["-n", text] | [text] => Some(!text.is_empty()),
        ["-f" | "-e" | "-r", path] => Some(shell.read(path).is_some()),
        ["-s", path] => Some(shell.read(path).is_some_and(|text| !text.is_empty())),
        ["-d", path] => {
            let below = format!("{}/", shell.absolute(path));
            Some(shell.files.keys().any(|name| name.starts_with(&below)))
        }
        ["-x", path] => Some(shell.read(path).is_some()),
        [left, "=~", right] => regex::Regex::new(right).ok().map(|regex| regex.is_match(left)),
        [left, "=" | "==", right] => Some(matches_glob(left, right)),
        [left, "!=", right] => Some(!matches_glob(left, right)),
        [left, operator, right] => {
            let (left, right): (i64, i64) = (left.parse().ok()?, right.parse().ok()?);
            match *operator {
                "-eq" => Some(left == right),
                "-ne" => Some(left != right),
                "-gt" => Some(left > right),
                "-ge" => Some(left >= right),
                "-lt" => Some(left < right),
                "-le" => Some(left <= right),
                _ => None,
            }
        }
        _ => None,
    }
}

/// `[[ a == b* ]]`: a star at the ends of the pattern.
fn matches_glob(text: &str, pattern: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(_), Some(_)) if pattern.len() > 1 => text.contains(&pattern[1..pattern.len() - 1]),
        (Some(end), None) => text.ends_with(end),
        (None, Some(start)) => text.starts_with(start),
        _ => text == pattern,
    }
}
