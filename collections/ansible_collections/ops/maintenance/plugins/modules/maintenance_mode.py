#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.ops.maintenance.plugins.module_utils import maintenance_mode
from ansible_collections.ops.maintenance.plugins.module_utils.entry import run_module


def main():
    run_module(maintenance_mode.OPTIONS, maintenance_mode.run, subject="host", operation="maintenance_mode")


if __name__ == "__main__":
    main()
