-- A SQLite file as the Go program makes it: its tables, cut to what is read of them, with rows of a small fleet.
CREATE TABLE database_instance (hostname varchar(128), port smallint, last_checked timestamp not null default '',
  last_seen timestamp NULL, server_id int, cluster_name varchar(128) NOT NULL default '', master_host varchar(128),
  master_port smallint, PRIMARY KEY (hostname, port));
INSERT INTO database_instance (hostname, port, last_checked, last_seen, cluster_name) VALUES
  ('db1', 3306, '2020-11-01 03:10:00', '2020-11-01 01:00:00', 'db2:3306'),
  ('db2', 3306, '2020-11-01 03:10:05', '2020-11-01 03:10:05', 'db2:3306'),
  ('db3', 3307, '2020-11-01 03:10:04', '2020-11-01 03:10:04', 'db2:3306');
CREATE TABLE cluster_alias_override (cluster_name varchar(128), alias varchar(128), PRIMARY KEY (cluster_name));
INSERT INTO cluster_alias_override VALUES ('db2:3306', 'shop');
CREATE TABLE database_instance_downtime (hostname varchar(128), port smallint, downtime_active tinyint,
  begin_timestamp timestamp, end_timestamp timestamp, owner varchar(128), reason text, PRIMARY KEY (hostname, port));
INSERT INTO database_instance_downtime VALUES
  ('db1', 3306, 1, '2020-11-01 01:00:00', '2100-01-01 00:00:00', 'anna', 'lost-in-recovery'),
  ('db3', 3307, NULL, '2020-10-01 01:00:00', '2020-10-01 02:00:00', 'anna', 'disk');
CREATE TABLE database_instance_maintenance (database_instance_maintenance_id integer primary key autoincrement,
  hostname varchar(128), port smallint, maintenance_active tinyint, begin_timestamp timestamp, end_timestamp timestamp,
  owner varchar(128), reason text);
INSERT INTO database_instance_maintenance VALUES
  (5, 'db3', 3307, 1, '2020-11-01 01:00:00', '2100-01-01 00:00:00', 'bert', 'upgrade'),
  (4, 'db3', 3307, NULL, '2020-10-01 01:00:00', '2020-10-02 00:00:00', 'bert', 'upgrade');
CREATE TABLE candidate_database_instance (hostname varchar(128), port smallint, last_suggested timestamp,
  priority tinyint not null default 1, promotion_rule text check(promotion_rule in
  ('must', 'prefer', 'neutral', 'prefer_not', 'must_not')) not null default 'neutral', PRIMARY KEY (hostname, port));
INSERT INTO candidate_database_instance VALUES ('db3', 3307, '2020-11-01 03:00:00', 1, 'prefer_not');
CREATE TABLE database_instance_tags (hostname varchar(128), port smallint, tag_name varchar(128), tag_value varchar(128),
  last_updated timestamp, PRIMARY KEY (hostname, port, tag_name));
INSERT INTO database_instance_tags VALUES ('db2', 3306, 'rack', '7', '2020-10-01 00:00:00');
CREATE TABLE global_recovery_disable (disable_recovery tinyint, PRIMARY KEY (disable_recovery));
INSERT INTO global_recovery_disable VALUES (1);
CREATE TABLE topology_failure_detection (detection_id integer primary key autoincrement, hostname varchar(128),
  port smallint, in_active_period tinyint not null default 0, start_active_period timestamp not null default '',
  end_active_period_unixtime int not null, processing_node_hostname varchar(128), processcing_node_token varchar(128),
  analysis varchar(128), cluster_name varchar(128), cluster_alias varchar(128), count_affected_slaves int,
  slave_hosts text, is_actionable tinyint not null default 0);
INSERT INTO topology_failure_detection VALUES (17, 'db1', 3306, 0, '2020-11-01 01:00:00', 1604192400, 'orc1', 'tok',
  'DeadMaster', 'db1:3306', 'shop', 2, 'db2:3306,db3:3307', 1);
CREATE TABLE topology_recovery (recovery_id integer primary key autoincrement, hostname varchar(128), port smallint,
  in_active_period tinyint not null default 0, start_active_period timestamp not null default '',
  end_active_period_unixtime int, end_recovery timestamp NULL, processing_node_hostname varchar(128),
  processcing_node_token varchar(128), successor_hostname varchar(128), successor_port smallint, analysis varchar(128),
  cluster_name varchar(128), cluster_alias varchar(128), count_affected_slaves int, slave_hosts text,
  is_successful tinyint not null default 0, acknowledged tinyint not null default 0, acknowledged_by varchar(128),
  acknowledge_comment text, participating_instances text, lost_slaves text, all_errors text, acknowledged_at timestamp,
  last_detection_id bigint, successor_alias varchar(128), uid varchar(128));
INSERT INTO topology_recovery VALUES
  (3, 'db1', 3306, 0, '2020-11-01 01:00:01', 1604192401, '2020-11-01 01:00:09', 'orc1', 'tok', 'db2', 3306, 'DeadMaster',
   'db1:3306', 'shop', 2, 'db2:3306,db3:3307', 1, 1, 'bert', 'seen', 'db1:3306,db2:3306', 'db1:3306', '',
   '2020-11-01 08:00:00', 17, 'db2', '1604192401000000000:5e4f'),
  (8, 'db2', 3306, 1, '2020-11-01 02:00:01', 1604196001, NULL, 'orc1', 'tok', NULL, NULL, 'DeadMaster', 'db2:3306', 'shop', 1,
   'db3:3307', 0, 0, NULL, NULL, '', '', 'no candidate' || char(10), NULL, 18, NULL, '');
CREATE TABLE topology_recovery_steps (recovery_step_id integer primary key autoincrement, recovery_uid varchar(128),
  audit_at timestamp, message text);
INSERT INTO topology_recovery_steps VALUES
  (1, '1604192401000000000:5e4f', '2020-11-01 01:00:01', 'will handle DeadMaster'),
  (2, '1604192401000000000:5e4f', '2020-11-01 01:00:09', 'promoted db2:3306');
