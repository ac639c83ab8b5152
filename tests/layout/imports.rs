//! Reads the paths that a Rust file names, by its tokens: comments and strings do not count, and
//! what stands inside a macro call does.

use proc_macro2::{Delimiter, Group, Spacing, TokenStream, TokenTree};

/// One path as the file writes it, a group such as `crate::{a, b}` being one path for each branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path {
    /// The words between the double colons; `*` for a glob.
    pub(crate) segments: Vec<String>,
    /// Where it begins, counted from 1.
    pub(crate) line: usize,
    /// The inline modules around it, outermost first.
    pub(crate) inside: Vec<String>,
}

impl Path {
    /// Whether the path stands in the unit tests of its file.
    pub(crate) fn in_unit_tests(&self) -> bool {
        self.inside.iter().any(|module| module == "tests")
    }

    /// Whether these words follow each other somewhere in the path.
    pub(crate) fn contains(&self, words: &[&str]) -> bool {
        self.segments.windows(words.len()).any(|window| window == words)
    }
}

/// What a file names: its paths, and the words of its attributes.
#[derive(Debug, Default)]
pub(crate) struct Named {
    /// Every path, single words included.
    pub(crate) paths: Vec<Path>,
    /// For each attribute its line and the words in it, in order.
    pub(crate) attributes: Vec<(usize, Vec<String>)>,
}

/// Reads one file.
///
/// # Errors
/// The lexer's message, where the text is not made of Rust tokens.
pub(crate) fn read(text: &str) -> Result<Named, String> {
    let tokens: TokenStream = text.parse().map_err(|error| format!("is not Rust: {error}"))?;
    let mut named = Named::default();
    walk(tokens, &[], &mut named);
    Ok(named)
}

fn walk(tokens: TokenStream, inside: &[String], named: &mut Named) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Group(group) => {
                if let Some(line) = attribute_line(&tokens, at, group) {
                    named.attributes.push((line, words(group.stream())));
                }
                walk(group.stream(), &within(&tokens, at, inside), named);
                at += 1;
            }
            TokenTree::Ident(_) => {
                at = read_path(&tokens, at, &[], inside, named).max(at + 1);
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => at += 1,
        }
    }
}

/// The modules around the content of the group at `at`: one more behind `mod NAME`.
fn within(tokens: &[TokenTree], at: usize, inside: &[String]) -> Vec<String> {
    let mut modules = inside.to_vec();
    if at >= 2
        && word(&tokens[at - 2]).as_deref() == Some("mod")
        && let Some(name) = word(&tokens[at - 1])
    {
        modules.push(name);
    }
    modules
}

fn attribute_line(tokens: &[TokenTree], at: usize, group: &Group) -> Option<usize> {
    let before = |back: usize| at.checked_sub(back).map(|index| &tokens[index]);
    let is = |token: Option<&TokenTree>, sign: char| matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == sign);
    let marked = is(before(1), '#') || (is(before(1), '!') && is(before(2), '#'));
    (marked && group.delimiter() == Delimiter::Bracket).then(|| group.span_open().start().line)
}

/// Reads the path that begins at `at`, branches included; answers where to go on.
fn read_path(
    tokens: &[TokenTree],
    mut at: usize,
    prefix: &[String],
    inside: &[String],
    named: &mut Named,
) -> usize {
    let line = tokens[at].span().start().line;
    let mut segments = prefix.to_vec();
    loop {
        match tokens.get(at) {
            Some(TokenTree::Ident(_)) => segments.extend(word(&tokens[at])),
            Some(TokenTree::Punct(punct)) if punct.as_char() == '*' => segments.push("*".into()),
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                read_branches(group, &segments, inside, named);
                return at + 1;
            }
            _ => break,
        }
        at += 1;
        if !is_double_colon(tokens, at) {
            break;
        }
        at += 2;
    }
    named.paths.push(Path { segments, line, inside: inside.to_vec() });
    at
}

fn read_branches(group: &Group, prefix: &[String], inside: &[String], named: &mut Named) {
    let tokens: Vec<TokenTree> = group.stream().into_iter().collect();
    let is_comma =
        |token: &TokenTree| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ',');
    for branch in tokens.split(is_comma).filter(|branch| !branch.is_empty()) {
        read_path(branch, 0, prefix, inside, named);
    }
}

fn is_double_colon(tokens: &[TokenTree], at: usize) -> bool {
    let colon = |token: Option<&TokenTree>| match token {
        Some(TokenTree::Punct(punct)) if punct.as_char() == ':' => Some(punct.spacing()),
        _ => None,
    };
    colon(tokens.get(at)) == Some(Spacing::Joint) && colon(tokens.get(at + 1)).is_some()
}

fn word(token: &TokenTree) -> Option<String> {
    match token {
        TokenTree::Ident(ident) => Some(ident.to_string().trim_start_matches("r#").to_owned()),
        _ => None,
    }
}

fn words(tokens: TokenStream) -> Vec<String> {
    tokens
        .into_iter()
        .flat_map(|token| match token {
            TokenTree::Group(group) => words(group.stream()),
            other => word(&other).into_iter().collect(),
        })
        .collect()
}
