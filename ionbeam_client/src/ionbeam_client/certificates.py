"""What is wrong with a certificate, for whoever meets it: the client's broker, and the platform's servers.

Belongs here: one sentence each for what TLS refuses. Does not belong here: any connection.
"""

from __future__ import annotations

import ssl

_EXPIRED, _NOT_YET, _OTHER_HOST, _OTHER_ADDRESS = 10, 9, 62, 64
"""OpenSSL's numbers of what it finds wrong (X509_V_ERR_...)."""
_ASKED_FOR_OURS = (
    "CERTIFICATE_REQUIRED",
    "BAD_CERTIFICATE",
    "ALERT_UNKNOWN_CA",
    "CERTIFICATE_EXPIRED",
    "HANDSHAKE_FAILURE",
)


def certificate_fault(error: BaseException | None, ca: str, own: str) -> str | None:
    """What is wrong with a certificate, and what to do, where that is the cause of `error`; else None.

    `ca` and `own` are what the settings are called that name the authority, and the certificate of one's own.
    """
    seen: list[BaseException] = []  # the libraries' causes may go in circles
    while error is not None and error not in seen:
        if isinstance(error, ssl.SSLCertVerificationError):
            return _unverified(error, ca)
        if isinstance(error, ssl.SSLError) and any(sign in str(error.reason) for sign in _ASKED_FOR_OURS):
            return f"it asks for a certificate of ours that it trusts ({error.reason}); {own} names one"
        seen.append(error)
        inner = getattr(error, "reason", None)
        error = inner if isinstance(inner, BaseException) else error.__cause__ or error.__context__
    return None


def _unverified(error: ssl.SSLCertVerificationError, ca: str) -> str:
    if error.verify_code == _EXPIRED:
        return "its certificate has expired; it has to be renewed there, unless the clock is wrong here"
    if error.verify_code == _NOT_YET:
        return "its certificate is not valid yet; is the clock wrong, there or here?"
    if error.verify_code in (_OTHER_HOST, _OTHER_ADDRESS):
        return f"its certificate is another host's ({error.verify_message}); address it by the name that it is for"
    return f"its certificate is not trusted ({error.verify_message}); {ca} names who signed it"


def no_passphrase() -> str:
    """What is asked for the passphrase of a key; raises ssl.SSLError. OpenSSL itself would ask at the terminal, and
    whoever needs the key would stand still until somebody answers."""
    raise ssl.SSLError("the key has a passphrase; name one without, which nobody else may read")


def perhaps_ours(error: BaseException, own: str) -> str:
    """What may lie behind a connection over TLS that the server closed: with TLS 1.3 a client may hear no more of a
    certificate that it lacks, or that is not taken. Begins with "; ", or is empty."""
    closed = any(sign in str(error).lower() for sign in ("closed", "reset", "disconnected"))
    return f"; if it asks for a certificate of ours that it trusts, {own} names one" if closed else ""
