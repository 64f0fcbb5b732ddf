//! The write-ahead file of the raft log's database, looked at before SQLite opens it: SQLite drops, without a word, all that
//! follows the first frame that does not match its checksum. That is right for the end of the file, which a power cut may
//! have torn, and forgets promises when the frame is one that was synced and has rotted since.
//!
//! Each transaction is synced before the next one is begun. So whatever follows a whole transaction is evidence that this one
//! was on the disk.

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
/// The last bit tells how words are read for the checksums.
const MAGIC: u32 = 0x377f_0682;

type Sums = (u32, u32);

/// A frame, as it says of itself.
struct Frame<'a> {
    page: u32,
    /// It is the last one of a transaction.
    commits: bool,
    salts: &'a [u8],
    sums: Sums,
    summed: (&'a [u8], &'a [u8]),
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..).and_then(<[u8]>::first_chunk);
    word.map_or(0, |word| u32::from_be_bytes(*word))
}

fn add(sums: Sums, bytes: &[u8], big_endian: bool) -> Sums {
    let (mut one, mut two) = sums;
    for pair in bytes.chunks_exact(8) {
        let read = |at| {
            let word = word(pair, at);
            if big_endian { word } else { word.swap_bytes() }
        };
        one = one.wrapping_add(read(0)).wrapping_add(two);
        two = two.wrapping_add(read(4)).wrapping_add(one);
    }
    (one, two)
}

/// The frames of a file, of whatever age: the file is written from its beginning again and again.
fn frames(file: &[u8], page_bytes: usize) -> impl Iterator<Item = Frame<'_>> {
    let frames = file.get(HEADER_BYTES..).unwrap_or_default();
    frames
        .chunks_exact(FRAME_HEADER_BYTES + page_bytes)
        .map(|frame| {
            let (head, page) = frame.split_at(FRAME_HEADER_BYTES);
            Frame {
                page: word(head, 0),
                commits: word(head, 4) != 0,
                salts: &head[8..16],
                sums: (word(head, 16), word(head, 20)),
                summed: (&head[..8], page),
            }
        })
}

/// What is wrong with such a file, if something is that no power cut explains.
pub(super) fn rot(file: &[u8]) -> Option<String> {
    let page_bytes = usize::try_from(word(file, 8)).ok()?;
    let magic = word(file, 0);
    if magic & !1 != MAGIC || !(512..=65_536).contains(&page_bytes) {
        // Nothing was ever written, or the header is what was torn: the first transaction is written with it.
        return None;
    }
    let big_endian = magic & 1 == 1;
    let salts = file.get(16..24)?;
    let mut sums = add((0, 0), &file[..24], big_endian);
    let mut is_whole = sums == (word(file, 24), word(file, 28));
    let mut broken_at = 0;
    // The page of the frame that ended the transaction that is broken. SQLite may repeat that frame to fill a sector.
    let mut ended: Option<u32> = None;
    for (place, frame) in frames(file, page_bytes).enumerate() {
        let is_of_this_age = frame.salts == salts;
        if is_whole {
            let after = add(sums, frame.summed.0, big_endian);
            sums = add(after, frame.summed.1, big_endian);
            is_whole = is_of_this_age && sums == frame.sums;
            broken_at = place;
        }
        if is_whole || !is_of_this_age {
            continue;
        }
        match ended {
            Some(page) if !(frame.commits && frame.page == page) => {
                return Some(format!(
                    "frame {broken_at} of its write-ahead file has rotted: it does not match its checksum, and frame {place} was \
                     written after it was on the disk"
                ));
            }
            Some(_) => {}
            None if frame.commits => ended = Some(frame.page),
            None => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::test_folder::Folder;

    /// The write-ahead file of so many transactions, and the length after each of them.
    fn written(folder: &Folder) -> (Vec<u8>, Vec<usize>) {
        let path = folder.0.join("database");
        let wal = folder.0.join("database-wal");
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection
            .pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))
            .unwrap();
        connection
            .execute_batch("create table log(idx integer primary key, data blob)")
            .unwrap();
        let mut lengths = Vec::new();
        for index in 0..6 {
            connection
                .execute("insert into log values(?1, zeroblob(9000))", [index])
                .unwrap();
            lengths.push(usize::try_from(std::fs::metadata(&wal).unwrap().len()).unwrap());
        }
        (std::fs::read(&wal).unwrap(), lengths)
    }

    #[test]
    fn what_was_synced_and_rotted_is_told_from_what_was_torn() {
        let folder = Folder::make("journal");
        let (file, lengths) = written(&folder);
        assert_eq!(rot(&file), None);
        assert_eq!(rot(&[]), None);
        // Whatever is missing at the end is what a power cut does.
        for length in (0..file.len()).step_by(97) {
            assert_eq!(rot(&file[..length]), None, "cut at {length}");
        }
        let last = lengths[lengths.len() - 2];
        for at in (HEADER_BYTES..file.len()).step_by(61) {
            let mut damaged = file.clone();
            damaged[at] ^= 4;
            let found = rot(&damaged);
            if at >= last {
                // The last transaction may have been torn as well.
                assert_eq!(found, None, "byte {at}");
            } else if at < lengths[lengths.len() - 3] {
                assert!(found.is_some(), "byte {at}");
            }
        }
        // Rests of an earlier age are no evidence of anything.
        let mut older = file.clone();
        for salt in file[16..24].to_vec().iter().zip(16..) {
            older[salt.1] = !salt.0;
        }
        assert_eq!(rot(&older), None);
    }
}
