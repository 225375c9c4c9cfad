"""Verifies a token as whoever trusts its issuer would: by the standards alone, with nothing of Tidewater's.

Arguments: the token's file, the key set's file, the issuer, the audience. Prints the claims, or says what is wrong.
ES256 is ECDSA over P-256 with SHA-256 (FIPS 186-5); numbers are Python's own.
"""

import base64
import hashlib
import json
import sys
import time

P = 2**256 - 2**224 + 2**192 + 2**96 - 1
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)


def add(a, b):
    if a is None or b is None:
        return a or b
    (x, y), (u, v) = a, b
    if x == u:
        if (y + v) % P == 0:
            return None
        slope = (3 * x * x - 3) * pow(2 * y, -1, P)
    else:
        slope = (v - y) * pow(u - x, -1, P)
    w = (slope * slope - x - u) % P
    return w, (slope * (x - w) - y) % P


def times(k, point):
    total = None
    while k:
        if k & 1:
            total = add(total, point)
        point = add(point, point)
        k >>= 1
    return total


def decoded(text):
    assert "=" not in text, "it is filled up"
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def number(text):
    bytes_ = decoded(text)
    assert len(bytes_) == 32, "a coordinate is not 32 bytes long"
    return int.from_bytes(bytes_, "big")


def main():
    token, keys, issuer, audience = sys.argv[1:]
    token = open(token).read()
    header, claims, signature = token.split(".")
    head, body = json.loads(decoded(header)), json.loads(decoded(claims))
    assert head["alg"] == "ES256" and head["typ"] == "JWT", head
    found = [key for key in json.load(open(keys))["keys"] if key["kid"] == head["kid"]]
    assert len(found) == 1, f"{len(found)} keys are called {head['kid']}"
    key = found[0]
    assert (key["kty"], key["crv"], key["use"], key["alg"]) == ("EC", "P-256", "sig", "ES256"), key
    point = number(key["x"]), number(key["y"])
    assert (point[1] ** 2 - point[0] ** 3 + 3 * point[0] - B) % P == 0, "the key is not on the curve"
    raw = decoded(signature)
    assert len(raw) == 64, "the signature is not 64 bytes long"
    r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
    assert 0 < r < N and 0 < s < N, "the signature is out of range"
    hashed = int.from_bytes(hashlib.sha256(f"{header}.{claims}".encode()).digest(), "big")
    w = pow(s, -1, N)
    at = add(times(hashed * w % N, G), times(r * w % N, point))
    assert at is not None and at[0] % N == r, "the signature is not the key's"
    now = time.time()
    assert body["iss"] == issuer and body["aud"] == audience, body
    assert body["nbf"] <= now + 5 and body["iat"] <= now + 5 and body["exp"] > now, body
    print(json.dumps(body))


main()
