//! Addresses as they stand in the configuration: `host`, `host:port`, `[ipv6]:port`.
//!
//! It only splits and judges the text; it never resolves a name.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// A host and a port. The host is a name or an address without brackets; empty means every interface, which
/// only [`listen`] lets through.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

impl Address {
    /// The host as an IP address, if it is written as one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Whether it names no particular interface: `0.0.0.0`, `::` or nothing.
    pub fn is_unspecified(&self) -> bool {
        self.host.is_empty() || self.ip().is_some_and(|ip| ip.is_unspecified())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Reads the address of a listener: the port is mandatory, 0 lets the system choose, the host may be empty.
pub(super) fn listen(text: &str) -> Result<Address, String> {
    let (host, port) = split(text)?;
    let port = port.ok_or("has no port: write host:port, or :port for every interface")?;
    Ok(Address { host, port })
}

/// Reads an address that others dial. Without a port it gets `port_default`, when there is one.
pub(super) fn dial(text: &str, port_default: Option<u16>) -> Result<Address, String> {
    let (host, port) = split(text)?;
    if host.is_empty() {
        return Err("has no host".to_owned());
    }
    let port = port.or(port_default).ok_or("has no port")?;
    if port == 0 {
        return Err("has port 0, which nobody can dial".to_owned());
    }
    Ok(Address { host, port })
}

/// Reads the address a node binds for its peers: a concrete port, the host may be empty or unspecified.
pub(super) fn bind(text: &str, port_default: Option<u16>) -> Result<Address, String> {
    let (host, port) = split(text)?;
    let port = port.or(port_default).ok_or("has no port")?;
    if port == 0 {
        return Err("has port 0, which no peer can know".to_owned());
    }
    Ok(Address { host, port })
}

/// Splits a text into host and port. An address has one spelling afterwards, so that hosts compare as text.
fn split(text: &str) -> Result<(String, Option<u16>), String> {
    let (host, port) = split_text(text)?;
    Ok(match host.parse::<IpAddr>() {
        Ok(ip) => (ip.to_string(), port),
        Err(_) => (host.to_owned(), port),
    })
}

fn split_text(text: &str) -> Result<(&str, Option<u16>), String> {
    if let Some(bracketed) = text.strip_prefix('[') {
        let (host, rest) = bracketed
            .split_once(']')
            .ok_or("has an opening bracket without a closing one")?;
        host.parse::<Ipv6Addr>()
            .map_err(|_| format!("has {host:?} in brackets, which is no IPv6 address"))?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port_number(port)?))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err("has text between the closing bracket and the port".to_owned()),
        };
    }
    let (host, port) = match text.split_once(':') {
        None => (text, None),
        Some((_, port)) if port.contains(':') => {
            let whole = text.parse::<Ipv6Addr>();
            whole.map_err(
                |_| "has more than one colon and is no IPv6 address (write [address]:port)",
            )?;
            (text, None)
        }
        Some((host, port)) => (host, Some(port_number(port)?)),
    };
    let strange = |c: char| c.is_whitespace() || c.is_control() || "/\\@?#<>\"'[],;|".contains(c);
    if host.contains(strange) {
        return Err("has a character that no host name has".to_owned());
    }
    Ok((host, port))
}

fn port_number(text: &str) -> Result<u16, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("has a port that is no number".to_owned());
    }
    text.parse()
        .map_err(|_| "has a port above 65535".to_owned())
}

/// Judges `scheme://host:port`: all three mandatory, nothing behind.
pub(super) fn http_url(text: &str) -> Result<(), String> {
    let (scheme, rest) = text
        .split_once("://")
        .ok_or("is no URL: write scheme://host:port")?;
    if !matches!(scheme.to_ascii_lowercase().as_str(), "http" | "https") {
        return Err("has a scheme that is neither http nor https".to_owned());
    }
    if rest.contains(['/', '?', '#']) {
        return Err("has a path: write scheme://host:port and nothing behind it".to_owned());
    }
    dial(rest, None).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(result: Result<Address, String>, expected: &str) {
        match result {
            Ok(address) => assert_eq!(address.to_string(), expected),
            Err(reason) => assert_eq!(reason, expected),
        }
    }

    #[test]
    fn hosts_and_ports_are_split() {
        check(dial("db1", Some(10008)), "db1:10008");
        check(dial("db1:3306", Some(10008)), "db1:3306");
        check(dial("10.0.0.1", Some(1)), "10.0.0.1:1");
        check(dial("::1", Some(1)), "[::1]:1");
        check(dial("[::1]", Some(1)), "[::1]:1");
        check(dial("[fe80::1]:99", None), "[fe80::1]:99");
        check(dial("[0:0::0:1]:99", None), "[::1]:99");
        check(listen(":3000"), ":3000");
        check(listen("127.0.0.1:0"), "127.0.0.1:0");
        check(bind(":10008", None), ":10008");
    }

    #[test]
    fn what_is_wrong_is_named() {
        check(dial("db1", None), "has no port");
        check(dial("", Some(1)), "has no host");
        check(dial(":1", Some(1)), "has no host");
        check(dial("db1:0", None), "has port 0, which nobody can dial");
        check(dial("db1:65536", None), "has a port above 65535");
        check(dial("db1:+1", None), "has a port that is no number");
        check(dial("db1:", None), "has a port that is no number");
        check(
            dial("a:b:c", None),
            "has more than one colon and is no IPv6 address (write [address]:port)",
        );
        check(
            dial("[::1", None),
            "has an opening bracket without a closing one",
        );
        check(
            dial("[db1]:1", None),
            "has \"db1\" in brackets, which is no IPv6 address",
        );
        check(
            dial("[::1]1", None),
            "has text between the closing bracket and the port",
        );
        check(
            dial("<your node>:1", None),
            "has a character that no host name has",
        );
        check(
            listen("db1"),
            "has no port: write host:port, or :port for every interface",
        );
    }

    #[test]
    fn an_advertised_url_is_scheme_host_and_port_only() {
        assert_eq!(http_url("http://db1:3000"), Ok(()));
        assert_eq!(http_url("HTTPS://[::1]:3000"), Ok(()));
        for text in [
            "",
            "db1:3000",
            "http://db1",
            "http://:3000",
            "http://db1:3000/",
            "ftp://db1:21",
            "http://u@db1:1",
            "http://db1:3000?x",
        ] {
            assert!(http_url(text).is_err(), "{text}");
        }
    }
}
