//! A disk in memory that can crash: for tests and for the simulation, never for a running coordinator.
//!
//! What was written since the last sync may, after a crash, be there, be lost, or be half there, sector by sector and in any
//! order, as a chooser decides that the caller passes in (a seeded one gives the same crash again). A crash is armed to
//! strike at the n-th change of the disk, so that a test can walk through every boundary inside a commit.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

/// A disk writes this many bytes at once or not at all, unless a [`Fate::Torn`] says otherwise.
pub const SECTOR_BYTES: usize = 512;

/// What a crash does to a piece of a write that was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It had reached the disk.
    Kept,
    /// It had not.
    Lost,
    /// Its first bytes had.
    Torn(usize),
}

/// A piece of what was not synced when the disk crashed: at most one sector of one write, or one change of length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Which change since the last sync, from 0.
    pub change: usize,
    /// Where it is on the disk; for a change of length, the new length.
    pub offset: u64,
    /// How many bytes; 0 for a change of length.
    pub bytes: usize,
}

enum Change {
    Write { offset: u64, data: Vec<u8> },
    SetLen(u64),
}

/// What happens at an armed change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trap {
    Crash { at: u64 },
    Error { at: u64 },
}

#[derive(Default)]
struct State {
    durable: Vec<u8>,
    visible: Vec<u8>,
    unsynced: Vec<Change>,
    changes: u64,
    syncs: u64,
    trap: Option<Trap>,
    crashed: bool,
}

/// A simulated disk. Clones are handles on the same one.
#[derive(Clone, Default)]
pub struct SimDisk(Arc<Mutex<State>>);

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("SimDisk").field("len", &state.visible.len()).field("crashed", &state.crashed).finish()
    }
}

impl SimDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic of a test while it held the lock must not hide the test's own message.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many changes (writes, changes of length, syncs) were made so far.
    pub fn changes(&self) -> u64 {
        self.state().changes
    }

    /// How many syncs were made so far.
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// Crashes in the middle of the `after`-th change from now: 0 is the next one. A write or sync that is struck may have
    /// happened in part.
    pub fn arm_crash(&self, after: u64) {
        let mut state = self.state();
        state.trap = Some(Trap::Crash { at: state.changes + after });
    }

    /// Fails the `after`-th change from now with an I/O error, once: a full disk, or an fsync that says EIO.
    pub fn arm_error(&self, after: u64) {
        let mut state = self.state();
        state.trap = Some(Trap::Error { at: state.changes + after });
    }

    /// Takes an armed crash or error back.
    pub fn disarm(&self) {
        self.state().trap = None;
    }

    /// Crashes now: every later operation through this disk fails.
    pub fn crash(&self) {
        self.state().crashed = true;
    }

    /// Whether it crashed.
    pub fn has_crashed(&self) -> bool {
        self.state().crashed
    }

    /// The disk as it is found after the crash (or after a loss of power now): a new one. Handles on the old one stay
    /// dead, so that a store that still holds one can't touch the new one.
    pub fn after_crash(&self, mut chooser: impl FnMut(Piece) -> Fate) -> SimDisk {
        let mut state = self.state();
        state.crashed = true;
        let mut bytes = state.durable.clone();
        for (number, change) in state.unsynced.iter().enumerate() {
            match change {
                Change::SetLen(len) => {
                    let piece = Piece { change: number, offset: *len, bytes: 0 };
                    if chooser(piece) == Fate::Kept {
                        resize(&mut bytes, *len);
                    }
                }
                Change::Write { offset, data } => {
                    for (at, sector) in sectors(*offset, data) {
                        let keep = match chooser(Piece { change: number, offset: at, bytes: sector.len() }) {
                            Fate::Kept => sector.len(),
                            Fate::Lost => 0,
                            Fate::Torn(first) => first.min(sector.len()),
                        };
                        put(&mut bytes, at, &sector[..keep]);
                    }
                }
            }
        }
        SimDisk::with(bytes)
    }

    /// Another disk with the same bytes, all of them synced.
    pub fn copy(&self) -> SimDisk {
        SimDisk::with(self.bytes())
    }

    fn with(bytes: Vec<u8>) -> SimDisk {
        SimDisk(Arc::new(Mutex::new(State { visible: bytes.clone(), durable: bytes, ..State::default() })))
    }

    /// The disk after the process was killed but the machine went on: everything written is there.
    pub fn after_kill(&self) -> SimDisk {
        self.after_crash(|_| Fate::Kept)
    }

    /// Turns one bit over, as ageing media do.
    pub fn flip_bit(&self, offset: u64, bit: u8) {
        let mut state = self.state();
        let at = offset as usize;
        state.visible[at] ^= 1 << (bit % 8);
        if at < state.durable.len() {
            state.durable[at] ^= 1 << (bit % 8);
        }
    }

    /// What a read would see of the whole disk.
    pub fn bytes(&self) -> Vec<u8> {
        self.state().visible.clone()
    }

    /// Opens the lock for one change; says whether the change happens, happens and then crashes, or fails.
    fn change(&self) -> io::Result<(MutexGuard<'_, State>, bool)> {
        let mut state = self.state();
        if state.crashed {
            return Err(crashed());
        }
        let number = state.changes;
        state.changes += 1;
        match state.trap {
            Some(Trap::Crash { at }) if at == number => {
                state.crashed = true;
                Ok((state, true))
            }
            Some(Trap::Error { at }) if at == number => {
                state.trap = None;
                Err(io::Error::other("simulated I/O error"))
            }
            _ => Ok((state, false)),
        }
    }
}

fn crashed() -> io::Error {
    io::Error::other("the simulated disk has crashed")
}

fn resize(bytes: &mut Vec<u8>, len: u64) {
    bytes.resize(len as usize, 0);
}

fn put(bytes: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let (start, end) = (offset as usize, offset as usize + data.len());
    if data.is_empty() {
        return;
    }
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[start..end].copy_from_slice(data);
}

/// Cuts a write at the disk's sector boundaries.
fn sectors(offset: u64, data: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let first = (SECTOR_BYTES - (offset as usize % SECTOR_BYTES)).min(data.len());
    let (head, rest) = data.split_at(first);
    let start = offset + first as u64;
    let rest = rest.chunks(SECTOR_BYTES).enumerate().map(move |(n, s)| (start + (n * SECTOR_BYTES) as u64, s));
    std::iter::once((offset, head)).chain(rest)
}

impl StorageBackend for SimDisk {
    fn len(&self) -> io::Result<u64> {
        let state = self.state();
        if state.crashed { Err(crashed()) } else { Ok(state.visible.len() as u64) }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        if state.crashed {
            return Err(crashed());
        }
        let start = offset as usize;
        let from = state.visible.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(from);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let (mut state, strikes) = self.change()?;
        resize(&mut state.visible, len);
        state.unsynced.push(Change::SetLen(len));
        if strikes { Err(crashed()) } else { Ok(()) }
    }

    fn sync_data(&self) -> io::Result<()> {
        let (mut state, strikes) = self.change()?;
        if strikes {
            return Err(crashed());
        }
        state.syncs += 1;
        let State { durable, unsynced, .. } = &mut *state;
        for change in unsynced.drain(..) {
            match change {
                Change::SetLen(len) => resize(durable, len),
                Change::Write { offset, data } => put(durable, offset, &data),
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let (mut state, strikes) = self.change()?;
        put(&mut state.visible, offset, data);
        state.unsynced.push(Change::Write { offset, data: data.to_vec() });
        if strikes { Err(crashed()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn written() -> SimDisk {
        let disk = SimDisk::new();
        disk.set_len(2048).unwrap();
        disk.write(0, b"synced").unwrap();
        disk.sync_data().unwrap();
        disk.write(500, &[1; 600]).unwrap();
        disk
    }

    #[test]
    fn what_was_synced_survives_and_the_rest_is_as_the_chooser_says() {
        let mut pieces = Vec::new();
        let after = written().after_crash(|piece| {
            pieces.push((piece.offset, piece.bytes));
            [Fate::Kept, Fate::Lost, Fate::Torn(10)][pieces.len() - 1]
        });
        assert_eq!(pieces, [(500, 12), (512, 512), (1024, 76)]);
        let bytes = after.bytes();
        assert_eq!(&bytes[..6], b"synced");
        assert_eq!(&bytes[500..512], [1; 12]);
        assert_eq!(&bytes[512..1024], [0; 512]);
        assert_eq!((&bytes[1024..1034], bytes[1034]), (&[1; 10][..], 0));
    }

    #[test]
    fn an_armed_crash_strikes_once_and_the_old_handle_stays_dead() {
        let disk = written();
        disk.arm_crash(1);
        disk.write(0, b"before").unwrap();
        assert!(disk.write(0, b"struck").is_err());
        assert!(disk.has_crashed());
        assert!(disk.read(0, &mut [0]).is_err() && disk.sync_data().is_err());
        let after = disk.after_kill();
        assert_eq!(&after.bytes()[..6], b"struck");
        after.sync_data().unwrap();
        assert!(disk.write(0, b"x").is_err());
    }

    #[test]
    fn an_armed_error_fails_one_change() {
        let disk = written();
        disk.arm_error(0);
        assert!(disk.sync_data().is_err());
        disk.sync_data().unwrap();
    }
}
