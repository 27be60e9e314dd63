"""A real PostgreSQL on a socket of its own, once for each session of tests."""

from __future__ import annotations

import zlib

import pytest
from clusters import running_cluster

from ansible_collections.ops.maintenance.plugins.module_utils import postgresql


@pytest.fixture(scope="session")
def cluster():
    """A cluster that all tests share; each makes databases of its own in it."""
    with running_cluster() as running:
        yield running


@pytest.fixture
def database(cluster, request):
    """The name of a new, empty database, which is dropped afterwards."""
    name = f"db_{zlib.crc32(request.node.nodeid.encode())}"
    with postgresql.connect(cluster.server) as session:
        session.execute(f"CREATE DATABASE {session.identifier(name)}")
    yield name
    with postgresql.connect(cluster.server) as session:
        session.execute(f"DROP DATABASE {session.identifier(name)} WITH (FORCE)")


@pytest.fixture
def session(cluster, database):
    """A session of the superuser with that database, with the search path of an application."""
    with postgresql.connect(cluster.server, database) as opened:
        opened.execute("SET search_path = public, pg_catalog")
        yield opened
