//! As much of SQL as the daemons' adapter, simple clients and the scripts of facts speak: text to tokens, tokens to
//! expressions.
//!
//! Total on any input: what is not understood is an error 1064, nesting and length are bounded.

use crate::model::server::{ServerError, code, error};

/// No text is longer.
pub const TEXT_BYTES_MAX: usize = 64 << 10;
/// Expressions nest no deeper.
const DEPTH_MAX: u32 = 24;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A name or keyword, in quotes of names or without.
    Word(String),
    /// `@@global.x`, `@@x`: the name alone, in small letters.
    Variable(String),
    Number(String),
    Text(String),
    Mark(&'static str),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub kind: Kind,
    /// Where it stands in the text.
    pub from: usize,
    pub to: usize,
}

/// Marks, the longer ones first.
const MARKS: [&str; 14] = [
    "!=", "<>", ":=", "(", ")", ",", ".", "=", ">", "<", "*", "-", "@", "+",
];

fn syntax(near: &str) -> ServerError {
    let near: String = near.chars().take(80).collect();
    error(
        code::UNKNOWN_STATEMENT,
        format!("You have an error in your SQL syntax near '{near}'"),
    )
}

/// Splits a text into its statements' tokens. Where something cannot begin a token an error 1064 is the last of them.
pub fn statements(text: &str) -> Vec<Result<Vec<Token>, ServerError>> {
    let mut all = Vec::new();
    let mut current = Vec::new();
    let mut at = 0;
    if text.len() > TEXT_BYTES_MAX {
        return vec![Err(syntax("too long"))];
    }
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        if c == ';' {
            if !current.is_empty() {
                all.push(Ok(std::mem::take(&mut current)));
            }
            at += 1;
            continue;
        }
        if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        }
        if let Some(comment) = rest.strip_prefix("/*") {
            at += 2 + comment.find("*/").map_or(comment.len(), |end| end + 2);
            continue;
        }
        if rest.starts_with("-- ") || c == '#' {
            at += rest.find('\n').unwrap_or(rest.len());
            continue;
        }
        match token(rest) {
            Some((kind, length)) => {
                current.push(Token {
                    kind,
                    from: at,
                    to: at + length,
                });
                at += length;
            }
            None => {
                all.push(Err(syntax(rest)));
                return all;
            }
        }
    }
    if !current.is_empty() {
        all.push(Ok(current));
    }
    all
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

fn token(rest: &str) -> Option<(Kind, usize)> {
    let first = rest.chars().next()?;
    match first {
        '\'' | '"' | '`' => {
            let (text, length) = quoted(rest, first)?;
            let kind = if first == '`' {
                Kind::Word(text)
            } else {
                Kind::Text(text)
            };
            Some((kind, length))
        }
        '@' if rest.starts_with("@@") => {
            let name = rest.strip_prefix("@@")?;
            let length = name
                .find(|c: char| !is_word(c) && c != '.')
                .unwrap_or(name.len());
            let lower = name[..length].to_ascii_lowercase();
            let lower = ["global.", "session."]
                .iter()
                .find_map(|scope| lower.strip_prefix(scope))
                .unwrap_or(&lower)
                .to_owned();
            (!lower.is_empty()).then_some((Kind::Variable(lower), 2 + length))
        }
        c if c.is_ascii_digit() => {
            let length = rest
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .unwrap_or(rest.len());
            Some((Kind::Number(rest[..length].to_owned()), length))
        }
        c if is_word(c) => {
            let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            Some((Kind::Word(rest[..length].to_owned()), length))
        }
        _ => {
            let mark = MARKS.iter().find(|mark| rest.starts_with(**mark))?;
            Some((Kind::Mark(mark), mark.len()))
        }
    }
}

/// A quoted text and its length with the quotes.
fn quoted(rest: &str, quote: char) -> Option<(String, usize)> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == quote {
            if chars.next_if(|(_, next)| *next == quote).is_some() {
                text.push(quote);
                continue;
            }
            return Some((text, at + 1));
        }
        if c == '\\' && quote != '`' {
            match chars.next()?.1 {
                '0' => text.push('\0'),
                'n' => text.push('\n'),
                other => text.push(other),
            }
        } else {
            text.push(c);
        }
    }
    None
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    Literal(Option<String>),
    Variable(String),
    Column(String),
    /// Name in small letters.
    Call(String, Vec<Expression>),
    CountAll,
    Binary(Comparison, Box<Expression>, Box<Expression>),
    Any(Box<Expression>, Vec<Expression>),
    And(Box<Expression>, Box<Expression>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    Unequal,
    Greater,
    Less,
    Like,
}

/// Reads the tokens of one statement from left to right.
#[derive(Debug)]
pub struct Parser<'a> {
    text: &'a str,
    tokens: &'a [Token],
    at: usize,
    depth: u32,
}

impl<'a> Parser<'a> {
    pub fn new(text: &'a str, tokens: &'a [Token]) -> Self {
        Parser {
            text,
            tokens,
            at: 0,
            depth: 0,
        }
    }

    pub fn fails<T>(&self) -> Result<T, ServerError> {
        let from = self
            .tokens
            .get(self.at)
            .map_or(self.text.len(), |token| token.from);
        Err(syntax(&self.text[from..]))
    }

    fn peek(&self) -> Option<&'a Kind> {
        Some(&self.tokens.get(self.at)?.kind)
    }

    pub fn is_at_end(&self) -> bool {
        self.at >= self.tokens.len()
    }

    pub fn end(&self) -> Result<(), ServerError> {
        if self.is_at_end() {
            Ok(())
        } else {
            self.fails()
        }
    }

    /// The next token, if it is this keyword.
    pub fn word(&mut self, wanted: &str) -> bool {
        let found =
            matches!(self.peek(), Some(Kind::Word(word)) if word.eq_ignore_ascii_case(wanted));
        self.at += usize::from(found);
        found
    }

    /// All of these keywords, or none is taken.
    pub fn words(&mut self, wanted: &str) -> bool {
        let before = self.at;
        let found = wanted.split(' ').all(|word| self.word(word));
        if !found {
            self.at = before;
        }
        found
    }

    pub fn mark(&mut self, wanted: &str) -> bool {
        let found = matches!(self.peek(), Some(Kind::Mark(mark)) if *mark == wanted);
        self.at += usize::from(found);
        found
    }

    pub fn expect_mark(&mut self, wanted: &str) -> Result<(), ServerError> {
        if self.mark(wanted) {
            Ok(())
        } else {
            self.fails()
        }
    }

    pub fn expect_word(&mut self, wanted: &str) -> Result<(), ServerError> {
        if self.word(wanted) {
            Ok(())
        } else {
            self.fails()
        }
    }

    /// A name of any kind.
    pub fn name(&mut self) -> Result<String, ServerError> {
        match self.peek() {
            Some(Kind::Word(word)) => {
                self.at += 1;
                Ok(word.clone())
            }
            _ => self.fails(),
        }
    }

    /// A number, keyword or text as it stands, its quotes taken off; and the literal with its quotes.
    pub fn value(&mut self) -> Result<(String, String), ServerError> {
        let Some(token) = self.tokens.get(self.at) else {
            return self.fails();
        };
        let value = match &token.kind {
            Kind::Word(text) | Kind::Number(text) | Kind::Text(text) => text.clone(),
            Kind::Variable(_) | Kind::Mark(_) => return self.fails(),
        };
        self.at += 1;
        Ok((value, self.text[token.from..token.to].to_owned()))
    }

    pub fn text_value(&mut self) -> Result<String, ServerError> {
        match self.peek() {
            Some(Kind::Text(text)) => {
                self.at += 1;
                Ok(text.clone())
            }
            _ => self.fails(),
        }
    }

    pub fn number<T: std::str::FromStr>(&mut self) -> Result<T, ServerError> {
        let before = self.at;
        if let Some(Kind::Number(text)) = self.peek()
            && let Ok(number) = text.parse()
        {
            self.at += 1;
            return Ok(number);
        }
        self.at = before;
        self.fails()
    }

    /// A variable as it is set: `GLOBAL x`, `@@GLOBAL.x`; its name, and whether it is the server's.
    pub fn assigned(&mut self) -> Result<(String, bool), ServerError> {
        if let Some(Kind::Variable(name)) = self.peek() {
            let token = &self.tokens[self.at];
            let global = self.text[token.from..token.to]
                .to_ascii_lowercase()
                .starts_with("@@global.");
            self.at += 1;
            return Ok((name.clone(), global));
        }
        let global = self.word("GLOBAL");
        if !global {
            self.word("SESSION");
        }
        Ok((self.name()?.to_ascii_lowercase(), global))
    }

    /// The select list: each expression with its text, which names the column.
    pub fn list(&mut self) -> Result<Vec<(Expression, String)>, ServerError> {
        let mut list = Vec::new();
        loop {
            let from = self.tokens.get(self.at).map_or(0, |token| token.from);
            if self.mark("*") {
                list.push((Expression::Column("*".to_owned()), "*".to_owned()));
            } else {
                let expression = self.expression()?;
                let to = self.tokens[self.at - 1].to;
                let mut name = match &expression {
                    Expression::Literal(Some(text)) => text.clone(),
                    _ => self.text[from..to].trim_matches('`').to_owned(),
                };
                if self.word("AS") {
                    name = self.value()?.0;
                }
                list.push((expression, name));
            }
            if !self.mark(",") {
                return Ok(list);
            }
        }
    }

    pub fn expression(&mut self) -> Result<Expression, ServerError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return self.fails();
        }
        let mut left = self.comparison()?;
        while self.word("AND") {
            let right = self.comparison()?;
            left = Expression::And(Box::new(left), Box::new(right));
        }
        self.depth -= 1;
        Ok(left)
    }

    fn comparison(&mut self) -> Result<Expression, ServerError> {
        let left = self.operand()?;
        let comparison = match self.peek() {
            Some(Kind::Mark("=")) => Comparison::Equal,
            Some(Kind::Mark("!=" | "<>")) => Comparison::Unequal,
            Some(Kind::Mark(">")) => Comparison::Greater,
            Some(Kind::Mark("<")) => Comparison::Less,
            Some(Kind::Word(word)) if word.eq_ignore_ascii_case("LIKE") => Comparison::Like,
            Some(Kind::Word(word)) if word.eq_ignore_ascii_case("IN") => {
                self.at += 1;
                self.expect_mark("(")?;
                let mut any = vec![self.operand()?];
                while self.mark(",") {
                    any.push(self.operand()?);
                }
                self.expect_mark(")")?;
                return Ok(Expression::Any(Box::new(left), any));
            }
            _ => return Ok(left),
        };
        self.at += 1;
        let right = self.operand()?;
        Ok(Expression::Binary(
            comparison,
            Box::new(left),
            Box::new(right),
        ))
    }

    fn operand(&mut self) -> Result<Expression, ServerError> {
        if self.mark("(") {
            let inner = self.expression()?;
            self.expect_mark(")")?;
            return Ok(inner);
        }
        if self.mark("-") {
            let Some(Kind::Number(text)) = self.peek() else {
                return self.fails();
            };
            self.at += 1;
            return Ok(Expression::Literal(Some(format!("-{text}"))));
        }
        match self.peek() {
            Some(Kind::Number(text) | Kind::Text(text)) => {
                self.at += 1;
                Ok(Expression::Literal(Some(text.clone())))
            }
            Some(Kind::Variable(name)) => {
                self.at += 1;
                Ok(Expression::Variable(name.clone()))
            }
            Some(Kind::Word(word)) => {
                self.at += 1;
                let lower = word.to_ascii_lowercase();
                if self.mark("(") {
                    if lower == "count" && self.mark("*") {
                        self.expect_mark(")")?;
                        return Ok(Expression::CountAll);
                    }
                    let mut arguments = Vec::new();
                    if !self.mark(")") {
                        arguments.push(self.expression()?);
                        while self.mark(",") {
                            arguments.push(self.expression()?);
                        }
                        self.expect_mark(")")?;
                    }
                    return Ok(Expression::Call(lower, arguments));
                }
                match lower.as_str() {
                    "null" => Ok(Expression::Literal(None)),
                    "true" => Ok(Expression::Literal(Some("1".to_owned()))),
                    "false" => Ok(Expression::Literal(Some("0".to_owned()))),
                    "from" | "where" => {
                        self.at -= 1;
                        self.fails()
                    }
                    _ => Ok(Expression::Column(word.clone())),
                }
            }
            Some(Kind::Mark(_)) | None => self.fails(),
        }
    }
}

/// `LIKE`: `%` stands for anything, `_` for one character.
pub fn like(pattern: &str, text: &str) -> bool {
    // By dynamic programming over the pattern, so that no pattern takes long.
    let text: Vec<char> = text.to_lowercase().chars().collect();
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    let mut chars = pattern.chars().flat_map(char::to_lowercase);
    while let Some(c) = chars.next() {
        let mut next = vec![false; text.len() + 1];
        match c {
            '%' => {
                let mut any = false;
                for (at, reached) in reached.iter().enumerate() {
                    any |= reached;
                    next[at] = any;
                }
            }
            c => {
                let literal = if c == '\\' { chars.next() } else { None };
                for at in 0..text.len() {
                    let fits = match literal {
                        Some(literal) => text[at] == literal,
                        None => c == '_' || text[at] == c,
                    };
                    next[at + 1] = reached[at] && fits;
                }
            }
        }
        reached = next;
    }
    reached[text.len()]
}
