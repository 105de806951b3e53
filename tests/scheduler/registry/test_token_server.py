"""A real registry that sends us to a token server: only a token that it accepts opens the image."""

from __future__ import annotations

import base64
import datetime
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

from scheduler.errors import ImageDenied, Unavailable
from scheduler.registry.settings import RegistryConfig
from tests.scheduler.registries import Answer, Asked, ScriptedRegistry, built, docker_registry, push
from tests.scheduler.registry.conftest import images_of

LOGIN = "Basic " + base64.b64encode(b"robot:s3cret").decode()


class Signer:
    """Signs tokens as a registry expects them (ES256, with the certificate in the header)."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "token server")])
        now = datetime.datetime.now(datetime.UTC)
        self._certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(1)
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def bundle(self) -> bytes:
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def token(self, repository: str, *actions: str, ends_in_s: float = 300.0) -> str:
        now = time.time()
        der = self._certificate.public_bytes(serialization.Encoding.DER)
        header = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(der).decode()]}
        claims = {
            "iss": "issuer",
            "aud": "service",
            "sub": "robot",
            "exp": int(now + ends_in_s),
            "nbf": int(now - 300),
            "iat": int(now),
            "jti": "1",
            "access": [{"type": "repository", "name": repository, "actions": list(actions)}],
        }
        signed = ".".join(_url64(json.dumps(part).encode()) for part in (header, claims))
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_url64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _url64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


@pytest.fixture(scope="module")
def tokens() -> Iterator[ScriptedRegistry]:
    """The token server."""
    scripted = ScriptedRegistry()
    yield scripted
    scripted.close()


@pytest.fixture(scope="module")
def host(signer: Signer, tokens: ScriptedRegistry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The registry, with the image acme/cat:1."""
    folder = tmp_path_factory.mktemp("token-registry")
    (folder / "bundle.pem").write_bytes(signer.bundle)
    auth = {
        "token": {
            "realm": f"{tokens.url}/token",
            "service": "service",
            "issuer": "issuer",
            "rootcertbundle": f"{folder}/bundle.pem",
        }
    }
    with docker_registry(folder, f"auth: {json.dumps(auth)}\n") as host:
        with httpx.Client(
            headers={"authorization": f"Bearer {signer.token('acme/cat', 'pull', 'push')}"}
        ) as client:
            push(host, "acme/cat", "1", built({"Cmd": ["/cat"]}, b"layer"), client)
        yield host


@pytest.fixture
def config(host: str, tokens: ScriptedRegistry, tmp_path: Path) -> RegistryConfig:
    (tmp_path / "password").write_text("s3cret")
    return RegistryConfig(
        name=host,
        url=f"http://{host}",
        also=(tokens.url,),
        username="robot",
        password_file=str(tmp_path / "password"),
    )


def answering(token: Callable[[str], str]) -> Callable[[Asked], Answer]:
    """A token server that knows the login, and answers `token` of the repository that is asked for."""

    def script(asked: Asked) -> Answer:
        scope = parse_qs(urlsplit(asked.path).query)["scope"][0]
        _, repository, actions = scope.split(":")
        if asked.authorization != LOGIN or actions != "pull":
            return Answer(401)
        return Answer(content=json.dumps({"token": token(repository), "expires_in": 300}).encode())

    return script


async def test_a_token_opens_the_image(
    config: RegistryConfig, tokens: ScriptedRegistry, signer: Signer
) -> None:
    tokens.asked.clear()
    tokens.script = answering(lambda repository: signer.token(repository, "pull"))
    async with images_of(config) as images:
        image = await images.resolve(f"{config.name}/acme/cat:1")
        assert image.cmd == ("/cat",)
    assert len(tokens.asked) == 1


async def test_a_token_without_the_right_opens_nothing(
    config: RegistryConfig, tokens: ScriptedRegistry, signer: Signer
) -> None:
    for token in (
        signer.token("acme/cat"),
        signer.token("acme/dog", "pull"),
        signer.token("acme/cat", "pull", ends_in_s=-200.0),
        Signer().token("acme/cat", "pull"),
        "no.token.atall",
    ):
        tokens.script = answering(lambda repository, token=token: token)  # type: ignore[misc]
        async with images_of(config) as images:
            with pytest.raises(ImageDenied, match="denies acme/cat to user robot"):
                await images.resolve(f"{config.name}/acme/cat:1")


async def test_a_login_that_the_token_server_refuses(
    config: RegistryConfig, tokens: ScriptedRegistry
) -> None:
    tokens.script = lambda asked: Answer(401)
    async with images_of(config) as images:
        with pytest.raises(ImageDenied, match="denies acme/cat to user robot"):
            await images.resolve(f"{config.name}/acme/cat:1")


async def test_a_token_server_that_is_not_listed_never_hears_the_password(
    config: RegistryConfig, tokens: ScriptedRegistry
) -> None:
    tokens.asked.clear()
    alone = RegistryConfig(
        name=config.name, url=config.url, username=config.username, password_file=config.password_file
    )
    async with images_of(alone) as images:
        with pytest.raises(Unavailable, match=f"leads to {tokens.url}, which the set may not contact"):
            await images.resolve(f"{config.name}/acme/cat:1")
    assert tokens.asked == []
