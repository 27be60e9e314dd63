"""The test hosts are what the other scenarios need."""

testinfra_hosts = ["maintained"]


def test_systemd_has_started_everything(host):
    assert host.check_output("systemctl is-system-running") == "running"


def test_services_are_installed_but_not_started(host):
    for name in ("nginx", "postgresql"):
        assert host.package(f"{name}-light" if name == "nginx" else name).is_installed
        assert not host.service(name).is_running
