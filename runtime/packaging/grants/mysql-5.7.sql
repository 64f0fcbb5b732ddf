-- The rights that orchestrator needs on a MySQL 5.7 server.
-- Run it on the primary; replication carries it to the replicas.
CREATE USER IF NOT EXISTS 'orchestrator'@'%' IDENTIFIED BY 'change-me';

-- Look: process list, positions, the replicas of a server.
GRANT PROCESS, REPLICATION CLIENT, REPLICATION SLAVE ON *.* TO 'orchestrator'@'%';
GRANT SELECT ON performance_schema.* TO 'orchestrator'@'%';

-- Repair and fence: replication, read_only, super_read_only, semi-sync, ending sessions.
GRANT SUPER, RELOAD ON *.* TO 'orchestrator'@'%';

-- See whether the replication user's credentials are stored; they would be needed where a channel names no user.
GRANT SELECT ON mysql.slave_master_info TO 'orchestrator'@'%';

-- The queries of your own configuration (Detect...Query, ReplicationCredentialsQuery): name the schema they read.
GRANT SELECT ON meta.* TO 'orchestrator'@'%';
