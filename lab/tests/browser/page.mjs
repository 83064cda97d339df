// What every browser test needs: a Chromium, a page that may ask nothing of the network, and checks that say what they saw.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

export const SIZES = { phone: { width: 360, height: 740 }, tablet: { width: 768, height: 1024 }, desk: { width: 1440, height: 900 } };

// Runs `steps` with a browser; everything a page asks for must be its own file or part of it.
export async function withBrowser(modules, chromium, steps) {
  const { chromium: driver } = createRequire(path.join(modules, "anchor.js"))("playwright-core");
  const browser = await driver.launch({ executablePath: chromium, args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"] });
  try {
    await steps(browser);
  } finally {
    await browser.close();
  }
}

// A page of its own, on which errors and requests are counted.
export async function openPage(browser, file, options = {}) {
  const { hash = "", ...rest } = options;
  const context = await browser.newContext({ viewport: SIZES.desk, ...rest });
  const page = await context.newPage();
  const faults = [];
  page.on("pageerror", (error) => faults.push(`error: ${error.message}`));
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && faults.push(`console: ${message.text()}`));
  page.on("request", (request) => /^(file|data):/.test(request.url()) || faults.push(`request: ${request.url()}`));
  await page.goto(pathToFileURL(file).href + hash);
  // `wanted` matches faults that the test itself provoked.
  const done = async (wanted = /^$/) => { assert.deepEqual(faults.filter((it) => !wanted.test(it)), []); await context.close(); };
  return { page, context, done };
}

// Nothing may stick out of the window at any width, in either scheme; pictures go to a directory, where one is named.
export async function looks(browser, file, name, pictures, before = async () => {}) {
  for (const [size, viewport] of Object.entries(SIZES)) {
    for (const colorScheme of ["light", "dark"]) {
      const { page, done } = await openPage(browser, file, { viewport, colorScheme, hasTouch: size === "phone", isMobile: size === "phone" });
      await before(page);
      const [content, window] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
      assert.ok(content <= window, `${name} at ${viewport.width}: ${content} px of content`);
      if (pictures) await page.screenshot({ path: path.join(pictures, `${name}-${viewport.width}-${colorScheme}.png`) });
      await done();
    }
  }
}
