//! What a server answered to a probe.

/// Tables as text: see [`orchestrator::mysql::check_tables`].
pub fn run(data: &[u8]) {
    orchestrator::mysql::check_tables(&String::from_utf8_lossy(data));
}
