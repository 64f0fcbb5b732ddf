//! What our account may do, read from `SHOW GRANTS` by structure, and what it lacks for each purpose with the statement
//! that mends it.
//!
//! What the active roles hold counts like the account's own: a login has them at once, and every connection of ours is
//! one. MariaDB lists it by itself; MySQL is asked for it by naming them ([`active_roles`]). Never guesses: where the
//! contents of a role were not listed, nothing is called missing, and the caller is told that it is not known.
//!
//! Sources: MySQL 8.0 manual section 8.2.2 (dynamic privileges), 5.7 section 6.2.2; MariaDB `GRANT` (10.5 split SUPER,
//! 10.11 took READ_ONLY ADMIN out of it, 11.0 the rest), F9 and F10.

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_core::topology::{MissingPrivilege, Purpose};

use super::dialect::Dialect;
use super::table::Table;

/// The active roles of a session as `CURRENT_ROLE()` writes them, quoted; none if there are none.
pub(super) fn active_roles(table: &Table) -> Option<&str> {
    table
        .first()
        .and_then(|row| row.at(0))
        .filter(|roles| !roles.is_empty() && !roles.eq_ignore_ascii_case("NONE"))
}

/// What an account holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Grants {
    /// The account in the server's own quoting; none if no line named it.
    pub account: Option<String>,
    all: bool,
    global: BTreeSet<String>,
    /// By schema and table as granted, `*` for all tables.
    local: BTreeMap<(String, String), BTreeSet<String>>,
    /// Some role is granted, active or not.
    has_roles: bool,
}

impl Grants {
    /// Reads the rows of `SHOW GRANTS`. A line that is no grant of privileges is passed over.
    pub fn read(table: &Table) -> Self {
        let mut grants = Grants::default();
        for row in table.iter() {
            if let Some(line) = row.at(0) {
                grants.read_line(line);
            }
        }
        grants
    }

    fn read_line(&mut self, line: &str) {
        let tokens = tokens(line);
        let words: Vec<&str> = tokens.iter().map(|token| token.text.as_str()).collect();
        if !words
            .first()
            .is_some_and(|w| w.eq_ignore_ascii_case("GRANT"))
        {
            return;
        }
        let find = |word: &str| {
            tokens
                .iter()
                .position(|token| !token.quoted && token.text.eq_ignore_ascii_case(word))
        };
        let Some(to) = find("TO") else { return };
        if let Some(account) = tokens.get(to + 1) {
            let mut name = account.source.clone();
            if tokens.get(to + 2).is_some_and(|t| t.text == "@") {
                if let Some(host) = tokens.get(to + 3) {
                    name = format!("{name}@{}", host.source);
                }
                // A role has no host.
                self.account.get_or_insert(name);
            }
        }
        let Some(on) = find("ON").filter(|on| *on < to) else {
            self.has_roles = true;
            return;
        };
        let mut held = BTreeSet::new();
        let mut name = String::new();
        let mut depth = 0_u32;
        let mut partial = false;
        for token in &tokens[1..on] {
            match (token.quoted, token.text.as_str()) {
                (false, "(") => {
                    depth += 1;
                    partial = true;
                }
                (false, ")") => depth = depth.saturating_sub(1),
                (false, ",") if depth == 0 => {
                    let name = std::mem::take(&mut name);
                    if !std::mem::take(&mut partial) {
                        held.insert(name);
                    }
                }
                // A privilege on some columns only is less than what is needed here.
                _ if depth > 0 => {}
                (_, word) => {
                    if !name.is_empty() {
                        name.push(' ');
                    }
                    name.push_str(&word.to_ascii_uppercase());
                }
            }
        }
        if !partial {
            held.insert(name);
        }
        let level: Vec<&str> = tokens[on + 1..to]
            .iter()
            .map(|token| token.text.as_str())
            .filter(|text| *text != ".")
            .collect();
        match level.as_slice() {
            ["*", "*"] => {
                self.all |= held.contains("ALL PRIVILEGES") || held.contains("ALL");
                self.global.extend(held);
            }
            [schema, table] => self
                .local
                .entry(((*schema).to_owned(), (*table).to_owned()))
                .or_default()
                .extend(held),
            _ => {}
        }
    }

    fn has(&self, name: &str) -> bool {
        self.all || self.global.contains(name)
    }

    fn may_select(&self, schema: &str, table: &str) -> bool {
        self.has("SELECT")
            || [table, "*"].iter().any(|table| {
                self.local
                    .get(&(schema.to_owned(), (*table).to_owned()))
                    .is_some_and(|held| held.contains("SELECT") || held.contains("ALL PRIVILEGES"))
            })
    }

    /// MariaDB's accounts and their rights; with them come the hashes of their passwords.
    pub fn may_read_accounts(&self) -> bool {
        self.may_select("mysql", "global_priv")
    }

    /// What is missing on a server of this dialect. `are_roles_resolved`: what active roles hold is among the rows;
    /// `replica_list`: the list of replicas is asked for; `read_credentials`: replication credentials are read from the
    /// server's own table.
    ///
    /// # Errors
    /// Why it is not known.
    pub fn judge(
        &self,
        dialect: &Dialect,
        are_roles_resolved: bool,
        replica_list: bool,
        read_credentials: bool,
    ) -> Result<Vec<MissingPrivilege>, String> {
        let Some(account) = self.account.as_deref() else {
            return Err("SHOW GRANTS named no account".to_owned());
        };
        if self.has_roles && !are_roles_resolved {
            return Err(format!(
                "roles are granted to {account}, and which of them are active could not be read"
            ));
        }
        let mut missing: Vec<MissingPrivilege> = needs(dialect, replica_list)
            .into_iter()
            .filter(|(_, any_of)| !any_of.iter().any(|name| self.has(name)))
            .map(|(purpose, any_of)| MissingPrivilege {
                purpose,
                grant: format!("GRANT {} ON *.* TO {account}", any_of[0]),
            })
            .collect();
        if !dialect.is_mariadb() {
            for (purpose, schema, table, wanted) in [
                (
                    Purpose::Probe,
                    "performance_schema",
                    "*",
                    dialect.version.at_least(5, 7, 0),
                ),
                (
                    Purpose::Credentials,
                    "mysql",
                    "slave_master_info",
                    read_credentials,
                ),
            ] {
                if wanted && !self.may_select(schema, table) {
                    missing.push(MissingPrivilege {
                        purpose,
                        grant: format!("GRANT SELECT ON {schema}.{table} TO {account}"),
                    });
                }
            }
        }
        missing.sort_by(|a, b| (a.purpose, &a.grant).cmp(&(b.purpose, &b.grant)));
        Ok(missing)
    }
}

type Need = (Purpose, &'static [&'static str]);

/// Each purpose's rights: any of the names will do, the first is the one to ask for.
fn needs(dialect: &Dialect, replica_list: bool) -> Vec<Need> {
    let mut needs: Vec<Need>;
    if dialect.is_mariadb() {
        let split = dialect.version.at_least(10, 5, 2);
        let super_counts = !dialect.version.at_least(11, 0, 1);
        let read_only_apart = dialect.version.at_least(10, 11, 0);
        let admin: [&'static [&'static str]; 4] = match (split, super_counts) {
            (false, _) => [
                &["SUPER"],
                &["SUPER"],
                &["SUPER"],
                &["REPLICATION CLIENT", "SUPER"],
            ],
            (true, true) => [
                &["REPLICATION SLAVE ADMIN", "SUPER"],
                &["CONNECTION ADMIN", "SUPER"],
                &["SLAVE MONITOR", "REPLICA MONITOR", "SUPER"],
                &["BINLOG MONITOR", "REPLICATION CLIENT", "SUPER"],
            ],
            (true, false) => [
                &["REPLICATION SLAVE ADMIN"],
                &["CONNECTION ADMIN"],
                &["SLAVE MONITOR", "REPLICA MONITOR"],
                &["BINLOG MONITOR", "REPLICATION CLIENT"],
            ],
        };
        let [replication, connection, monitor, binlog] = admin;
        let read_only: &'static [&'static str] = match (split, read_only_apart) {
            (false, _) => &["SUPER"],
            (true, false) => &["READ_ONLY ADMIN", "SUPER"],
            (true, true) => &["READ_ONLY ADMIN"],
        };
        needs = vec![
            (Purpose::Probe, monitor),
            (Purpose::Probe, binlog),
            (Purpose::Probe, &["PROCESS"]),
            (Purpose::Halt, replication),
            (Purpose::Fence, read_only),
            (Purpose::Promote, read_only),
            (Purpose::Promote, replication),
            (Purpose::Promote, &["RELOAD"]),
            (Purpose::Kill, connection),
            (Purpose::Kill, &["PROCESS"]),
        ];
        if replica_list && split {
            needs.push((Purpose::Probe, &["REPLICATION MASTER ADMIN"]));
        } else if replica_list {
            needs.push((Purpose::Probe, &["REPLICATION SLAVE"]));
        }
    } else {
        let dynamic = dialect.version.at_least(8, 0, 0);
        let replication: &'static [&'static str] = if dynamic {
            &["REPLICATION_SLAVE_ADMIN", "SUPER"]
        } else {
            &["SUPER"]
        };
        let variables: &'static [&'static str] = if dynamic {
            &["SYSTEM_VARIABLES_ADMIN", "SUPER"]
        } else {
            &["SUPER"]
        };
        let connection: &'static [&'static str] = if dynamic {
            &["CONNECTION_ADMIN", "SUPER"]
        } else {
            &["SUPER"]
        };
        needs = vec![
            (Purpose::Probe, &["REPLICATION CLIENT", "SUPER"]),
            (Purpose::Probe, &["PROCESS"]),
            (Purpose::Halt, replication),
            (Purpose::Fence, variables),
            (Purpose::Promote, variables),
            (Purpose::Promote, replication),
            (Purpose::Promote, &["RELOAD"]),
            (Purpose::Kill, connection),
            (Purpose::Kill, &["PROCESS"]),
        ];
        if replica_list {
            needs.push((Purpose::Probe, &["REPLICATION SLAVE"]));
        }
    }
    needs
}

/// A word, a mark, or something in quotes.
struct Token {
    /// Without quotes.
    text: String,
    /// As it stood.
    source: String,
    quoted: bool,
}

fn tokens(line: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => {}
            quote @ ('`' | '\'' | '"') => {
                let mut text = String::new();
                while let Some(c) = chars.next() {
                    if c == quote {
                        if chars.next_if_eq(&quote).is_none() {
                            break;
                        }
                        text.push(quote);
                    } else if c == '\\' && quote != '`' {
                        text.extend(chars.next());
                    } else {
                        text.push(c);
                    }
                }
                let doubled = text.replace(quote, &format!("{quote}{quote}"));
                tokens.push(Token {
                    source: format!("{quote}{doubled}{quote}"),
                    text,
                    quoted: true,
                });
            }
            mark @ (',' | '(' | ')' | '.' | '*' | '@') => tokens.push(Token {
                text: mark.to_string(),
                source: mark.to_string(),
                quoted: false,
            }),
            first => {
                let mut text = String::from(first);
                while let Some(c) =
                    chars.next_if(|c| !c.is_whitespace() && !",().*@`'\"".contains(*c))
                {
                    text.push(c);
                }
                tokens.push(Token {
                    source: text.clone(),
                    text,
                    quoted: false,
                });
            }
        }
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(
        version: &str,
        are_roles_resolved: bool,
        lines: &[&str],
    ) -> Result<Vec<String>, String> {
        let table = Table {
            columns: vec!["Grants".to_owned()],
            rows: lines
                .iter()
                .map(|line| vec![Some((*line).to_owned())])
                .collect(),
        };
        let dialect = Dialect::new(version, "");
        let missing = Grants::read(&table).judge(&dialect, are_roles_resolved, true, true)?;
        Ok(missing
            .into_iter()
            .map(|missing| format!("{}: {}", missing.purpose, missing.grant))
            .collect())
    }

    fn missing(version: &str, lines: &[&str]) -> Vec<String> {
        judged(version, true, lines).unwrap()
    }

    #[test]
    fn whoever_holds_all_lacks_nothing() {
        for version in [
            "10.5.1-MariaDB",
            "10.11.19-MariaDB",
            "11.8.2-MariaDB",
            "5.7.44",
            "9.7.4",
        ] {
            assert_eq!(
                missing(
                    version,
                    &[
                        "GRANT ALL PRIVILEGES ON *.* TO `ci`@`%` IDENTIFIED BY PASSWORD '*23' WITH GRANT OPTION"
                    ]
                ),
                Vec::<String>::new(),
                "{version}"
            );
        }
    }

    #[test]
    fn grants_of_old_suffice_on_old_servers_only() {
        let old = "GRANT RELOAD, PROCESS, SUPER, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO 'o''r'@'10.%'";
        assert_eq!(
            missing("5.7.44", &[old]),
            [
                "probe: GRANT SELECT ON performance_schema.* TO 'o''r'@'10.%'",
                "credentials: GRANT SELECT ON mysql.slave_master_info TO 'o''r'@'10.%'"
            ]
        );
        assert_eq!(
            missing("10.11.19-MariaDB", &[old]),
            [
                "probe: GRANT REPLICATION MASTER ADMIN ON *.* TO 'o''r'@'10.%'",
                "fence: GRANT READ_ONLY ADMIN ON *.* TO 'o''r'@'10.%'",
                "promote: GRANT READ_ONLY ADMIN ON *.* TO 'o''r'@'10.%'",
            ]
        );
        assert_eq!(
            missing(
                "9.7.4",
                &[
                    old,
                    "GRANT SELECT ON `performance_schema`.* TO 'o''r'@'10.%'",
                    "GRANT SELECT ON `mysql`.`slave_master_info` TO 'o''r'@'10.%'"
                ]
            ),
            Vec::<String>::new()
        );
    }

    #[test]
    fn super_says_nothing_on_new_mariadb() {
        let missing = missing("11.4.2-MariaDB", &["GRANT SUPER ON *.* TO `o`@`%`"]);
        assert!(
            missing.contains(&"halt: GRANT REPLICATION SLAVE ADMIN ON *.* TO `o`@`%`".to_owned())
        );
        assert!(missing.contains(&"kill: GRANT CONNECTION ADMIN ON *.* TO `o`@`%`".to_owned()));
        assert!(missing.contains(&"probe: GRANT SLAVE MONITOR ON *.* TO `o`@`%`".to_owned()));
    }

    #[test]
    fn columns_and_roles() {
        // SELECT on some columns of a table is not SELECT on the table; ON inside quotes is no keyword.
        let missing_of = |lines: &[&str]| missing("9.7.4", lines);
        assert!(
            missing_of(&[
                "GRANT SELECT (`ON`, `TO`), INSERT ON `mysql`.`slave_master_info` TO `o`@`%`"
            ])
            .iter()
            .any(|line| line.starts_with("credentials"))
        );
        for lines in [&[][..], &["REVOKE x", "", "GRANT"]] {
            assert!(judged("9.7.4", true, lines).is_err(), "no account is named");
        }
    }

    #[test]
    fn what_active_roles_hold_counts_and_unlisted_roles_are_not_guessed() {
        let role = "GRANT `admin`@`%` TO `o`@`%`";
        assert_eq!(
            judged("9.7.4", false, &[role]),
            Err(
                "roles are granted to `o`@`%`, and which of them are active could not be read"
                    .to_owned()
            )
        );
        // None of them is active.
        assert!(
            missing("9.7.4", &[role])
                .contains(&"probe: GRANT PROCESS ON *.* TO `o`@`%`".to_owned())
        );
        // As MySQL lists them with USING, and MariaDB by itself.
        let merged = "GRANT ALL PRIVILEGES ON *.* TO `o`@`%`";
        assert_eq!(missing("9.7.4", &[merged, role]), Vec::<String>::new());
        assert_eq!(
            missing(
                "10.11.19-MariaDB",
                &[
                    "GRANT `admin` TO `o`@`%`",
                    "GRANT USAGE ON *.* TO `o`@`%`",
                    "GRANT ALL PRIVILEGES ON *.* TO `admin`"
                ]
            ),
            Vec::<String>::new()
        );
        let table = |value: Option<&str>| Table {
            columns: vec!["CURRENT_ROLE()".to_owned()],
            rows: vec![vec![value.map(str::to_owned)]],
        };
        assert_eq!(active_roles(&table(None)), None);
        assert_eq!(active_roles(&table(Some("NONE"))), None);
        assert_eq!(
            active_roles(&table(Some("`a`@`%`,`b`@`%`"))),
            Some("`a`@`%`,`b`@`%`")
        );
    }
}
