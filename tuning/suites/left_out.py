"""Plugin for pytest: leaves out the tests that a list names, each with a reason.

Knows the form of the lists beside it and nothing of any suite. Every line of a list is a pattern
and a reason. A pattern without `::` names files, which are not even imported; one with `::` names
tests, by the id that pytest prints. `*` stands for anything, all else for itself: the ids of tests
with parameters are full of brackets.

A pattern that names nothing fails the run, so that no line outlives what it was written for.
The list is the file in the variable LEFT_OUT; a run of a part of a suite sets LEFT_OUT_PART, and
unused patterns are then as they should be.
"""

import os
import re
from pathlib import Path

import pytest


class Pattern:
    """One line of the list."""

    def __init__(self, text, place):
        self.text = text
        self.place = place
        self.names_files = "::" not in text
        self.used = False
        self._expression = re.compile(re.escape(text).replace(r"\*", ".*"), re.DOTALL)

    def names(self, name):
        """Whether it names this file or test; remembers that it was of use."""
        found = self._expression.fullmatch(name) is not None
        self.used |= found
        return found


def read_list(path):
    """The patterns of a list. A line without a reason is a mistake."""
    patterns = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        words = line.split(maxsplit=1)
        if not words or words[0].startswith("#"):
            continue
        place = f"{path.name}:{number}"
        if len(words) < 2:
            raise pytest.UsageError(f"{place}: '{words[0]}' has no reason")
        patterns.append(Pattern(words[0], place))
    return patterns


class LeftOut:
    """The list at work, and what it did."""

    def __init__(self, patterns, root):
        self.files = [pattern for pattern in patterns if pattern.names_files]
        self.tests = [pattern for pattern in patterns if not pattern.names_files]
        self.root = root
        self.counts = {"files": 0, "tests": 0}

    def pytest_ignore_collect(self, collection_path):
        """Called for each file and folder: true leaves it out, None lets pytest decide."""
        name = collection_path.relative_to(self.root).as_posix()
        # Not any(): each pattern that fits is of use.
        if not sum(pattern.names(name) for pattern in self.files):
            return None
        self.counts["files"] += collection_path.suffix == ".py"
        return True

    def pytest_collection_modifyitems(self, config, items):
        """Called with all tests found: keeps those that no pattern names."""
        out = [i for i in items if sum(pattern.names(i.nodeid) for pattern in self.tests)]
        gone = set(out)
        items[:] = [item for item in items if item not in gone]
        config.hook.pytest_deselected(items=out)
        self.counts["tests"] += len(out)

    def unused(self):
        """Patterns that named nothing."""
        if os.environ.get("LEFT_OUT_PART"):
            return []
        return [pattern for pattern in self.files + self.tests if not pattern.used]

    def pytest_sessionfinish(self, session):
        """Called before the exit code is final: a list that is not current is a failure."""
        if self.unused() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter):
        """Called for the last lines of the output."""
        counts = self.counts
        terminalreporter.write_line(
            f"left out by the list: {counts['tests']} tests, and {counts['files']} files"
        )
        for pattern in self.unused():
            terminalreporter.write_line(f"{pattern.place}: '{pattern.text}' names nothing")


def pytest_configure(config):
    """Called once, before anything is collected."""
    path = os.environ.get("LEFT_OUT")
    if path is None:
        raise pytest.UsageError("the variable LEFT_OUT names no list")
    config.pluginmanager.register(LeftOut(read_list(Path(path)), config.rootpath))
