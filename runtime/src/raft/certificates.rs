//! Certificates for the raft port: an authority of the cluster's own, and one certificate for each member.
//!
//! A helper for people; the daemon itself only reads files. Nothing that exists is written over: an authority that is there
//! makes further certificates, a member's certificate that is there is left.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

const AUTHORITY: &str = "ca";
/// The organizational unit of members.
const MEMBERS: &str = "orchestrator";

/// Makes what is missing in `folder` for these hosts (names or addresses, as in `RaftAdvertise`), and returns the files
/// that were written.
///
/// # Errors
/// What could not be made or written, in words.
pub fn init_certificates(folder: &Path, hosts: &[String]) -> Result<Vec<PathBuf>, String> {
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut written = Vec::new();
    let (ca_pem, ca_key) = (
        file(folder, AUTHORITY, "pem"),
        file(folder, AUTHORITY, "key"),
    );
    if !ca_pem.exists() && !ca_key.exists() {
        make_authority(&ca_pem, &ca_key)?;
        written.extend([ca_key.clone(), ca_pem.clone()]);
    }
    let text = |path: &Path| {
        fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let key = KeyPair::from_pem(&text(&ca_key)?)
        .map_err(|error| format!("{}: {error}", ca_key.display()))?;
    let issuer = Issuer::from_ca_cert_pem(&text(&ca_pem)?, key)
        .map_err(|error| format!("{}: {error}", ca_pem.display()))?;
    for host in hosts {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || host.contains('/') || host == AUTHORITY {
            return Err(format!("'{host}' is no host"));
        }
        let (pem, key) = (file(folder, host, "pem"), file(folder, host, "key"));
        if pem.exists() || key.exists() {
            continue;
        }
        make_member(host, &issuer, &pem, &key)?;
        written.extend([key, pem]);
    }
    Ok(written)
}

fn file(folder: &Path, name: &str, extension: &str) -> PathBuf {
    folder.join(format!("{name}.{extension}"))
}

fn failed(error: rcgen::Error) -> String {
    format!("a certificate cannot be made: {error}")
}

fn make_authority(pem: &Path, key_file: &Path) -> Result<(), String> {
    let mut params = CertificateParams::new(Vec::new()).map_err(failed)?;
    params
        .distinguished_name
        .push(DnType::CommonName, "orchestrator raft authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    write(key_file, &key.serialize_pem(), 0o600)?;
    write(pem, &certificate.pem(), 0o644)
}

fn make_member(
    host: &str,
    issuer: &Issuer<'_, KeyPair>,
    pem: &Path,
    key_file: &Path,
) -> Result<(), String> {
    // An address becomes an address in it, everything else a name.
    let mut params = CertificateParams::new(vec![host.to_owned()])
        .map_err(|error| format!("'{host}' is no host: {error}"))?;
    params.distinguished_name.push(DnType::CommonName, host);
    // The same files serve HTTPS with client certificates, where a unit is asked for (`SSLValidOUs`).
    params
        .distinguished_name
        .push(DnType::OrganizationalUnitName, MEMBERS);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.signed_by(&key, issuer).map_err(failed)?;
    write(key_file, &key.serialize_pem(), 0o600)?;
    write(pem, &certificate.pem(), 0o644)
}

/// Never over a file that is there.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), String> {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::test_folder::Folder;

    #[test]
    fn what_is_there_is_left_and_serves_further_members() {
        let folder = Folder::make("certificates");
        let hosts = |hosts: &[&str]| {
            hosts
                .iter()
                .map(|host| String::from(*host))
                .collect::<Vec<_>>()
        };
        let first = init_certificates(&folder.0, &hosts(&["node1", "10.0.0.2"])).unwrap();
        assert_eq!(first.len(), 6);
        let key = fs::metadata(folder.0.join("node1.key")).unwrap();
        assert_eq!(
            std::os::unix::fs::PermissionsExt::mode(&key.permissions()) & 0o777,
            0o600
        );
        let before = fs::read(folder.0.join("node1.pem")).unwrap();
        let more = init_certificates(&folder.0, &hosts(&["node1", "[::1]"])).unwrap();
        assert_eq!(more, [folder.0.join("::1.key"), folder.0.join("::1.pem")]);
        assert_eq!(fs::read(folder.0.join("node1.pem")).unwrap(), before);
        assert!(init_certificates(&folder.0, &hosts(&["../x"])).is_err());
    }
}
