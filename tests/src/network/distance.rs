//! A network in which what machines send each other is a while on its way, as between cities. Each wire is a TAP device,
//! and this process the switch between them. This process itself is near to all of them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

const FRAME_BYTES_MAX: usize = 64 * 1024;
const TUN: &str = "/dev/net/tun";

type HardwareAddress = [u8; 6];

/// The end of a wire that this process holds; the other end is a network device.
#[derive(Debug)]
pub(super) struct Wire(File);

impl Wire {
    /// Makes the device too, in this process's network.
    pub(super) fn make(device: &str) -> Result<Wire> {
        let file = File::options().read(true).write(true).open(TUN);
        let file = file.with_context(|| format!("{TUN}; network devices need root"))?;
        // SAFETY: all of it is plain numbers, for which zeros are a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        ensure!(
            device.len() < request.ifr_name.len(),
            "{device}: too long a name"
        );
        for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
            *to = libc::c_char::try_from(from)?;
        }
        request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_TAP | libc::IFF_NO_PI)?;
        // SAFETY: the call reads and writes that much of the request, which lives until it is back.
        let made = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        let error = std::io::Error::last_os_error();
        ensure!(made == 0, "device {device}: {error}");
        Ok(Wire(file))
    }
}

struct Frame {
    due: Instant,
    from: usize,
    bytes: Vec<u8>,
}

/// Wires by their places, and at which of them a hardware address was seen.
struct Switch {
    wires: Vec<Wire>,
    seen: Mutex<BTreeMap<HardwareAddress, usize>>,
}

impl Switch {
    /// Where a frame goes; everywhere else when nobody is known there.
    fn ways(&self, from: usize, frame: &[u8]) -> Vec<usize> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(to), Some(sender)) = (
            frame.first_chunk(),
            frame.get(6..).and_then(<[u8]>::first_chunk),
        ) else {
            return Vec::new();
        };
        seen.insert(*sender, from);
        match seen.get(to) {
            Some(way) => vec![*way],
            None => (0..self.wires.len()).filter(|way| *way != from).collect(),
        }
    }

    fn deliver(&self, way: usize, frame: &[u8]) {
        // A device that is gone, or is not up so far, loses it, as a cable does.
        (&self.wires[way].0).write_all(frame).ok();
    }
}

/// Joins the wires: frames between the first and any other pass at once, between two others they take `one_way`. It ends when
/// the devices are gone.
pub(super) fn join(wires: Vec<Wire>, one_way: Duration) {
    let switch = Arc::new(Switch {
        wires,
        seen: Mutex::default(),
    });
    let (sent, on_the_way) = channel();
    for from in 0..switch.wires.len() {
        let (switch, sent) = (switch.clone(), sent.clone());
        std::thread::spawn(move || read(&switch, from, one_way, &sent));
    }
    std::thread::spawn(move || arrive(&switch, &on_the_way));
}

fn read(switch: &Switch, from: usize, one_way: Duration, sent: &Sender<Frame>) {
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    while let Ok(count) = (&switch.wires[from].0).read(&mut buffer) {
        let bytes = &buffer[..count];
        if from == 0 {
            for way in switch.ways(from, bytes) {
                switch.deliver(way, bytes);
            }
            continue;
        }
        if switch.ways(from, bytes).contains(&0) {
            switch.deliver(0, bytes);
        }
        let frame = Frame {
            due: Instant::now() + one_way,
            from,
            bytes: bytes.to_vec(),
        };
        if sent.send(frame).is_err() {
            return;
        }
    }
}

/// All of them take the same time, so they arrive in the order in which they were sent.
fn arrive(switch: &Switch, on_the_way: &Receiver<Frame>) {
    for Frame { due, from, bytes } in on_the_way {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        for way in switch.ways(from, &bytes) {
            if way != 0 {
                switch.deliver(way, &bytes);
            }
        }
    }
}
