"""JUnit XML, which continuous integration shows beside a build: one test case for each thing that can go wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Case(NamedTuple):
    """problem: what went wrong; empty where nothing did. seconds: None where nobody counted."""

    group: str
    name: str
    problem: str = ""
    seconds: float | None = None


def write_junit(path: Path, suite: str, cases: Sequence[Case]) -> None:
    """Raises RunFolderError where the file cannot be written."""
    from xml.etree import ElementTree

    from circuits.errors import RunFolderError

    failures = sum(bool(case.problem) for case in cases)
    about = {"name": suite, "tests": str(len(cases)), "failures": str(failures), "errors": "0"}
    root = ElementTree.Element("testsuites")
    node = ElementTree.SubElement(root, "testsuite", about)
    for case in cases:
        took = {} if case.seconds is None else {"time": f"{case.seconds:.3f}"}
        entry = ElementTree.SubElement(node, "testcase", {"classname": case.group, "name": case.name, **took})
        if case.problem:
            lines = _allowed(case.problem).strip().splitlines()
            ElementTree.SubElement(entry, "failure", {"message": lines[-1]}).text = (
                "\n".join(lines[:-1]) or None
            )
    ElementTree.indent(root)
    try:
        path.write_bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n")
    except OSError as problem:
        raise RunFolderError(f"{path} cannot be written: {problem.strerror or problem}.") from problem


def _allowed(text: str) -> str:
    """Without the control characters that XML has no way to say, such as a terminal's colours."""
    return "".join(c for c in text if c in "\t\n" or c >= " ")
