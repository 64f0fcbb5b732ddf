//! GTID sets of both flavours.
