//! Reads a script into commands.

mod case;

/// A piece of a word.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Part {
    /// Text as it stands; `true` where it was quoted.
    Text(String, bool),
    /// `$NAME` or `${NAME...}`: its name, what stands behind it in the braces, whether quoted.
    Variable(String, String, bool),
    /// `$(...)`, whether quoted.
    Command(Vec<Node>, bool),
}

/// A word of a command.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Word(pub(super) Vec<Part>);

impl Word {
    /// Whether a command is substituted in it.
    pub(super) fn has_command(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Command(..)))
    }

    fn plain(&self) -> Option<&str> {
        match self.0.as_slice() {
            [Part::Text(text, false)] => Some(text),
            _ => None,
        }
    }
}

/// Where a redirection leads.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Target {
    File {
        path: Word,
        append: bool,
    },
    Merge {
        from: i32,
        to: i32,
    },
    Text(Word),
    Input(Word),
    /// `> >(...)`.
    Through(Vec<Node>),
}

/// A redirection; `from` is a file descriptor, or -1 for `&>`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Redirect {
    pub(super) from: i32,
    pub(super) target: Target,
}

/// A command with its arguments.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Simple {
    pub(super) assignments: Vec<(String, Word)>,
    pub(super) words: Vec<Word>,
    pub(super) redirects: Vec<Redirect>,
}

/// A command of any kind.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Simple(Simple),
    Pipe(Vec<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Not(Box<Node>),
    Group(Vec<Node>, Vec<Redirect>),
    If(Vec<(Vec<Node>, Vec<Node>)>, Vec<Node>),
    For(String, Vec<Word>, Vec<Node>),
    Case(Word, Vec<Arm>),
}

/// One arm of a `case`: its patterns and its commands.
pub(super) type Arm = (Vec<Word>, Vec<Node>);

type Parsed<T> = Result<T, String>;

/// Reads a whole script.
pub(super) fn parse(text: &str) -> Parsed<Vec<Node>> {
    let mut reader = Reader { text: text.chars().collect(), at: 0, heredocs: Vec::new() };
    let nodes = reader.list(&[])?;
    match reader.peek() {
        None => Ok(nodes),
        Some(letter) => Err(format!("syntax error near `{letter}`")),
    }
}

struct Reader {
    text: Vec<char>,
    at: usize,
    /// Heredocs of this line, whose bodies come behind it: (marker, whether it expands).
    heredocs: Vec<(String, bool)>,
}

const BODIES: char = '\u{1}';

impl Reader {
    fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    fn starts(&self, text: &str) -> bool {
        text.chars()
            .enumerate()
            .all(|(offset, letter)| self.text.get(self.at + offset) == Some(&letter))
    }

    fn takes(&mut self, text: &str) -> bool {
        let found = self.starts(text);
        if found {
            self.at += text.chars().count();
        }
        found
    }

    fn blanks(&mut self) {
        loop {
            if self.takes("\\\n") {
            } else if self
                .peek()
                .is_some_and(|letter| letter == ' ' || letter == '\t' || letter == '\r')
            {
                self.at += 1;
            } else if self.peek() == Some('#') {
                while self.peek().is_some_and(|letter| letter != '\n') {
                    self.at += 1;
                }
            } else {
                return;
            }
        }
    }

    /// The reserved word that stands here, if one of these does.
    fn at_word<'a>(&self, words: &[&'a str]) -> Option<&'a str> {
        words.iter().copied().find(|word| {
            self.starts(word)
                && self
                    .text
                    .get(self.at + word.chars().count())
                    .is_none_or(|next| next.is_whitespace() || ";)".contains(*next))
        })
    }

    fn separators(&mut self) {
        loop {
            self.blanks();
            match self.peek() {
                Some('\n') => self.at += 1,
                Some(';') if !self.starts(";;") => self.at += 1,
                _ => return,
            }
        }
    }

    /// Commands up to one of these reserved words, a closing bracket, or the end.
    fn list(&mut self, ends: &[&str]) -> Parsed<Vec<Node>> {
        let mut nodes = Vec::new();
        loop {
            self.separators();
            let ended = self
                .peek()
                .is_none_or(|letter| letter == ')' || (letter == '}' && ends.contains(&"}")));
            if ended || self.starts(";;") || self.at_word(ends).is_some() {
                return Ok(nodes);
            }
            let before = self.at;
            nodes.push(self.and_or()?);
            self.blanks();
            if self.at == before {
                return Err(format!("syntax error near `{}`", self.peek().unwrap_or(' ')));
            }
        }
    }

    fn and_or(&mut self) -> Parsed<Node> {
        let mut left = self.pipeline()?;
        loop {
            self.blanks();
            if self.takes("&&") {
                self.separators();
                left = Node::And(left.into(), self.pipeline()?.into());
            } else if self.takes("||") {
                self.separators();
                left = Node::Or(left.into(), self.pipeline()?.into());
            } else {
                return Ok(left);
            }
        }
    }

    fn pipeline(&mut self) -> Parsed<Node> {
        self.blanks();
        if self.at_word(&["!"]).is_some() {
            self.at += 1;
            return Ok(Node::Not(self.pipeline()?.into()));
        }
        let mut parts = vec![self.one()?];
        loop {
            self.blanks();
            if self.starts("||") || !self.takes("|") {
                break;
            }
            self.separators();
            parts.push(self.one()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Node::Pipe(parts) })
    }

    fn one(&mut self) -> Parsed<Node> {
        self.blanks();
        match self.at_word(&["if", "for", "{", "while", "until", "case", "function"]) {
            Some("if") => self.conditional(),
            Some("for") => self.each(),
            Some("case") => self.case(),
            Some("{") => {
                self.at += 1;
                let nodes = self.list(&["}"])?;
                self.close("}")?;
                Ok(Node::Group(nodes, self.redirects()?))
            }
            Some(word) => Err(format!("the sandbox's shell does not know `{word}`")),
            None if self.peek() == Some('(') => {
                self.at += 1;
                let nodes = self.list(&[])?;
                self.close(")")?;
                Ok(Node::Group(nodes, self.redirects()?))
            }
            None => self.simple(),
        }
    }

    fn close(&mut self, word: &str) -> Parsed<()> {
        self.separators();
        if self.takes(word) { Ok(()) } else { Err(format!("syntax error: `{word}` is missing")) }
    }

    fn conditional(&mut self) -> Parsed<Node> {
        let mut branches = Vec::new();
        self.at += "if".len();
        loop {
            let condition = self.list(&["then"])?;
            self.close("then")?;
            branches.push((condition, self.list(&["elif", "else", "fi"])?));
            if self.at_word(&["elif"]).is_none() {
                break;
            }
            self.at += "elif".len();
        }
        let mut otherwise = Vec::new();
        if self.at_word(&["else"]).is_some() {
            self.at += "else".len();
            otherwise = self.list(&["fi"])?;
        }
        self.close("fi")?;
        Ok(Node::If(branches, otherwise))
    }

    fn each(&mut self) -> Parsed<Node> {
        self.at += "for".len();
        self.blanks();
        let name = self.word()?.plain().map(str::to_owned).ok_or("`for` needs a name")?;
        self.blanks();
        self.close("in")?;
        let mut words = Vec::new();
        loop {
            self.blanks();
            if self.peek().is_none_or(|letter| letter == ';' || letter == '\n') {
                break;
            }
            words.push(self.word()?);
        }
        self.close("do")?;
        let body = self.list(&["done"])?;
        self.close("done")?;
        Ok(Node::For(name, words, body))
    }

    fn redirects(&mut self) -> Parsed<Vec<Redirect>> {
        let mut found = Vec::new();
        loop {
            self.blanks();
            match self.redirect()? {
                Some(redirect) => found.push(redirect),
                None => return Ok(found),
            }
        }
    }

    fn simple(&mut self) -> Parsed<Node> {
        let mut simple = Simple::default();
        let mut in_test = false;
        loop {
            self.blanks();
            if let Some(redirect) = (!in_test).then(|| self.redirect()).transpose()?.flatten() {
                simple.redirects.push(redirect);
                continue;
            }
            match self.peek() {
                None | Some('\n' | ';' | ')') => break,
                Some('|' | '&') if !in_test => break,
                _ => {}
            }
            if in_test && (self.starts("&&") || self.starts("||")) {
                let sign: String = self.text[self.at..self.at + 2].iter().collect();
                self.at += 2;
                simple.words.push(Word(vec![Part::Text(sign, false)]));
                continue;
            }
            if simple.words.is_empty()
                && let Some(name) = self.assignment()
            {
                simple.assignments.push((name, self.word()?));
                continue;
            }
            let word = self.word()?;
            in_test = match word.plain() {
                Some("[[") if simple.words.is_empty() => true,
                Some("]]") => false,
                _ => in_test,
            };
            simple.words.push(word);
        }
        if self.peek() == Some('\n') && !self.heredocs.is_empty() {
            self.bodies(&mut simple)?;
        }
        Ok(Node::Simple(simple))
    }

    /// The name of an assignment that stands here; passes over it and its `=`.
    fn assignment(&mut self) -> Option<String> {
        let rest = &self.text[self.at..];
        let end =
            rest.iter().position(|letter| !letter.is_ascii_alphanumeric() && *letter != '_')?;
        let fits = end > 0 && rest[end] == '=' && !rest[0].is_ascii_digit();
        fits.then(|| {
            let name = rest[..end].iter().collect();
            self.at += end + 1;
            name
        })
    }

    fn redirect(&mut self) -> Parsed<Option<Redirect>> {
        let mut from = 1;
        if self.starts("2>") || self.starts("1>") {
            from = if self.starts("2>") { 2 } else { 1 };
            self.at += 1;
        } else if self.takes("&>") {
            self.blanks();
            return Ok(Some(Redirect {
                from: -1,
                target: Target::File { path: self.word()?, append: false },
            }));
        }
        let target = if self.takes("<<<") {
            self.blanks();
            let mut word = self.word()?;
            word.0.push(Part::Text("\n".to_owned(), true));
            Target::Text(word)
        } else if self.takes("<<") {
            let _ = self.takes("-");
            self.blanks();
            let word = self.word()?;
            let expands = word.plain().is_some();
            let marker = word.0.iter().filter_map(|part| match part {
                Part::Text(text, _) => Some(text.as_str()),
                _ => None,
            });
            self.heredocs.push((marker.collect(), expands));
            Target::Text(Word(vec![Part::Text(BODIES.to_string(), true)]))
        } else if self.takes(">>") {
            self.blanks();
            Target::File { path: self.word()?, append: true }
        } else if self.takes(">&") {
            let to = if self.takes("2") { 2 } else { 1 };
            let _ = self.takes("1");
            Target::Merge { from, to }
        } else if self.takes(">") {
            self.blanks();
            if self.takes(">(") {
                let nodes = self.list(&[])?;
                self.close(")")?;
                return Ok(Some(Redirect { from, target: Target::Through(nodes) }));
            }
            Target::File { path: self.word()?, append: false }
        } else if self.takes("<") {
            self.blanks();
            Target::Input(self.word()?)
        } else {
            return Ok(None);
        };
        Ok(Some(Redirect { from, target }))
    }

    /// Reads the heredocs behind this line into the command's redirections.
    fn bodies(&mut self, simple: &mut Simple) -> Parsed<()> {
        self.at += 1;
        for (marker, expands) in std::mem::take(&mut self.heredocs) {
            let mut body = String::new();
            loop {
                let end = self.text[self.at..]
                    .iter()
                    .position(|letter| *letter == '\n')
                    .map_or(self.text.len(), |end| self.at + end);
                let line: String = self.text[self.at..end].iter().collect();
                let at_end = end == self.text.len();
                self.at = (end + 1).min(self.text.len());
                if line.trim_start_matches('\t') == marker {
                    break;
                }
                if at_end {
                    return Err(format!("the here-document has no `{marker}`"));
                }
                body.push_str(&line);
                body.push('\n');
            }
            let word = if expands { expanding(&body)? } else { Word(vec![Part::Text(body, true)]) };
            let place = simple.redirects.iter_mut().find(|redirect| {
                matches!(&redirect.target, Target::Text(Word(parts)) if matches!(parts.as_slice(), [Part::Text(text, true)] if text.starts_with(BODIES)))
            });
            if let Some(place) = place {
                place.target = Target::Text(word);
            }
        }
        // The newline belongs to the command; the next list item begins behind it.
        if self.text.get(self.at.saturating_sub(1)) == Some(&'\n') {
            self.at -= 1;
        }
        Ok(())
    }

    fn word(&mut self) -> Parsed<Word> {
        let mut parts = Vec::new();
        let mut text = String::new();
        while let Some(letter) = self.peek() {
            match letter {
                ' ' | '\t' | '\r' | '\n' | ';' | '|' | '&' | '<' | '>' | '(' | ')' => break,
                '\'' => {
                    flush(&mut text, &mut parts);
                    self.at += 1;
                    let start = self.at;
                    while self.peek().ok_or("a quote is not closed")? != '\'' {
                        self.at += 1;
                    }
                    parts.push(Part::Text(self.text[start..self.at].iter().collect(), true));
                    self.at += 1;
                }
                '"' => {
                    flush(&mut text, &mut parts);
                    self.at += 1;
                    self.quoted(&mut parts)?;
                }
                '\\' => {
                    self.at += 1;
                    if let Some(next) = self.peek().filter(|next| *next != '\n') {
                        flush(&mut text, &mut parts);
                        parts.push(Part::Text(next.to_string(), true));
                    }
                    self.at += 1;
                }
                '$' => {
                    flush(&mut text, &mut parts);
                    parts.push(self.dollar(false)?);
                }
                _ => {
                    text.push(letter);
                    self.at += 1;
                }
            }
        }
        flush(&mut text, &mut parts);
        if parts.is_empty() {
            return Err(format!("syntax error near `{}`", self.peek().unwrap_or(' ')));
        }
        Ok(Word(parts))
    }

    /// The rest of a text in double quotes.
    fn quoted(&mut self, parts: &mut Vec<Part>) -> Parsed<()> {
        let mut text = String::new();
        loop {
            match self.peek().ok_or("a double quote is not closed")? {
                '"' => break,
                '\\' if self
                    .text
                    .get(self.at + 1)
                    .is_some_and(|next| "\"\\$`\n".contains(*next)) =>
                {
                    if self.text[self.at + 1] != '\n' {
                        text.push(self.text[self.at + 1]);
                    }
                    self.at += 2;
                }
                '$' => {
                    parts.push(Part::Text(std::mem::take(&mut text), true));
                    parts.push(self.dollar(true)?);
                }
                letter => {
                    text.push(letter);
                    self.at += 1;
                }
            }
        }
        self.at += 1;
        parts.push(Part::Text(text, true));
        Ok(())
    }

    fn dollar(&mut self, quoted: bool) -> Parsed<Part> {
        self.at += 1;
        if self.takes("(") {
            let mut inner =
                Reader { text: std::mem::take(&mut self.text), at: self.at, heredocs: Vec::new() };
            let nodes = inner.list(&[]);
            (self.text, self.at) = (inner.text, inner.at);
            let nodes = nodes?;
            self.close(")")?;
            return Ok(Part::Command(nodes, quoted));
        }
        if self.takes("{") {
            let start = self.at;
            while self.peek().ok_or("`${` is not closed")? != '}' {
                self.at += 1;
            }
            let inside: String = self.text[start..self.at].iter().collect();
            self.at += 1;
            let end = inside
                .find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
                .unwrap_or(inside.len());
            return Ok(Part::Variable(inside[..end].to_owned(), inside[end..].to_owned(), quoted));
        }
        let start = self.at;
        if self.peek().is_some_and(|letter| "?#@$!*".contains(letter)) {
            self.at += 1;
        } else {
            while self.peek().is_some_and(|letter| letter.is_ascii_alphanumeric() || letter == '_')
            {
                self.at += 1;
            }
        }
        let name: String = self.text[start..self.at].iter().collect();
        Ok(if name.is_empty() {
            Part::Text("$".to_owned(), true)
        } else {
            Part::Variable(name, String::new(), quoted)
        })
    }
}

fn flush(text: &mut String, parts: &mut Vec<Part>) {
    if !text.is_empty() {
        parts.push(Part::Text(std::mem::take(text), false));
    }
}

/// The body of a heredoc, in which variables and commands are replaced.
fn expanding(body: &str) -> Parsed<Word> {
    let text: Vec<char> = body.replace('"', "\\\"").chars().chain(['"']).collect();
    let mut reader = Reader { text, at: 0, heredocs: Vec::new() };
    let mut parts = Vec::new();
    reader.quoted(&mut parts)?;
    Ok(Word(parts))
}
