#!/usr/bin/env python3
"""Write the inputs tables of the roles' READMEs from their meta/argument_specs.yml.

The tables stand between `<!-- inputs -->` and `<!-- /inputs -->`; the rest of a README is written by hand. A role without a
README gets one. With --check nothing is written; exit status 1 names the READMEs that differ.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
ROLES = ROOT / "collections/ansible_collections/ops/maintenance/roles"
BEGIN, END = "<!-- inputs -->", "<!-- /inputs -->"


def cell(text: str) -> str:
    """Make one line of text fit a table's cell."""
    return " ".join(text.split()).replace("|", "\\|")


def described(option: dict[str, Any]) -> str:
    """Join an option's description with what else it says: choices, and that it is secret."""
    text = option.get("description", "")
    sentences = [text] if isinstance(text, str) else [str(part) for part in text]
    if option.get("choices"):
        sentences.append("One of " + ", ".join(f"`{choice}`" for choice in option["choices"]) + ".")
    if option.get("no_log"):
        sentences.append("Secret.")
    return cell(" ".join(sentences))


def typed(option: dict[str, Any]) -> str:
    """Name an option's type, of a list its elements' too."""
    kind = option.get("type", "str")
    return f"{kind} of {option['elements']}" if "elements" in option else str(kind)


def default_of(option: dict[str, Any]) -> str:
    """Show an option's default as YAML would read it."""
    if option.get("required"):
        return "required"
    if "default" not in option:
        return ""
    return "`" + cell(json.dumps(option["default"], ensure_ascii=False)) + "`"


def rows(options: dict[str, Any], prefix: str = "") -> list[str]:
    """Make one row for each option, each followed by its suboptions."""
    found = []
    for name, option in options.items():
        marks = "[]" if option.get("elements") == "dict" else ""
        found.append(f"| `{prefix}{name}` | {typed(option)} | {default_of(option)} | {described(option)} |")
        found += rows(option.get("options") or {}, f"{prefix}{name}{marks}.")
    return found


def table(specs: dict[str, Any]) -> str:
    """Make the tables of all entry points of a role."""
    parts = []
    for entry, spec in specs.items():
        if len(specs) > 1:
            parts += [f"### `tasks/{entry}.yml`", "", cell(spec.get("short_description", "")), ""]
        options = rows(spec.get("options") or {})
        if options:
            parts += ["| Input | Type | Default | Meaning |", "| --- | --- | --- | --- |", *options, ""]
        else:
            parts += ["None.", ""]
    return "\n".join([BEGIN, "", *parts, END])


def rendered(readme: Path, specs: dict[str, Any]) -> str:
    """Return what the README has to be."""
    main = specs.get("main") or next(iter(specs.values()))
    text = (
        readme.read_text(encoding="utf-8") if readme.exists() else f"# {readme.parent.name}\n\n{cell(main.get('short_description', ''))}\n"
    )
    if BEGIN not in text:
        text = f"{text.rstrip()}\n\n## Inputs\n\n{BEGIN}\n{END}\n"
    before, _begin, rest = text.partition(BEGIN)
    _old, end, after = rest.partition(END)
    if not end:
        raise SystemExit(f"role_docs: {readme}: {BEGIN} without {END}")
    return before + table(specs) + after


def main() -> int:
    """Write or check every role's README."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, fail if a README differs")
    arguments = parser.parse_args()
    stale = []
    for path in sorted(ROLES.glob("*/meta/argument_specs.yml")):
        specs = yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"]
        readme = path.parent.parent / "README.md"
        wanted = rendered(readme, specs)
        if readme.exists() and readme.read_text(encoding="utf-8") == wanted:
            continue
        stale.append(str(readme.relative_to(ROOT)))
        if not arguments.check:
            readme.write_text(wanted, encoding="utf-8")
    for name in stale:
        print(f"role_docs: {name} {'differs from its argument_specs.yml: make docs' if arguments.check else 'written'}")
    return 1 if stale and arguments.check else 0


if __name__ == "__main__":
    sys.exit(main())
