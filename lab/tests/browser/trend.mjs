// The trend page in Chromium. Arguments: node_modules, chromium, what the runs have (JSON), trend.html, [pictures].

import assert from "node:assert/strict";
import fs from "node:fs";
import { looks, openPage, SIZES, withBrowser } from "./page.mjs";

const [modules, chromium, expectation, file, pictures] = process.argv.slice(2);
const wanted = JSON.parse(fs.readFileSync(expectation, "utf8"));

async function runs(browser) {
  const { page, done } = await openPage(browser, file);
  assert.equal(await page.locator("#runs button").count(), wanted.runs);
  await page.locator("#runs button").nth(wanted.night).click();
  const told = await page.locator("#told").textContent();
  assert.ok(told.includes(wanted.told), `${told} has ${wanted.told}`);
  await page.keyboard.press("Tab");
  assert.notEqual(await page.locator("#told").textContent(), told, "the tab key goes to the next run");
  await done();
}

async function cells(browser) {
  const { page, done } = await openPage(browser, file);
  const visible = () => page.locator("#unsteady tbody tr:visible").count();
  assert.equal(await visible(), wanted.unsteady);
  const row = page.locator("#unsteady tbody tr", { hasText: wanted.cell }).first();
  const strip = await row.locator(".strip i").evaluateAll((points) => points.map((it) => it.textContent.trim()));
  assert.deepEqual(strip, wanted.strip, "an attach type per night");
  assert.equal(await row.locator(".strip i.other").count(), wanted.changes);
  await page.fill("#f-text", wanted.cell);
  assert.equal(await visible(), 1);
  await page.fill("#f-text", "no such cell");
  assert.equal(await visible(), 0);
  await done();
}

// The last night and the reason are what one comes for, however many nights there are.
async function news(browser) {
  for (const viewport of Object.values(SIZES)) {
    const { page, done } = await openPage(browser, file, { viewport });
    const hidden = await page.locator("#unsteady tbody tr").evaluateAll((rows) => rows.filter((row) => {
      const seen = (it) => it.getBoundingClientRect().left >= 0 && it.getBoundingClientRect().right <= innerWidth;
      const last = row.querySelector(".strip i:last-child"), reel = row.querySelector(".reel");
      return !seen(last) || last.getBoundingClientRect().right > reel.getBoundingClientRect().right + 1 || !seen(row.lastChild);
    }).length);
    assert.equal(hidden, 0, `rows whose news is out of sight at ${viewport.width}`);
    await done();
  }
}

// Two weeks of nights are seen at once on an ordinary screen, and what is broken now comes first.
async function nights(browser) {
  const { page, done } = await openPage(browser, file, { viewport: { width: 1280, height: 800 } });
  const reels = await page.locator("#unsteady .reel").evaluateAll((all) => all.map((it) => [it.clientWidth, Math.min(15, it.querySelectorAll("i").length), it.querySelector("i").getBoundingClientRect().width + 2]));
  for (const [room, nights, width] of reels) assert.ok(nights * width <= room + 3 && 15 * 47.6 <= room + 3, `${nights} nights of ${width} in ${room}`);
  const broken = await page.locator("#unsteady tbody tr").evaluateAll((rows) => rows.map((row) => row.querySelector(".strip i:last-child").matches(".failed, .errored, .not-run")));
  assert.deepEqual(broken, [...broken].sort((a, b) => b - a), "what is broken now comes first");
  await done();
}

await withBrowser(modules, chromium, async (browser) => {
  for (const step of [runs, cells, news, nights]) {
    await step(browser);
    console.log(`${step.name}: as wanted`);
  }
  await looks(browser, file, "trend", pictures);
  console.log("looks: nothing sticks out at three widths, dark and light");
});
