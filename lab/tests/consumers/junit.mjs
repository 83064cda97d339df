// JUnit files through the readers that are JavaScript packages.
// Arguments: directory of node_modules, expectation, junit.xml.

import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [modules, expectation, file] = process.argv.slice(2);
const require = createRequire(path.join(modules, "anchor.js"));
const load = (name, main) => import(pathToFileURL(path.join(modules, name, main)));
const wanted = JSON.parse(fs.readFileSync(expectation, "utf8"));
const xml = fs.readFileSync(file, "utf8");

function cases(reader, seen, ...keys) {
  if (seen.length !== wanted.cases.length) throw new Error(`${reader}: ${seen.length} cases, wanted ${wanted.cases.length}`);
  seen.forEach((mine, at) => {
    for (const key of keys) {
      if (mine[key] !== wanted.cases[at][key]) {
        const [saw, want] = [mine[key], wanted.cases[at][key]].map((it) => JSON.stringify(it)?.slice(0, 300));
        throw new Error(`${reader}: ${key} of ${wanted.cases[at].name}: saw ${saw}, wanted ${want}`);
      }
    }
  });
  console.log(`${reader}: ${seen.length} cases agree in ${keys.join(", ")}`);
}

const attach = (properties) => String((properties ?? []).find((it) => it.name === "attach.used")?.value ?? "");
const bad = (outcome) => (outcome === "errored" ? "failed" : outcome);
// Readers that know one sort of failure only.
wanted.cases.forEach((it) => (it.coarse = bad(it.outcome)));

// junit2json: it makes numbers of what looks like one, a kernel's id too.
{
  const { parse } = await load("junit2json", "dist/esm/index.js");
  const report = await parse(xml);
  const seen = report.testsuite.flatMap((suite) =>
    (suite.testcase ?? []).map((it) => {
      const [outcome, element] = it.failure ? ["failed", it.failure[0]] : it.error ? ["errored", it.error[0]] : it.skipped ? ["skipped", it.skipped[0]] : ["passed", {}];
      return { name: it.name, classname: it.classname, outcome, message: element.message ?? "", attach: attach(it.properties) };
    }));
  cases("junit2json", seen, "name", "classname", "outcome", "message", "attach");
}

// ctrf-io/github-test-reporter.
{
  const { convertJUnitToCTRFReport } = await load("junit-to-ctrf", "dist/index.js");
  const { results } = await convertJUnitToCTRFReport(file);
  const seen = results.tests.map((it) => ({ suite: it.suite[0], known: it.name, coarse: it.status, told: it.message ?? "" }));
  // It keeps no reason of a skip, and no character outside of the basic plane.
  const known = (text) => text.replace(/[\u{10000}-\u{10ffff}]/gu, "\ufffd\ufffd");
  wanted.cases.forEach((it) => {
    it.known = known(it.name);
    it.told = it.outcome === "skipped" ? "" : known(it.message);
  });
  cases("junit-to-ctrf", seen, "suite", "known", "coarse", "told");
}

// test-results-reporter (testbeats).
{
  const report = require("test-results-parser").parse({ type: "junit", files: [file] });
  const words = { PASS: "passed", FAIL: "failed", SKIP: "skipped" };
  const unescape = require("html-escaper").unescape;
  const seen = report.suites.flatMap((suite) =>
    suite.cases.map((it) => ({
      name: unescape(String(it.name)), coarse: words[it.status], attach: String(it.metadata["attach.used"] ?? ""),
    })));
  cases("test-results-parser", seen, "name", "coarse", "attach");
}

// dorny/test-reporter and test-summary/action parse with xml2js and no options; neither is a package of its own.
{
  const report = await require("xml2js").parseStringPromise(xml);
  const seen = report.testsuites.testsuite.flatMap((suite) =>
    (suite.testcase ?? []).map((it) => {
      const element = it.failure?.[0] ?? it.error?.[0];
      return {
        suite: suite.$.name, name: it.$.name, coarse: element ? "failed" : it.skipped ? "skipped" : "passed",
        first: element?._.split("\n")[0] ?? "",
        attach: attach(it.properties?.[0].property.map((property) => property.$)),
      };
    }));
  wanted.cases.forEach((it) => (it.first = it.coarse === "failed" ? it.message : ""));
  cases("xml2js, as dorny/test-reporter", seen, "suite", "name", "coarse", "first", "attach");
}

// mikepenz/action-junit-report parses with xml-js, compact.
{
  const report = require("xml-js").xml2js(xml, { compact: true });
  const list = (it) => (it === undefined ? [] : Array.isArray(it) ? it : [it]);
  const seen = list(report.testsuites.testsuite).flatMap((suite) =>
    list(suite.testcase).map((it) => {
      const element = list(it.failure)[0] ?? list(it.error)[0];
      return {
        suite: suite._attributes.name, name: it._attributes.name, classname: it._attributes.classname,
        coarse: element ? "failed" : it.skipped ? "skipped" : "passed",
        message: (element ?? it.skipped)?._attributes.message ?? "",
        attach: attach(list(it.properties?.property).map((property) => property._attributes)),
      };
    }));
  cases("xml-js, as mikepenz/action-junit-report", seen, "suite", "name", "classname", "coarse", "message", "attach");
}
