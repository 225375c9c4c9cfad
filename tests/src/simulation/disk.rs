//! What crashes and age do to a process's disk.

use coordinator::raft::SimDisk;
use coordinator::raft::disk::Fate;

use super::random::Random;

/// The disk after its process was killed: all that was written is there.
pub(crate) fn after_kill(disk: &SimDisk) -> SimDisk {
    disk.after_kill()
}

/// The disk after its machine lost power: what was not synced is kept, lost or torn, piece by piece, in any order.
pub(crate) fn after_power_loss(disk: &SimDisk, random: &mut Random) -> SimDisk {
    // A whole run of luck is likelier than in a coin for each sector.
    let kept = [100, 500, 900][random.index(3)];
    disk.after_crash(|piece| {
        if random.chance(kept) {
            Fate::Kept
        } else if piece.bytes > 0 && random.chance(300) {
            Fate::Torn(random.below(piece.bytes as u64) as usize)
        } else {
            Fate::Lost
        }
    })
}

/// A copy of the disk with some bits turned over where something is written.
pub(crate) fn aged(disk: &SimDisk, random: &mut Random) -> SimDisk {
    let copy = disk.copy();
    let bytes = copy.bytes();
    if bytes.is_empty() {
        return copy;
    }
    for _ in 0..random.between(1, 3) {
        let start = random.index(bytes.len());
        // From a random place to the next byte that holds something.
        let at = (0..bytes.len()).map(|n| (start + n) % bytes.len()).find(|at| bytes[*at] != 0).unwrap_or(start);
        copy.flip_bit(at as u64, random.below(8) as u8);
    }
    copy
}
