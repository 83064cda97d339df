"""KTAP by its grammar, and KCIDB by KernelCI's own validator.

Arguments: expectation, KTAP file, KCIDB file.
"""

import json
import re

import kcidb_io
import tap.parser
from expect import Mismatch, cases, load, main, same

RESULT = re.compile(r"(ok|not ok) ([0-9]+) ([^#]*?)(?: # (.*))?")


def read_ktap(lines, indent=""):
    """The tests of one level as (ok, name, data, subtests); Documentation/dev-tools/ktap.rst line by line."""
    same("KTAP", "version line", lines.pop(0), f"{indent}KTAP version 1")
    plan = re.fullmatch(rf"{indent}1\.\.([0-9]+)", lines.pop(0))
    tests, subtests = [], []
    while lines and lines[0].startswith(indent):
        line = lines[0][len(indent):]
        if line.startswith("  KTAP version"):
            subtests = read_ktap(lines, indent + "  ")
            continue
        lines.pop(0)
        if line.startswith("# "):
            continue
        match = RESULT.fullmatch(line)
        if not match:
            raise Mismatch(f"KTAP: neither result, plan, version nor diagnostic: {line!r}")
        same("KTAP", "number", int(match[2]), len(tests) + 1)
        tests.append((match[1] == "ok", match[3], match[4] or "", subtests))
        subtests = []
    same("KTAP", "number of tests against the plan", len(tests), int(plan[1]))
    return tests


def outcome(ok, data):
    if data.startswith("SKIP "):
        return "skipped"
    if data.startswith(("ERROR ", "TIMEOUT ")):
        return "errored"
    return "passed" if ok else "failed"


def ktap(wanted, path):
    with open(path, encoding="utf-8") as file:
        lines = file.read().split("\n")
    same("KTAP", "end", lines.pop(), "")
    kernels = read_ktap(lines)
    same("KTAP", "what is left", lines, [])
    seen = []
    for ok, suite, _, subtests in kernels:
        same("KTAP", f"result of {suite}", ok, all(it[0] for it in subtests))
        for ok, name, data, _ in subtests:
            attach = re.search(r"attach\.used=(\S+)", data)
            seen.append({"suite": suite, "ktap": name, "outcome": outcome(ok, data),
                         "attach": attach[1] if attach else ""})
    for case in wanted["cases"]:
        case["ktap"] = case["name"].replace("#", "_")
    cases("KTAP", seen, wanted["cases"], "suite", "ktap", "outcome")
    with_attach = [(mine, other) for mine, other in zip(seen, wanted["cases"]) if other["outcome"] in ("passed", "failed")]
    for mine, other in with_attach:
        same("KTAP", f"attach type of {other['name']}", mine["attach"], other["attach"])
    # KTAP is TAP but for the nesting: a TAP reader sees the kernels.
    top = [it for it in tap.parser.Parser().parse_file(path) if it.category == "test"]
    same("tap.py", "tests", [(it.ok, it.description.split(" # ")[0]) for it in top], [(it[0], it[1]) for it in kernels])


def kcidb(wanted, path):
    with open(path, encoding="utf-8") as file:
        report = json.load(file)
    kcidb_io.schema.V5_3.validate(report)
    kcidb_io.schema.LATEST.validate(report)
    builds = {it["id"]: it for it in report["builds"]}
    checkouts = {it["id"] for it in report["checkouts"]}
    statuses = {"passed": ("PASS",), "skipped": ("SKIP",), "failed": ("FAIL",), "errored": ("FAIL", "ERROR", "MISS")}
    tests = report["tests"]
    wanted = [it for it in wanted["cases"] if it["suite"] != "matrix"]
    same("KCIDB", "tests", len(tests), len(wanted))
    same("KCIDB", "distinct ids", len({it["id"] for it in tests}), len(tests))
    for mine, other in zip(tests, wanted):
        build = builds[mine["build_id"]]
        same("KCIDB", "checkout", build["checkout_id"] in checkouts, True)
        same("KCIDB", f"kernel of {other['name']}", build["config_name"], other["suite"])
        same("KCIDB", f"status of {other['name']}", mine["status"] in statuses[other["outcome"]], True)
        same("KCIDB", f"attach type of {other['name']}", mine["misc"]["attach_used"], other["attach"])
        if other["message"]:
            same("KCIDB", f"comment of {other['name']}", mine["comment"], other["message"])
    print(f"KCIDB: {len(tests)} tests on {len(builds)} builds are valid")


def check(expectation, ktap_file, kcidb_file):
    wanted = load(expectation)
    kcidb(wanted, kcidb_file)
    ktap(wanted, ktap_file)


main(check)
