//! Reads Rust sources as tokens, so that comments and strings cannot deceive a guard.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::collections::BTreeSet;
use std::path::Path;

/// A path into another module of the same crate.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Use {
    /// The top-level module that the path leads into.
    pub module: String,
}

/// What a guard wants to know of one file. Items under `#[cfg(test)]` are left out.
#[derive(Debug)]
pub struct Source {
    /// Relative to the workspace.
    pub path: String,
    /// The top-level module the file belongs to; `lib` or `main` for the root.
    pub home: String,
    /// Top-level modules of its crate that it names.
    pub uses: BTreeSet<Use>,
    /// First segments of paths that lead out of the crate, and what else looks like one.
    pub foreign: BTreeSet<String>,
    /// Modules in files of their own that it declares: name, and whether it is for tests only.
    declared: Vec<(Vec<String>, bool)>,
}

impl Source {
    /// Reads `text`, the file of the module at `module` (empty for the root of a crate).
    pub fn parse(path: &str, home: &str, module: &[String], text: &str) -> Self {
        let tokens: TokenStream = text
            .parse()
            .unwrap_or_else(|error| panic!("`{path}` is not Rust: {error}"));
        let mut source = Self {
            path: path.to_owned(),
            home: home.to_owned(),
            uses: BTreeSet::new(),
            foreign: BTreeSet::new(),
            declared: Vec::new(),
        };
        source.walk(&tokens.into_iter().collect::<Vec<_>>(), module);
        source
    }

    /// Reads `tokens`, which stand in `module`.
    fn walk(&mut self, tokens: &[TokenTree], module: &[String]) {
        let mut at = 0;
        let mut only_test = false;
        while at < tokens.len() {
            let rest = &tokens[at..];
            if let Some(length) = attribute(rest) {
                let body = &rest[length - 1];
                only_test |= is_cfg_test(body);
                self.walk(std::slice::from_ref(body), module);
                at += length;
                continue;
            }
            if only_test && !is_ident(&rest[0], "mod") && !is_ident(&rest[0], "pub") {
                at += item_length(rest);
                only_test = false;
                continue;
            }
            match rest {
                [TokenTree::Ident(word), TokenTree::Ident(name), body, ..] if word == "mod" => {
                    let mut inner = module.to_vec();
                    inner.push(name.to_string());
                    match body {
                        TokenTree::Group(_) if only_test => {}
                        TokenTree::Group(group) => self.walk_group(group.stream(), &inner),
                        _ => self.declared.push((inner, only_test)),
                    }
                    only_test = false;
                    at += 3;
                }
                // `pub(in crate::x)`, `pub(crate)`, `pub(super)`: says who may look, not whom it uses.
                [TokenTree::Ident(word), TokenTree::Group(group), ..]
                    if word == "pub" && group.delimiter() == Delimiter::Parenthesis =>
                {
                    at += 2;
                }
                [TokenTree::Ident(word), ..] if word == "use" => {
                    let end = item_length(rest);
                    self.tree(&rest[1..end], module);
                    at += end;
                }
                [TokenTree::Ident(_), ..] if is_path(&rest[1..]) && !after_path(&tokens[..at]) => {
                    at += self.path(rest, module);
                }
                [TokenTree::Group(group), ..] => {
                    self.walk_group(group.stream(), module);
                    at += 1;
                }
                _ => at += 1,
            }
        }
    }

    fn walk_group(&mut self, stream: TokenStream, module: &[String]) {
        self.walk(&stream.into_iter().collect::<Vec<_>>(), module);
    }

    /// Reads the tree of a `use`, from `tokens` up to its end; alternatives are split by commas.
    fn tree(&mut self, tokens: &[TokenTree], module: &[String]) {
        for branch in tokens.split(|token| is_punct(token, ',')) {
            let start = branch
                .iter()
                .take_while(|token| is_punct(token, ':'))
                .count();
            match &branch[start..] {
                [TokenTree::Group(group), ..] => {
                    self.tree(&group.stream().into_iter().collect::<Vec<_>>(), module);
                }
                rest @ [TokenTree::Ident(_), ..] => {
                    self.path(rest, module);
                }
                _ => {}
            }
        }
    }

    /// Reads a path with at least one segment; returns how many tokens were used up.
    fn path(&mut self, tokens: &[TokenTree], module: &[String]) -> usize {
        let mut at = 0;
        let mut base: Option<Vec<String>> = None;
        while let Some(TokenTree::Ident(word)) = tokens.get(at) {
            let word = word.to_string();
            base = match (word.as_str(), base) {
                ("crate", None) => Some(Vec::new()),
                ("self", None) => Some(module.to_vec()),
                ("super", None) => Some(parent(module)),
                ("super", Some(base)) => Some(parent(&base)),
                (_, None) => {
                    self.foreign.insert(word);
                    return at + 1;
                }
                (_, Some(base)) => {
                    self.reach(&base, &word);
                    return at + 1;
                }
            };
            at += 1;
            if !is_path(&tokens[at.min(tokens.len())..]) {
                return at;
            }
            at += 2;
        }
        match (tokens.get(at), base) {
            // `crate::{a, b}`
            (Some(TokenTree::Group(group)), Some(base)) => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                for first in inner
                    .split(|token| is_punct(token, ','))
                    .filter_map(<[_]>::first)
                {
                    self.reach(&base, &first.to_string());
                }
            }
            // `crate::*`
            (Some(star), Some(base)) if is_punct(star, '*') => self.reach(&base, "*"),
            _ => {}
        }
        at.max(1)
    }

    /// Notes that `base::name` is used: it matters where `base` is the root of the crate.
    fn reach(&mut self, base: &[String], name: &str) {
        let module = base.first().map_or(name, String::as_str);
        self.uses.insert(Use {
            module: module.to_owned(),
        });
    }
}

/// All files of the crate whose root is `folder/root`, by following its `mod` declarations.
pub fn tree(folder: &str, workspace: &Path, root: &str) -> Vec<Source> {
    follow(folder, workspace, root).0
}

/// The files of modules that exist for tests only.
#[allow(dead_code, reason = "not every guard asks")]
pub fn test_files(folder: &str, workspace: &Path, root: &str) -> Vec<String> {
    follow(folder, workspace, root).1
}

fn follow(folder: &str, workspace: &Path, root: &str) -> (Vec<Source>, Vec<String>) {
    let mut sources = Vec::new();
    let mut tests = Vec::new();
    let mut open = vec![(Vec::<String>::new(), format!("{folder}/{root}"), false)];
    while let Some((module, path, only_test)) = open.pop() {
        let text = std::fs::read_to_string(workspace.join(&path)).unwrap();
        let home = module.first().map_or("lib", String::as_str);
        let source = Source::parse(&path, home, &module, &text);
        for (declared, test) in &source.declared {
            let stem = format!("{folder}/{}", declared.join("/"));
            let only_test = only_test || *test;
            let candidates = [format!("{stem}.rs"), format!("{stem}/mod.rs")];
            match candidates
                .into_iter()
                .find(|path| workspace.join(path).exists())
            {
                Some(found) => open.push((declared.clone(), found, only_test)),
                // Fixtures stand outside of `src`, behind a `#[path]`.
                None if only_test => {}
                None => panic!(
                    "`{path}` declares `{}`, which has no file",
                    declared.join("::")
                ),
            }
        }
        if only_test {
            tests.push(path);
        } else {
            sources.push(source);
        }
    }
    (sources, tests)
}

/// Whether `text` holds `word` as an identifier or keyword, outside of comments and strings.
pub fn has_ident(text: &str, word: &str) -> bool {
    fn search(stream: TokenStream, word: &str) -> bool {
        stream.into_iter().any(|token| match token {
            TokenTree::Group(group) => search(group.stream(), word),
            token => is_ident(&token, word),
        })
    }
    text.parse().is_ok_and(|stream| search(stream, word))
}

fn parent(module: &[String]) -> Vec<String> {
    module[..module.len().saturating_sub(1)].to_vec()
}

fn is_ident(token: &TokenTree, word: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident == word)
}

fn is_punct(token: &TokenTree, sign: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == sign)
}

/// Whether `tokens` go on with `::`.
fn is_path(tokens: &[TokenTree]) -> bool {
    matches!(tokens, [a, b, ..] if is_punct(a, ':') && is_punct(b, ':'))
}

/// Whether what follows `before` is a later segment of a path, as `b` in `a::b::c`.
fn after_path(before: &[TokenTree]) -> bool {
    match before {
        [.., name, a, b] if is_punct(a, ':') && is_punct(b, ':') => {
            matches!(name, TokenTree::Ident(_)) || is_punct(name, '>')
        }
        _ => false,
    }
}

/// The length of the attribute at the start of `tokens`, if there is one.
fn attribute(tokens: &[TokenTree]) -> Option<usize> {
    let is_bracket = |token: &TokenTree| matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Bracket);
    match tokens {
        [hash, body, ..] if is_punct(hash, '#') && is_bracket(body) => Some(2),
        [hash, bang, body, ..]
            if is_punct(hash, '#') && is_punct(bang, '!') && is_bracket(body) =>
        {
            Some(3)
        }
        _ => None,
    }
}

fn is_cfg_test(body: &TokenTree) -> bool {
    body.to_string().replace(' ', "") == "[cfg(test)]"
}

/// Tokens up to the end of the item at the start: its `;`, or the block that closes it.
fn item_length(tokens: &[TokenTree]) -> usize {
    let is_use = is_ident(&tokens[0], "use");
    let ends = |token: &TokenTree| {
        is_punct(token, ';')
            || !is_use
                && matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace)
    };
    tokens
        .iter()
        .position(ends)
        .map_or(tokens.len(), |end| end + 1)
}
