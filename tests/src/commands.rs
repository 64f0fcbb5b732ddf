//! Commands that are sent to daemons without pause, what was acknowledged of them, and who led in which term meanwhile.
//!
//! Each command puts a tag on a server that nobody else names, or takes one away that was acknowledged: so each has a name of
//! its own, and what the daemons must hold at the end is known. A command whose outcome is unknown may have been carried out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tokio::task::JoinHandle;

use crate::daemons::{Daemon, Daemons, get};
use crate::wait::{Look, until};

/// Between two commands of one daemon's client.
const PACE: Duration = Duration::from_millis(60);
/// Between two looks at who leads.
const LOOK: Duration = Duration::from_millis(25);
/// A client gives a request up after this time: its outcome is unknown.
const DEADLINE: Duration = Duration::from_secs(10);
const GLANCE: Duration = Duration::from_millis(500);
/// One of so many acknowledged tags is taken away again.
const UNTAGGED: u64 = 4;
/// The tag.
pub const TAG: &str = "commanded";

/// What is known of a tag.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Tagged {
    Yes,
    No,
    /// Nobody knows.
    Maybe,
}

#[derive(Debug, Default)]
struct Shared {
    tags: Mutex<BTreeMap<String, Tagged>>,
    acknowledged: Mutex<usize>,
    /// Who led, by term.
    led: Mutex<BTreeMap<u64, BTreeSet<String>>>,
    ended: AtomicBool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Clients of some daemons, one each, that send commands; and one each that looks who leads.
#[derive(Debug)]
pub struct Commands {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

/// What was acknowledged in the end.
#[derive(Clone, Debug, Default)]
pub struct Acknowledged {
    /// Commands that were acknowledged.
    pub count: usize,
    /// Servers that have the tag, and those that must not have it.
    pub tagged: BTreeSet<String>,
    pub untagged: BTreeSet<String>,
    /// Who led, by term.
    pub led: BTreeMap<u64, BTreeSet<String>>,
}

impl Commands {
    /// Starts a client a daemon, also of those that do not run so far. `name` keeps the names of several starts apart.
    #[must_use]
    pub fn start(daemons: &Daemons, name: &str) -> Commands {
        let shared = Arc::new(Shared::default());
        let mut tasks = Vec::new();
        for (place, daemon) in daemons.all().iter().enumerate() {
            let names = format!("{name}-{place}");
            tasks.push(tokio::spawn(command(shared.clone(), daemon.http(), names)));
            tasks.push(tokio::spawn(look(shared.clone(), daemon.http())));
        }
        Commands { shared, tasks }
    }

    /// Waits until so many more were acknowledged.
    ///
    /// # Errors
    /// They were not, within the patience.
    pub async fn wait_more(&self, count: usize, patience: Duration) -> Result<()> {
        let before = *locked(&self.shared.acknowledged);
        until(
            "commands are acknowledged",
            patience,
            Duration::from_millis(20),
            async || match *locked(&self.shared.acknowledged) - before {
                more if more >= count => Look::Holds(()),
                more => Look::not(format!("{more} of {count}")),
            },
        )
        .await
    }

    /// Ends the clients; each waits for the answer that it is owed.
    pub async fn end(mut self) -> Acknowledged {
        self.shared.ended.store(true, Ordering::Relaxed);
        for task in self.tasks.drain(..) {
            task.await.ok();
        }
        let mut acknowledged = Acknowledged {
            count: *locked(&self.shared.acknowledged),
            led: std::mem::take(&mut *locked(&self.shared.led)),
            ..Acknowledged::default()
        };
        for (name, tagged) in std::mem::take(&mut *locked(&self.shared.tags)) {
            match tagged {
                Tagged::Yes => acknowledged.tagged.insert(name),
                Tagged::No => acknowledged.untagged.insert(name),
                Tagged::Maybe => false,
            };
        }
        acknowledged
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Acknowledged {
    /// The servers that have the tag, in SQL for a daemon's backend.
    pub const QUERY: &str =
        "SELECT hostname FROM database_instance_tags WHERE tag_name = 'commanded'";

    /// Adds what other clients, with names of their own, were told later.
    pub fn take_in(&mut self, later: Acknowledged) {
        self.count += later.count;
        self.tagged.extend(later.tagged);
        self.untagged.extend(later.untagged);
        for (term, leaders) in later.led {
            self.led.entry(term).or_default().extend(leaders);
        }
    }

    /// What is wrong with what a daemon holds, which is the answer to [`Acknowledged::QUERY`].
    #[must_use]
    pub fn wrongs(&self, held: &BTreeSet<String>) -> Vec<String> {
        let lost = self
            .tagged
            .difference(held)
            .map(|name| format!("{name} is lost"));
        let returned = self.untagged.intersection(held);
        let returned = returned.map(|name| format!("{name} is there again"));
        lost.chain(returned).collect()
    }

    /// Terms in which more than one led.
    #[must_use]
    pub fn split(&self) -> Vec<(u64, Vec<String>)> {
        let split = self.led.iter().filter(|(_, leaders)| leaders.len() > 1);
        split
            .map(|(term, leaders)| (*term, leaders.iter().cloned().collect()))
            .collect()
    }
}

/// A daemon whose backend is a file says what it holds of the tags.
///
/// # Errors
/// The file cannot be read.
pub fn held_in_file(daemon: &Daemon) -> Result<BTreeSet<String>> {
    let file = rusqlite::Connection::open(daemon.database())?;
    let mut statement = file.prepare(Acknowledged::QUERY)?;
    let held = statement.query_map([], |row| row.get(0))?;
    Ok(held.collect::<rusqlite::Result<BTreeSet<String>>>()?)
}

async fn command(shared: Arc<Shared>, address: SocketAddr, names: String) {
    let mut number = 0;
    while !shared.ended.load(Ordering::Relaxed) {
        tokio::time::sleep(PACE).await;
        number += 1;
        let name = format!("{names}-{number}");
        let tagging = format!("/api/tag/{name}/3306?tag={TAG}");
        let is_tagged = send(&shared, address, &name, &tagging, Tagged::Yes).await;
        if is_tagged && number % UNTAGGED == 0 {
            let untagging = format!("/api/untag/{name}/3306?tag={TAG}");
            send(&shared, address, &name, &untagging, Tagged::No).await;
        }
    }
}

/// Whether it was acknowledged.
async fn send(
    shared: &Shared,
    address: SocketAddr,
    name: &str,
    path: &str,
    wanted: Tagged,
) -> bool {
    let answer = get(address, path, DEADLINE).await;
    let (tagged, is_acknowledged) = match answer {
        Ok(reply) if reply.status == 200 => (wanted, true),
        // Nobody leads, or nobody is there: nothing was done, this says nothing about what was there before.
        Ok(reply) if reply.status == 503 => return false,
        Ok(_) | Err(_) => (Tagged::Maybe, false),
    };
    locked(&shared.tags).insert(name.to_owned(), tagged);
    *locked(&shared.acknowledged) += usize::from(is_acknowledged);
    is_acknowledged
}

/// Term and leadership come in one answer.
async fn look(shared: Arc<Shared>, address: SocketAddr) {
    while !shared.ended.load(Ordering::Relaxed) {
        if let Ok(reply) = get(address, "/api/v2/health", GLANCE).await
            && let Ok(health) = reply.json()
            && health["IsLeading"] == true
            && let (Some(term), Some(node)) = (health["Term"].as_u64(), health["Node"].as_str())
        {
            let mut led = locked(&shared.led);
            led.entry(term).or_default().insert(node.to_owned());
        }
        tokio::time::sleep(LOOK).await;
    }
}
