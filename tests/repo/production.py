"""The production inventory, loaded as Ansible loads it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager

ROOT = Path(__file__).resolve().parents[2]
PROD = ROOT / "inventories/prod"


@cache
def inventory() -> tuple[InventoryManager, HostVars]:
    loader = DataLoader()
    manager = InventoryManager(loader=loader, sources=[str(PROD)])
    return manager, HostVars(manager, VariableManager(loader=loader, inventory=manager), loader)


def hosts(system: str) -> list[str]:
    return [host.name for host in inventory()[0].get_hosts(system)]


def values(system: str) -> Any:
    return inventory()[1][hosts(system)[0]]
