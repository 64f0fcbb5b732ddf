//! The task that writes: it takes batches in at once, whatever the database does, and writes them one transaction at a
//! time.
//!
//! What holds between writes: the rows stand at `written`; the queue holds, in order, all that came after it, unless a
//! rewrite is wanted, which makes up for whatever is missing. A write that failed has written nothing and is tried again
//! for ever: how long that has gone on is the backend's health, and others decide what follows from it.

use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, pending};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use orchestrator_core::id::{ClusterId, InstanceKey, LogPosition};
use orchestrator_core::recovery::Recovery;
use orchestrator_core::replicated::{Change, Replicated};
use orchestrator_core::time::{Mono, Now, Wall};
use orchestrator_core::topology::Instance;
use tokio::sync::{mpsc, oneshot, watch};

use super::database::{self, Attempt, Database, Found, Mark, Rewrite, Source, Stamp, Watch};
use super::observe::ROWS_PER_LOOK_MAX;
use super::rows::{Row, Rows, Write, observed, unobserved};
use super::{
    BACKLOG_BYTES_MAX, BACKLOG_CHANGES_MAX, BATCH_AGE_MAX, BATCHES_PER_WRITE_MAX, BEAT,
    BackendError, BackendHealth, Batch, Contents, Control, LOOK, NODE_HEALTH_KEPT,
    OBSERVATIONS_PER_WRITE_MAX, Observation, Opened, RETRY, Seen, Settings, View, tables, wall,
};
use crate::env::{Env, sleep_until};

/// How often the age of what is not written is told.
const TELL: Duration = Duration::from_millis(250);
/// Batches taken in at a time.
const TAKE_IN_MAX: usize = 1_024;

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The state at an entry.
type Place = (LogPosition, [u8; 32]);

/// A batch that waits.
struct Queued {
    batch: Batch,
    received: Duration,
    changes: usize,
    bytes: usize,
}

/// Everything is to be rewritten.
struct Wanted {
    /// The oldest change that is lost without it.
    since: Option<Duration>,
}

/// A state that everything is rewritten from.
struct Image {
    state: Replicated,
    since: Option<Duration>,
}

/// What a transaction is for.
enum Work {
    Rows {
        image: Option<Box<Image>>,
        batches: Vec<Queued>,
        /// How often the daemon's own row was written.
        beat: Option<u64>,
        /// For `kv_store`.
        pairs: BTreeMap<String, String>,
    },
    Observations(Vec<(InstanceKey, Option<Instance>)>),
}

/// A transaction on its way.
struct Job {
    settings: Arc<Settings>,
    /// Whose database may be taken when it is opened again.
    silent: Option<Mark>,
    cluster: Option<ClusterId>,
    started_at: Wall,
    work: Work,
    now: Now,
    started: Duration,
}

/// How a transaction ended.
struct Finished {
    job: Job,
    database: Option<Database>,
    outcome: Outcome,
}

enum Outcome {
    Written,
    /// The file was opened again; nothing was written yet.
    Reopened(Found),
    Failed(BackendError),
}

/// Owns the database.
pub(super) struct Writer<E, V> {
    view: Arc<V>,
    settings: Arc<Settings>,
    /// Of another daemon's database that was found in the place of ours.
    watch: Watch,
    health: watch::Sender<BackendHealth>,
    /// None while a job has it, and after an error that asks for opening it again.
    database: Option<Database>,
    cluster: Option<ClusterId>,
    /// The cluster was told and is not in the database.
    is_cluster_new: bool,
    started_at: Wall,
    /// Where the rows stand.
    written: Option<Place>,
    /// Where they will stand when all that waits is written; none: at `written`.
    heading: Option<Place>,
    queue: VecDeque<Queued>,
    queued_changes: usize,
    queued_bytes: usize,
    wanted: Option<Wanted>,
    image: Option<Box<Image>>,
    observations: BTreeMap<InstanceKey, Option<Instance>>,
    /// None while the node is asked with it.
    seen: Option<Seen>,
    /// Takes the place of the one that the node is asked with.
    fresh_seen: Option<Seen>,
    beats: u64,
    /// For `kv_store`: written with the next beat.
    pairs: BTreeMap<String, String>,
    next_beat: Duration,
    next_look: Duration,
    next_ask: Duration,
    retry_at: Duration,
    /// The oldest of what the job on its way writes.
    in_flight_since: Option<Duration>,
    /// Since when the daemon's own row could not be written.
    failing_since: Option<Duration>,
    error: Option<String>,
    closing: Option<Closing>,
    env: PhantomData<fn() -> E>,
}

/// The writer is to end.
#[derive(Default)]
struct Closing {
    reply: Option<oneshot::Sender<Option<String>>>,
    has_failed: bool,
}

enum Woken {
    Finished(Box<Finished>),
    State(Option<Box<Replicated>>),
    Looked(Option<(Seen, Vec<Observation>)>),
    Control(Option<Control>),
    Batches(usize),
    Timer,
}

async fn arrive<T>(slot: &mut Option<Boxed<T>>) -> T {
    match slot {
        Some(future) => {
            let value = future.as_mut().await;
            *slot = None;
            value
        }
        None => pending().await,
    }
}

impl<E: Env, V: View> Writer<E, V> {
    pub(super) fn new(opened: Opened, view: V, health: watch::Sender<BackendHealth>) -> Self {
        let now = E::mono();
        let mut writer = Writer {
            view: Arc::new(view),
            settings: Arc::new(opened.settings),
            watch: Watch::default(),
            health,
            database: Some(opened.database),
            cluster: opened.position.and_then(|position| position.cluster),
            is_cluster_new: false,
            started_at: wall::<E>(),
            written: None,
            heading: None,
            queue: VecDeque::new(),
            queued_changes: 0,
            queued_bytes: 0,
            wanted: None,
            image: None,
            observations: BTreeMap::new(),
            seen: None,
            fresh_seen: None,
            beats: 0,
            pairs: BTreeMap::new(),
            next_beat: now,
            next_look: now,
            next_ask: now,
            retry_at: now,
            in_flight_since: None,
            failing_since: None,
            error: None,
            closing: None,
            env: PhantomData,
        };
        writer.stand_at(Found {
            position: opened.position,
            is_by_hand: opened.is_by_hand,
            adopted: None,
            instances: opened.instances,
            original: Vec::new(),
        });
        writer.seen = writer.fresh_seen.take();
        writer
    }

    /// The rows are what this database holds.
    fn stand_at(&mut self, found: Found) {
        let held = found
            .position
            .and_then(|position| position.at.zip(position.digest));
        if held.is_none() {
            self.want("the database holds no state of this program", None);
        } else if self.written.is_some() && self.written != held {
            self.want("the database is not the one that was written to", None);
        } else if found.is_by_hand {
            self.want("people wrote to it, which no daemon knows of", None);
        }
        self.written = held;
        self.heading = self
            .queue
            .back()
            .map_or(held, |last| Some((last.batch.at, last.batch.digest)));
        let index = held.map_or(0, |(at, _)| at.index);
        self.fresh_seen = Some(Seen::new(found.instances, index));
        self.observations.clear();
    }

    pub(super) async fn run(
        mut self,
        mut batches: mpsc::UnboundedReceiver<Batch>,
        mut control: mpsc::UnboundedReceiver<Control>,
    ) {
        let mut writing: Option<Boxed<Finished>> = None;
        let mut asking: Option<Boxed<Option<Replicated>>> = None;
        let mut looking: Option<Boxed<Option<(Seen, Vec<Observation>)>>> = None;
        let mut taken_in = Vec::new();
        loop {
            let now = E::mono();
            if writing.is_none() {
                if let Some(job) = self.next_job(now) {
                    self.in_flight_since = job.oldest();
                    let database = self.database.take();
                    writing = Some(Box::pin(job.run::<E>(database)));
                } else if self.is_done() {
                    self.end();
                    return;
                }
            }
            if asking.is_none() && self.is_asking_due(now) {
                let view = Arc::clone(&self.view);
                self.next_ask = now + BEAT;
                asking = Some(Box::pin(async move { view.replicated().await }));
            }
            if looking.is_none()
                && now >= self.next_look
                && self.closing.is_none()
                && let Some(seen) = self.seen.take()
            {
                let view = Arc::clone(&self.view);
                looking = Some(Box::pin(async move { view.observe(seen).await }));
            }
            self.tell(now);
            let wake = self.wake_at(now, writing.is_some(), asking.is_some());
            let woken = tokio::select! {
                biased;
                finished = arrive(&mut writing) => Woken::Finished(Box::new(finished)),
                state = arrive(&mut asking) => Woken::State(state.map(Box::new)),
                looked = arrive(&mut looking) => Woken::Looked(looked),
                message = control.recv(), if !control.is_closed() || !control.is_empty() => Woken::Control(message),
                count = batches.recv_many(&mut taken_in, TAKE_IN_MAX), if self.closing.is_none() => Woken::Batches(count),
                () = sleep_until::<E>(wake) => Woken::Timer,
            };
            match woken {
                Woken::Finished(finished) => self.settle(*finished),
                Woken::State(state) => self.take_image(state),
                Woken::Looked(looked) => self.take_observations(looked),
                Woken::Control(Some(message)) => {
                    if let Some(closing) = self.obey(message) {
                        // What was sent before is written.
                        batches.close();
                        while let Ok(batch) = batches.try_recv() {
                            self.take_in(batch, now);
                        }
                        self.closing = Some(closing);
                    }
                }
                // Handles are gone; batches may still come.
                Woken::Control(None) => {}
                Woken::Batches(0) => self.closing = Some(Closing::default()),
                Woken::Batches(_) => {
                    let now = E::mono();
                    for batch in taken_in.drain(..) {
                        self.take_in(batch, now);
                    }
                }
                Woken::Timer => {}
            }
        }
    }

    fn obey(&mut self, message: Control) -> Option<Closing> {
        match message {
            Control::Cluster(cluster) => {
                self.is_cluster_new |= self.cluster != Some(cluster);
                self.cluster = Some(cluster);
                None
            }
            Control::Rebuild(reason) => {
                self.want(&reason, None);
                None
            }
            Control::Pairs(pairs) => {
                self.pairs.extend(pairs);
                None
            }
            Control::Close(reply) => Some(Closing {
                reply: Some(reply),
                has_failed: false,
            }),
        }
    }

    // --- what waits ---

    fn take_in(&mut self, batch: Batch, now: Duration) {
        if let Some(wanted) = &mut self.wanted {
            wanted.since.get_or_insert(now);
            self.next_ask = self.next_ask.min(now);
        }
        let last = self.heading.filter(|_| self.wanted.is_none()).or_else(|| {
            self.queue
                .back()
                .map(|queued| (queued.batch.at, queued.batch.digest))
        });
        if let Some((at, digest)) = last {
            let is_same_entry = batch.at.index == at.index;
            if batch.at.index < at.index {
                return;
            }
            if is_same_entry && batch.at == at && batch.digest == digest {
                return;
            }
            if is_same_entry || batch.at.term < at.term {
                tracing::error!(
                    "the backend's rows at {at} contradict the log's entry {}: they are discarded",
                    batch.at
                );
                self.want("its rows contradict the log", Some(now));
                return;
            }
        }
        match &batch.contents {
            Contents::Replaced => self.want("the state was replaced by a snapshot", Some(now)),
            Contents::Changes(changes) => {
                let bytes = changes.iter().map(weight).sum();
                self.queued_changes += changes.len();
                self.queued_bytes += bytes;
                self.heading = Some((batch.at, batch.digest));
                self.queue.push_back(Queued {
                    changes: changes.len(),
                    bytes,
                    batch,
                    received: now,
                });
                if self.queued_changes > BACKLOG_CHANGES_MAX
                    || self.queued_bytes > BACKLOG_BYTES_MAX
                {
                    let oldest = self.queue.front().map(|queued| queued.received);
                    self.want("more changes waited than are kept", oldest);
                }
            }
        }
    }

    /// Everything is to be rewritten; what waited is not needed.
    fn want(&mut self, reason: &str, since: Option<Duration>) {
        if self.wanted.is_none() {
            tracing::info!("{} is rewritten: {reason}", self.settings.place);
        }
        let waited = self.queue.front().map(|queued| queued.received);
        let earlier = self.wanted.take().and_then(|wanted| wanted.since);
        let image = self.image.take().and_then(|image| image.since);
        self.wanted = Some(Wanted {
            since: [since, waited, earlier, image].into_iter().flatten().min(),
        });
        self.queue.clear();
        self.queued_changes = 0;
        self.queued_bytes = 0;
        self.heading = None;
    }

    fn is_asking_due(&self, now: Duration) -> bool {
        self.wanted.is_some()
            && self.closing.is_none()
            && now >= self.next_ask
            && now >= self.retry_at
    }

    fn take_image(&mut self, state: Option<Box<Replicated>>) {
        // One that waited is no later than this one.
        let Some(state) = state else { return };
        let at = state.applied();
        if at.index == 0 {
            return;
        }
        let Some(wanted) = self.wanted.take() else {
            return;
        };
        while self
            .queue
            .front()
            .is_some_and(|queued| queued.batch.at.index <= at.index)
        {
            self.unqueue();
        }
        self.heading = Some(self.queue.back().map_or_else(
            || (at, state.digest()),
            |last| (last.batch.at, last.batch.digest),
        ));
        self.image = Some(Box::new(Image {
            state: *state,
            since: wanted.since,
        }));
    }

    fn unqueue(&mut self) -> Option<Queued> {
        let queued = self.queue.pop_front()?;
        self.queued_changes -= queued.changes;
        self.queued_bytes -= queued.bytes;
        Some(queued)
    }

    fn take_observations(&mut self, looked: Option<(Seen, Vec<Observation>)>) {
        let now = E::mono();
        // None: the node is gone, and nothing is to be seen any more.
        let Some((seen, observations)) = looked else {
            return;
        };
        if let Some(fresh) = self.fresh_seen.take() {
            self.seen = Some(fresh);
            self.next_look = now;
            return;
        }
        self.next_look = if observations.len() < ROWS_PER_LOOK_MAX {
            now + LOOK
        } else {
            now
        };
        for Observation { key, instance } in observations {
            self.observations.insert(key, instance);
        }
        self.seen = Some(seen);
    }

    // --- writing ---

    fn next_job(&mut self, now: Duration) -> Option<Job> {
        if now < self.retry_at && !self.is_last_try() {
            return None;
        }
        if self
            .closing
            .as_ref()
            .is_some_and(|closing| closing.has_failed)
        {
            return None;
        }
        let work = self.next_work(now)?;
        Some(Job {
            settings: Arc::clone(&self.settings),
            silent: self.watch.silent(now),
            cluster: self.cluster,
            started_at: self.started_at,
            work,
            now: Now {
                mono: Mono::from_elapsed(now),
                wall: wall::<E>(),
            },
            started: now,
        })
    }

    /// What is left is tried once more, and then left to the log.
    fn is_last_try(&self) -> bool {
        self.closing.is_some()
    }

    fn next_work(&mut self, now: Duration) -> Option<Work> {
        let beat = (now >= self.next_beat && self.closing.is_none()).then_some(self.beats);
        let image = self.image.take();
        let is_due = self.queue.front().is_some_and(|oldest| {
            now >= oldest.received + BATCH_AGE_MAX
                || self.queue.len() >= BATCHES_PER_WRITE_MAX
                || self.closing.is_some()
        });
        let mut batches = Vec::new();
        if is_due && image.is_none() && self.wanted.is_none() {
            while batches.len() < BATCHES_PER_WRITE_MAX
                && let Some(queued) = self.unqueue()
            {
                batches.push(queued);
            }
        }
        if image.is_some() || !batches.is_empty() || beat.is_some() || self.is_cluster_new {
            let pairs = match beat {
                Some(_) => std::mem::take(&mut self.pairs),
                None => BTreeMap::new(),
            };
            return Some(Work::Rows {
                image,
                batches,
                beat,
                pairs,
            });
        }
        if self.closing.is_some() || self.observations.is_empty() {
            return None;
        }
        let mut observations = Vec::new();
        while observations.len() < OBSERVATIONS_PER_WRITE_MAX
            && let Some(observation) = self.observations.pop_first()
        {
            observations.push(observation);
        }
        Some(Work::Observations(observations))
    }

    fn settle(&mut self, finished: Finished) {
        let Finished {
            job,
            database,
            outcome,
        } = finished;
        self.in_flight_since = None;
        self.database = database;
        match outcome {
            Outcome::Written => self.settle_written(job),
            Outcome::Reopened(found) => {
                tracing::warn!("{} was opened again", self.settings.place);
                self.put_back(job);
                self.stand_at(found);
                if let Some(fresh) = self.fresh_seen.take() {
                    // The one that the node is asked with is put away when it comes back.
                    if self.seen.is_some() {
                        self.seen = Some(fresh);
                    } else {
                        self.fresh_seen = Some(fresh);
                    }
                }
                self.is_cluster_new = self.cluster.is_some();
            }
            Outcome::Failed(error) => self.settle_failed(job, error),
        }
    }

    fn settle_written(&mut self, job: Job) {
        if self.error.take().is_some() {
            tracing::info!("{} is written again", self.settings.place);
        }
        match job.work {
            Work::Rows {
                image,
                batches,
                beat,
                ..
            } => {
                self.failing_since = None;
                self.is_cluster_new &= job.cluster != self.cluster;
                if beat.is_some() {
                    self.beats += 1;
                    self.next_beat = job.started + BEAT;
                }
                if let Some(image) = image {
                    self.written = Some((image.state.applied(), image.state.digest()));
                }
                if let Some(last) = batches.last() {
                    self.written = Some((last.batch.at, last.batch.digest));
                }
            }
            Work::Observations(_) => {}
        }
    }

    fn settle_failed(&mut self, job: Job, error: BackendError) {
        let now = E::mono();
        let text = error.to_string();
        if self.error.as_ref() != Some(&text) {
            tracing::error!("the backend cannot be written: {text}");
        }
        self.error = Some(text);
        self.retry_at = now + RETRY;
        if let Some(closing) = &mut self.closing {
            closing.has_failed = true;
        }
        if let BackendError::InUse {
            token, written_at, ..
        } = &error
        {
            let (token, written_at) = (token.clone(), written_at.clone());
            self.watch.saw(Mark { token, written_at }, now);
        }
        match error {
            // The file may have been replaced, or come back.
            BackendError::NoFolder(_)
            | BackendError::Unwritable { .. }
            | BackendError::Damaged { .. }
            | BackendError::Sick { .. }
            | BackendError::Failed { .. }
            | BackendError::Schema { .. }
            | BackendError::InUse { .. }
            | BackendError::Unnamed { .. }
            | BackendError::Unreachable { .. }
            | BackendError::NoRight { .. } => self.database = None,
            // Opening it again would take it from its owner, or changes nothing.
            BackendError::Full { .. }
            | BackendError::Busy { .. }
            | BackendError::TakenOver { .. }
            | BackendError::OtherCluster { .. } => {}
        }
        let is_of_rows = match &job.work {
            Work::Rows { .. } => true,
            Work::Observations(_) => false,
        };
        if is_of_rows {
            self.failing_since.get_or_insert(job.started);
        }
        self.put_back(job);
    }

    /// What was not written waits again.
    fn put_back(&mut self, job: Job) {
        match job.work {
            Work::Rows {
                image,
                batches,
                beat: _,
                pairs,
            } => {
                for (key, value) in pairs {
                    // A newer one may have come.
                    self.pairs.entry(key).or_insert(value);
                }
                let oldest = batches.first().map(|queued| queued.received);
                if let Some(image) = image {
                    // A later state is no dearer than this one.
                    let queue = std::mem::take(&mut self.queue);
                    let (changes, bytes) = (self.queued_changes, self.queued_bytes);
                    self.want("the last attempt failed", image.since);
                    self.queue = queue;
                    (self.queued_changes, self.queued_bytes) = (changes, bytes);
                } else if let Some(wanted) = &mut self.wanted {
                    wanted.since = [wanted.since, oldest].into_iter().flatten().min();
                } else {
                    for queued in batches.into_iter().rev() {
                        self.queued_changes += queued.changes;
                        self.queued_bytes += queued.bytes;
                        self.queue.push_front(queued);
                    }
                }
            }
            Work::Observations(rows) => {
                for (key, instance) in rows {
                    // A newer one may have come.
                    self.observations.entry(key).or_insert(instance);
                }
            }
        }
    }

    // --- time ---

    /// Received and not written since.
    fn oldest(&self) -> Option<Duration> {
        [
            self.queue.front().map(|queued| queued.received),
            self.wanted.as_ref().and_then(|wanted| wanted.since),
            self.image.as_ref().and_then(|image| image.since),
            self.in_flight_since,
            self.failing_since,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn tell(&self, now: Duration) {
        let oldest_unwritten = self
            .oldest()
            .map_or(Duration::ZERO, |oldest| now.saturating_sub(oldest));
        self.health.send_if_modified(|health| {
            // What is younger is the ordinary course of things.
            let told = if oldest_unwritten < TELL {
                Duration::ZERO
            } else {
                oldest_unwritten
            };
            let is_different = health.oldest_unwritten != told || health.error != self.error;
            if is_different {
                *health = BackendHealth {
                    oldest_unwritten: told,
                    error: self.error.clone(),
                };
            }
            is_different
        });
    }

    /// When something is due that no channel tells of.
    fn wake_at(&self, now: Duration, is_writing: bool, is_asking: bool) -> Duration {
        let mut wake = now + TELL;
        if !is_writing {
            wake = wake.min(self.next_beat.max(self.retry_at));
            if self.wanted.is_none()
                && let Some(oldest) = self.queue.front()
            {
                wake = wake.min((oldest.received + BATCH_AGE_MAX).max(self.retry_at));
            }
        }
        if self.wanted.is_some() && !is_asking {
            wake = wake.min(self.next_ask.max(self.retry_at));
        }
        if self.seen.is_some() {
            wake = wake.min(self.next_look);
        }
        // What was due was started; a clock that stands still must not make this spin.
        wake.max(now + Duration::from_millis(1))
    }

    // --- the end ---

    fn is_done(&self) -> bool {
        self.closing.as_ref().is_some_and(|closing| {
            closing.has_failed
                || (self.queue.is_empty() && self.image.is_none())
                || self.wanted.is_some()
        })
    }

    fn end(&mut self) {
        self.tell(E::mono());
        if let Some(reply) = self.closing.take().and_then(|closing| closing.reply) {
            // Whoever asked may have gone.
            let _ = reply.send(self.error.clone());
        }
    }
}

impl Job {
    fn oldest(&self) -> Option<Duration> {
        match &self.work {
            Work::Rows {
                image,
                batches,
                beat,
                ..
            } => [
                image.as_ref().and_then(|image| image.since),
                batches.first().map(|queued| queued.received),
                beat.map(|_| self.started),
            ]
            .into_iter()
            .flatten()
            .min(),
            Work::Observations(_) => None,
        }
    }

    /// Without a database it is opened, and nothing is written.
    async fn run<E: Env>(self, database: Option<Database>) -> Finished {
        let Some(database) = database else {
            return self.reopen::<E>().await;
        };
        let (rewrite, stamp) = (self.rewrite(), self.stamp());
        let (job, attempt) = database.write::<E, Job>(self, rewrite, stamp).await;
        let (database, outcome) = match attempt {
            Attempt::Written(database) => (Some(database), Outcome::Written),
            Attempt::Failed(database, error) => (Some(database), Outcome::Failed(error)),
            Attempt::Lost(Some(error)) => (None, Outcome::Failed(error)),
            Attempt::Lost(None) => return job.reopen::<E>().await,
        };
        Finished {
            job,
            database,
            outcome,
        }
    }

    async fn reopen<E: Env>(self) -> Finished {
        let (database, outcome) =
            match database::open::<E>(&self.settings, self.silent.clone(), self.now.wall).await {
                Ok((database, found)) => (Some(database), Outcome::Reopened(found)),
                Err(error) => (None, Outcome::Failed(error)),
            };
        Finished {
            job: self,
            database,
            outcome,
        }
    }

    fn rewrite(&self) -> Rewrite {
        match &self.work {
            Work::Rows { image: Some(_), .. } => Rewrite::Replicated,
            Work::Rows { image: None, .. } | Work::Observations(_) => Rewrite::Nothing,
        }
    }

    fn stamp(&self) -> Stamp {
        let applied = match &self.work {
            Work::Observations(_) => None,
            Work::Rows { image, batches, .. } => batches
                .last()
                .map(|last| (last.batch.at, last.batch.digest))
                .or_else(|| {
                    image
                        .as_ref()
                        .map(|image| (image.state.applied(), image.state.digest()))
                }),
        };
        Stamp {
            cluster: self.cluster,
            applied,
            wall: self.now.wall,
        }
    }

    /// What a key-value store says.
    fn pair(&self, key: &String, value: &String) -> Write {
        Write::Put(Row::new(
            &tables::KV_STORE,
            [
                ("store_key", key.into()),
                ("store_value", value.into()),
                ("last_updated", self.now.wall.into()),
            ],
        ))
    }

    /// The daemon is alive.
    fn beat(&self, number: u64) -> [Write; 2] {
        let settings = &self.settings;
        [
            Write::DeleteBefore {
                table: &tables::NODE_HEALTH,
                column: "last_seen_active",
                before: self.now.wall - NODE_HEALTH_KEPT,
            },
            Write::Put(Row::new(
                &tables::NODE_HEALTH,
                [
                    ("hostname", (&settings.host_name).into()),
                    ("token", (&settings.token).into()),
                    ("extra_info", (&settings.extra_info).into()),
                    ("command", (&settings.command).into()),
                    ("app_version", (&settings.app_version).into()),
                    ("first_seen_active", self.started_at.into()),
                    ("last_seen_active", self.now.wall.into()),
                    ("db_backend", settings.place.to_string().into()),
                    ("incrementing_indicator", number.into()),
                ],
            )),
        ]
    }
}

impl Source for Job {
    fn writes(&self) -> Box<dyn Iterator<Item = Write> + Send + '_> {
        match &self.work {
            Work::Observations(rows) => {
                Box::new(rows.iter().map(|(key, instance)| match instance {
                    Some(instance) => observed(instance, self.now),
                    None => unobserved(key),
                }))
            }
            Work::Rows {
                image,
                batches,
                beat,
                pairs,
            } => {
                let mut rows = Rows::default();
                let state = image.iter().flat_map(|image| image.state.everything());
                let changes = batches
                    .iter()
                    .flat_map(|queued| match &queued.batch.contents {
                        Contents::Changes(changes) => changes.as_slice(),
                        Contents::Replaced => &[],
                    });
                Box::new(
                    state
                        .chain(changes.cloned())
                        .flat_map(move |change| {
                            let mut writes = Vec::new();
                            rows.of(&change, &mut writes);
                            writes
                        })
                        .chain(beat.iter().flat_map(|beat| self.beat(*beat)))
                        .chain(pairs.iter().map(|(key, value)| self.pair(key, value))),
                )
            }
        }
    }
}

/// About how many bytes a change keeps in memory.
fn weight(change: &Change) -> usize {
    let text = match change {
        Change::Recovery(_, Some(recovery)) => recovery_weight(recovery),
        Change::RecoveryLine { line, .. } => line.message.len(),
        Change::Cluster(_, Some(record)) => record.members.len() * 64,
        Change::Detection(_, Some(detection)) => detection.replicas.len() * 64,
        Change::Tag { name, tag, .. } => name.len() + tag.as_ref().map_or(0, |tag| tag.value.len()),
        Change::Downtime(_, Some(downtime)) => downtime.owner.len() + downtime.reason.len(),
        Change::Maintenance(_, Some(maintenance)) => {
            maintenance.owner.len() + maintenance.reason.len()
        }
        Change::Recovery(_, None)
        | Change::Cluster(_, None)
        | Change::Detection(_, None)
        | Change::Downtime(_, None)
        | Change::Maintenance(_, None)
        | Change::Version(_)
        | Change::Member(..)
        | Change::Declaration(..)
        | Change::Policy(_)
        | Change::Known(..)
        | Change::Forgotten(..)
        | Change::ClusterAlias { .. }
        | Change::ClusterAliasOverride { .. }
        | Change::ClusterDomain { .. }
        | Change::Candidate(..)
        | Change::GlobalStop(_)
        | Change::Blocked(..)
        | Change::Deposed(..) => 0,
    };
    size_of::<Change>() + 128 + text
}

fn recovery_weight(recovery: &Recovery) -> usize {
    let lines: usize = recovery
        .lines
        .iter()
        .map(|line| line.message.len() + 32)
        .sum();
    let errors: usize = recovery.errors.iter().map(|error| error.len() + 24).sum();
    lines + errors + recovery.steps.len() * 512 + recovery.replicas.len() * 64 + 1_024
}
