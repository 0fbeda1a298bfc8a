"""Certificates for tests, good and bad: an authority that is thrown away, and what it signs."""

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

_DAY = timedelta(days=1)


class Authority:
    """
    Signs certificates.

    Args:
        folder: Where files go; `file` there holds its own certificate.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("a throw-away authority")
        own = _builder(self._name, self._name, self._key).add_extension(
            x509.BasicConstraints(True, None), critical=True
        )
        self.file = folder / "authority.pem"
        self.file.write_bytes(own.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))

    def server(self, host: str, *, expired: bool = False, self_signed: bool = False) -> ssl.SSLContext:
        """
        What a TLS server at a name or an address of loopback shows.

        Args:
            expired: Its time ended yesterday.
            self_signed: The authority knows nothing of it.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(host)
        begin = datetime.now(UTC) - (3 * _DAY if expired else _DAY)
        built = _builder(subject, subject if self_signed else self._name, key, begin).add_extension(
            x509.SubjectAlternativeName([_general_name(host)]), critical=False
        )
        signed = built.sign(key if self_signed else self._key, hashes.SHA256())
        file = self._folder / f"server-{signed.serial_number}.pem"
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        file.write_bytes(signed.public_bytes(Encoding.PEM) + secret)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, begin: datetime | None = None
) -> x509.CertificateBuilder:
    begin = begin or datetime.now(UTC) - _DAY
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + 2 * _DAY)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)
