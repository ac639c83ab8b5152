//! Reads an expression's text into a tree.

use serde_json::{Number, Value};

/// An operator between two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    And,
    Or,
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// An expression as a tree.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expression {
    Literal(Value),
    Context(String),
    Index(Box<Expression>, Box<Expression>),
    Every(Box<Expression>),
    Not(Box<Expression>),
    Call(String, Vec<Expression>),
    Binary(Operator, Box<Expression>, Box<Expression>),
}

impl Expression {
    /// Whether `success()`, `failure()`, `cancelled()` or `always()` is called anywhere in it.
    pub(super) fn calls_status(&self) -> bool {
        match self {
            Self::Literal(_) | Self::Context(_) => false,
            Self::Index(of, with) | Self::Binary(_, of, with) => {
                of.calls_status() || with.calls_status()
            }
            Self::Every(of) | Self::Not(of) => of.calls_status(),
            Self::Call(name, arguments) => {
                let name = name.to_ascii_lowercase();
                matches!(name.as_str(), "success" | "failure" | "cancelled" | "always")
                    || arguments.iter().any(Self::calls_status)
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Number(f64),
    Sign(&'static str),
}

const SIGNS: &[&str] =
    &["&&", "||", "==", "!=", "<=", ">=", "<", ">", "!", "(", ")", "[", "]", ".", ",", "*"];

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let used;
        if first == '\'' {
            let (value, length) = quoted(&rest[1..])?;
            found.push(Token::Text(value));
            used = length + 1;
        } else if first.is_ascii_alphabetic() || first == '_' {
            used = rest
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-')
                .unwrap_or(rest.len());
            found.push(Token::Word(rest[..used].to_owned()));
        } else if first.is_ascii_digit()
            || (matches!(first, '-' | '+') && rest[1..].starts_with(|c: char| c.is_ascii_digit()))
        {
            let end = rest[1..].find(|c: char| !c.is_ascii_alphanumeric() && c != '.');
            used = end.map_or(rest.len(), |end| end + 1);
            found.push(Token::Number(number(&rest[..used])?));
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            found.push(Token::Sign(sign));
            used = sign.len();
        } else {
            return Err(format!("Unexpected symbol: '{first}'"));
        }
        rest = rest[used..].trim_start();
    }
    Ok(found)
}

fn number(text: &str) -> Result<f64, String> {
    let hex = text.strip_prefix("0x").and_then(|digits| i64::from_str_radix(digits, 16).ok());
    let value = hex.map(|value| value as f64).or_else(|| text.parse().ok());
    value.ok_or_else(|| format!("`{text}` is not a number"))
}

/// The text up to a closing quote, where two quotes mean one; and how many bytes it took.
fn quoted(text: &str) -> Result<(String, usize), String> {
    let mut value = String::new();
    let mut letters = text.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        if letter != '\'' {
            value.push(letter);
        } else if letters.peek().is_some_and(|(_, next)| *next == '\'') {
            value.push('\'');
            letters.next();
        } else {
            return Ok((value, at + 1));
        }
    }
    Err("a text in quotes is not closed".to_owned())
}

/// Reads a whole expression.
pub(super) fn parse(text: &str) -> Result<Expression, String> {
    let mut reader = Reader { tokens: tokens(text)?, at: 0, depth: 0 };
    if reader.tokens.is_empty() {
        return Err("it is empty".to_owned());
    }
    let expression = reader.either()?;
    match reader.tokens.get(reader.at) {
        None => Ok(expression),
        Some(token) => Err(format!("Unexpected symbol: '{}'", shown(token))),
    }
}

fn shown(token: &Token) -> String {
    match token {
        Token::Word(text) | Token::Text(text) => text.clone(),
        Token::Number(number) => number.to_string(),
        Token::Sign(sign) => (*sign).to_owned(),
    }
}

struct Reader {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
}

impl Reader {
    fn takes(&mut self, sign: &str) -> bool {
        let is_next = matches!(self.tokens.get(self.at), Some(Token::Sign(next)) if *next == sign);
        self.at += usize::from(is_next);
        is_next
    }

    fn expect(&mut self, sign: &str) -> Result<(), String> {
        if self.takes(sign) { Ok(()) } else { Err(format!("`{sign}` is missing")) }
    }

    fn either(&mut self) -> Result<Expression, String> {
        self.depth += 1;
        if self.depth > 50 {
            return Err("it is nested too deeply".to_owned());
        }
        let mut left = self.both()?;
        while self.takes("||") {
            left = Expression::Binary(Operator::Or, left.into(), self.both()?.into());
        }
        self.depth -= 1;
        Ok(left)
    }

    fn both(&mut self) -> Result<Expression, String> {
        let mut left = self.comparison()?;
        while self.takes("&&") {
            left = Expression::Binary(Operator::And, left.into(), self.comparison()?.into());
        }
        Ok(left)
    }

    fn comparison(&mut self) -> Result<Expression, String> {
        const OPERATORS: &[(&str, Operator)] = &[
            ("==", Operator::Equal),
            ("!=", Operator::Unequal),
            ("<=", Operator::LessOrEqual),
            (">=", Operator::GreaterOrEqual),
            ("<", Operator::Less),
            (">", Operator::Greater),
        ];
        let mut left = self.unary()?;
        while let Some((_, operator)) = OPERATORS.iter().find(|(sign, _)| self.takes(sign)) {
            left = Expression::Binary(*operator, left.into(), self.unary()?.into());
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expression, String> {
        let mut nots = 0;
        while self.takes("!") {
            nots += 1;
        }
        let inner = self.postfix()?;
        Ok((0..nots).fold(inner, |inner, _| Expression::Not(inner.into())))
    }

    fn postfix(&mut self) -> Result<Expression, String> {
        let mut value = self.primary()?;
        loop {
            if self.takes("[") {
                if self.takes("*") {
                    value = Expression::Every(value.into());
                } else {
                    value = Expression::Index(value.into(), self.either()?.into());
                }
                self.expect("]")?;
            } else if self.takes(".") {
                if self.takes("*") {
                    value = Expression::Every(value.into());
                    continue;
                }
                let Some(Token::Word(name)) = self.tokens.get(self.at).cloned() else {
                    return Err("a name is missing behind `.`".to_owned());
                };
                self.at += 1;
                value = Expression::Index(value.into(), Expression::Literal(name.into()).into());
            } else {
                return Ok(value);
            }
        }
    }

    fn primary(&mut self) -> Result<Expression, String> {
        if self.takes("(") {
            let inner = self.either()?;
            self.expect(")")?;
            return Ok(inner);
        }
        let token = self.tokens.get(self.at).cloned().ok_or("it ends too early")?;
        self.at += 1;
        match token {
            Token::Text(text) => Ok(Expression::Literal(text.into())),
            Token::Number(value) => {
                Ok(Expression::Literal(Number::from_f64(value).map_or(Value::Null, Value::Number)))
            }
            Token::Sign(sign) => Err(format!("Unexpected symbol: '{sign}'")),
            Token::Word(word) if self.takes("(") => Ok(Expression::Call(word, self.arguments()?)),
            Token::Word(word) => Ok(match word.as_str() {
                "true" => Expression::Literal(true.into()),
                "false" => Expression::Literal(false.into()),
                "null" => Expression::Literal(Value::Null),
                _ => Expression::Context(word),
            }),
        }
    }

    fn arguments(&mut self) -> Result<Vec<Expression>, String> {
        let mut found = Vec::new();
        if self.takes(")") {
            return Ok(found);
        }
        loop {
            found.push(self.either()?);
            if self.takes(")") {
                return Ok(found);
            }
            self.expect(",")?;
        }
    }
}
