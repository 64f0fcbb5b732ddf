//! Waiting for a condition with a deadline.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// What a look at a condition found: it holds, with this value, or it does not, for this reason.
pub enum Look<T> {
    Holds(T),
    Not(String),
}

impl<T> Look<T> {
    pub fn not(reason: impl Display) -> Self {
        Look::Not(reason.to_string())
    }
}

/// Looks every `every` until the condition holds; after `deadline` an error that names `what` and
/// the last reason.
pub async fn until<T, F>(what: &str, deadline: Duration, every: Duration, mut look: F) -> Result<T>
where
    F: AsyncFnMut() -> Look<T>,
{
    let began = Instant::now();
    loop {
        match look().await {
            Look::Holds(value) => return Ok(value),
            Look::Not(reason) if began.elapsed() >= deadline => {
                bail!(
                    "{what}: not within {:.1} s: {reason}",
                    deadline.as_secs_f64()
                )
            }
            Look::Not(_) => tokio::time::sleep(every).await,
        }
    }
}
