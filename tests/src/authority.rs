//! Who vouches for servers and clients in a test.

use std::fs;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};

/// An authority of a folder, which makes certificates in it.
#[derive(Debug)]
pub struct Authority<'a> {
    folder: &'a Path,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority<'_> {
    /// Writes `ca.pem`.
    pub fn new(folder: &Path) -> Authority<'_> {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "the tests' authority");
        let certificate = params.self_signed(&key).expect("signed");
        fs::write(folder.join("ca.pem"), certificate.pem()).expect("written");
        Authority {
            folder,
            issuer: Issuer::new(params, key),
        }
    }

    /// `NAME.pem` and `NAME.key`, for a host (a name or an address) and of an organizational unit.
    pub fn certify(&self, name: &str, host: &str, unit: &str) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![host.to_owned()]).expect("a host");
        params
            .distinguished_name
            .push(DnType::OrganizationalUnitName, unit);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let write = |extension: &str, text: String| {
            fs::write(self.folder.join(format!("{name}.{extension}")), text).expect("written");
        };
        write("pem", certificate.pem());
        write("key", key.serialize_pem());
    }
}
