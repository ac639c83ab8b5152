//! Dialling out through an HTTP proxy, where the VM's network has no other way.

use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use url::Url;

/// The longest head of an answer, in bytes.
const HEAD_BYTES: usize = 8 * 1024;

/// A proxy that opens tunnels: `http://[USER:PASSWORD@]HOST:PORT`.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy(Url);

impl std::fmt::Debug for Proxy {
    /// Without what stands before the `@`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let host = self.0.host_str().unwrap_or_default();
        write!(f, "http://{host}:{}", self.0.port_or_known_default().unwrap_or(80))
    }
}

impl Proxy {
    /// Reads its URL.
    ///
    /// # Errors
    /// Says what is wrong with it, without the password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url: Url = text.parse().map_err(|_| "`proxy` is not a URL".to_owned())?;
        if url.scheme() != "http" || url.host_str().is_none_or(str::is_empty) {
            return Err("`proxy` must be an http URL, such as http://proxy.lan:3128".to_owned());
        }
        Ok(Self(url))
    }

    /// A connection to `host` through it.
    pub(crate) async fn tunnel(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let proxy_host = self.0.host_str().unwrap_or_default();
        let proxy_host = proxy_host.trim_start_matches('[').trim_end_matches(']');
        let proxy_port = self.0.port_or_known_default().unwrap_or(80);
        let mut stream = TcpStream::connect((proxy_host, proxy_port)).await?;
        let mut request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n");
        if !self.0.username().is_empty() {
            let decoded = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
            let pair = format!(
                "{}:{}",
                decoded(self.0.username()),
                decoded(self.0.password().unwrap_or_default())
            );
            let pair = STANDARD.encode(pair);
            request.push_str(&format!("Proxy-Authorization: Basic {pair}\r\n"));
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await?;
        let head = head(&mut stream).await?;
        let status = head.split_whitespace().nth(1).unwrap_or_default();
        if status != "200" {
            let said: String = head.lines().next().unwrap_or_default().chars().take(100).collect();
            return Err(io::Error::other(format!("the proxy {self:?} opened no tunnel: {said}")));
        }
        Ok(stream)
    }
}

/// The answer's head and not a byte more: what follows belongs to the tunnel.
async fn head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == HEAD_BYTES {
            return Err(io::Error::other("the proxy's answer has no end"));
        }
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_tunnel_is_asked_for_and_its_first_bytes_stay_in_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let proxy = Proxy::parse(&format!("http://me:s%3Acret@127.0.0.1:{port}")).unwrap();
        assert_eq!(format!("{proxy:?}"), format!("http://127.0.0.1:{port}"));
        let serving = tokio::spawn(async move {
            let mut asked = Vec::new();
            for answer in ["HTTP/1.1 200 Fine\r\nX: y\r\n\r\nhello", "HTTP/1.1 407 Who?\r\n\r\n"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                asked.push(head(&mut stream).await.unwrap());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            asked
        });
        let mut tunnel = proxy.tunnel("vm.example.com", 443).await.unwrap();
        let mut first = [0; 5];
        tunnel.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"hello");
        let refused = proxy.tunnel("vm.example.com", 443).await.unwrap_err().to_string();
        assert!(refused.contains("407 Who?") && !refused.contains("cret"), "{refused}");
        let asked = serving.await.unwrap();
        assert!(asked[0].starts_with("CONNECT vm.example.com:443 HTTP/1.1\r\n"), "{asked:?}");
        let pair = STANDARD.encode("me:s:cret");
        assert!(asked[0].contains(&format!("Proxy-Authorization: Basic {pair}\r\n")));
        for bad in ["https://proxy.lan", "socks5://proxy.lan", "proxy.lan:3128", "http://"] {
            assert!(Proxy::parse(bad).is_err(), "{bad}");
        }
    }
}
