-- The rights that orchestrator needs on a MySQL server, 8.0 to 9.x.
-- Run it on the primary; replication carries it to the replicas.
CREATE USER IF NOT EXISTS 'orchestrator'@'%' IDENTIFIED BY 'change-me';

-- Look: process list, positions, the replicas of a server, replication threads and channels.
GRANT PROCESS, REPLICATION CLIENT, REPLICATION SLAVE ON *.* TO 'orchestrator'@'%';
GRANT SELECT ON performance_schema.* TO 'orchestrator'@'%';

-- Repair: start, stop and change replication, binary logs.
GRANT REPLICATION_SLAVE_ADMIN, BINLOG_ADMIN ON *.* TO 'orchestrator'@'%';
GRANT RELOAD ON *.* TO 'orchestrator'@'%';

-- Fence: read_only, super_read_only, the event scheduler, ending sessions.
GRANT SYSTEM_VARIABLES_ADMIN, CONNECTION_ADMIN ON *.* TO 'orchestrator'@'%';

-- See whether the replication user's credentials are stored; they would be needed where a channel names no user.
GRANT SELECT ON mysql.slave_master_info TO 'orchestrator'@'%';

-- The queries of your own configuration (Detect...Query, ReplicationCredentialsQuery): name the schema they read.
GRANT SELECT ON meta.* TO 'orchestrator'@'%';
