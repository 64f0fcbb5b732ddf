-- The rights that orchestrator needs on a MariaDB server, 10.5 to 11.x.
-- Run it on the primary; replication carries it to the replicas.
CREATE USER IF NOT EXISTS 'orchestrator'@'%' IDENTIFIED BY 'change-me';

-- Look: process list, positions, the replicas of a server.
GRANT PROCESS, BINLOG MONITOR, SLAVE MONITOR ON *.* TO 'orchestrator'@'%';

-- Repair: start, stop and change replication, semi-sync, gtid_slave_pos, binary logs. (REPLICATION MASTER
-- ADMIN is also what SHOW SLAVE HOSTS asks for.)
GRANT REPLICATION SLAVE ADMIN, REPLICATION MASTER ADMIN, BINLOG ADMIN, RELOAD ON *.* TO 'orchestrator'@'%';

-- Fence: read_only (10.11 took this out of SUPER), end sessions, the event scheduler (SUPER).
GRANT READ_ONLY ADMIN, CONNECTION ADMIN, SUPER ON *.* TO 'orchestrator'@'%';

-- Optional: clients whose accounts write in spite of read_only are listed (UnfenceableUsersStructureWarning). The table
-- holds the hashes of passwords too, which are not read.
-- GRANT SELECT ON mysql.global_priv TO 'orchestrator'@'%';

-- The queries of your own configuration (Detect...Query, ReplicationCredentialsQuery): name the schema they read.
GRANT SELECT ON meta.* TO 'orchestrator'@'%';
