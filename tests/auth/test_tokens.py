import base64
import hmac
import json
import os
import stat
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from uuid import uuid4

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.auth.auth import create_auth
from app.auth.key_watch import KeyWatch
from app.auth.keys import FILE_NAME, KeyRing, load_keys, rotate_keys
from app.auth.tokens import MAX_CHARACTERS, Claims, Kind, TokenSigner
from app.errors import NotAuthenticated
from app.settings import InvalidSetting, Settings
from app.storage.database import Database, database_url
from tests.fakes import until

SECRET, OTHER = "s" * 32, "o" * 32


def in_folder(folder: Path) -> KeyRing:
    return load_keys(Settings(data_dir=folder))


def claims(kind: Kind = Kind.ACCESS, life_s: float = 60) -> Claims:
    expires_at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=life_s)
    return Claims(kind=kind, user_id=uuid4(), login_id=uuid4(), expires_at=expires_at)


def test_what_is_signed_is_read_and_two_tokens_differ():
    signer = TokenSigner(KeyRing([SECRET]))
    signed = claims()
    first, second = signer.sign(signed), signer.sign(signed)
    assert first != second
    assert signer.read(first, Kind.ACCESS) == signed
    body = jwt.decode(first, options={"verify_signature": False})
    assert {"iss", "aud", "exp", "iat", "jti", "typ", "sub"} <= body.keys()
    assert jwt.get_unverified_header(first)["alg"] == "HS256"


def test_an_old_key_still_verifies_until_it_is_gone():
    signed = claims()
    token = TokenSigner(KeyRing([SECRET])).sign(signed)
    rotated = TokenSigner(KeyRing([OTHER, SECRET]))
    assert rotated.read(token, Kind.ACCESS) == signed
    assert jwt.get_unverified_header(rotated.sign(signed)) != jwt.get_unverified_header(token)
    with pytest.raises(NotAuthenticated, match="invalid access token"):
        TokenSigner(KeyRing([OTHER])).read(token, Kind.ACCESS)


@pytest.mark.parametrize("claim", ["iss", "aud", "sub", "exp", "iat", "jti", "typ", "sid"])
def test_a_token_without_one_of_its_claims_is_refused(claim: str):
    keys = KeyRing([SECRET])
    body = jwt.decode(TokenSigner(keys).sign(claims()), options={"verify_signature": False})
    del body[claim]
    token = jwt.encode(body, SECRET, "HS256", headers={"kid": keys.signing_id})
    with pytest.raises(NotAuthenticated):
        TokenSigner(keys).read(token, Kind.ACCESS)


ODD = (None, [], {}, [1], 1.5, 2**63, 1e300, True, "x", "9" * 400, -1)


@pytest.mark.parametrize("claim", ["iss", "aud", "sub", "exp", "typ", "sid"])
@pytest.mark.parametrize("value", ODD)
def test_a_signed_token_with_an_odd_claim_is_refused(claim: str, value: object):
    keys = KeyRing([SECRET])
    body = jwt.decode(TokenSigner(keys).sign(claims()), options={"verify_signature": False})
    with pytest.raises(NotAuthenticated):
        TokenSigner(keys).read(signed(json.dumps({**body, claim: value})), Kind.ACCESS)


@pytest.mark.parametrize(
    "payload",
    ["", "null", "[]", '"x"', "1", "{", "[" * 700, '{"a":' * 140, '{"exp": NaN}', '{"exp": 1e400}'],
)
def test_a_signed_token_that_is_no_record_is_refused(payload: str):
    with pytest.raises(NotAuthenticated):
        TokenSigner(KeyRing([SECRET])).read(signed(payload), Kind.ACCESS)


@pytest.mark.parametrize("header", [{"kid": []}, {"kid": {}}, {"kid": 1}, {"alg": []}, {"alg": 1}])
def test_an_odd_header_is_refused(header: dict[str, object]):
    keys = KeyRing([SECRET])
    body = jwt.decode(TokenSigner(keys).sign(claims()), options={"verify_signature": False})
    with pytest.raises(NotAuthenticated):
        TokenSigner(keys).read(signed(json.dumps(body), **header), Kind.ACCESS)


def test_a_token_that_is_too_long_is_not_looked_at(monkeypatch: pytest.MonkeyPatch):
    signer = TokenSigner(KeyRing([SECRET]))
    assert len(signer.sign(claims())) < MAX_CHARACTERS / 2, "none of ours may come near"

    def looked_at(_: str) -> None:
        raise AssertionError("it was read")

    monkeypatch.setattr(jwt, "get_unverified_header", looked_at)
    for kind in Kind:
        with pytest.raises(NotAuthenticated, match=f"invalid {kind} token"):
            signer.read("a" * (MAX_CHARACTERS + 1), kind)


def signed(payload: str, **header: object) -> str:
    """Sign any text with the right key."""
    given = {"alg": "HS256", "kid": KeyRing([SECRET]).signing_id, **header}
    parts = [base64.urlsafe_b64encode(text.encode()) for text in (json.dumps(given), payload)]
    message = b".".join(part.rstrip(b"=") for part in parts)
    signature = hmac.digest(SECRET.encode(), message, "sha256")
    return b".".join([message, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


def test_the_odd_tokens_are_signed_well():
    signer = TokenSigner(KeyRing([SECRET]))
    body = jwt.decode(signer.sign(claims()), options={"verify_signature": False})
    assert signer.read(signed(json.dumps(body)), Kind.ACCESS)


@pytest.mark.parametrize("algorithm", ["HS512", "none"])
def test_another_algorithm_is_refused_with_the_right_key(algorithm: str):
    keys = KeyRing([SECRET * 2])
    body = jwt.decode(TokenSigner(keys).sign(claims()), options={"verify_signature": False})
    key = "" if algorithm == "none" else SECRET * 2
    token = jwt.encode(body, key, algorithm, headers={"kid": keys.signing_id})
    with pytest.raises(NotAuthenticated):
        TokenSigner(keys).read(token, Kind.ACCESS)


def test_expiry_and_kind_are_told():
    signer = TokenSigner(KeyRing([SECRET]))
    with pytest.raises(NotAuthenticated, match="access token has expired"):
        signer.read(signer.sign(claims(life_s=-1)), Kind.ACCESS)
    with pytest.raises(NotAuthenticated, match="this is the refresh token"):
        signer.read(signer.sign(claims(Kind.REFRESH)), Kind.ACCESS)


@given(st.text())
def test_any_text_is_refused_and_nothing_else_happens(text: str):
    with pytest.raises(NotAuthenticated):
        TokenSigner(KeyRing([SECRET])).read(text, Kind.ACCESS)


def test_a_secret_is_made_once_private_and_differs_between_servers(tmp_path: Path):
    first, again = in_folder(tmp_path / "a"), in_folder(tmp_path / "a")
    other = in_folder(tmp_path / "b")
    assert first.signing_secret == again.signing_secret != other.signing_secret
    [file] = (tmp_path / "a").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_rotating_the_file_keeps_the_key_before(tmp_path: Path):
    first, file = in_folder(tmp_path), tmp_path / FILE_NAME
    assert rotate_keys(file) == 2
    new = in_folder(tmp_path)
    assert new.signing_id == first.signing_id, "other replicas may not know the new one"
    os.utime(file, (0, 0))
    second = in_folder(tmp_path)
    assert second.signing_id != first.signing_id
    assert new.get(second.signing_id) == second.signing_secret, "it verified from the beginning"
    assert second.get(first.signing_id) == first.signing_secret
    assert rotate_keys(file) == 2
    assert in_folder(tmp_path).get(first.signing_id) is None


async def test_a_running_server_follows_the_file_and_signs_nobody_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    file = tmp_path / FILE_NAME
    first = in_folder(tmp_path)
    signer = TokenSigner(first)
    watch = KeyWatch(file, first, partial(setattr, signer, "keys"))
    signed = claims()
    token = signer.sign(signed)
    rotate_keys(file)
    await watch.look()
    assert len(signer.keys) == 2
    os.utime(file, (0, 0))
    await watch.look()
    assert signer.keys.signing_id != first.signing_id
    assert signer.read(token, Kind.ACCESS) == signed
    kept = signer.keys
    for broken in ("short", ""):
        file.write_text(broken)
        await watch.look()
    file.unlink()
    await watch.look()
    assert signer.keys is kept, "a file that can't be used changes nothing"
    unreadable = [r for r in caplog.records if r.getMessage().startswith("signing_keys_unreadable")]
    assert len(unreadable) == 1, "one line, however often it is read"


async def test_an_application_follows_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("app.auth.key_watch.LOOK_EVERY_S", 0.01)
    file = tmp_path / "mounted"
    file.write_text(f"{SECRET}\n")
    chosen = Settings(jwt_secrets_file=str(file), data_dir=tmp_path)
    database = Database(database_url("", tmp_path))
    auth = create_auth(chosen, database)
    auth.open()
    file.write_text(f"{OTHER}\n{SECRET}\n")
    os.utime(file, (0, 0))
    await until(lambda: auth.logins._signer.keys.signing_id == KeyRing([OTHER]).signing_id)
    await auth.close()
    await database.close()


def test_a_file_that_a_setting_names_has_to_be_there(tmp_path: Path):
    with pytest.raises(InvalidSetting, match=r"LLMHOST_JWT_SECRETS_FILE: .*no/such"):
        load_keys(Settings(jwt_secrets_file=str(tmp_path / "no/such")))


def test_secrets_from_the_setting_sign_in_their_order_and_write_nothing(tmp_path: Path):
    keys = load_keys(Settings(jwt_secret=f"{SECRET}, {OTHER}", data_dir=tmp_path / "data"))
    assert keys.signing_secret == SECRET.encode()
    assert keys.get(KeyRing([OTHER]).signing_id) == OTHER.encode()
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("setting", ["short", f"{SECRET},", f"{SECRET},short"])
def test_a_short_secret_is_refused(setting: str, tmp_path: Path):
    with pytest.raises(InvalidSetting, match=r"LLMHOST_JWT_SECRET: a secret has . bytes"):
        load_keys(Settings(jwt_secret=setting, data_dir=tmp_path))
