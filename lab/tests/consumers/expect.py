"""What every reader's view of a report is held to: the run as the lab's own record has it."""

import json
import sys


class Mismatch(Exception):
    """A reader saw something else than what is in the run."""


def load(path):
    """The expectation: counts, and per case its suite, name, outcome, message and attach types."""
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def same(reader, what, seen, wanted):
    if seen != wanted:
        raise Mismatch(f"{reader}: {what}: saw {seen!r:.300}, wanted {wanted!r:.300}")


def cases(reader, seen, wanted, *keys):
    """Every case in order; of the keys a reader knows, all must agree."""
    same(reader, "number of cases", len(seen), len(wanted))
    for mine, other in zip(seen, wanted):
        for key in keys:
            same(reader, f"{key} of {other['suite']} {other['name']!r:.80}", mine[key], other[key])
    print(f"{reader}: {len(seen)} cases agree in {', '.join(keys)}")


def main(check):
    try:
        check(*sys.argv[1:])
    except Mismatch as mismatch:
        sys.exit(str(mismatch))
    except Exception as error:  # A schema's error repeats the document, which is megabytes.
        sys.exit(f"{type(error).__name__}: {error}"[:2000])
