"""Gateways that others than this machine can reach: tokens, HTTPS, logs that a program reads."""

import datetime
import json
import re
import ssl
import stat
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.e2e.processes import Cluster, Program, wait_until
from tests.guests import guest


def write_certificate(directory: Path, name: str = "ww.example.org") -> tuple[Path, Path]:
    """Write a certificate that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, SHA256())
    )
    cert_file, key_file = directory / "cert.pem", directory / "key.pem"
    for path, data in (
        (key_file, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())),
        (cert_file, certificate.public_bytes(Encoding.PEM)),
    ):
        new = directory / "new"
        new.write_bytes(data)
        new.chmod(0o600)
        new.replace(path)
    return cert_file, key_file


def token(cluster: Cluster, name: str, *arguments: str) -> str:
    """Make a token with the command line, and return its secret."""
    program = cluster.program("token", "create", name, *arguments)
    secret = program.stdout_line()
    assert program.wait() == 0, program.log
    return secret


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def address_of(program: Program, scheme: str) -> str:
    return program.logged(rf"HTTP on {scheme}://(\S+)")[1]


def test_a_gateway_beyond_loopback_speaks_https_to_those_with_a_token(cluster: Cluster, tmp_path: Path) -> None:
    cert, key = write_certificate(tmp_path)
    tokens = cluster.state / "tokens.toml"
    alice, reader = token(cluster, "alice"), token(cluster, "reader", "--scope", "read", "--ttl", "1h")
    assert stat.S_IMODE(tokens.stat().st_mode) == 0o600
    program = cluster.program(
        "gateway", "--http", "0.0.0.0:0", "--token-file", str(tokens), "--tls-cert", str(cert), "--tls-key", str(key),
        "--http-name", "ww.example.org",
    )  # fmt: skip
    port = address_of(program, "https").rpartition(":")[2]
    trust = ssl.create_default_context(cafile=str(cert))
    trust.check_hostname = False
    with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=trust, timeout=20) as client:
        assert client.get("/tasks").status_code == 401
        assert client.get("/healthz").status_code == 200
        answer = client.post("/tasks", files={"wasm": guest("noop")}, headers=bearer(alice))
        assert (answer.status_code, answer.json()["owner"]) == (201, "alice")
        assert client.post("/tasks", files={"wasm": guest("noop")}, headers=bearer(reader)).status_code == 403
        named = bearer(alice) | {"Host": f"ww.example.org:{port}"}
        assert client.get("/tasks", headers=named).status_code == 200
        assert client.get("/tasks", headers=named | {"Host": "evil.example"}).status_code == 403

        revoke = cluster.program("token", "revoke", "alice")
        assert revoke.wait() == 0, revoke.log
        wait_until(lambda: client.get("/tasks", headers=bearer(alice)).status_code == 401, "it is revoked")
        assert client.get("/tasks", headers=bearer(reader)).status_code == 200

        # The certificate changes: new connections get the new one, and no restart is needed.
        write_certificate(tmp_path)
        program.logged("--tls-cert cert.pem was read again")
        assert client.get("/healthz").status_code == 200, "the old connection goes on"
        renewed = ssl.create_default_context(cafile=str(cert))
        renewed.check_hostname = False
        with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=renewed, timeout=20) as other:
            assert other.get("/healthz").status_code == 200
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=old, timeout=20) as client:
        assert client.get("/healthz").status_code == 200
    for secret in (alice, reader):
        assert secret not in program.log


def test_behind_a_proxy_it_speaks_http(cluster: Cluster) -> None:
    secret = token(cluster, "a", "--scope", "admin")
    tokens = str(cluster.state / "tokens.toml")
    program = cluster.program("gateway", "--http", "127.0.0.1:0", "--token-file", tokens, "--behind-proxy")
    with httpx.Client(base_url=f"http://{address_of(program, 'http')}", timeout=20) as client:
        forwarded = {"X-Forwarded-For": "203.0.113.9"}
        assert client.get("/tasks", headers=forwarded | bearer("wrong")).status_code == 401
        program.logged("HTTP from 203.0.113.9: a token that is not known")
        assert client.get("/tasks", headers=forwarded | bearer(secret)).status_code == 200


def test_without_a_proxy_nobody_says_to_be_elsewhere(cluster: Cluster) -> None:
    token(cluster, "a")
    program = cluster.program("gateway", "--http", "127.0.0.1:0", "--token-file", str(cluster.state / "tokens.toml"))
    with httpx.Client(base_url=f"http://{address_of(program, 'http')}", timeout=20) as client:
        statuses = [
            client.get("/tasks", headers=bearer("wrong") | {"X-Forwarded-For": f"203.0.113.{number}"}).status_code
            for number in range(15)
        ]
    assert statuses[:10] == [401] * 10
    assert statuses[-1] == 429
    assert "203.0.113." not in program.log


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--http", "0.0.0.0:0"], ["--http 0.0.0.0:0", "--token-file"]),
        (["--http", "[::]:0"], ["--token-file"]),
        (["--http", "0.0.0.0:0", "--token-file", "TOKENS"], ["--tls-cert", "--behind-proxy"]),
        (["--http", "127.0.0.1:0", "--behind-proxy"], ["--behind-proxy", "--token-file"]),
        (["--http", "127.0.0.1:0", "--cors-origin", "https://a.example"], ["--cors-origin", "--token-file"]),
        (["--http", "127.0.0.1:0", "--tls-cert", "CERT"], ["--tls-key"]),
        (["--http", "127.0.0.1:0", "--tls-key", "KEY"], ["--tls-cert"]),
        (["--http", "127.0.0.1:0", "--tls-cert", "CERT", "--tls-key", "CERT"], ["cert.pem", "expected a certificate"]),
        (["--http", "127.0.0.1:0", "--tls-cert", "CERT", "--tls-key", "OTHER"], ["they do not belong together"]),
        (["--http", "127.0.0.1:0", "--token-file", "OPEN"], ["--token-file", "expected mode 0600"]),
        (["--http", "127.0.0.1:0", "--token-file", "CERT"], ["--token-file", "no TOML"]),
    ],
)
def test_what_would_be_open_does_not_start(
    cluster: Cluster, tmp_path: Path, arguments: list[str], says: list[str]
) -> None:
    (tmp_path / "other").mkdir()
    _, other = write_certificate(tmp_path / "other")
    cert, key = write_certificate(tmp_path)
    tokens, exposed = tmp_path / "tokens.toml", tmp_path / "open.toml"
    for path, mode in ((tokens, 0o600), (exposed, 0o644)):
        path.touch(mode)
        path.chmod(mode)
    places = {"TOKENS": tokens, "OPEN": exposed, "CERT": cert, "KEY": key, "OTHER": other}
    program = cluster.program("gateway", *(str(places.get(word, word)) for word in arguments))
    assert program.wait() == 1
    (line,) = program.lines
    for text in says:
        assert text in line
    assert str(tmp_path) not in line


def test_logs_are_json_where_that_is_asked_for(cluster: Cluster) -> None:
    gateway = cluster.program("gateway", "--http", "127.0.0.1:0", "--log-json", "--log", "debug")
    # As text the line would begin otherwise.
    address = re.sub(r'".*', "", gateway.logged(r"HTTP on http://(\S+)")[1])
    with httpx.Client(base_url=f"http://{address}", timeout=20) as client:
        answer = client.post("/tasks", files={"wasm": guest("noop")}, headers={"X-Request-ID": "r-1"})
        assert answer.status_code == 201
        client.get(f"/tasks/{answer.json()['id']}")
    gateway.logged('"method": "GET"')
    lines = [json.loads(line) for line in list(gateway.lines)]
    for line in lines:
        assert {"time", "level", "logger", "message"} <= line.keys()
        datetime.datetime.fromisoformat(line["time"])
    (post,) = [line for line in lines if line.get("request_id") == "r-1"]
    assert (post["level"], post["status"], post["path"], post["logger"]) == ("info", 201, "/tasks", "ww.gateway.http")
    assert post["seconds"] > 0
    worker = cluster.program("worker", "--dial", gateway.stdout_line(), "--slots", "1", "--log-json")
    assert json.loads(worker.logged("joined gateway").string)["logger"] == "ww.worker"


def test_metrics_and_readiness_of_a_gateway_that_works(cluster: Cluster) -> None:
    gateway = cluster.gateway("--disk-reserve", "1M")
    ready = gateway.client.get("/readyz")
    assert ready.status_code == 503
    assert [check["name"] for check in ready.json()["checks"] if not check["ok"]] == ["workers"]
    cluster.worker(gateway)
    wait_until(lambda: gateway.client.get("/readyz").status_code == 200, "it is ready")
    gateway.ended(gateway.post(guest("noop"), repeats=3)["id"])
    text = gateway.client.get("/metrics").text
    for line in (
        "ww_workers 1.0", "ww_web_peers 0.0", 'ww_slots{state="all"} 1.0', "ww_open_tasks 0.0", "ww_queue_runs 0.0",
        'ww_http_requests_total{method="POST",route="/tasks",status="201"} 1.0',
    ):  # fmt: skip
        assert line in text.splitlines()
    samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(samples['ww_stored_bytes{kind="modules"}']) == len(guest("noop"))
    assert float(samples['ww_stored_bytes{kind="results"}']) > 0
    assert float(samples["ww_process_resident_bytes"]) > 1 << 20
    assert float(samples["ww_process_open_fds"]) > 3


def test_tokens_are_listed_without_their_secrets(cluster: Cluster) -> None:
    secret = token(cluster, "a", "--tasks-max", "5", "--runs-max", "100", "--bytes-max", "1M", "--ttl", "1h")
    listing = cluster.program("token", "ls", "--json")
    (row,) = json.loads(listing.stdout_line())
    assert (row["token"], row["scopes"], row["state"]) == ("a", ["read", "submit"], "good")
    assert (row["tasks_max"], row["runs_max"], row["bytes_max"]) == (5, 100, 1 << 20)
    assert secret not in json.dumps(row)
    table = cluster.program("token", "ls")
    assert table.stdout_line().split() == ["TOKEN", "SCOPES", "STATE", "TASKS", "RUNS", "BYTES", "EXPIRES"]
    again = cluster.program("token", "create", "a")
    assert again.wait() == 1
    assert "'a' is taken" in again.log
