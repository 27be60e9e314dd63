# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Container images: engines, registries and scanners answer as their documentation shows, from commands found first on PATH."""

from __future__ import annotations

import contextlib
import http.server
import json
import socketserver
import stat
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.ops.maintenance.plugins.module_utils import container_images, container_registry, image_scan
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError, MaintenanceError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host

OLD, NEW, OTHER = "a" * 64, "b" * 64, "c" * 64
DIGEST = {OLD: "sha256:" + "1" * 64, NEW: "sha256:" + "2" * 64}
ENGINE = """#!/bin/sh
case "$1 $2" in
  "ps --quiet") cat {folder}/ids ;;
  "inspect --type") cat {folder}/containers ;;
  "image inspect")
    name=$(echo "$3" | tr '/:' '__')
    [ -f "{folder}/image_$name" ] && cat "{folder}/image_$name" && exit 0
    echo "Error response from daemon: No such image: $3" >&2; exit 1 ;;
  "context inspect") echo "unix://{folder}/docker.sock" ;;
  "buildx version") [ ! -f {folder}/no_buildx ] ;;
  "buildx imagetools") [ -f {folder}/remote ] && cat {folder}/remote && exit 0; echo "dial tcp: i/o timeout" >&2; exit 1 ;;
  *) exit 9 ;;
esac
"""


class Machine:
    """A folder of what the engine and the scanners answer."""

    def __init__(self, folder):
        self.folder = folder
        self.command("docker", ENGINE.format(folder=folder))

    def command(self, name, text):
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def containers(self, policy="unless-stopped", labels=None, **images):
        """Each a name with its reference and the image that it runs."""
        found = [
            {"Id": "d" * 64, "Name": f"/{name}", "Image": f"sha256:{image}", "State": {"Status": "running"},
             "Config": {"Image": reference, "Env": ["PASSWORD=hush"], "Labels": labels},
             "HostConfig": {"RestartPolicy": {"Name": policy, "MaximumRetryCount": 0}}}
            for name, (reference, image) in images.items()
        ]  # fmt: skip
        (self.folder / "containers").write_text(json.dumps(found))
        (self.folder / "ids").write_text("\n".join(["d" * 64] * len(found)))

    def image(self, name, image, digests=True):
        repo = [f"{name.split(':')[0]}@{DIGEST[image]}"] if digests and image in DIGEST else []
        text = json.dumps([{"Id": f"sha256:{image}", "RepoTags": [name], "RepoDigests": repo}])
        for key in (name, image):
            (self.folder / f"image_{key.replace('/', '_').replace(':', '_')}").write_text(text)

    def run(self, check=False, **more):
        given = {name: option.get("default") for name, option in container_images.OPTIONS.items()}
        outcome = container_images.run({**given, "state_dir": str(self.folder / "state"), "deadline": 0.0, **more}, check, Host())
        assert "hush" not in json.dumps(outcome.record())
        return outcome


@pytest.fixture
def machine(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    monkeypatch.setattr(Host, "which", lambda _self, name: _found(tmp_path, name))
    made = Machine(tmp_path)
    made.containers(api=("shop/api:1.4", OLD))
    made.image("shop/api:1.4", OLD)
    return made


def _found(folder, name):
    """Only what the test put there is installed, whatever this machine has."""
    path = folder / "bin" / name
    return str(path) if path.exists() else None


def states(outcome):
    return {finding.id.split(".")[1]: finding.state for finding in outcome.findings}


def test_container_that_runs_its_tag_is_silent(machine):
    outcome = machine.run()
    assert states(outcome) == {"image_current": "ok", "floating_tag": "ok", "restart_policy": "ok", "gone": "ok"}
    assert outcome.after == {"api": DIGEST[OLD]}
    (machine.folder / "remote").write_text(DIGEST[OLD] + "\n")
    assert states(machine.run(remote=True))["image_current"] == "ok"


def test_tag_that_points_elsewhere_now_is_a_warning(machine):
    machine.image("shop/api:1.4", NEW)
    assert states(machine.run())["image_current"] == "warning"


def test_newer_image_in_the_registry_is_a_warning_only_where_asked(machine):
    (machine.folder / "remote").write_text(DIGEST[NEW] + "\n")
    assert states(machine.run())["image_current"] == "ok"
    assert states(machine.run(remote=True))["image_current"] == "warning"


def test_registry_out_of_reach_an_own_build_and_a_lost_tag_are_unknown(machine):
    assert states(machine.run(remote=True))["image_current"] == "unknown"
    machine.image("shop/api:1.4", OLD, digests=False)
    assert states(machine.run(remote=True))["image_current"] == "unknown"
    (machine.folder / "image_shop_api_1.4").unlink()
    assert states(machine.run())["image_current"] == "unknown"


@pytest.fixture
def daemon(machine):
    """What Docker answers on its socket; tests/engine asks a real one."""
    answers = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            machine.asked = self.path
            self.send_response(answers[0][0])
            self.end_headers()
            self.wfile.write(answers[0][1])

        def log_message(self, *_arguments):
            pass

    with socketserver.UnixStreamServer(str(machine.folder / "docker.sock"), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield answers
        server.shutdown()
        thread.join()


def test_docker_is_asked_first_and_skopeo_or_buildx_what_it_may_not_tell(machine, daemon):
    daemon.append((200, json.dumps({"Descriptor": {"digest": DIGEST[OLD]}, "Platforms": []}).encode()))
    assert states(machine.run(remote=True))["image_current"] == "ok"
    assert machine.asked == "/distribution/shop/api:1.4/json"
    daemon[0] = (401, b'{"message": "authentication required"}')
    (machine.folder / "no_buildx").touch()
    refused = machine.run(remote=True).findings[0]
    assert (refused.state, refused.summary) == ("unknown", "What shop/api:1.4 is now is not known: authentication required")
    machine.command("skopeo", f"#!/bin/sh\necho {DIGEST[NEW]}\n")
    assert states(machine.run(remote=True))["image_current"] == "warning"
    (machine.folder / "bin" / "skopeo").unlink()
    (machine.folder / "no_buildx").unlink()
    assert "authentication required; docker ended with 1: dial tcp" in machine.run(remote=True).findings[0].summary
    (machine.folder / "remote").write_text(DIGEST[OLD] + "\n")
    assert states(machine.run(remote=True))["image_current"] == "ok"


@given(
    st.binary(max_size=40)
    | st.dictionaries(st.sampled_from(["Descriptor", "message", "digest"]), st.text() | st.none()).map(lambda d: json.dumps(d).encode())
)
def test_any_answer_about_a_registry_is_refused(text):
    with pytest.raises(MaintenanceError):
        container_registry.parse_distribution(text)


@pytest.mark.parametrize("reference", ["sha256:" + OLD, OLD[:12], OLD[:4], "no reference at all"])
def test_container_without_a_tag_is_unknown(machine, reference):
    machine.containers(api=(reference, OLD))
    assert states(machine.run())["image_current"] == "unknown"


def test_engine_that_does_not_answer_is_unknown_and_none_is_not_configured(machine):
    machine.command("docker", "#!/bin/sh\necho 'Cannot connect to the Docker daemon' >&2; exit 1\n")
    assert states(machine.run()) == {"image_current": "unknown"}
    (machine.folder / "bin" / "docker").unlink()
    assert machine.run().status == "skipped"
    assert states(machine.run(engine="podman")) == {"image_current": "unknown"}


def test_tags_without_a_version_are_named(machine):
    machine.containers(a=("shop/api", OLD), b=("shop/api:stable", OLD), c=("h:5000/x:1.2", OLD), d=(f"x@{DIGEST[OLD]}", OLD))
    found = next(f for f in machine.run().findings if f.id == "container.floating_tag")
    assert (found.state, found.value, list(found.evidence)) == ("warning", 2, ["a: shop/api:latest", "b: shop/api:stable"])


def test_digests_are_kept_and_compared_with_the_last_run(machine):
    assert machine.run(check=True).before == {}
    assert not (machine.folder / "state").exists()
    machine.run()
    machine.containers(api=("shop/api:1.4", NEW))
    machine.image("shop/api:1.4", NEW)
    outcome = machine.run()
    assert (outcome.before, outcome.after) == ({"api": DIGEST[OLD]}, {"api": DIGEST[NEW]})
    assert "1 of another image" in outcome.summary


@pytest.mark.parametrize(
    ("policy", "labels", "state"),
    [
        ("no", None, "warning"),
        ("", None, "warning"),
        ("on-failure", None, "warning"),  # the engine does not start it again when it starts itself
        ("always", None, "ok"),
        ("", {"PODMAN_SYSTEMD_UNIT": "api.service"}, "ok"),
    ],
)
def test_container_that_a_reboot_would_leave_stopped_is_named(machine, policy, labels, state):
    machine.containers(api=("shop/api:1.4", OLD), policy=policy, labels=labels)
    found = next(f for f in machine.run().findings if f.id == "container.restart_policy")
    assert (found.state, list(found.evidence)) == (state, ["api"] if state == "warning" else [])


def test_container_that_did_not_come_back_is_named(machine):
    machine.containers(api=("shop/api:1.4", OLD), worker=("shop/api:1.4", OLD), job=("shop/api:1.4", OLD))
    assert states(machine.run())["gone"] == "ok"
    machine.containers(api=("shop/api:1.4", OLD))
    found = next(f for f in machine.run(ignore=["job*"]).findings if f.id == "container.gone")
    assert (found.state, list(found.evidence)) == ("warning", ["worker"])


def test_ignored_container_is_left_out(machine):
    machine.containers(api=("shop/api:1.4", OLD), build_1=("x", OTHER))
    assert [f.subject for f in machine.run(ignore=["build_*"]).findings] == ["api", *["containers"] * 3]
    with pytest.raises(InputError):
        machine.run(ignore=[""])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nginx", ("nginx", "latest", "")),
        ("localhost:5000/a/b", ("localhost:5000/a/b", "latest", "")),
        ("localhost:5000/a/b:1.2", ("localhost:5000/a/b", "1.2", "")),
        (f"a/b:1@{DIGEST[OLD]}", ("a/b", "1", DIGEST[OLD])),
        (f"a/b@{DIGEST[OLD]}", ("a/b", "", DIGEST[OLD])),
    ],
)
def test_references(text, expected):
    found = container_images.Reference.of(text)
    assert (found.name, found.tag, found.digest) == expected


@given(st.text(max_size=60))
def test_any_text_is_a_reference_or_none(text):
    container_images.Reference.of(text)


# Scanners


ANSWER = """while [ $# -gt 1 ]; do case $1 in --output|--file) path=$2;; esac; shift; done; cat >"$path" <<'X'"""
"""A scanner's last lines, which write to the file that is asked for (``--output json`` of grype comes before it)."""


def trivy(*severities, fixed="1.2.4", system=None):
    found = [
        {"VulnerabilityID": f"CVE-{n}", "PkgName": "openssl", "InstalledVersion": "1.2.3", "FixedVersion": fixed, "Severity": severity}
        for n, severity in enumerate(severities)
    ]
    results = [{"Target": "alpine 3.20", "Class": "os-pkgs", "Type": "alpine", "Vulnerabilities": found or None}]
    return json.dumps({"SchemaVersion": 2, "Metadata": {"OS": system or {"Family": "alpine", "Name": "3.20"}}, "Results": results})


def put_trivy(machine, answer, updated):
    version = json.dumps({"Version": "0.57.0", "VulnerabilityDB": {"Version": 2, "UpdatedAt": updated}})
    machine.command("trivy", f"#!/bin/sh\nif [ $1 = version ]; then cat <<'X'\n{version}\nX\nexit; fi\n{ANSWER}\n{answer}\nX\n")


def today():
    return Host().now().isoformat().replace("+00:00", "123Z")


@pytest.mark.parametrize(
    ("severities", "state"), [((), "ok"), (("LOW", "MEDIUM"), "ok"), (("HIGH",), "warning"), (("HIGH", "CRITICAL"), "critical")]
)
def test_trivy_answer_is_judged_by_severity(machine, severities, state):
    put_trivy(machine, trivy(*severities), today())
    outcome = machine.run(scanner="trivy")
    assert states(outcome)["vulnerable"] == state
    assert {m.name: m.value for m in outcome.metrics}["container.vulnerable_low"] == severities.count("LOW")


def test_what_is_scanned_is_the_image_that_runs_and_not_what_its_tag_points_to(machine):
    """flow-sec-3: docker scan is gone, and a tag may have moved on since the container was started."""
    machine.image("shop/api:1.4", NEW)
    put_trivy(machine, trivy("MEDIUM"), today())
    trivy_path = machine.folder / "bin/trivy"
    trivy_path.write_text(trivy_path.read_text().replace("#!/bin/sh\n", f'#!/bin/sh\necho "$@" >>{machine.folder}/asked\n'))
    outcome = machine.run(scanner="auto", scan_severity="medium")
    assert states(outcome)["vulnerable"] == "warning"
    [asked] = [line for line in (machine.folder / "asked").read_text().splitlines() if line.startswith("image ")]
    assert (OLD in asked, NEW in asked, "shop/api:1.4" in asked) == (True, False, False)


def test_vulnerability_without_a_fix_counts_unless_it_is_not_to(machine):
    put_trivy(machine, trivy("HIGH", fixed=""), today())
    assert states(machine.run(scanner="auto"))["vulnerable"] == "warning"
    assert states(machine.run(scanner="auto", scan_only_fixed=True))["vulnerable"] == "ok"


@pytest.mark.parametrize("updated", ["2026-01-01T06:12:01.123456789Z", "0001-01-01T00:00:00Z", ""])
def test_old_database_is_not_believed_when_it_finds_nothing(machine, updated):
    put_trivy(machine, trivy(), updated)
    assert states(machine.run(scanner="trivy"))["vulnerable"] == "unknown"
    put_trivy(machine, trivy("HIGH"), updated)
    assert states(machine.run(scanner="trivy"))["vulnerable"] == "warning"


@pytest.mark.parametrize("answer", ["", "{}", "[]", '{"Results": null}', '{"Results": []}', "no JSON"])
def test_scan_that_looked_at_nothing_is_unknown(machine, answer):
    put_trivy(machine, answer, today())
    assert states(machine.run(scanner="trivy"))["vulnerable"] == "unknown"


def test_missing_scanner_is_unknown(machine):
    assert states(machine.run(scanner="auto"))["vulnerable"] == "unknown"


@pytest.mark.parametrize("database", [{"built": today()}, {"status": {"built": today(), "valid": True}}])
def test_grype_answer(machine, database):
    match = {
        "vulnerability": {"id": "CVE-1", "severity": "Critical", "fix": {"versions": ["1.2.4"], "state": "fixed"}},
        "artifact": {"name": "openssl", "version": "1.2.3"},
    }
    system = {"name": "alpine", "version": "3.20"}
    answer = json.dumps({"matches": [match], "distro": system, "descriptor": {"name": "grype", "db": database}})
    machine.command("grype", f"#!/bin/sh\n{ANSWER}\n{answer}\nX\nexit 2\n")
    outcome = machine.run(scanner="auto")
    assert states(outcome)["vulnerable"] == "critical"
    assert outcome.findings[-1].evidence == ["CVE-1 (critical) in openssl 1.2.3, fixed in 1.2.4"]
    assert outcome.findings[-1].basis == "exact"
    clean = json.dumps({"matches": [], "distro": system, "descriptor": {"db": database}})
    machine.command("grype", f"#!/bin/sh\n{ANSWER}\n{clean}\nX\n")
    assert states(machine.run(scanner="grype"))["vulnerable"] == "ok"
    machine.command("grype", "#!/bin/sh\necho 'failed to load vulnerability db' >&2; exit 1\n")
    assert "failed to load vulnerability db" in machine.run(scanner="grype").findings[-1].summary
    assert states(machine.run(scanner="grype"))["vulnerable"] == "unknown"


@pytest.mark.parametrize(
    ("system", "database", "more", "said"),
    [
        ("alpine", {}, {}, "unknown age"),
        ("alpine", {"status": {"built": "0001-01-01T00:00:00Z", "valid": False, "error": "not found"}}, {}, "unknown age"),
        ("alpine", {"status": {"built": today(), "valid": False, "error": "checksum"}}, {}, "unknown age"),
        ("alpine", {"status": {"built": "2026-01-01T06:12:01Z", "valid": True}}, {}, "days old"),
        ("", {"built": today()}, {}, "recognised no system"),
        ("debian", {"built": today()}, {"alertsByPackage": [{"alerts": [{"type": "distro-eol"}]}]}, "support of debian 9 has ended"),
    ],
)
def test_grype_that_finds_nothing_is_believed_only_where_it_could_have(machine, system, database, more, said):
    low = {"vulnerability": {"id": "CVE-1", "severity": "Low"}, "artifact": {"name": "zlib", "version": "1"}}
    for matches in ([], [low]) if system else ([],):
        answer = {"matches": matches, "distro": {"name": system, "version": "9"}, "descriptor": {"db": database}, **more}
        machine.command("grype", f"#!/bin/sh\n{ANSWER}\n{json.dumps(answer)}\nX\n")
        finding = machine.run(scanner="grype").findings[-1]
        assert (finding.state, said in finding.summary) == ("unknown", True)


def test_a_system_whose_support_has_ended_is_no_sound_one(machine):
    ended = {"Family": "debian", "Name": "9.13", "EOSL": True}
    for severities, state in (((), "unknown"), (("LOW",), "unknown"), (("CRITICAL",), "critical")):
        put_trivy(machine, trivy(*severities, system=ended), today())
        assert states(machine.run(scanner="trivy"))["vulnerable"] == state


def test_what_a_scan_says_nothing_of_is_named(machine):
    put_trivy(machine, trivy("LOW", "UNKNOWN", "not a severity").replace("os-pkgs", "lang-pkgs"), today())
    finding = machine.run(scanner="trivy").findings[-1]
    assert (finding.state, finding.not_covered) == (
        "ok",
        "packages of the system, which was not recognised, 2 vulnerabilities without a severity",
    )


def test_a_long_answer_is_read_to_its_end(machine):
    put_trivy(machine, trivy(*["LOW"] * 40_000, "CRITICAL"), today())
    assert states(machine.run(scanner="trivy"))["vulnerable"] == "critical"


@given(
    st.text(max_size=80)
    | st.recursive(
        st.none() | st.text(max_size=5) | st.booleans(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["Results", "Vulnerabilities", "Metadata", "OS", "matches", "vulnerability", "fix", "versions", "descriptor", "db"]
                ),
                inner,
            )
        ),
    ).map(json.dumps)
)
def test_any_answer_is_read_or_refused(text):
    for read in (image_scan.parse_trivy, image_scan.parse_grype):
        with contextlib.suppress(MaintenanceError):
            read(text)
    image_scan.parse_trivy_database(text)
