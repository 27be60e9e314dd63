"""Review and upkeep of real Redis servers."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time

import pytest

from ansible_collections.ops.maintenance.plugins.module_utils import redis_keys, redis_upkeep
from ansible_collections.ops.maintenance.plugins.module_utils.errors import InputError
from ansible_collections.ops.maintenance.plugins.module_utils.host import Host
from ansible_collections.ops.maintenance.plugins.module_utils.redis_client import Client, CommandError, NotReachableError

DAY = 86400


class Server:
    """A redis-server on a socket file of its own."""

    def __init__(self, folder, process):
        self.folder, self.process = folder, process
        self.socket = os.path.join(folder, "s")

    def wait(self):
        """Wait until it answers at all, for then every port of it is open."""
        for _attempt in range(500):
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as asked:
                asked.settimeout(10)
                asked.connect(self.socket)
                asked.sendall(b"PING\r\n")
                if asked.recv(1):
                    return
            time.sleep(0.02)
        raise AssertionError("redis-server does not answer")

    def client(self, **more):
        return Client(declared(self.socket, **more))


def declared(host, **more):
    given = {name: option.get("default") for name, option in redis_upkeep.OPTIONS["servers"]["options"].items()}
    return {**given, "name": "cache", "host": host, **more}


@contextlib.contextmanager
def running(*arguments):
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder:
        argv = ["redis-server", "--port", "0", "--unixsocket", f"{folder}/s", "--dir", folder, "--save", "", *arguments]
        with open(os.path.join(folder, "log"), "wb") as log, subprocess.Popen(argv, stdout=log, stderr=log) as process:
            try:
                server = Server(folder, process)
                server.wait()
                yield server
            finally:
                process.send_signal(signal.SIGCONT)
                process.kill()


@pytest.fixture(scope="module")
def shared():
    with running() as server:
        yield server


@pytest.fixture
def redis(shared):
    """The shared server, empty and with the settings that it began with."""
    with shared.client() as client:
        for name, value in (("maxmemory", "0"), ("maxmemory-policy", "noeviction"), ("slowlog-log-slower-than", "10000")):
            client.call("CONFIG", "SET", name, value)
        client.call("FLUSHALL")
        client.call("SLOWLOG", "RESET")
        client.call("CONFIG", "RESETSTAT")
    return shared


def run(tmp_path, *servers, check=False, deadline=0.0, sample_size=200000):
    params = {"run_id": "", "deadline": deadline, "state_dir": str(tmp_path / "state"), "self_test": False, "sample_size": sample_size}
    outcome = redis_upkeep.run({**params, "servers": list(servers)}, check, Host())
    outcome.record()
    return outcome


def database(*prefixes, number=0, **more):
    return {"number": number, "prefixes": list(prefixes), "pure_cache": False, "flush": False, **more}


def prefix(text, **more):
    return {**{name: option.get("default") for name, option in redis_upkeep.PREFIX.items()}, "prefix": text, **more}


def one(outcome, finding_id, subject=None):
    found = [f for f in outcome.findings if f.id == finding_id and subject in (None, f.subject)]
    assert len(found) == 1, [(f.id, f.subject, f.summary) for f in outcome.findings]
    return found[0]


def put(client, key, idle=0, ttl=0):
    """Write a key that nobody used for so many seconds; an LFU policy keeps no idle time."""
    client.call("SET", key, "v")
    dump = client.call("DUMP", key)
    client.call("RESTORE", key, ttl * 1000, dump, "REPLACE", "IDLETIME", idle)


def keys(client):
    return sorted(key for batch in redis_keys.scan(client) for key in batch)


# -- reaching it --


def test_values_are_bytes_and_refusals_keep_the_answers_in_step(redis):
    with redis.client() as client:
        hostile = bytes(range(256)) + b"\r\n$5\r\n*1\r\n"
        assert client.call("SET", hostile, hostile) == b"OK"
        assert client.call("GET", hostile) == hostile
        answers = client.pipeline([["INCR", hostile], ["PING"], ["LRANGE", hostile, 0, 1], ["GET", "none"], ["KEYLESS"]])
        assert [type(answer) for answer in answers] == [CommandError, bytes, CommandError, type(None), CommandError]
        assert answers[2].code == "WRONGTYPE"


def test_a_server_that_is_away_hangs_or_dies_is_one_sentence(tmp_path):
    away = run(tmp_path, declared("/nonexistent/socket"))
    assert (away.status, one(away, "redis.reachable").state) == ("failed", "critical")
    assert "start it, or correct host and port" in one(away, "redis.reachable").summary
    with running() as server:
        server.process.send_signal(signal.SIGSTOP)
        with pytest.raises(NotReachableError, match="no answer in time"):
            server.client(timeout_seconds=0.3)
        server.process.send_signal(signal.SIGCONT)
        with server.client() as client:
            server.process.kill()
            server.process.wait()
            with pytest.raises(NotReachableError, match="was lost") as caught:
                client.call("PING")
            assert caught.value.kind == "lost"


def test_passwords_and_users(tmp_path):
    with running("--requirepass", "top-s3cret") as server:
        with server.client(password="top-s3cret") as client:
            client.call("ACL", "SETUSER", "little", "on", ">l1ttle-pass", "~*", "+ping", "+info", "+select", "+dbsize", "+scan", "+pttl")
        missing = run(tmp_path, declared(server.socket))
        assert one(missing, "redis.reachable").state == "unknown"
        assert "wants a password" in missing.summary
        wrong = run(tmp_path, declared(server.socket, password="wr0ng-s3cret"))
        assert "correct user and password" in wrong.summary
        assert "wr0ng" not in str(wrong.record())
        secret = tmp_path / "password"
        secret.write_text("l1ttle-pass\n")
        secret.chmod(0o600)
        user = declared(server.socket, user="little", password_file=str(secret), databases=[database(prefix("a:", remove_idle_days=2.0))])
        limited = run(tmp_path, user)
        assert one(limited, "redis.memory").state == "warning"
        # What this user may not read is unknown, not ok.
        assert {one(limited, name).state for name in ("redis.slow_log", "redis.persistence")} == {"unknown"}
        with server.client(password="top-s3cret") as client:
            client.call("SET", "a:1", "v")
        assert one(run(tmp_path, user), "redis.stale_keys").state == "unknown"
        secret.chmod(0o640)
        with pytest.raises(InputError, match="mode 0640, expected 0600"):
            run(tmp_path, user)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=localhost",
            "-addext", "subjectAltName=DNS:localhost", "-keyout", str(folder / "key"), "-out", str(folder / "crt")]  # fmt: skip
    subprocess.run(argv, check=True, capture_output=True)
    return folder


def test_tls_is_checked(tmp_path, certificates):
    crt, key = str(certificates / "crt"), str(certificates / "key")
    tls = ["--tls-port", "6390", "--tls-cert-file", crt, "--tls-key-file", key, "--tls-ca-cert-file", crt, "--bind", "127.0.0.1"]
    with running(*tls, "--requirepass", "p"):
        host = {"port": 6390, "tls": True, "password": "p", "tls_certificate": crt, "tls_key": key}
        with Client(declared("localhost", **host, tls_root_certificate=crt)) as client:
            assert client.call("PING") == b"PONG"
        for change in ({"host": "localhost"}, {"host": "127.0.0.1", "tls_root_certificate": crt}):
            with pytest.raises(NotReachableError, match="certificate") as caught:
                Client({**declared("localhost", **host), **change})
            assert caught.value.kind == "tls"


# -- review --


def test_a_sound_server_is_silent(tmp_path):
    with running("--save", "3600 1", "--maxmemory", "100mb", "--maxmemory-policy", "volatile-lru") as server:
        with server.client() as client:
            for number in range(50):
                client.call("SET", f"session:{number}", "v", "EX", 600)
        outcome = run(tmp_path, declared(server.socket, databases=[database(prefix("session:"))]))
        assert {(f.id, f.state) for f in outcome.findings if f.state != "ok"} == set()
        assert outcome.status == "ok"
        assert {f.id for f in outcome.findings} >= {
            "redis.memory", "redis.fragmentation", "redis.eviction", "redis.persistence", "redis.slow_log", "redis.clients",
        }  # fmt: skip


def test_memory_that_runs_out_and_keys_that_were_evicted(redis, tmp_path):
    with redis.client() as client:
        used = int(redis_upkeep.parse_info(client.call("INFO", "memory"))["used_memory"])
        client.call("CONFIG", "SET", "maxmemory", used + 3_000_000)
        client.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        for number in range(100):
            client.call("SET", f"cache:{number}", b"x" * 100_000)
    server = declared(redis.socket)
    first = run(tmp_path, server)
    assert one(first, "redis.memory").state in ("warning", "critical")
    assert one(first, "redis.eviction").state == "warning"
    assert one(first, "redis.eviction").value > 0
    # Since the last run nothing was evicted, but the policy still may take any key.
    second = run(tmp_path, server)
    assert one(second, "redis.eviction").value == 0
    assert one(second, "redis.eviction").state == "warning"
    cache = run(tmp_path, declared(redis.socket, databases=[database(pure_cache=True)]))
    assert one(cache, "redis.eviction").state == "ok"
    assert one(cache, "redis.memory").state == "ok"
    with redis.client() as client:
        client.call("CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert one(run(tmp_path, declared(redis.socket, databases=[database(pure_cache=True)])), "redis.eviction").state == "warning"


def test_check_mode_forgets_nothing_and_keeps_nothing(redis, tmp_path):
    run(tmp_path, declared(redis.socket), check=True)
    assert not (tmp_path / "state").exists()


def test_a_snapshot_that_fails(tmp_path):
    with running() as server:
        with server.client() as client:
            client.call("SET", "a", "v")
            client.call("CONFIG", "SET", "save", "3600 1")
        assert one(run(tmp_path, declared(server.socket)), "redis.persistence").state == "ok"
        assert one(run(tmp_path, declared(server.socket, snapshot_age_hours=0.0)), "redis.persistence").state == "warning"
        with server.client() as client:
            client.call("CONFIG", "SET", "rdbcompression", "no")
            os.mkdir(os.path.join(server.folder, "dump.rdb"))  # a folder of this name cannot be replaced by a file
            client.pipeline([["BGSAVE"]])
            for _attempt in range(100):
                if redis_upkeep.parse_info(client.call("INFO", "persistence"))["rdb_bgsave_in_progress"] == "0":
                    break
                time.sleep(0.05)
        failed = one(run(tmp_path, declared(server.socket)), "redis.persistence")
        assert failed.state == "critical"
        assert "failed" in failed.summary


def test_nothing_persisted_is_right_only_for_a_cache(redis, tmp_path):
    assert one(run(tmp_path, declared(redis.socket)), "redis.persistence").state == "warning"
    cache = [database(pure_cache=True)]
    assert one(run(tmp_path, declared(redis.socket, databases=cache)), "redis.persistence").state == "ok"
    assert one(run(tmp_path, declared(redis.socket, databases=cache, persistence="required")), "redis.persistence").state == "warning"


def test_slow_commands_are_counted_without_their_data(redis, tmp_path):
    with redis.client() as client:
        client.call("CONFIG", "SET", "slowlog-log-slower-than", "0")
        for _time in range(12):
            client.call("SET", "user:jane@example.org", "credit card")
        client.call("CONFIG", "SET", "slowlog-log-slower-than", "10000")
    outcome = run(tmp_path, declared(redis.socket))
    slow = one(outcome, "redis.slow_log")
    assert slow.state == "warning"
    assert slow.evidence[0] == "SET: 12"
    assert "jane" not in str(outcome.record())
    assert "credit" not in str(outcome.record())
    with redis.client() as client:
        client.call("CONFIG", "SET", "slowlog-log-slower-than", "-1")
    assert one(run(tmp_path, declared(redis.socket)), "redis.slow_log").state == "unknown"


def test_clients_that_wait(redis, tmp_path):
    with redis.client() as client:
        client._socket.sendall(b"*3\r\n$5\r\nBLPOP\r\n$1\r\nq\r\n$1\r\n5\r\n")
        time.sleep(0.1)
        assert one(run(tmp_path, declared(redis.socket, blocked_warning_count=1)), "redis.clients").state == "warning"
    assert one(run(tmp_path, declared(redis.socket)), "redis.clients").state == "ok"


def test_replication(tmp_path):
    with running("--port", "6391", "--bind", "127.0.0.1") as primary, running("--replicaof", "127.0.0.1", "6391") as replica:
        with replica.client() as client:
            for _attempt in range(200):
                if redis_upkeep.parse_info(client.call("INFO", "replication"))["master_link_status"] == "up":
                    break
                time.sleep(0.05)
        time.sleep(1.2)
        assert one(run(tmp_path, declared(primary.socket, replicas_expected=1)), "redis.replication").state == "ok"
        assert one(run(tmp_path, declared(primary.socket, replicas_expected=2)), "redis.replication").state == "critical"
        stale = declared(replica.socket, databases=[database(prefix("a:", remove_idle_days=2.0))])
        followed = run(tmp_path, stale)
        assert one(followed, "redis.replication").state == "ok"
        assert "replica" in one(followed, "redis.stale_keys").summary
        assert one(followed, "redis.stale_keys").state == "unknown"
        primary.process.kill()
        primary.process.wait()
        time.sleep(0.3)
        assert one(run(tmp_path, declared(replica.socket)), "redis.replication").state == "critical"


def test_a_port_without_a_password(tmp_path):
    with running("--port", "6392", "--bind", "0.0.0.0", "--protected-mode", "no"):
        assert one(run(tmp_path, declared("127.0.0.1", port=6392)), "redis.access").state == "critical"
    with running("--port", "6392", "--bind", "127.0.0.1", "--protected-mode", "no"):
        assert one(run(tmp_path, declared("127.0.0.1", port=6392)), "redis.access").state == "ok"
    with running("--port", "6392", "--bind", "0.0.0.0", "--protected-mode", "yes"):
        assert one(run(tmp_path, declared("127.0.0.1", port=6392)), "redis.access").state == "ok"


# -- keys without a time to live --


def test_keys_without_a_ttl_are_reported_by_prefix(redis, tmp_path):
    """asr-05-4: what piles up are keys without a time to live; they are reported, nothing is flushed."""
    with redis.client() as client:
        for number in range(700):
            client.call("SET", f"cache:{number}", "v", *(["EX", 600] if number % 7 else []))
            client.call("SET", f"session:{number}", "v", "EX", 600)
        for key in ("config:a", "report:1", "report:2", "jane@example.org", "4711:x"):
            client.call("SET", key, "v")
    declared_ones = [database(prefix("cache:"), prefix("session:"), prefix("config:", without_ttl_allowed=True))]
    outcome = run(tmp_path, declared(redis.socket, databases=declared_ones))
    found = {f.subject: (f.state, f.value) for f in outcome.findings if f.id == "redis.keys_without_ttl"}
    assert found == {
        "cache/0 cache:": ("warning", 100),
        "cache/0 session:": ("ok", 0),
        "cache/0 config:": ("ok", 1),
        "cache/0 (other prefixes)": ("warning", 4),
    }
    assert one(outcome, "redis.keys_without_ttl", "cache/0 (other prefixes)").evidence == ["(other) 2", "report: 2"]
    assert outcome.status == "ok"
    with redis.client() as client:
        assert int(client.call("DBSIZE")) == 1405
        stats = client.call("INFO", "commandstats")
    assert b"cmdstat_keys" not in stats
    assert b"cmdstat_flush" not in stats.replace(b"cmdstat_flushall", b"")


def test_a_large_database_is_a_sample_and_says_so(redis, tmp_path):
    with redis.client() as client:
        client.pipeline([["SET", f"cache:{number}", "v"] for number in range(5000)])
        client.pipeline([["SET", f"session:{number}", "v", "EX", 600] for number in range(5000)])
    outcome = run(tmp_path, declared(redis.socket, databases=[database(prefix("cache:"))]), sample_size=2000)
    finding = one(outcome, "redis.keys_without_ttl", "cache/0 cache:")
    assert finding.basis == "sampled"
    assert "of 10000 keys" in finding.not_covered
    assert 4000 < finding.value < 6000


# -- stale keys --


def test_stale_keys_go_by_prefix_and_age(redis, tmp_path):
    """asr-07-3: by prefix with SCAN and UNLINK; sessions, queues and locks of the same instance stay."""
    with redis.client() as client:
        for number in range(1200):
            put(client, f"app:{number}", 20 * DAY)
        put(client, "app:fresh", 5 * DAY)
        put(client, "app:ttl", 20 * DAY, ttl=600)
        for key in ("session:1", "queue:jobs", "lock:x", "application:1", "xapp:1"):
            put(client, key, 100 * DAY)
    server = declared(redis.socket, databases=[database(prefix("app:", remove_idle_days=14.0))])
    plan = run(tmp_path, server, check=True)
    assert (plan.status, plan.returned["keys"], plan.returned["due"]) == ("due", 1200, True)
    done = run(tmp_path, server)
    assert (done.status, done.returned["keys"], done.returned["servers"]) == ("changed", 1200, [server["name"]])
    with redis.client() as client:
        assert keys(client) == [b"app:fresh", b"app:ttl", b"application:1", b"lock:x", b"queue:jobs", b"session:1", b"xapp:1"]
        stats = client.call("INFO", "commandstats")
    assert b"cmdstat_keys" not in stats
    assert b"cmdstat_flushdb" not in stats
    again = run(tmp_path, server).returned
    assert (again["due"], again["keys"]) == (False, 0)
    run(tmp_path, declared(redis.socket, databases=[database(prefix("app:", remove_idle_days=14.0, also_with_ttl=True))]))
    with redis.client() as client:
        assert b"app:ttl" not in keys(client)


@pytest.mark.parametrize("text", ["a*", "a?", "[ab]", "a\\", "a[^b]", "ä:"])
def test_a_prefix_means_itself(redis, tmp_path, text):
    with redis.client() as client:
        for key in (f"{text}1", "ab1", "a1", "b1", "axx", "a\\*"):
            put(client, key, 20 * DAY)
    wanted = sorted(key.encode() for key in {f"{text}1", "ab1", "a1", "b1", "axx", "a\\*"} if not key.startswith(text))
    run(tmp_path, declared(redis.socket, databases=[database(prefix(text, remove_idle_days=2.0))]))
    with redis.client() as client:
        assert keys(client) == wanted


def test_a_key_that_is_used_in_the_last_moment_stays(redis, tmp_path, monkeypatch):
    with redis.client() as client:
        for number in range(5):
            put(client, f"app:{number}", 20 * DAY)
    original = redis_keys.stale

    def use(client, *args):
        for batch in original(client, *args):
            client.call("GET", "app:3")
            yield batch

    monkeypatch.setattr(redis_keys, "stale", use)
    done = run(tmp_path, declared(redis.socket, databases=[database(prefix("app:", remove_idle_days=14.0))]))
    assert done.returned["keys"] == 4
    with redis.client() as client:
        assert keys(client) == [b"app:3"]
        put(client, "app:3", 20 * DAY)
    none = run(tmp_path, declared(redis.socket, databases=[database(prefix("app:", remove_idle_days=14.0))]))
    assert (none.status, one(none, "redis.stale_keys").value, none.returned["keys"]) == ("ok", 0, 0)


def test_only_the_declared_database(redis, tmp_path):
    with redis.client() as client:
        for number in (0, 5):
            client.select(number)
            put(client, "app:1", 20 * DAY)
    run(tmp_path, declared(redis.socket, databases=[database(prefix("app:", remove_idle_days=14.0), number=5)]))
    with redis.client() as client:
        assert keys(client) == [b"app:1"]
        client.select(5)
        assert keys(client) == []
    beyond = run(tmp_path, declared(redis.socket, databases=[database(number=99)]))
    assert one(beyond, "redis.keys_without_ttl").state == "unknown"


def test_where_redis_knows_no_idle_time_nothing_goes(redis, tmp_path):
    with redis.client() as client:
        client.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lfu")
        client.call("SET", "app:1", "v")
    done = run(tmp_path, declared(redis.socket, databases=[database(prefix("app:", remove_idle_days=14.0))]))
    assert one(done, "redis.stale_keys").state == "unknown"
    assert "LFU" in one(done, "redis.stale_keys").advice
    assert not done.is_change
    with redis.client() as client:
        assert keys(client) == [b"app:1"]


def test_a_closed_window_removes_nothing(redis, tmp_path):
    with redis.client() as client:
        put(client, "app:1", 20 * DAY)
    server = declared(
        redis.socket, databases=[database(prefix("app:", remove_idle_days=14.0)), database(number=1, pure_cache=True, flush=True)]
    )
    with redis.client() as client:
        client.select(1)
        client.call("SET", "page", "v")
    done = run(tmp_path, server, deadline=time.time() - 1)
    assert done.status == "deferred"
    with redis.client() as client:
        assert keys(client) == [b"app:1"]
        client.select(1)
        assert keys(client) == [b"page"]


def test_only_a_pure_cache_is_flushed(redis, tmp_path):
    """asr-07-3: FLUSHDB takes sessions, queues and locks with it."""
    with redis.client() as client:
        for number in (0, 1):
            client.select(number)
            client.pipeline([["SET", f"k{key}", "v"] for key in range(10)])
    with pytest.raises(InputError, match="not declared as pure_cache"):
        run(tmp_path, declared(redis.socket, databases=[database(flush=True)]))
    server = declared(redis.socket, databases=[database(number=1, pure_cache=True, flush=True)])
    plan = run(tmp_path, server, check=True).returned
    assert (plan["due"], plan["keys"]) == (True, 10)
    with redis.client() as client:
        client.select(1)
        assert len(keys(client)) == 10
    assert run(tmp_path, server).status == "changed"
    with redis.client() as client:
        assert len(keys(client)) == 10
        client.select(1)
        assert keys(client) == []
    assert run(tmp_path, server).status == "ok"


# -- bad input --


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"port": 0}, "port of server 'cache' is 0"),
        ({"user": "a"}, "without a password"),
        ({"password": "a", "password_file": "/b"}, "Both password and password_file"),
        ({"tls": True}, "set for a socket file"),
        ({"tls_key": "/k"}, "belong together"),
        ({"timeout_seconds": 0.0}, "timeout_seconds"),
        ({"databases": [database(number=-1)]}, "expected each number from 0 once"),
        ({"databases": [database(), database()]}, "expected each number from 0 once"),
        ({"databases": [database(prefix("", remove_idle_days=2.0))]}, "empty prefix, which means every key"),
        ({"databases": [database(prefix("a"), prefix("a"))]}, "expected each once"),
        ({"databases": [database(prefix("a", remove_idle_days=0.5))]}, "from minimum_idle_days"),
        ({"databases": [database(prefix("a", remove_idle_days=365.0))]}, "Redis cannot count further"),
        ({"databases": [database(prefix("a", remove_idle_days=float("nan")))]}, "has remove_idle_days nan"),
    ],
)
def test_what_cannot_be_used_is_said_at_once(tmp_path, change, says):
    with pytest.raises(InputError) as caught:
        run(tmp_path, declared("/nonexistent", **change), declared("", name="other"))
    assert says in str(caught.value)
    assert "expected both" in str(caught.value)


def test_no_server_is_no_good_news(tmp_path):
    assert run(tmp_path).state == "unknown"
