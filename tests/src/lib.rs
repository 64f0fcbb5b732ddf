//! Real servers and real daemons for tests.
