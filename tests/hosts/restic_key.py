"""A key of a restic repository that opens at once: restic itself makes only such as take half a second, each time."""

from __future__ import annotations

import base64
import hashlib
import json
import os

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.poly1305 import Poly1305


def weaken_key(repo, password):
    """Seal the master key of a new repository once more, with as little work as scrypt allows."""
    (name,) = os.listdir(f"{repo}/keys")
    with open(f"{repo}/keys/{name}", encoding="utf-8") as source:
        key = json.load(source)
    sealed = base64.b64decode(key["data"])
    nonce, master = sealed[:16], sealed[16:-16]
    master = _crypted(_derived(password, key), nonce, master)
    key.update(N=2, r=1, p=1)
    secret = _derived(password, key)
    hidden = _crypted(secret, nonce, master)
    key["data"] = base64.b64encode(nonce + hidden + _signature(secret, nonce, hidden)).decode()
    text = json.dumps(key).encode()
    with open(f"{repo}/keys/{hashlib.sha256(text).hexdigest()}", "xb") as target:
        target.write(text)
    os.unlink(f"{repo}/keys/{name}")


def _derived(password, key):
    return hashlib.scrypt(password, salt=base64.b64decode(key["salt"]), n=key["N"], r=key["r"], p=key["p"], dklen=64, maxmem=1 << 28)


def _crypted(secret, nonce, data):
    return Cipher(algorithms.AES(secret[:32]), modes.CTR(nonce)).encryptor().update(data)


def _signature(secret, nonce, data):
    """Poly1305-AES, as restic signs what it encrypts."""
    once = Cipher(algorithms.AES(secret[32:48]), modes.ECB()).encryptor().update(nonce)
    return Poly1305.generate_tag(secret[48:64] + once, data)
