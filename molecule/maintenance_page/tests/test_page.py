"""503 with Retry-After on everything meanwhile, the application again afterwards, nothing left when nginx refuses the page."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

testinfra_hosts = ["page-host"]
SCENARIO = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"])
SNIPPET = "/etc/nginx/ops_maintenance.d/ops_maintenance.conf"


def take(wanted: str) -> subprocess.CompletedProcess[str]:
    command = ["ansible-playbook", str(SCENARIO / "take.yml"), "-i", os.environ["MOLECULE_INVENTORY_FILE"], "-e", f"wanted={wanted}"]
    env = {
        **os.environ,
        "ANSIBLE_CONFIG": os.environ.get("ANSIBLE_CONFIG", str(Path(os.environ["MOLECULE_PROJECT_DIRECTORY"]) / "ansible.cfg")),
    }
    return subprocess.run(
        command,
        env=env,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=os.environ["MOLECULE_PROJECT_DIRECTORY"],
    )


def status(host, *arguments: str) -> str:
    return host.check_output("curl --silent --output /dev/null --write-out '%{http_code}' " + " ".join(arguments)).strip()


ASKED = ["localhost/", "localhost/api/orders?page=2", "localhost/style.css", "localhost/maintenance.html"]
METHODS = ["-X POST -d a=b", "-X PUT -d a=b", "-X DELETE", "-X OPTIONS", "--head", "-H 'Range: bytes=0-3'"]


@pytest.mark.parametrize("arguments", [*ASKED, *(f"{method} localhost/api/orders" for method in METHODS)])
def test_everything_is_503_with_retry_after(host, arguments):
    headers = host.check_output(f"curl --silent --dump-header - --output /dev/null {arguments}").replace("\r", "").splitlines()
    assert headers[0].split()[1] == "503"
    assert "Retry-After: 1800" in headers
    assert "Cache-Control: no-store" in headers


def test_the_page_says_what_was_declared(host):
    page = host.check_output("curl --silent localhost/")
    assert "<h1>Back soon</h1>" in page
    assert "It costs &#36;5 &amp; &#x27;nothing&#x27; more" in page


def test_the_service_is_stopped_meanwhile(host):
    assert not host.service("cron.service").is_running


def test_afterwards_the_application_answers_and_nothing_is_left(host):
    done = take("left")
    assert done.returncode == 0, done.stdout
    assert status(host, "localhost/") == "200"
    assert not host.file(SNIPPET).exists
    assert host.service("cron.service").is_running
    assert host.run("ls /etc/systemd/system/ops-maintenance-*").rc != 0


def test_a_page_that_nginx_refuses_is_taken_back_and_nothing_was_stopped(host):
    """The folder is included where a location is not allowed."""
    host.check_output("sed -i /ops_maintenance.d/d /etc/nginx/sites-available/default")
    host.check_output("echo 'include /etc/nginx/ops_maintenance.d/*.conf;' >/etc/nginx/conf.d/wrong.conf && nginx -s reload")
    done = take("entered")
    assert done.returncode != 0
    assert "directive is not allowed here" in done.stdout
    assert "Everything is as it was before." in done.stdout
    assert not host.file(SNIPPET).exists
    assert (status(host, "localhost/"), host.run("nginx -t").rc) == ("200", 0)
    assert host.service("cron.service").is_running
    assert host.run("ls /etc/systemd/system/ops-maintenance-*").rc != 0
