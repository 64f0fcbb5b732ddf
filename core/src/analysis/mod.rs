//! Judging: evidence counted once, the rule table (`diagnose`), and the verdict that alone admits a recovery.

pub mod code;
pub mod diagnose;
pub mod evidence;
pub mod filters;
pub mod rules;
pub mod verdict;

pub use code::{Code, CodeFacts, Emergent, Repair, StructureCode};
pub use diagnose::{
    ClusterDetails, Diagnosis, Hints, InstanceType, Problem, View, diagnose, diagnose_all,
};
pub use evidence::{Context, Evidence, Judging, StaleCoordinates, gather};
pub use filters::{Automated, ClusterFilter, FilterError, Filters, HostFilter};
