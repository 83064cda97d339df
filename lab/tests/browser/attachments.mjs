// What a guest left with a cell, each file with a script in it: the page shows it, opens it as text or saves it, and nothing
// of it runs.
//
//   node attachments.mjs MODULES CHROMIUM EXPECT REPORT

import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { openPage, withBrowser } from "./page.mjs";

const [modules, chromium, expected, file] = process.argv.slice(2);
const want = JSON.parse(fs.readFileSync(expected, "utf8"));

await withBrowser(modules, chromium, async (browser) => {
  const { page, context, done } = await openPage(browser, file);
  await page.locator(`#map .field[data-at="${want.kernel} ${want.row}"]`).click();
  const links = await page.locator("#d-evidence a").evaluateAll((all) =>
    all.map((it) => ({ path: it.textContent, href: it.href, saved: it.hasAttribute("download"), rel: it.rel })));
  const images = await page.locator("#d-evidence img.attached").evaluateAll((all) => all.map((it) => it.alt));
  for (const { path: name, kind } of want.files) {
    const link = links.find((it) => it.path === name);
    if (kind === "image") {
      assert.ok(!link, `${name} is no link`);
      assert.ok(images.includes(name), `${name} is shown`);
    } else {
      assert.ok(link, `${name} is a link`);
      assert.equal(link.saved, kind === "saved", `${name} is ${kind}`);
    }
  }
  await page.waitForTimeout(200);
  assert.equal(await page.evaluate(() => globalThis.ran), undefined, "nothing ran in the report");
  const named = (link) => want.files.some((it) => it.path === link.path);
  for (const link of links.filter((it) => !it.saved && named(it))) {
    const opened = await context.newPage();
    await opened.goto(link.href);
    assert.equal(await opened.evaluate(() => document.contentType), "text/plain", link.path);
    assert.equal(await opened.evaluate(() => globalThis.ran), undefined, `nothing ran in ${link.path}`);
    await opened.close();
  }
  await done();
});
console.log(`${want.files.length} files of ${path.basename(pathToFileURL(file).pathname)}: shown, opened as text or saved, and nothing ran`);
