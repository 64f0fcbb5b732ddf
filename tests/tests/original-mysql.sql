-- A MySQL schema as the Go program makes it: what is read of its tables, with the keys and types that it gives them, and rows of a
-- small fleet.
SET time_zone = '+00:00';
CREATE TABLE database_instance (
  hostname varchar(128) CHARACTER SET ascii NOT NULL,
  port smallint unsigned NOT NULL,
  last_checked timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP,
  last_seen timestamp NULL DEFAULT NULL,
  server_id int unsigned NOT NULL,
  version varchar(128) CHARACTER SET ascii NOT NULL,
  master_host varchar(128) CHARACTER SET ascii NOT NULL,
  master_port smallint unsigned NOT NULL,
  slave_sql_running tinyint unsigned NOT NULL,
  cluster_name varchar(128) CHARACTER SET ascii NOT NULL,
  PRIMARY KEY (hostname, port),
  KEY cluster_name_idx_database_instance (cluster_name)
) ENGINE=InnoDB DEFAULT CHARSET=ascii;
INSERT INTO database_instance VALUES
  ('db1', 3306, '2020-11-01 03:10:00', '2020-11-01 01:00:00', 1, '5.7.30-log', '', 0, 0, 'db2:3306'),
  ('db2', 3306, '2020-11-01 03:10:05', '2020-11-01 03:10:05', 2, '5.7.30-log', '', 0, 0, 'db2:3306'),
  ('db3', 3307, '2020-11-01 03:10:04', '2020-11-01 03:10:04', 3, '5.7.30-log', 'db2', 3306, 1, 'db2:3306');
CREATE TABLE cluster_alias_override (
  cluster_name varchar(128) CHARACTER SET ascii NOT NULL,
  alias varchar(128) NOT NULL,
  PRIMARY KEY (cluster_name)
) ENGINE=InnoDB DEFAULT CHARSET=ascii;
INSERT INTO cluster_alias_override VALUES ('db2:3306', 'shop');
CREATE TABLE database_instance_downtime (
  hostname varchar(128) NOT NULL,
  port smallint unsigned NOT NULL,
  downtime_active tinyint(4) DEFAULT NULL,
  begin_timestamp timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP,
  end_timestamp timestamp NULL DEFAULT NULL,
  owner varchar(128) CHARACTER SET utf8 NOT NULL,
  reason text CHARACTER SET utf8 NOT NULL,
  PRIMARY KEY (hostname, port)
) ENGINE=InnoDB DEFAULT CHARSET=ascii;
INSERT INTO database_instance_downtime VALUES
  ('db1', 3306, 1, '2020-11-01 01:00:00', '2037-01-01 00:00:00', 'anna', 'disk'),
  ('db3', 3307, NULL, '2020-10-01 01:00:00', '2020-10-01 02:00:00', 'anna', 'over');
CREATE TABLE database_instance_maintenance (
  database_instance_maintenance_id int unsigned NOT NULL AUTO_INCREMENT,
  hostname varchar(128) NOT NULL,
  port smallint unsigned NOT NULL,
  maintenance_active tinyint(4) DEFAULT NULL,
  begin_timestamp timestamp NULL DEFAULT NULL,
  end_timestamp timestamp NULL DEFAULT NULL,
  owner varchar(128) CHARACTER SET utf8 NOT NULL,
  reason text CHARACTER SET utf8 NOT NULL,
  PRIMARY KEY (database_instance_maintenance_id),
  UNIQUE KEY maintenance_uidx_database_instance_maintenance (maintenance_active, hostname, port)
) ENGINE=InnoDB DEFAULT CHARSET=ascii;
INSERT INTO database_instance_maintenance VALUES
  (5, 'db3', 3307, 1, '2020-11-01 01:00:00', '2037-01-01 00:00:00', 'bert', 'upgrade'),
  (4, 'db3', 3307, NULL, '2020-10-01 01:00:00', '2020-10-02 00:00:00', 'bert', 'upgrade');
CREATE TABLE candidate_database_instance (
  hostname varchar(128) CHARACTER SET ascii NOT NULL,
  port smallint unsigned NOT NULL,
  last_suggested timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP,
  priority tinyint NOT NULL DEFAULT 1,
  promotion_rule enum('must', 'prefer', 'neutral', 'prefer_not', 'must_not') NOT NULL DEFAULT 'neutral',
  PRIMARY KEY (hostname, port),
  KEY last_suggested_idx_candidate_database_instance (last_suggested)
) ENGINE=InnoDB DEFAULT CHARSET=ascii;
INSERT INTO candidate_database_instance VALUES ('db3', 3307, utc_timestamp(), 1, 'prefer_not');
CREATE TABLE database_instance_tags (
  hostname varchar(128) CHARACTER SET ascii NOT NULL,
  port smallint unsigned NOT NULL,
  tag_name varchar(128) CHARACTER SET utf8 NOT NULL,
  tag_value varchar(128) CHARACTER SET utf8 NOT NULL,
  last_updated timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP,
  PRIMARY KEY (hostname, port, tag_name)
) ENGINE=InnoDB DEFAULT CHARSET=ascii;
INSERT INTO database_instance_tags VALUES ('db2', 3306, 'rack', '7', '2020-10-01 00:00:00');
CREATE TABLE global_recovery_disable (
  disable_recovery tinyint unsigned NOT NULL COMMENT 'Insert 1 to disable recovery globally',
  PRIMARY KEY (disable_recovery)
) ENGINE=InnoDB DEFAULT CHARSET=ascii;
INSERT INTO global_recovery_disable VALUES (1);
CREATE TABLE topology_failure_detection (
  detection_id bigint unsigned NOT NULL AUTO_INCREMENT,
  hostname varchar(128) NOT NULL,
  port smallint unsigned NOT NULL,
  in_active_period tinyint unsigned NOT NULL DEFAULT 0,
  start_active_period timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP,
  end_active_period_unixtime int unsigned NOT NULL,
  processing_node_hostname varchar(128) NOT NULL,
  processcing_node_token varchar(128) NOT NULL,
  analysis varchar(128) NOT NULL,
  cluster_name varchar(128) NOT NULL,
  cluster_alias varchar(128) NOT NULL,
  count_affected_slaves int unsigned NOT NULL,
  slave_hosts text NOT NULL,
  is_actionable tinyint NOT NULL DEFAULT 0,
  PRIMARY KEY (detection_id),
  UNIQUE KEY host_port_active_recoverable_uidx_topology_failure_detection
    (hostname, port, in_active_period, end_active_period_unixtime, is_actionable)
) ENGINE=InnoDB DEFAULT CHARSET=ascii;
INSERT INTO topology_failure_detection VALUES (17, 'db1', 3306, 0, utc_timestamp() - interval 2 hour, 1604192400, 'orc1', 'tok',
  'DeadMaster', 'db1:3306', 'shop', 2, 'db2:3306,db3:3307', 1);
CREATE TABLE topology_recovery (
  recovery_id bigint unsigned NOT NULL AUTO_INCREMENT,
  hostname varchar(128) NOT NULL,
  port smallint unsigned NOT NULL,
  in_active_period tinyint unsigned NOT NULL DEFAULT 0,
  start_active_period timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP,
  end_active_period_unixtime int unsigned DEFAULT NULL,
  end_recovery timestamp NULL DEFAULT NULL,
  processing_node_hostname varchar(128) NOT NULL,
  processcing_node_token varchar(128) NOT NULL,
  successor_hostname varchar(128) DEFAULT NULL,
  successor_port smallint unsigned DEFAULT NULL,
  analysis varchar(128) NOT NULL,
  cluster_name varchar(128) NOT NULL,
  cluster_alias varchar(128) NOT NULL,
  count_affected_slaves int unsigned NOT NULL,
  slave_hosts text NOT NULL,
  is_successful tinyint unsigned NOT NULL DEFAULT 0,
  acknowledged tinyint unsigned NOT NULL DEFAULT 0,
  acknowledged_by varchar(128) CHARACTER SET utf8 NOT NULL,
  acknowledge_comment text CHARACTER SET utf8 NOT NULL,
  participating_instances text NOT NULL,
  lost_slaves text NOT NULL,
  all_errors text NOT NULL,
  acknowledged_at timestamp NULL DEFAULT NULL,
  last_detection_id bigint unsigned NOT NULL,
  successor_alias varchar(128) DEFAULT NULL,
  uid varchar(128) NOT NULL,
  PRIMARY KEY (recovery_id),
  UNIQUE KEY in_active_end_period_uidx_topology_recovery (hostname, port, in_active_period, end_active_period_unixtime),
  KEY uid_idx_topology_recovery (uid)
) ENGINE=InnoDB DEFAULT CHARSET=ascii;
INSERT INTO topology_recovery VALUES
  (3, 'db1', 3306, 0, utc_timestamp() - interval 2 hour, 1604192401, utc_timestamp() - interval 1 hour, 'orc1', 'tok', 'db2',
   3306, 'DeadMaster', 'db1:3306', 'shop', 2, 'db2:3306,db3:3307', 1, 1, 'bert', 'seen', 'db1:3306,db2:3306', 'db1:3306', '',
   utc_timestamp() - interval 1 hour, 17, 'db2', '1604192401000000000:5e4f'),
  (8, 'db2', 3306, 1, utc_timestamp() - interval 2 hour, 1604196001, NULL, 'orc1', 'tok', NULL, NULL, 'DeadMaster', 'db2:3306',
   'shop', 1, 'db3:3307', 0, 0, '', '', '', '', 'no candidate', NULL, 18, NULL, '');
CREATE TABLE topology_recovery_steps (
  recovery_step_id bigint unsigned NOT NULL AUTO_INCREMENT,
  recovery_uid varchar(128) CHARACTER SET ascii NOT NULL,
  audit_at timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP,
  message text CHARACTER SET utf8 NOT NULL,
  PRIMARY KEY (recovery_step_id)
) ENGINE=InnoDB DEFAULT CHARSET=ascii;
INSERT INTO topology_recovery_steps VALUES
  (1, '1604192401000000000:5e4f', '2020-11-01 01:00:01', 'will handle DeadMaster'),
  (2, '1604192401000000000:5e4f', '2020-11-01 01:00:09', 'promoted db2:3306');
