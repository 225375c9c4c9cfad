//! Where the other end of a link listens. A name is looked up anew for each connection: what moved has another address under the same
//! name.

use std::net::SocketAddr;

use quinn::Endpoint;

use super::ConnectFailed;

/// A host, by name or number, and a port: `coordinator-1.coordinators:7600`, `10.0.0.1:7600`, `[::1]:7600`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address(String);

/// A text that is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?}: write HOST:PORT, such as coordinator-1.example:7600, 127.0.0.1:7600 or [::1]:7600")]
pub struct AddressError(String);

impl std::str::FromStr for Address {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError(text.chars().take(200).collect());
        let port = match text.parse::<SocketAddr>() {
            Ok(address) => address.port(),
            Err(_) => {
                let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
                let of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
                // Numbers and dots are an address that is written wrongly, and no name.
                let is_name = host.chars().all(of_name) && host.chars().any(|c| c.is_ascii_alphabetic());
                port.parse().ok().filter(|_| is_name).ok_or_else(wrong)?
            }
        };
        if port == 0 { Err(wrong()) } else { Ok(Self(text.to_owned())) }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self(address.to_string())
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

impl Address {
    /// The address itself, where it is written in numbers.
    pub fn number(&self) -> Option<SocketAddr> {
        self.0.parse().ok()
    }

    /// What the name means at the moment: the first address, of those that `reaches` says can be reached.
    pub async fn look_up(&self, reaches: impl Fn(&SocketAddr) -> bool) -> Result<SocketAddr, ConnectFailed> {
        let failed = |cause| ConnectFailed::Name { address: self.clone(), cause };
        let mut found = tokio::net::lookup_host(&self.0).await.map_err(failed)?;
        found
            .find(reaches)
            .ok_or_else(|| failed(std::io::Error::other("it has no address that can be reached from here")))
    }

    /// The same for this endpoint: one on IPv4 reaches nothing else.
    pub async fn look_up_for(&self, endpoint: &Endpoint) -> Result<SocketAddr, ConnectFailed> {
        let any = endpoint.local_addr().is_ok_and(|own| own.is_ipv6());
        self.look_up(|address| any || address.is_ipv4()).await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_with_a_port_are_addresses() {
        for text in ["coordinator-1.coordinators:7600", "localhost:1", "10.0.0.1:7600", "[::1]:65535", "a.b.svc.:1"] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
        }
        assert!("10.0.0.1:7600".parse::<Address>().unwrap().number().is_some());
        assert!("localhost:7600".parse::<Address>().unwrap().number().is_none());
    }

    #[test]
    fn what_is_none_says_how_one_is_written() {
        for text in ["", "7600", ":7600", "a", "a:", "a:0", "a:65536", "a b:1", "::1:7600", "10.0.0:7600", "10.0.0.1:0"]
        {
            let error = text.parse::<Address>().unwrap_err();
            assert!(error.to_string().contains("write HOST:PORT"), "{text}");
        }
    }

    #[tokio::test]
    async fn an_endpoint_on_ipv4_is_given_an_address_that_it_reaches() {
        let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let localhost: Address = "localhost:7600".parse().unwrap();
        assert_eq!(localhost.look_up_for(&endpoint).await.unwrap(), "127.0.0.1:7600".parse().unwrap());
        let six: Address = "[::1]:7600".parse().unwrap();
        let error = six.look_up_for(&endpoint).await.unwrap_err();
        assert!(error.to_string().contains("[::1]:7600: it has no address"), "{error}");
    }

    #[tokio::test]
    async fn a_name_that_nobody_has_is_named() {
        let address: Address = "nobody.invalid:7600".parse().unwrap();
        let error = address.look_up(|_| true).await.unwrap_err();
        assert!(error.to_string().starts_with("nobody.invalid:7600: "), "{error}");
        assert!(!error.is_refused_certificate());
    }
}
