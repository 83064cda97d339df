"""JUnit files through the readers that are Python packages, or stand on libxml2 as they do.

Arguments: expectation, junit.xml, the same run for Jenkins, its schema.
"""

import re
from html import unescape

import junitparser
import test_results_parser
from expect import cases, load, main, same
from lxml import etree

KINDS = {junitparser.Failure: "failed", junitparser.Error: "errored", junitparser.Skipped: "skipped"}


def by_junitparser(wanted, path):
    """The package behind EnricoMi/publish-unit-test-result-action and many others."""
    report = junitparser.JUnitXml.fromfile(path)
    seen = []
    for suite in report:
        counts = {"tests": suite.tests, "failures": suite.failures, "errors": suite.errors, "skipped": suite.skipped}
        same("junitparser", f"counts of {suite.name}", counts, wanted["suites"][suite.name])
        for case in suite:
            result = case.result[0] if case.result else None
            properties = {it.name: it.value for it in case.child(junitparser.Properties) or []}
            seen.append({
                "suite": suite.name,
                "name": case.name,
                "classname": case.classname,
                "outcome": KINDS[type(result)] if result else "passed",
                "message": result.message if result else "",
                "attach": properties.get("attach.used", ""),
                "required": properties.get("attach.required", ""),
                "repro": properties.get("repro", ""),
            })
    cases("junitparser", seen, wanted["cases"],
          "suite", "name", "classname", "outcome", "message", "attach", "required", "repro")


def by_codecov(wanted, path):
    """codecov/test-results-action. It knows no properties, keeps no message of an error, and leaves names escaped."""
    with open(path, "rb") as file:
        runs = test_results_parser.parse_junit_xml(file.read()).testruns
    outcomes = {"pass": "passed", "failure": "failed", "error": "errored", "skip": "skipped"}
    seen = [{"suite": run.testsuite, "name": unescape(run.name), "classname": run.classname,
             "outcome": outcomes[str(run.outcome)]} for run in runs]
    cases("codecov", seen, wanted["cases"], "suite", "name", "classname", "outcome")


def by_gitlab(wanted, path):
    """What GitLab shows. Its parser is part of GitLab and no package; as it does, this one hands the file to libxml2 with
    libxml2's own limits, turns it into hashes, and takes a failed case's text where it has some and its attributes else."""
    seen = []
    for suite in etree.parse(path).getroot().iter("testsuite"):
        for case in suite.iter("testcase"):
            words = {"failure": "failed", "error": "errored", "skipped": "skipped"}
            bad = next((child for child in case if child.tag in words), None)
            if bad is not None and not (bad.text or "").strip():
                raise SystemExit(f"GitLab would show attributes in place of a text: {case.get('name')}")
            seen.append({
                "suite": suite.get("name"),
                "name": case.get("name"),
                "classname": case.get("classname"),
                "outcome": words[bad.tag] if bad is not None else "passed",
                "message": bad.text.split("\n")[0] if bad is not None else "",
            })
    cases("GitLab (equivalent)", seen, wanted["cases"], "suite", "name", "classname", "outcome", "message")


def by_jenkins(wanted, path, schema):
    """Jenkins' xUnit plugin refuses a file that its schema does not allow."""
    document = etree.parse(path)
    etree.XMLSchema(etree.parse(schema)).assertValid(document)
    seen = []
    for suite in document.getroot().iter("testsuite"):
        for case in suite.iter("testcase"):
            told = dict(re.findall(r"^\[\[PROPERTY\|([a-z._]+)=(.*)\]\]$", case.findtext("system-out") or "", re.M))
            seen.append({"suite": suite.get("name"), "name": case.get("name"), "attach": told.get("attach.used", "")})
    cases("Jenkins (junit-10.xsd)", seen, wanted["cases"], "suite", "name", "attach")


def common_adds_only_what_is_documented(path, schema):
    """junit.xml itself holds to Jenkins' schema but for what nearly everyone else reads: properties, assertions
    and source file of a case, the whole run's skips and time."""
    document = etree.parse(path)
    for case in document.getroot().iter("testcase"):
        for attribute in ("assertions", "file", "line"):
            case.attrib.pop(attribute, None)
        for properties in case.findall("properties"):
            case.remove(properties)
    for attribute in ("skipped", "timestamp"):
        document.getroot().attrib.pop(attribute)
    etree.XMLSchema(etree.parse(schema)).assertValid(document)


def check(expectation, common, jenkins, schema):
    wanted = load(expectation)
    by_junitparser(wanted, common)
    by_codecov(wanted, common)
    by_gitlab(wanted, common)
    by_jenkins(wanted, jenkins, schema)
    common_adds_only_what_is_documented(common, schema)


main(check)
