//! Which clusters and servers a setting names: lists of patterns, compiled once.
//!
//! A pattern that does not compile is an error to whoever reads a configuration ([`Filters::compile`]). A committed
//! policy has to be lived with, so [`Filters::compile_or_skip`] keeps what can be used and lists the rest: a pattern
//! that cannot be used matches nothing, except text that equals it.

use alloc::{
    string::{String, ToString},
    vec::Vec,
};
use core::{fmt, net::IpAddr};
use regex::{Regex, RegexBuilder};

use crate::{id::InstanceKey, limits::TEXT_BYTES_MAX, policy::Policy};

/// Most patterns in one list.
pub const PATTERNS_PER_LIST_MAX: usize = 1_000;
/// Most memory one compiled pattern may take, in bytes.
const PATTERN_COMPILED_BYTES_MAX: usize = 1 << 20;

/// What is wrong with a list of patterns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilterError {
    /// The pattern is no regular expression.
    Syntax {
        setting: &'static str,
        pattern: String,
        reason: String,
    },
    /// The pattern has more than [`TEXT_BYTES_MAX`] bytes.
    TooLong { setting: &'static str, bytes: usize },
    /// The list has more than [`PATTERNS_PER_LIST_MAX`] patterns.
    TooMany {
        setting: &'static str,
        patterns: usize,
    },
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax {
                setting,
                pattern,
                reason,
            } => write!(
                f,
                "{setting}: {pattern:?} is no regular expression: {reason}"
            ),
            Self::TooLong { setting, bytes } => write!(
                f,
                "{setting}: a pattern of {bytes} bytes, at most {TEXT_BYTES_MAX} are accepted"
            ),
            Self::TooMany { setting, patterns } => write!(
                f,
                "{setting}: {patterns} patterns, at most {PATTERNS_PER_LIST_MAX} are accepted"
            ),
        }
    }
}

impl core::error::Error for FilterError {}

/// One item of a cluster filter.
#[derive(Debug, Clone)]
enum ClusterPattern {
    /// `*`
    Every,
    /// `alias=X`
    Alias(String),
    /// `alias~=RE`
    AliasPattern(Option<Regex>),
    /// Anything else: a regular expression on the cluster's name.
    NamePattern(Option<Regex>),
}

/// A list such as `RecoverMasterClusterFilters`. An empty list names no cluster.
#[derive(Debug, Clone, Default)]
pub struct ClusterFilter {
    /// Each item as it was written, and what it means.
    patterns: Vec<(String, ClusterPattern)>,
}

impl ClusterFilter {
    /// # Errors
    /// The first pattern that cannot be used.
    pub fn compile(setting: &'static str, patterns: &[String]) -> Result<Self, FilterError> {
        let mut errors = Vec::new();
        let filter = Self::compile_or_skip(setting, patterns, &mut errors);
        errors.into_iter().next().map_or(Ok(filter), Err)
    }

    /// Keeps what can be used; what cannot is appended to `errors`.
    pub fn compile_or_skip(
        setting: &'static str,
        patterns: &[String],
        errors: &mut Vec<FilterError>,
    ) -> Self {
        let mut compiled = Vec::new();
        for text in bounded(setting, patterns, errors) {
            let pattern = if text == "*" {
                ClusterPattern::Every
            } else if let Some(pattern) = text.strip_prefix("alias~=") {
                ClusterPattern::AliasPattern(regex(setting, pattern, errors))
            } else if let Some(alias) = text.strip_prefix("alias=") {
                ClusterPattern::Alias(alias.to_string())
            } else {
                ClusterPattern::NamePattern(regex(setting, text, errors))
            };
            compiled.push((text.clone(), pattern));
        }
        Self { patterns: compiled }
    }

    /// Any item equals the name or the alias, or matches as its form says.
    #[must_use]
    pub fn matches(&self, cluster_name: &str, alias: &str) -> bool {
        self.patterns.iter().any(|(text, pattern)| {
            text == cluster_name
                || text == alias
                || match pattern {
                    ClusterPattern::Every => true,
                    ClusterPattern::Alias(wanted) => wanted == alias,
                    ClusterPattern::AliasPattern(pattern) => {
                        pattern.as_ref().is_some_and(|regex| regex.is_match(alias))
                    }
                    ClusterPattern::NamePattern(pattern) => pattern
                        .as_ref()
                        .is_some_and(|regex| regex.is_match(cluster_name)),
                }
        })
    }
}

/// One item of a host filter.
#[derive(Debug, Clone)]
enum HostPattern {
    /// An address means itself: a dot in it is no wildcard.
    Address(String),
    Pattern(Regex),
}

/// A list such as `RecoveryIgnoreHostnameFilters`. An empty list matches nothing.
#[derive(Debug, Clone, Default)]
pub struct HostFilter {
    patterns: Vec<HostPattern>,
}

impl HostFilter {
    /// # Errors
    /// The first pattern that cannot be used.
    pub fn compile(setting: &'static str, patterns: &[String]) -> Result<Self, FilterError> {
        let mut errors = Vec::new();
        let filter = Self::compile_or_skip(setting, patterns, &mut errors);
        errors.into_iter().next().map_or(Ok(filter), Err)
    }

    /// Keeps what can be used; what cannot is appended to `errors`.
    pub fn compile_or_skip(
        setting: &'static str,
        patterns: &[String],
        errors: &mut Vec<FilterError>,
    ) -> Self {
        let mut compiled = Vec::new();
        for text in bounded(setting, patterns, errors) {
            if text.parse::<IpAddr>().is_ok() {
                compiled.push(HostPattern::Address(text.clone()));
            } else if let Some(regex) = regex(setting, text, errors) {
                compiled.push(HostPattern::Pattern(regex));
            }
        }
        Self { patterns: compiled }
    }

    /// Matches the host name alone.
    #[must_use]
    pub fn matches_host(&self, host: &str) -> bool {
        self.patterns.iter().any(|pattern| match pattern {
            HostPattern::Address(address) => address == host,
            HostPattern::Pattern(regex) => regex.is_match(host),
        })
    }

    /// Matches `host:port`; an address is compared with the host alone.
    #[must_use]
    pub fn matches_key(&self, key: &InstanceKey) -> bool {
        if self.patterns.is_empty() {
            return false;
        }
        let text = key.to_string();
        self.patterns.iter().any(|pattern| match pattern {
            HostPattern::Address(address) => *address == key.host,
            HostPattern::Pattern(regex) => regex.is_match(&text),
        })
    }
}

/// All filters of a policy, compiled.
#[derive(Debug, Clone, Default)]
pub struct Filters {
    /// (`RecoverMasterClusterFilters`)
    pub recover_primary: ClusterFilter,
    /// (`RecoverIntermediateMasterClusterFilters`)
    pub recover_intermediate: ClusterFilter,
    /// (`RecoveryIgnoreHostnameFilters`), on the host name
    pub recovery_ignore: HostFilter,
    /// (`PromotionIgnoreHostnameFilters`), on the host name
    pub promotion_ignore: HostFilter,
    /// (`ProblemIgnoreHostnameFilters`), on the host name
    pub problem_ignore: HostFilter,
    /// (`DiscoveryIgnoreHostnameFilters`), on `host:port`
    pub discovery_ignore: HostFilter,
    /// (`DiscoveryIgnoreReplicaHostnameFilters`), on `host:port`
    pub discovery_ignore_replica: HostFilter,
    /// (`DiscoveryIgnoreMasterHostnameFilters`), on `host:port`
    pub discovery_ignore_source: HostFilter,
}

/// Which failovers of a cluster happen without an order, by the filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Automated {
    /// (`RecoverMasterClusterFilters`)
    pub primary: bool,
    /// (`RecoverIntermediateMasterClusterFilters`)
    pub intermediate: bool,
}

impl Filters {
    /// What is automated for a cluster of this name and alias.
    #[must_use]
    pub fn automated(&self, cluster_name: &str, cluster_alias: &str) -> Automated {
        Automated {
            primary: self.recover_primary.matches(cluster_name, cluster_alias),
            intermediate: self
                .recover_intermediate
                .matches(cluster_name, cluster_alias),
        }
    }

    /// # Errors
    /// The first pattern that cannot be used.
    pub fn compile(policy: &Policy) -> Result<Self, FilterError> {
        let (filters, errors) = Self::compile_or_skip(policy);
        errors.into_iter().next().map_or(Ok(filters), Err)
    }

    /// Keeps what can be used, and lists what cannot.
    #[must_use]
    pub fn compile_or_skip(policy: &Policy) -> (Self, Vec<FilterError>) {
        let mut errors = Vec::new();
        let filters = Self {
            recover_primary: ClusterFilter::compile_or_skip(
                "RecoverMasterClusterFilters",
                &policy.recover_primary_filters,
                &mut errors,
            ),
            recover_intermediate: ClusterFilter::compile_or_skip(
                "RecoverIntermediateMasterClusterFilters",
                &policy.recover_intermediate_filters,
                &mut errors,
            ),
            recovery_ignore: HostFilter::compile_or_skip(
                "RecoveryIgnoreHostnameFilters",
                &policy.recovery_ignore_hosts,
                &mut errors,
            ),
            promotion_ignore: HostFilter::compile_or_skip(
                "PromotionIgnoreHostnameFilters",
                &policy.promotion_ignore_hosts,
                &mut errors,
            ),
            problem_ignore: HostFilter::compile_or_skip(
                "ProblemIgnoreHostnameFilters",
                &policy.problem_ignore_hosts,
                &mut errors,
            ),
            discovery_ignore: HostFilter::compile_or_skip(
                "DiscoveryIgnoreHostnameFilters",
                &policy.ignore_hosts,
                &mut errors,
            ),
            discovery_ignore_replica: HostFilter::compile_or_skip(
                "DiscoveryIgnoreReplicaHostnameFilters",
                &policy.ignore_replica_hosts,
                &mut errors,
            ),
            discovery_ignore_source: HostFilter::compile_or_skip(
                "DiscoveryIgnoreMasterHostnameFilters",
                &policy.ignore_source_hosts,
                &mut errors,
            ),
        };
        (filters, errors)
    }
}

/// The items of a list that are within bounds and not empty: an empty pattern would match everything.
fn bounded<'a>(
    setting: &'static str,
    patterns: &'a [String],
    errors: &mut Vec<FilterError>,
) -> Vec<&'a String> {
    if patterns.len() > PATTERNS_PER_LIST_MAX {
        errors.push(FilterError::TooMany {
            setting,
            patterns: patterns.len(),
        });
    }
    let mut kept = Vec::new();
    for text in patterns.iter().take(PATTERNS_PER_LIST_MAX) {
        if text.len() > TEXT_BYTES_MAX {
            errors.push(FilterError::TooLong {
                setting,
                bytes: text.len(),
            });
        } else if !text.is_empty() {
            kept.push(text);
        }
    }
    kept
}

fn regex(setting: &'static str, pattern: &str, errors: &mut Vec<FilterError>) -> Option<Regex> {
    match RegexBuilder::new(pattern)
        .size_limit(PATTERN_COMPILED_BYTES_MAX)
        .build()
    {
        Ok(regex) => Some(regex),
        Err(error) => {
            errors.push(FilterError::Syntax {
                setting,
                pattern: pattern.to_string(),
                reason: error.to_string(),
            });
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{borrow::ToOwned, vec};

    fn clusters(patterns: &[&str]) -> ClusterFilter {
        let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
        ClusterFilter::compile("test", &patterns).unwrap()
    }

    fn hosts(patterns: &[&str]) -> HostFilter {
        let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
        HostFilter::compile("test", &patterns).unwrap()
    }

    #[test]
    fn cluster_filters_match_as_their_form_says() {
        for (pattern, name, alias, matches) in [
            ("db1:3306", "db1:3306", "shop", true),
            ("shop", "db1:3306", "shop", true),
            // A bare pattern is a regular expression on the name, never on the alias.
            ("sho", "db1:3306", "shop", false),
            ("db", "db1:3306", "shop", true),
            ("^b", "db1:3306", "shop", false),
            ("*", "db1:3306", "shop", true),
            ("alias=shop", "db1:3306", "shop", true),
            ("alias=sho", "db1:3306", "shop", false),
            ("alias~=^sh", "db1:3306", "shop", true),
            ("alias~=db", "db1:3306", "shop", false),
            ("", "", "", false),
            ("", "db1:3306", "shop", false),
        ] {
            assert_eq!(
                clusters(&[pattern]).matches(name, alias),
                matches,
                "{pattern:?} on {name} ({alias})"
            );
        }
        assert!(!clusters(&[]).matches("db1:3306", "shop"));
        assert!(clusters(&["no", "alias=shop"]).matches("db1:3306", "shop"));
    }

    #[test]
    fn host_filters_match_the_text_they_are_asked_about() {
        assert!(hosts(&["^db"]).matches_host("db1"));
        assert!(!hosts(&["3306"]).matches_host("db1"));
        assert!(hosts(&["3306"]).matches_key(&InstanceKey::new("db1", 3306)));
        assert!(!hosts(&[""]).matches_host("db1"));
        // An address means itself.
        assert!(hosts(&["10.0.0.1"]).matches_host("10.0.0.1"));
        assert!(!hosts(&["10.0.0.1"]).matches_host("10.0.011"));
        assert!(!hosts(&["10.0.0.1"]).matches_host("10.0.0.10"));
        assert!(hosts(&["10.0.0.1"]).matches_key(&InstanceKey::new("10.0.0.1", 3307)));
        assert!(hosts(&["fd00::1"]).matches_host("fd00::1"));
    }

    #[test]
    fn a_pattern_that_does_not_compile_is_named_and_still_means_itself() {
        let policy = Policy {
            recover_primary_filters: vec!["db[1".into(), "alias=shop".into()],
            recovery_ignore_hosts: vec!["(".into(), "^s".into()],
            ..Policy::default()
        };
        let error = Filters::compile(&policy).unwrap_err();
        assert!(
            matches!(&error, FilterError::Syntax { setting: "RecoverMasterClusterFilters", pattern, .. } if pattern == "db[1"),
            "{error}"
        );
        let (filters, errors) = Filters::compile_or_skip(&policy);
        assert_eq!(errors.len(), 2);
        assert!(filters.recover_primary.matches("db[1", "other"));
        assert!(filters.recover_primary.matches("db2:3306", "shop"));
        assert!(!filters.recover_primary.matches("db1:3306", "other"));
        assert!(filters.recovery_ignore.matches_host("s1"));
        assert!(!filters.recovery_ignore.matches_host("m1"));
    }

    #[test]
    fn lists_have_bounds() {
        let long = vec!["a".repeat(TEXT_BYTES_MAX + 1)];
        assert!(matches!(
            HostFilter::compile("test", &long),
            Err(FilterError::TooLong { .. })
        ));
        let many = vec![String::from("a"); PATTERNS_PER_LIST_MAX + 1];
        assert!(matches!(
            ClusterFilter::compile("test", &many),
            Err(FilterError::TooMany { .. })
        ));
        let huge = vec![String::from("(a{1000}){1000}")];
        assert!(matches!(
            ClusterFilter::compile("test", &huge),
            Err(FilterError::Syntax { .. })
        ));
    }
}
