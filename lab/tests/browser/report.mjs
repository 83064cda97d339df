// The HTML report in Chromium: filtered, clicked, driven by keys, on a phone, and with 20,000 cells.
// Arguments: node_modules, chromium, what the run has (JSON), report.html, report.html with 20,000 cells, [pictures].

import assert from "node:assert/strict";
import fs from "node:fs";
import { looks, openPage, SIZES, withBrowser } from "./page.mjs";

const [modules, chromium, expectation, file, large, pictures] = process.argv.slice(2);
const run = JSON.parse(fs.readFileSync(expectation, "utf8"));
// Milliseconds on a machine that may do other things too.
const MOST_LOAD = 8000, MOST_FILTER = 2000;

const shown = (page) => page.evaluate(() => [...document.querySelectorAll("#map .rows > .row")].filter((it) => it.offsetParent !== null).length);
// Areas without anything wrong are folded in the beginning.
const unfold = (page) => page.evaluate(() => document.querySelectorAll("#map .area button[aria-expanded=false]").forEach((it) => it.click()))
  .then(() => page.locator("#filters").dispatchEvent("input"));
const fields = (page, more = "") => page.evaluate((more) => [...document.querySelectorAll(`#map .field${more}`)].filter((it) => it.offsetParent !== null && it.dataset.at).length, more);
const open = (page) => page.locator("#detail").evaluate((it) => it.open);
const title = (page) => page.locator("#d-title").textContent();

async function attachTypes(browser) {
  const { page, done } = await openPage(browser, file);
  await unfold(page);
  const drawn = await page.evaluate(() => [...document.querySelectorAll("#map .field")].filter((it) => it.dataset.at)
    .map((it) => [it.dataset.at, it.textContent, it.className.split(" ").find((word) => !/^(field|k\d+|off|empty)$/.test(word))]));
  assert.equal(drawn.length, run.cells.length, "a field for every cell of every kernel");
  const seen = new Map(drawn.map(([at, text, standing]) => [at, [text.slice(2), standing]]));
  for (const cell of run.cells) {
    const [words, standing] = seen.get(`${cell.kernel} ${cell.row}`);
    assert.equal(standing, cell.standing, cell.id);
    assert.equal(words, cell.attach || cell.standing, `the attach type in the field of ${cell.id}`);
  }
  assert.equal(await page.locator("#map .rows > .row").count(), run.rows);
  await done();
}

async function filters(browser) {
  const { page, done } = await openPage(browser, file);
  await unfold(page);
  const rows = (keep) => new Set(run.cells.filter(keep).map((cell) => cell.row)).size;
  assert.equal(await shown(page), run.rows);
  await page.selectOption("#f-outcome", "failed");
  assert.equal(await shown(page), rows((cell) => cell.standing === "failed"));
  assert.equal(await fields(page, ":not(.off)"), run.cells.filter((cell) => cell.standing === "failed").length);
  await page.selectOption("#f-outcome", "");
  await page.selectOption("#f-attach", "netkit");
  assert.equal(await shown(page), rows((cell) => cell.attach.includes("netkit") || cell.requested === "netkit"));
  await page.selectOption("#f-kernel", run.kernels[1]);
  const both = run.cells.filter((cell) => cell.kernel === 1 && (cell.attach.includes("netkit") || cell.requested === "netkit"));
  assert.equal(await fields(page), both.length, "one kernel's column");
  assert.ok(page.url().includes("attach=netkit") && page.url().includes("kernel="), "the address has the filters");
  const second = await openPage(browser, file, { hash: page.url().slice(page.url().indexOf("#")) });
  assert.equal(await fields(second.page), both.length, "and brings them back");
  await second.done();
  await page.selectOption("#f-kernel", "");
  await page.selectOption("#f-attach", "");
  await page.selectOption("#f-area", run.areas[1]);
  assert.equal(await shown(page), rows((cell) => cell.area === run.areas[1]));
  await page.selectOption("#f-area", "");
  await page.fill("#f-text", run.cells[5].id);
  assert.equal(await shown(page), 1);
  await page.fill("#f-text", "no such cell");
  assert.equal(await shown(page), 0);
  assert.match(await page.locator("#shown").textContent(), /^0 of /);
  await page.fill("#f-text", "");
  await page.click("#fold");
  assert.equal(await shown(page), 0, "folded");
  await page.locator("#map .area button").first().click();
  assert.ok((await shown(page)) > 0, "one area unfolded");
  await page.locator(`#summary button.failed`).click();
  assert.equal(await page.inputValue("#f-outcome"), "failed");
  await done();
}

async function evidence(browser) {
  const { page, done } = await openPage(browser, file);
  const bad = run.evidence;
  await page.locator(`#map .field[data-at="${bad.kernel} ${bad.row}"]`).click();
  assert.ok(await open(page));
  assert.equal(await title(page), bad.id, "a hostile name is text");
  const whole = await page.locator("#detail").textContent();
  for (const words of bad.words) assert.ok(whole.includes(words), `the evidence has ${JSON.stringify(words)}`);
  assert.equal(await page.locator("#d-repro").textContent(), bad.repro);
  const hrefs = await page.locator("#d-evidence a").evaluateAll((links) => links.map((it) => it.getAttribute("href")));
  for (const link of bad.links) assert.ok(hrefs.includes(link), `${link} in ${hrefs}`);
  assert.ok(hrefs.every((href) => href.startsWith("./")), "links are relative");
  const drawing = page.locator("img.drawing");
  assert.ok(await drawing.evaluate((it) => it.complete && it.naturalWidth > 100), "the topology is drawn");
  assert.ok(page.url().includes("open="), "the address opens the field");
  const second = await openPage(browser, file, { hash: page.url().slice(page.url().indexOf("#")) });
  assert.equal(await title(second.page), bad.id);
  await second.done();
  await page.locator("#detail form button[aria-label=Close]").click();
  assert.ok(!(await open(page)));
  await page.locator("#wrong button").first().click();
  assert.ok(await open(page), "what is wrong opens its field");
  assert.equal(await page.locator("#times .bar").count(), run.kernels.length);
  assert.equal(await page.locator("#capabilities tbody tr").count(), run.capabilities);
  assert.ok((await page.locator("#slowest li").count()) > 3);
  await done();
}

async function totals(browser) {
  const { page, done } = await openPage(browser, file);
  assert.equal(await page.locator("#totals tbody tr").count(), run.kernels.length);
  assert.ok((await page.locator("#totals td.failed").count()) > 0, "failures are counted by attach type");
  const folded = await page.locator("#map .area button[aria-expanded=false]").count();
  const areas = await page.locator("#map .area").evaluateAll((all) => all.map((it) => it.querySelectorAll(".field.failed, .field.errored, .field.not-run, .field.flaky").length));
  assert.equal(folded, areas.filter((bad) => !bad).length, "areas without anything wrong are folded");
  await done();
}

// A link into the page that is open already, and the way back.
async function address(browser) {
  const { page, done } = await openPage(browser, file);
  await page.evaluate((words) => { location.hash = new URLSearchParams({ text: words }).toString(); }, run.cells[5].id);
  await page.waitForFunction(() => document.getElementById("f-text").value !== "");
  assert.equal(await shown(page), 1, "the new address filters");
  const [kernel, cell] = [run.kernels[run.evidence.kernel], run.evidence.id];
  await page.evaluate((to) => { location.hash = new URLSearchParams(to).toString(); }, { open: kernel, cell: run.evidence.cell ?? cell });
  await page.waitForFunction(() => document.getElementById("f-text").value === "");
  await page.evaluate(() => { location.hash = ""; });
  await page.waitForFunction(() => !document.getElementById("detail").open);
  const stuck = await page.locator("pre, .scroll, .reel").evaluateAll((all) => all.filter((it) => it.offsetParent !== null && it.id !== "map" && it.scrollHeight > it.clientHeight + 1 && it.tabIndex < 0).length);
  assert.equal(stuck, 0, "what scrolls is reached by the tab key");
  await done();
}

async function keyboard(browser) {
  const { page, done } = await openPage(browser, file);
  await unfold(page);
  const at = () => page.evaluate(() => document.activeElement?.dataset?.at);
  await page.keyboard.press("/");
  assert.equal(await page.evaluate(() => document.activeElement.id), "f-text");
  for (let press = 0; press < 40 && !(await at()); press++) await page.keyboard.press("Tab");
  assert.equal(await at(), `0 ${run.first}`, "one stop of the tab key");
  assert.equal(await page.locator("#map .field[tabindex='0']").count(), 1);
  await page.keyboard.press("ArrowRight");
  assert.equal(await at(), `1 ${run.first}`);
  await page.keyboard.press("ArrowDown");
  const below = await at();
  assert.notEqual(below, `1 ${run.first}`);
  await page.keyboard.press("End");
  assert.equal((await at()).split(" ")[0], String(run.kernels.length - 1));
  await page.keyboard.press("Home");
  assert.equal((await at()).split(" ")[0], "0");
  await page.keyboard.press("Enter");
  assert.ok(await open(page));
  const first = await title(page);
  await page.keyboard.press("ArrowRight");
  assert.ok(await open(page));
  const where = await page.locator("#d-facts").textContent();
  assert.ok(where.includes(run.kernels[1]), `${first} on the next kernel`);
  await page.keyboard.press("Escape");
  assert.ok(!(await open(page)));
  assert.equal((await at()).split(" ")[0], "1", "the focus is where the dialog was");
  await done();
}

async function phone(browser) {
  const { page, done } = await openPage(browser, file, { viewport: SIZES.phone, hasTouch: true, isMobile: true });
  await unfold(page);
  const target = page.locator(`#map .field[data-at="0 ${run.first}"]`);
  await target.tap();
  assert.ok(await open(page));
  const box = await page.locator("#detail").boundingBox();
  assert.ok(box.width <= SIZES.phone.width && box.x >= 0, "the dialog fits");
  const button = await page.locator("#detail form button[aria-label=Close]").boundingBox();
  assert.ok(button.width >= 36 && button.height >= 32, "a finger hits the button");
  await done();
}

// Every pair of colours that a field has must be legible: WCAG's contrast of 4.5.
async function contrast(browser) {
  for (const colorScheme of ["light", "dark"]) {
    const { page, done } = await openPage(browser, file, { colorScheme });
    const poor = await page.evaluate(() => {
      const light = (colour) => colour.match(/[\d.]+/g).slice(0, 3).map((it) => it / 255).map((it) => (it <= 0.04045 ? it / 12.92 : ((it + 0.055) / 1.055) ** 2.4)).reduce((sum, it, at) => sum + it * [0.2126, 0.7152, 0.0722][at], 0);
      return ["passed", "failed", "flaky", "known", "skipped", "errored", "not-run"].flatMap((name) => {
        const box = document.body.appendChild(Object.assign(document.createElement("p"), { className: name, textContent: name }));
        const { color, backgroundColor } = getComputedStyle(box);
        const [a, b] = [light(color), light(backgroundColor)].sort((x, y) => y - x);
        box.remove();
        return (a + 0.05) / (b + 0.05) < 4.5 ? [`${name} ${((a + 0.05) / (b + 0.05)).toFixed(2)}`] : [];
      });
    });
    assert.deepEqual(poor, [], colorScheme);
    await done();
  }
}

async function twentyThousand(browser) {
  const begin = performance.now();
  const { page, done } = await openPage(browser, large);
  await page.waitForFunction(() => document.querySelector("#shown").textContent !== "");
  await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
  const load = performance.now() - begin;
  const cells = await page.evaluate(() => document.querySelectorAll("#map .field:not(.empty)").length);
  assert.ok(cells >= 20000, `${cells} cells`);
  const times = {};
  for (const [id, value] of [["f-outcome", "failed"], ["f-outcome", ""], ["f-attach", "netkit"], ["f-kernel", null], ["f-kernel", ""]]) {
    const took = await page.evaluate(async ([id, value]) => {
      const select = document.getElementById(id), begin = performance.now();
      select.value = value ?? select.options[2].value;
      select.dispatchEvent(new Event("input", { bubbles: true }));
      document.body.offsetHeight;
      await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
      return performance.now() - begin;
    }, [id, value]);
    times[`${id}=${value ?? "one"}`] = Math.round(took);
  }
  console.log(`${cells} cells: ${(fs.statSync(large).size / 1e6).toFixed(1)} MB, loaded in ${Math.round(load)} ms, filtered in ${JSON.stringify(times)} ms`);
  assert.ok(load < MOST_LOAD, `loaded in ${load} ms`);
  for (const [name, took] of Object.entries(times)) assert.ok(took < MOST_FILTER, `${name} took ${took} ms`);
  await done();
}

await withBrowser(modules, chromium, async (browser) => {
  for (const step of [attachTypes, filters, evidence, totals, address, keyboard, phone, contrast, twentyThousand]) {
    await step(browser);
    console.log(`${step.name}: as wanted`);
  }
  await looks(browser, file, "report", pictures);
  await looks(browser, file, "map", pictures, (page) => page.locator("#filters").evaluate((it) => it.scrollIntoView()));
  const { kernel, row } = run.evidence;
  await looks(browser, file, "detail", pictures, (page) => page.locator(`#map .field[data-at="${kernel} ${row}"]`).click());
  console.log("looks: nothing sticks out at three widths, dark and light");
});
