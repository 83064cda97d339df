// The report of a run that is written in parts: what the page has, what it loads, and what it says when a part is missing.
// Arguments: node_modules, chromium, what the run has (JSON), report.html, a copy of it without its parts, [pictures].

import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { looks, openPage, withBrowser } from "./page.mjs";

const [modules, chromium, expectation, file, alone, pictures] = process.argv.slice(2);
const run = JSON.parse(fs.readFileSync(expectation, "utf8"));
// Milliseconds on a machine that may do other things too, and elements.
const MOST_LOAD = 4000, MOST_FILTER = 2000, MOST_ELEMENTS = 8000;

const frames = (page) => page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
const shown = async (page) => (await page.locator("#shown").textContent()).split(" ")[0];
const loaded = (page) => page.waitForFunction(() => document.getElementById("d-facts").childElementCount > 0);
const link = (kernel, cell) => `#${new URLSearchParams({ open: kernel, cell })}`;
const at = (page) => page.evaluate(() => document.activeElement?.dataset?.at);

async function opens(browser) {
  const begin = performance.now();
  const { page, done } = await openPage(browser, file);
  await page.waitForFunction(() => document.querySelector("#shown").textContent !== "");
  await frames(page);
  const load = performance.now() - begin;
  const elements = await page.evaluate(() => document.querySelectorAll("*").length);
  const parts = path.join(path.dirname(file), "report-data");
  const size = fs.readdirSync(parts).reduce((sum, name) => sum + fs.statSync(path.join(parts, name)).size, 0);
  console.log(`${run.cells} cells: ${(fs.statSync(file).size / 1e6).toFixed(1)} MB and ${(size / 1e6).toFixed(1)} MB in parts, loaded in ${Math.round(load)} ms, ${elements} elements`);
  assert.ok(load < MOST_LOAD, `loaded in ${load} ms`);
  assert.ok(elements < MOST_ELEMENTS, `${elements} elements`);
  assert.equal(await page.evaluate(() => document.querySelectorAll("script[src]").length), 0, "nothing is loaded before it is asked for");
  assert.equal(await shown(page), String(run.rows));
  assert.equal(await page.locator("#summary .failed").textContent(), `${run.failed.cells} failed`);
  await done();
}

async function filters(browser) {
  const { page, done } = await openPage(browser, file);
  for (const [id, value, rows] of [["f-outcome", "failed", run.failed.rows], ["f-outcome", "", run.rows], ["f-kernel", run.one.kernel, run.rows], ["f-outcome", "failed", run.one.failed]]) {
    const took = await page.evaluate(([id, value]) => {
      const select = document.getElementById(id), begin = performance.now();
      select.value = value;
      select.dispatchEvent(new Event("input", { bubbles: true }));
      document.body.offsetHeight;
      return performance.now() - begin;
    }, [id, value]);
    assert.equal(await shown(page), String(rows), `${id}=${value}`);
    assert.ok(took < MOST_FILTER, `${id} took ${took} ms`);
  }
  const drawn = await page.locator("#map .field:not(.off)").evaluateAll((all) => all.map((it) => it.className.includes("failed")));
  assert.ok(drawn.length > 0 && drawn.every(Boolean), "only failures are bright");
  await page.selectOption("#f-kernel", "");
  await page.selectOption("#f-outcome", "");
  await page.fill("#f-text", run.last.id);
  assert.equal(await shown(page), "1", "the search finds a cell that was never drawn");
  await frames(page);
  await page.locator(`#map .field[data-at="0 ${run.last.row}"]`).click();
  await loaded(page);
  assert.equal(await page.locator("#d-title").textContent(), run.last.id);
  await done();
}

async function scrolled(browser) {
  const { page, done } = await openPage(browser, file);
  await page.locator("#map").evaluate((it) => { it.scrollTop = it.scrollHeight; it.scrollLeft = it.scrollWidth; });
  await frames(page);
  const last = page.locator(`#map .field[data-at="${run.kernels - 1} ${run.last.row}"]`);
  await last.waitFor();
  await last.click();
  await loaded(page);
  assert.equal(await page.locator("#d-title").textContent(), run.last.id, "a row at the end is drawn when it is reached");
  assert.ok((await page.locator("#d-evidence .checks li").count()) > 5, "its checks are loaded");
  assert.ok((await page.locator("#map .field").count()) < 2500, "what is out of sight is removed");
  await page.keyboard.press("ArrowLeft");
  await page.waitForFunction((name) => document.getElementById("d-facts").textContent.includes(name), run.before);
  await page.keyboard.press("Escape");
  assert.equal(await at(page), `${run.kernels - 2} ${run.last.row}`, "the focus is where the dialog was");
  await page.keyboard.press("Home");
  assert.equal(await at(page), `0 ${run.last.row}`);
  await page.keyboard.press("ArrowUp");
  const [kernel, row] = (await at(page)).split(" ").map(Number);
  assert.ok(kernel === 0 && row < run.last.row);
  assert.equal(await page.locator("#map .field[tabindex='0']").count(), 1, "one stop of the tab key");
  await done();
}

// A text with a script in it, in a part: it is shown, and nothing of it runs.
async function hostile(browser) {
  const { page, done } = await openPage(browser, file, { hash: link(run.evil.kernel, run.evil.id) });
  await loaded(page);
  const whole = await page.locator("#detail").textContent();
  assert.ok(whole.includes(run.evil.words), whole);
  assert.equal(await page.evaluate(() => globalThis.ran), undefined, "nothing ran");
  const policy = await page.locator("meta[http-equiv]").getAttribute("content");
  assert.ok(!/script-src[^;]*(unsafe|file:|\*)/.test(policy), policy);
  assert.ok(await page.evaluate(() => {
    const script = document.createElement("script");
    script.textContent = "globalThis.ran = true";
    document.body.append(script);
    return globalThis.ran === undefined;
  }), "the policy refuses scripts without the token");
  // The refusal is on the console, and wanted.
  await done(/Content Security Policy/);
}

async function alonePage(browser) {
  const { page, done } = await openPage(browser, alone, { hash: link(run.one.kernel, run.last.id) });
  await page.waitForFunction(() => /not there/.test(document.getElementById("d-message").textContent));
  assert.match(await page.locator("#d-message").textContent(), /report-data\/\d+\.js is not there.*lab report/);
  assert.equal(await shown(page), String(run.rows), "the rest of the page works");
  await done(/ERR_FILE_NOT_FOUND/);
}

await withBrowser(modules, chromium, async (browser) => {
  for (const step of [opens, filters, scrolled, hostile, alonePage]) {
    await step(browser);
    console.log(`${step.name}: as wanted`);
  }
  await looks(browser, file, "huge", pictures);
  await looks(browser, file, "huge-map", pictures, (page) => page.locator("#filters").evaluate((it) => it.scrollIntoView()));
  console.log("looks: nothing sticks out at three widths, dark and light");
});
