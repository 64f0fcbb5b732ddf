//! Credentials outside the configuration file: files in the style of my.cnf, and environment variables.
//!
//! Of a credentials file only `user` and `password` of section `[client]` count; other sections, other options
//! and include lines are left alone. What the file gives replaces what the configuration says. A value that
//! contains `${NAME}` becomes, as a whole, the content of that environment variable.

use super::Variables;

/// What a credentials file gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
}

/// What is wrong with a credentials file, and in which line (from 1). Never shows the line itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileError {
    SectionNotClosed(usize),
    OptionOutsideSection(usize),
    NoValue(usize),
    QuoteNotClosed(usize),
    TextAfterQuote(usize),
    NoCredentials,
}

impl std::fmt::Display for FileError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            FileError::SectionNotClosed(line) => {
                write!(f, "line {line} opens a section without closing its bracket")
            }
            FileError::OptionOutsideSection(line) => {
                write!(f, "line {line} stands before any section")
            }
            FileError::NoValue(line) => write!(f, "line {line} has no value"),
            FileError::QuoteNotClosed(line) => {
                write!(f, "line {line} has a quote that is not closed")
            }
            FileError::TextAfterQuote(line) => {
                write!(f, "line {line} has text after the closing quote")
            }
            FileError::NoCredentials => {
                f.write_str("there is neither user nor password in a section [client]")
            }
        }
    }
}

/// Reads a credentials file.
pub(super) fn parse(text: &str) -> Result<Given, FileError> {
    let mut given = Given::default();
    let mut section: Option<String> = None;
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let number = index + 1;
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';', '!']) {
            continue;
        }
        if let Some(opened) = line.strip_prefix('[') {
            let (name, _) = opened
                .split_once(']')
                .ok_or(FileError::SectionNotClosed(number))?;
            section = Some(name.trim().to_ascii_lowercase());
            continue;
        }
        match section.as_deref() {
            None => return Err(FileError::OptionOutsideSection(number)),
            Some("client") => {}
            Some(_) => continue,
        }
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name.trim(), Some(value.trim())),
            None => (line, None),
        };
        let target = match name.to_ascii_lowercase().as_str() {
            "user" => &mut given.user,
            "password" => &mut given.password,
            _ => continue,
        };
        *target = Some(option_value(
            value.ok_or(FileError::NoValue(number))?,
            number,
        )?);
    }
    if given == Given::default() {
        return Err(FileError::NoCredentials);
    }
    Ok(given)
}

/// The value of an option: quoted or bare, escapes resolved, a comment behind it cut off. In a bare value `#`
/// begins a comment anywhere and `;` after a blank, where MySQL's and the original's readings agree.
fn option_value(text: &str, line: usize) -> Result<String, FileError> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''));
    let mut value = String::new();
    let mut characters = text.chars();
    if quote.is_some() {
        characters.next();
    }
    let mut closed = false;
    while let Some(c) = characters.next() {
        match c {
            '\\' => match characters.next() {
                Some('n') => value.push('\n'),
                Some('t') => value.push('\t'),
                Some('r') => value.push('\r'),
                Some('b') => value.push('\u{8}'),
                Some('s') => value.push(' '),
                Some(escaped @ ('\\' | '"' | '\'')) => value.push(escaped),
                Some(other) => value.extend(['\\', other]),
                None => value.push('\\'),
            },
            _ if Some(c) == quote => {
                closed = true;
                break;
            }
            '#' if quote.is_none() => break,
            ';' if quote.is_none() && value.ends_with([' ', '\t']) => break,
            _ => value.push(c),
        }
    }
    if quote.is_none() {
        value.truncate(value.trim_end().len());
        return Ok(value);
    }
    if !closed {
        return Err(FileError::QuoteNotClosed(line));
    }
    let rest = characters.as_str().trim_start();
    if rest.is_empty() || rest.starts_with(['#', ';']) {
        Ok(value)
    } else {
        Err(FileError::TextAfterQuote(line))
    }
}

/// What became of a value that may name an environment variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expanded {
    /// It names none.
    Plain,
    /// It is the content of a variable.
    Replaced(String),
    /// It names a variable that is not set: the value is empty, as in the original.
    Unset(String),
}

/// Replaces a value that contains `${NAME}`: the name is what stands between the first `${` and the last `}`.
pub(super) fn expand(text: &str, env: Variables<'_>) -> Expanded {
    let Some((_, rest)) = text.split_once("${") else {
        return Expanded::Plain;
    };
    let Some((name, _)) = rest.rsplit_once('}') else {
        return Expanded::Plain;
    };
    match env(name) {
        Some(value) => Expanded::Replaced(value),
        None => Expanded::Unset(name.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<(Option<&str>, Option<&str>), FileError>) {
        let given = parse(text);
        let given = given
            .as_ref()
            .map(|given| (given.user.as_deref(), given.password.as_deref()))
            .map_err(|e| *e);
        assert_eq!(given, expected, "{text:?}");
    }

    #[test]
    fn user_and_password_of_the_client_section_count() {
        check(
            "[client]\nuser=orc\npassword=secret\n",
            Ok((Some("orc"), Some("secret"))),
        );
        check(
            "# c\n; c\n[mysqld]\nuser=mysql\nskip-networking\n[CLIENT]\r\n user = orc \r\n",
            Ok((Some("orc"), None)),
        );
        check(
            "[client]\nuser=a\n[mysql]\nuser=b\n[client]\npassword=",
            Ok((Some("a"), Some(""))),
        );
        check(
            "!include /etc/x\n[client] # c\nhost=h\nsafe-updates\nuser=a",
            Ok((Some("a"), None)),
        );
    }

    #[test]
    fn quotes_escapes_and_comments_are_read() {
        check(
            r#"[client]
password="a # b ; \"c\" \\ d" # comment"#,
            Ok((None, Some(r#"a # b ; "c" \ d"#))),
        );
        check("[client]\npassword='it\"s'", Ok((None, Some("it\"s"))));
        check("[client]\npassword=a#b", Ok((None, Some("a"))));
        check("[client]\npassword=a;b ; c", Ok((None, Some("a;b"))));
        check("[client]\npassword=a=b\\s\\q", Ok((None, Some("a=b \\q"))));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        check("[client\nuser=a", Err(FileError::SectionNotClosed(1)));
        check("\nuser=a\n", Err(FileError::OptionOutsideSection(2)));
        check("[client]\nuser\n", Err(FileError::NoValue(2)));
        check("[client]\nuser=\"a\n", Err(FileError::QuoteNotClosed(2)));
        check(
            "[client]\nuser=\"a\" b\n",
            Err(FileError::TextAfterQuote(2)),
        );
        check("[mysql]\nuser=a\n", Err(FileError::NoCredentials));
        check("", Err(FileError::NoCredentials));
    }

    #[test]
    fn a_variable_replaces_the_whole_value() {
        let env = |name: &str| (name == "A" || name == "A}${B").then(|| format!("<{name}>"));
        let check =
            |text: &str, expected: Expanded| assert_eq!(expand(text, &env), expected, "{text}");
        check("plain", Expanded::Plain);
        check("$A", Expanded::Plain);
        check("}${A", Expanded::Plain);
        check("${A}", Expanded::Replaced("<A>".to_owned()));
        check("before ${A} after", Expanded::Replaced("<A>".to_owned()));
        check("${A}${B}", Expanded::Replaced("<A}${B>".to_owned()));
        check("${C}", Expanded::Unset("C".to_owned()));
        check("${}", Expanded::Unset(String::new()));
    }
}
