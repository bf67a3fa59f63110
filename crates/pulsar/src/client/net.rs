//! Bytes to and from a broker, with TLS or without, and why there are none.

use super::{error::PulsarError, options::PulsarOptions};
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        self, CertificateError, ClientConfig, RootCertStore,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

/// The ports of Pulsar, without TLS and with.
const PORTS: [u16; 2] = [6650, 6651];

/// Bytes both ways.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// The parts of `pulsar://HOST:PORT`: whether it uses TLS, host, and port. Of several hosts the first is taken.
pub(crate) fn parts(url: &str) -> Result<(bool, String, u16), PulsarError> {
    let wrong = || PulsarError::Address(url.to_owned());
    let (tls, rest) = match url.split_once("://") {
        Some(("pulsar", rest)) => (false, rest),
        Some(("pulsar+ssl", rest)) => (true, rest),
        _ => return Err(wrong()),
    };
    let address = rest.split(['/', ',']).next().unwrap_or_default();
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !port.contains(']') => (host, port.parse().map_err(|_| wrong())?),
        _ => (address, PORTS[usize::from(tls)]),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() { Err(wrong()) } else { Ok((tls, host.to_owned(), port)) }
}

/// Connects.
pub(crate) async fn connect(options: &PulsarOptions, url: &str) -> Result<Stream, PulsarError> {
    let (tls, host, port) = parts(url)?;
    let config = if tls { Some(tls_config(options, url)?) } else { None };
    let away = |error: io::Error| PulsarError::Away(format!("connecting to `{url}`: {error}"));
    let stream = TcpStream::connect((host.as_str(), port)).await.map_err(away)?;
    // Without it an acknowledgement and the publish after it wait for each other for 40 ms.
    stream.set_nodelay(true).map_err(away)?;
    match config {
        None => Ok(Stream::Plain(stream)),
        Some(config) => wrap(config, stream, &host, url).await.map(|stream| Stream::Tls(Box::new(stream))),
    }
}

/// Speaks TLS on a stream.
pub(crate) async fn wrap(
    config: Arc<ClientConfig>,
    stream: TcpStream,
    host: &str,
    url: &str,
) -> Result<TlsStream<TcpStream>, PulsarError> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| PulsarError::Address(url.to_owned()))?;
    TlsConnector::from(config).connect(name, stream).await.map_err(|error| refusal(&error, url))
}

/// Whose word is taken.
pub(crate) fn tls_config(options: &PulsarOptions, url: &str) -> Result<Arc<ClientConfig>, PulsarError> {
    let path = options.ca_file.as_ref().ok_or_else(|| PulsarError::NoAuthority(url.to_owned()))?;
    let unusable = |why: String| PulsarError::File { path: path.display().to_string(), why };
    let mut roots = RootCertStore::empty();
    let found = CertificateDer::pem_file_iter(path).map_err(|error| unusable(error.to_string()))?;
    for certificate in found {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unusable("there is no certificate in it".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| PulsarError::Tls { address: url.to_owned(), why: error.to_string() })?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

/// What TLS found wrong. Only what comes from the certificate is for ever.
fn refusal(error: &io::Error, url: &str) -> PulsarError {
    let address = url.to_owned();
    let found = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    let Some(found) = found else { return PulsarError::Away(format!("TLS with `{url}`: {error}")) };
    let why = found.to_string();
    match found {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            PulsarError::UnknownAuthority { address, why }
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => PulsarError::OtherHost { address, why },
        _ => PulsarError::Tls { address, why },
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
