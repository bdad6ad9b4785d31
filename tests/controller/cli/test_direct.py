"""``abort --direct``: every proxy told at once, by its control port, with nobody else alive."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.cli import control
from controller.cli.control import Place, parse_place
from controller.cli.kube import root as plugin
from tests.controller.cli.conftest import Run
from tests.support.control_ports import Ports, control_ports, installation
from tests.support.fake_controller import FakeController
from tests.support.plans import plan


@pytest.fixture
def ports(tmp_path: Path) -> Iterator[Ports]:
    """Three proxies with a revision on trial."""
    with control_ports(tmp_path / "keys", 3, plan()) as made:
        yield made


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of somebody who takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield f"127.0.0.1:{sock.getsockname()[1]}"


@pytest.fixture
def closed() -> str:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return f"127.0.0.1:{sock.getsockname()[1]}"


def test_every_proxy_is_latched_under_one_id_and_nobody_else_is_asked(
    ports: Ports, run: Run, controller: FakeController
) -> None:
    """surface.md: control ports take an abort from `--direct`; by its one id a controller knows it for one."""
    result = run(*ports.line(), "--by", "anna", "--reason", "errors")
    assert (result.code, result.err) == (0, "")
    (latch_id,) = {latch.id for latch in ports.latches}
    assert [(latch.by, latch.reason, latch.revision) for latch in ports.latches] == [("anna", "errors", "v2")] * 3
    lines = result.out.splitlines()
    assert sorted(lines[:3]) == sorted(f"{at}: latched, abort {latch_id} of v2" for at in ports.addresses)
    assert lines[3] == "all 3 are latched, until a retry or a new revision"
    assert controller.asked == []


def test_a_second_abort_does_no_harm_and_tells_who_was_first(ports: Ports, run: Run) -> None:
    """In an outage several people press the same button."""
    run(*ports.line(0), "--by", "anna")
    first = ports.latches[0]
    result = run(*ports.line(0, 1), "--by", "bob")
    assert result.code == 0
    assert f"{ports.addresses[0]}: latched already by anna since {first.at}, abort {first.id} of v2" in result.out
    assert ports.latches[0] == first
    assert ports.latches[1].by == "bob"


def test_one_that_is_not_reached_is_named_and_the_others_are_latched(ports: Ports, run: Run, closed: str) -> None:
    """Exit 3, and which replica did not get it."""
    result = run(*ports.line(), f"--address={closed}")
    assert result.code == 3
    assert all(ports.latches)
    assert f"{closed}: not reached: Connection refused\n" in result.out
    assert result.err.startswith(f"Error: 3 of 4 proxies are latched, not {closed}: users there may be on the canary.")


def test_one_that_is_silent_holds_nobody_up(ports: Ports, run: Run, silent: str) -> None:
    """All at once: who answers is latched while the other is waited for."""
    result = run(*ports.line(), f"--address={silent}", "--timeout", "1s")
    assert result.code == 3
    assert all(ports.latches)
    assert result.out.splitlines()[3].startswith(f"{silent}: not reached: no answer")


def test_a_wrong_token_is_refused_and_latches_nobody(ports: Ports, run: Run, tmp_path: Path) -> None:
    """Exit 1: it was heard, and the answer was no."""
    wrong = tmp_path / "wrong"
    wrong.write_text("another-token-of-enough-length")
    line = ["abort", "--direct", f"--token-file={wrong}", f"--ca-file={ports.keys / 'tls.crt'}"]
    result = run(*line, f"--address={ports.addresses[0]}")
    assert (result.code, ports.latches[0]) == (1, None)
    assert "refused: the token is another one" in result.out
    assert "0 of 1 proxies are latched" in result.err


def test_a_proxy_with_another_certificate_is_not_told_the_token(ports: Ports, run: Run, tmp_path: Path) -> None:
    """D: pinned; whoever took over an address learns nothing."""
    installation(tmp_path / "other")
    result = run(*ports.line(0), f"--ca-file={tmp_path / 'other' / 'tls.crt'}")
    assert (result.code, ports.latches[0]) == (3, None)
    assert "it shows another certificate than the one given" in result.out


def test_an_abort_that_could_not_be_stored_is_no_success(ports: Ports, run: Run) -> None:
    """It is in force and would not outlive a restart: the proxy's own words."""
    ports.supervisors[0].is_full = True
    result = run(*ports.line())
    assert result.code == 1
    assert "is in force, everybody is on stable; but it is not stored" in result.out
    assert "2 of 3 proxies are latched" in result.err


def test_what_answers_without_being_a_control_port_is_not_reached(
    run: Run, ports: Ports, controller: FakeController
) -> None:
    """A port of another service behind the same address."""
    place = controller.url.removeprefix("http://")
    result = run("abort", "--direct", f"--token-file={ports.token_file}", f"--address={place}")
    assert result.code == 3
    assert f"{place}: not reached: no TLS is spoken there" in result.out


def test_the_result_as_json_has_every_proxy(ports: Ports, run: Run, closed: str) -> None:
    """`-o json`, and the exit code all the same."""
    result = run(*ports.line(0), f"--address={closed}", "-o", "json", "--reason", "errors")
    assert result.code == 3
    value = json.loads(result.out)
    assert (value["latched"], value["reason"], value["id"]) == (1, "errors", ports.latches[0].id)
    found = {proxy["address"]: proxy for proxy in value["proxies"]}
    assert found[ports.addresses[0]]["latch"]["revision"] == "v2"
    assert (found[closed]["result"], found[closed]["message"]) == ("NotReached", "Connection refused")


def test_a_name_stands_for_each_of_its_addresses(ports: Ports, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The headless control Service: one name, every replica, whether it is ready or not."""
    port = int(ports.addresses[0].rpartition(":")[2])
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (at, port)) for at in ("127.0.0.1", "127.0.0.9", "127.0.0.1")]
    found.append((socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fd00::9", port, 0, 0)))
    monkeypatch.setattr(socket, "getaddrinfo", _resolver({"cohort-control": found}))
    result = run("abort", "--direct", f"--token-file={ports.token_file}", f"--address=cohort-control:{port}")
    assert f"cohort-control:{port} (127.0.0.1): latched" in result.out
    assert f"cohort-control:{port} (127.0.0.9): not reached: Connection refused" in result.out
    assert "fd00::9" not in result.out
    assert result.code == 3


def _resolver(names: dict[str, Any]) -> Any:
    """`socket.getaddrinfo` that knows some names more."""
    real = socket.getaddrinfo
    return lambda host, *rest, **more: names[host] if host in names else real(host, *rest, **more)


def test_an_unknown_name_is_not_reached(run: Run, ports: Ports) -> None:
    result = run(*ports.line(0), "--address=nothing.invalid")
    assert result.code == 3
    assert "nothing.invalid:8083: not reached: " in result.out
    assert ports.latches[0]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("abort --direct --token-file {token}", "--direct needs --address"),
        ("abort --direct --address 127.0.0.1", "--direct needs --token-file"),
        ("abort --direct --address 127.0.0.1 --token-file {folder}/none", "cannot read the token file"),
        ("abort --direct --address 127.0.0.1 --token-file {token} --ca-file {folder}/none", "--ca-file"),
        ("abort --direct --address 127.0.0.1 --token-file {token} --ca-file {token}", "base64 -d"),
        ("abort checkout --direct --address 127.0.0.1 --token-file {token}", "leave out NAME"),
        ("abort --direct -n shop --address 127.0.0.1 --token-file {token}", "leave out --namespace"),
        ("abort --direct --context x --address 127.0.0.1 --token-file {token}", "leave out --context"),
        ("abort --direct --address https://127.0.0.1 --token-file {token}", "expected HOST:PORT"),
        ("abort --address 127.0.0.1", "go with --direct"),
        ("abort --ca-file {token}", "go with --direct"),
        ("promote --direct", "No such option"),
    ],
)
def test_wrong_use_is_refused_before_anybody_is_asked(
    run: Run, controller: FakeController, tmp_path: Path, line: str, said: str
) -> None:
    """surface.md: exit 2."""
    installation(tmp_path / "keys")
    result = run(*(part.format(token=tmp_path / "keys/control", folder=tmp_path) for part in line.split()))
    assert (result.code, result.out) == (2, "")
    assert said in " ".join(result.err.split())
    assert controller.asked == []


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("10.0.0.5", Place("10.0.0.5", 8083)),
        ("10.0.0.5:18083", Place("10.0.0.5", 18083)),
        ("[fd00::5]", Place("fd00::5", 8083)),
        ("[fd00::5]:1", Place("fd00::5", 1)),
        ("cohort-control.shop.svc", Place("cohort-control.shop.svc", 8083)),
        ("cohort_a:65535", Place("cohort_a", 65535)),
    ],
)
def test_an_address_has_a_host_and_maybe_a_port(text: str, place: Place) -> None:
    assert parse_place(text, 8083) == place


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":8083",
        "a:",
        "a:0",
        "a:65536",
        "a:1x",
        "a:\u0661",
        "fd00::5",
        "[fd00::5",
        "[10.0.0.5]",
        "[a]:1",
        "a b",
        "a/b",
        "\u00e4",
        "a:99999999999999999999",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected HOST:PORT"):
        parse_place(text, 8083)


def test_the_same_address_twice_is_one_proxy(ports: Ports, run: Run) -> None:
    assert run(*ports.line(0, 0)).out.splitlines()[1] == "it is latched, until a retry or a new revision"


def test_a_fault_of_ours_at_one_proxy_is_told_and_the_others_are_latched(
    ports: Ports, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread's root: nobody may wait for one that fell over."""
    real = control.Abort._latch

    def faulty(self: control.Abort, place: Place, label: str, begun: float) -> control.Outcome:
        if str(place) == ports.addresses[1]:
            raise RuntimeError("broken")
        return real(self, place, label, begun)

    monkeypatch.setattr(control.Abort, "_latch", faulty)
    result = run(*ports.line())
    assert result.code == 3
    assert f"{ports.addresses[1]}: not reached: broken" in result.out
    assert [bool(latch) for latch in ports.latches] == [True, False, True]


def test_the_plugin_has_it_and_reads_no_kubeconfig(
    ports: Ports, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The API server is dead: an `exec` entry that would ask for a login must not even be looked at."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert plugin.run([*ports.line(), "--by", "anna"]) == 0
    assert [latch.by for latch in ports.latches] == ["anna"] * 3
    assert "all 3 are latched" in capsys.readouterr().out


def test_the_plugin_s_token_file_is_for_proxies_alone(ports: Ports, capsys: pytest.CaptureFixture[str]) -> None:
    assert plugin.run(["abort", f"--token-file={ports.token_file}"]) == 2
    assert "go with --direct" in " ".join(capsys.readouterr().err.split())


def test_nothing_slow_is_imported_for_it(ports: Ports) -> None:
    """In that hour a second counts."""
    probe = (
        "import sys; from controller.cli import main; code = main();"
        "heavy = ('pydantic', 'aiohttp', 'asyncio', 'yaml', 'kubernetes_asyncio');"
        "print(*(m for m in heavy if m in sys.modules)); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", probe, *ports.line()], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == ""
    assert all(ports.latches)


def test_the_certificate_counts_whatever_its_name_and_no_older_tls(tmp_path: Path) -> None:
    """The pinned certificate is all; control ports speak 1.3."""
    installation(tmp_path)
    context = control.trust(None, str(tmp_path / "control"))
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, False)
