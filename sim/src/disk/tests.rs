use std::path::Path;

use super::*;

/// Runs on a thread of its own: the disks are the thread's, and SQLite's generator the process's.
fn check(seed: u64, test: impl FnOnce() + Send + 'static) {
    crate::engine::alone(seed, test);
}

fn content(path: &str) -> Option<String> {
    read_file(Path::new(path))
        .ok()
        .map(|bytes| String::from_utf8(bytes).unwrap())
}

#[test]
fn a_name_is_kept_once_its_folder_is_synced() {
    let mut lost = 0;
    for seed in 0..20 {
        let (sender, receiver) = std::sync::mpsc::channel();
        check(seed, move || {
            create_dir_all(Path::new("/n1/raft")).unwrap();
            write_new(Path::new("/n1/raft/kept"), b"1").unwrap();
            sync_dir(Path::new("/n1/raft")).unwrap();
            write_new(Path::new("/n1/raft/perhaps"), b"2").unwrap();
            rename(Path::new("/n1/raft/kept"), Path::new("/n1/raft/moved")).unwrap();
            power_cut("n1");
            let names = list_dir(Path::new("/n1/raft")).unwrap();
            // The changes go in their order: who sees the rename sees the creation before it.
            assert!(
                [
                    vec!["kept"],
                    vec!["kept", "perhaps"],
                    vec!["moved", "perhaps"]
                ]
                .iter()
                .any(|known| *known == names),
                "{names:?}"
            );
            sender.send(names.len()).unwrap();
        });
        lost += usize::from(receiver.recv().unwrap() == 1);
    }
    assert!((1..20).contains(&lost), "lost {lost} of 20");
}

#[test]
fn a_folder_is_renamed_with_all_that_is_in_it_or_not_at_all() {
    let mut renamed = 0;
    for seed in 0..20 {
        let (sender, receiver) = std::sync::mpsc::channel();
        check(seed, move || {
            let (old, new) = (Path::new("/n1/raft"), Path::new("/n1/raft.kept"));
            create_dir_all(old).unwrap();
            for name in ["/n1/raft/one", "/n1/raft/two"] {
                write_new(Path::new(name), b"1").unwrap();
            }
            sync_dir(old).unwrap();
            rename(old, new).unwrap();
            assert_eq!(list_dir(new).unwrap(), ["one", "two"]);
            assert!(!exists(old).unwrap());
            create_dir_all(old).unwrap();
            assert!(rename(new, old).is_ok() && rename(old, new).is_ok());
            power_cut("n1");
            let held = [old, new].map(|folder| list_dir(folder).unwrap_or_default());
            let whole = vec!["one".to_owned(), "two".to_owned()];
            assert!(
                held == [whole.clone(), vec![]] || held == [vec![], whole],
                "{held:?}"
            );
            sender.send(held[1].len()).unwrap();
        });
        renamed += usize::from(receiver.recv().unwrap() == 2);
    }
    assert!((1..20).contains(&renamed), "{renamed} of 20");
}

#[test]
fn a_folder_is_not_renamed_over_one_that_holds_something() {
    check(1, || {
        let (old, new) = (Path::new("/n1/raft"), Path::new("/n1/raft.kept"));
        for folder in [old, new] {
            create_dir_all(folder).unwrap();
            write_new(&folder.join("file"), b"1").unwrap();
        }
        assert_eq!(
            rename(old, new).unwrap_err().kind(),
            io::ErrorKind::DirectoryNotEmpty
        );
    });
}

#[test]
fn a_killed_process_loses_locks_and_no_bytes() {
    check(1, || {
        create_dir_all(Path::new("/n1/raft")).unwrap();
        let held = lock_dir(Path::new("/n1/raft")).unwrap();
        assert_eq!(
            lock_dir(Path::new("/n1/raft")).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        write_new(Path::new("/n1/raft/file"), b"1").unwrap();
        kill("n1");
        let again = lock_dir(Path::new("/n1/raft")).unwrap();
        drop(held);
        assert!(
            lock_dir(Path::new("/n1/raft")).is_err(),
            "a dead lock let go of a living one"
        );
        drop(again);
        assert_eq!(content("/n1/raft/file").as_deref(), Some("1"));
        wipe("n1");
        assert_eq!(content("/n1/raft/file"), None);
    });
}

fn table(connection: &rusqlite::Connection, synchronous: &str, exclusive: bool) {
    if exclusive {
        connection
            .pragma_update(None, "locking_mode", "EXCLUSIVE")
            .unwrap();
    }
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        .unwrap();
    assert_eq!(mode, "wal");
    connection
        .pragma_update(None, "synchronous", synchronous)
        .unwrap();
    connection
        .execute_batch("create table if not exists t(x integer primary key)")
        .unwrap();
}

fn count(connection: &rusqlite::Connection) -> i64 {
    connection
        .query_row("select count(*) from t", [], |row| row.get(0))
        .unwrap()
}

/// Rows that survive a power cut after 50 commits.
fn survivors(seed: u64, synchronous: &'static str) -> i64 {
    let (sender, receiver) = std::sync::mpsc::channel();
    check(seed, move || {
        create_dir_all(Path::new("/n1/raft")).unwrap();
        let path = Path::new("/n1/raft/log.db");
        let connection = open_db(path).unwrap();
        table(&connection, synchronous, true);
        for row in 0..50 {
            connection
                .execute("insert into t values(?1)", [row])
                .unwrap();
        }
        power_cut("n1");
        assert!(connection.execute("insert into t values(99)", []).is_err());
        drop(connection);
        let connection = open_db(path).unwrap();
        table(&connection, synchronous, true);
        sender.send(count(&connection)).unwrap();
    });
    receiver.recv().unwrap()
}

#[test]
fn full_keeps_every_commit_and_normal_does_not() {
    let mut normal = 0;
    for seed in 0..10 {
        assert_eq!(survivors(seed, "FULL"), 50, "seed {seed}");
        normal += survivors(seed, "NORMAL");
    }
    assert!(normal < 500, "the disk has no teeth");
}

#[test]
fn readers_and_a_writer_share_a_write_ahead_log() {
    check(3, || {
        create_dir_all(Path::new("/n1/data")).unwrap();
        let path = Path::new("/n1/data/backend.db");
        let writer = open_db(path).unwrap();
        table(&writer, "NORMAL", false);
        let reader = open_db(path).unwrap();
        let mut statement = reader.prepare("select x from t").unwrap();
        writer.execute("insert into t values(1)", []).unwrap();
        let mut rows = statement.query([]).unwrap();
        assert!(rows.next().unwrap().is_some());
        // The reader's snapshot stands while the writer goes on.
        writer.execute("insert into t values(2)", []).unwrap();
        assert!(rows.next().unwrap().is_none());
        drop(rows);
        drop(statement);
        assert_eq!(count(&reader), 2);
        // Two writers at once: the second is told so.
        writer.execute_batch("begin immediate").unwrap();
        let refused = reader.execute("insert into t values(3)", []).unwrap_err();
        assert_eq!(
            refused.sqlite_error_code(),
            Some(rusqlite::ErrorCode::DatabaseBusy)
        );
        kill("n1");
        let next = open_db(path).unwrap();
        next.execute("insert into t values(3)", []).unwrap();
        drop(writer);
        drop(reader);
        assert_eq!(count(&next), 3);
    });
}

#[test]
fn a_full_disk_takes_nothing_more_and_a_read_only_one_nothing() {
    check(1, || {
        let (folder, old, new) = (
            Path::new("/n1/raft"),
            Path::new("/n1/raft/old"),
            Path::new("/n1/raft/new"),
        );
        create_dir_all(folder).unwrap();
        write_new(old, b"1").unwrap();
        let db = open_db(Path::new("/n1/raft/db")).unwrap();
        db.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))
            .unwrap();
        db.execute_batch("create table t(a blob)").unwrap();
        let insert = || db.execute("insert into t values(zeroblob(100000))", []);
        set_state("n1", State::Full);
        assert_eq!(
            write_new(new, b"2").unwrap_err().kind(),
            io::ErrorKind::StorageFull
        );
        assert_eq!(
            insert().unwrap_err().sqlite_error_code(),
            Some(rusqlite::ErrorCode::DiskFull)
        );
        rename(old, Path::new("/n1/raft/moved")).unwrap();
        set_state("n1", State::ReadOnly);
        assert_eq!(
            rename(Path::new("/n1/raft/moved"), old).unwrap_err().kind(),
            io::ErrorKind::ReadOnlyFilesystem
        );
        assert!(sync_dir(folder).is_err() && insert().is_err());
        set_state("n1", State::Good);
        insert().unwrap();
        write_new(new, b"2").unwrap();
    });
}

#[test]
fn what_a_failed_sync_was_to_keep_is_seen_until_the_power_is_cut() {
    check(3, || {
        create_dir_all(Path::new("/n1/raft")).unwrap();
        let path = Path::new("/n1/raft/db");
        let open = || {
            let db = open_db(path).unwrap();
            db.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))
                .unwrap();
            db.pragma_update(None, "synchronous", "FULL").unwrap();
            db
        };
        let count = |db: &rusqlite::Connection| -> i64 {
            db.query_row("select count(*) from t", [], |row| row.get(0))
                .unwrap()
        };
        let db = open();
        db.execute_batch("create table t(a); insert into t values(1)")
            .unwrap();
        fail_next_sync("/n1/raft/db-wal");
        assert!(db.execute("insert into t values(2)", []).is_err());
        kill("n1");
        drop(db);
        // Another process sees it, and nothing tells it.
        let db = open();
        assert_eq!(count(&db), 2);
        db.execute("insert into t values(3)", []).unwrap();
        power_cut("n1");
        drop(db);
        assert!(count(&open()) < 3);
    });
}

#[test]
fn rot_changes_one_bit() {
    check(1, || {
        create_dir_all(Path::new("/n1/raft")).unwrap();
        assert_eq!(rot("/n1/raft/identity"), None);
        write_new(Path::new("/n1/raft/identity"), b"content").unwrap();
        assert!(rot("/n1/raft/identity").is_some());
        let read = read_file(Path::new("/n1/raft/identity")).unwrap();
        let bits: u32 = read
            .iter()
            .zip(b"content")
            .map(|(one, other)| (one ^ other).count_ones())
            .sum();
        assert_eq!(bits, 1);
    });
}
