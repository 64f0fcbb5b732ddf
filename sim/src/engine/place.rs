//! Which machine runs: every task of a machine carries its machine's address, and does nothing while that machine's
//! process is paused (SIGSTOP).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

thread_local! {
    static PLACE: Cell<IpAddr> = const { Cell::new(SCENARIO) };
    static PAUSED: RefCell<BTreeMap<IpAddr, Vec<Waker>>> = const { RefCell::new(BTreeMap::new()) };
}

/// The machine of the scenario itself; also of what runs on none.
pub const SCENARIO: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 255, 1));

/// The machine whose task runs.
pub fn here() -> IpAddr {
    PLACE.try_with(Cell::get).unwrap_or(SCENARIO)
}

/// From here on no task of the machine runs.
pub fn pause(machine: IpAddr) {
    PAUSED.with_borrow_mut(|paused| {
        paused.entry(machine).or_default();
    });
}

/// Tasks of the machine run again, those that had something to do at once.
pub fn resume(machine: IpAddr) {
    let woken = PAUSED.with_borrow_mut(|paused| paused.remove(&machine));
    for waker in woken.unwrap_or_default() {
        waker.wake();
    }
}

pub fn reset() {
    PLACE.set(SCENARIO);
    drop(PAUSED.take());
}

/// Whether the task is to wait: then it is woken when the machine goes on.
fn waits(machine: IpAddr, context: &Context<'_>) -> bool {
    PAUSED.with_borrow_mut(|paused| {
        let wakers = paused.get_mut(&machine);
        wakers
            .map(|wakers| {
                if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                    wakers.push(context.waker().clone());
                }
            })
            .is_some()
    })
}

/// A task of a machine.
pub struct Placed<F> {
    place: IpAddr,
    /// Empty only while it is dropped.
    inner: Option<Pin<Box<F>>>,
}

impl<F> Placed<F> {
    pub fn new(place: IpAddr, task: F) -> Self {
        Self {
            place,
            inner: Some(Box::pin(task)),
        }
    }
}

/// Puts the earlier place back, also when the task panics.
struct Visit(IpAddr);

impl Visit {
    fn begin(place: IpAddr) -> Self {
        Self(
            PLACE
                .try_with(|current| current.replace(place))
                .unwrap_or(SCENARIO),
        )
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let _ = PLACE.try_with(|current| current.set(self.0));
    }
}

impl<F: Future> Future for Placed<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if waits(self.place, context) {
            return Poll::Pending;
        }
        let _visit = Visit::begin(self.place);
        let inner = self.inner.as_mut().expect("polled before it is dropped");
        inner.as_mut().poll(context)
    }
}

impl<F> Drop for Placed<F> {
    fn drop(&mut self) {
        let _visit = Visit::begin(self.place);
        drop(self.inner.take());
    }
}
