//! Where an agent comes from when VMKit does not have the program itself, and the one program that
//! it has to be.

use std::net::IpAddr;

use url::{Host, Url};

use crate::domain::size::Arch;

/// A program at an address. The sum comes from whoever sets it, never from where the program lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentRelease {
    /// What it runs on.
    pub arch: Arch,
    /// Where it lies; `https`, or `http` on this machine. Without a fragment.
    pub url: Url,
    /// 64 lower-case hexadecimal digits.
    pub sha256: String,
}

impl AgentRelease {
    /// How one is written, with an example.
    pub const WANTED: &str = "an https:// URL with the program's checksum behind it, such as \
        `https://example.com/vmkit-agent-arm64#sha256=` and 64 hexadecimal digits";

    /// Reads `https://HOST/PATH#sha256=HEX`, as pip writes it; none where it is anything else.
    pub fn parse(arch: Arch, given: &str) -> Option<Self> {
        let mut url = Url::parse(given.trim()).ok()?;
        let sha256 = url.fragment()?.strip_prefix("sha256=")?.to_ascii_lowercase();
        let hex = sha256.len() == 64 && sha256.chars().all(|c| c.is_ascii_hexdigit());
        let here = match url.host()? {
            Host::Domain(name) => name == "localhost",
            Host::Ipv4(address) => IpAddr::from(address).is_loopback(),
            Host::Ipv6(address) => IpAddr::from(address).is_loopback(),
        };
        let safe = url.scheme() == "https" || (url.scheme() == "http" && here);
        let plain = url.username().is_empty() && url.password().is_none();
        url.set_fragment(None);
        (hex && safe && plain).then_some(Self { arch, url, sha256 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_without_a_whole_checksum_or_over_an_open_line_is_none() {
        let sum = "ab".repeat(32);
        let read = |text: String| AgentRelease::parse(Arch::Arm64, &text);
        let release = read(format!(" https://example.com/a?b=c#sha256={}\n", sum.to_uppercase()));
        let release = release.expect("a release");
        assert_eq!((release.url.as_str(), &release.sha256), ("https://example.com/a?b=c", &sum));
        assert!(read(format!("http://127.0.0.1:4/a#sha256={sum}")).is_some());
        for wrong in [
            format!("http://example.com/a#sha256={sum}"),
            format!("https://me:pw@example.com/a#sha256={sum}"),
            format!("https://example.com/a#sha256={}", &sum[1..]),
            format!("https://example.com/a#md5={sum}"),
            format!("ftp://example.com/a#sha256={sum}"),
            "https://example.com/a".to_owned(),
        ] {
            assert_eq!(read(wrong.clone()), None, "{wrong}");
        }
    }
}
