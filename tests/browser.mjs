// A visit to a page in Chromium, written as JSON: node browser.mjs '{"url": ..., "steps": [...]}'.
// Steps: {go}, {click}, {press}, {fill: [where, text]}, {select: [where, value]}, {wait: expression},
// {evaluate: expression}, {read: expression}, {shot: path}, {offline: true}. Prints {read: [...], errors: [...]}.
import { mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";

const { chromium } = createRequire(new URL("../examples/node/package.json", import.meta.url))(
  "playwright-core",
);
const {
  url,
  steps,
  flags = [],
  viewport = { width: 1280, height: 900 },
  ...context
} = JSON.parse(process.argv[2]);
const quiet = [
  "--no-sandbox",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--disable-dev-shm-usage",
];
const patience = 240_000; // milliseconds: far beyond what it takes, also on a busy machine
const profile = mkdtempSync(join(tmpdir(), "toolkit-browser-"));
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  headless: true,
  timeout: patience,
  args: [...quiet, ...(flags.length ? flags : ["--disable-gpu"])],
  viewport,
  ...context,
});
const page = browser.pages()[0] ?? (await browser.newPage());
page.setDefaultTimeout(patience);
const read = [];
const errors = [];
page.on("pageerror", (error) => errors.push(String(error)));
page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
const verbs = {
  go: (to) => page.goto(to),
  click: (where) => page.click(where),
  press: (key) => page.keyboard.press(key),
  fill: async ([where, text]) => {
    await page.fill(where, text);
    await page.press(where, "Tab");
  },
  select: ([where, value]) => page.selectOption(where, value),
  wait: async (expression) => {
    // not waitForFunction: the page's policy forbids to evaluate texts outside of a single evaluate()
    for (const end = Date.now() + patience; !(await page.evaluate(expression));) {
      if (Date.now() > end) throw new Error(`${expression}: still false`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  },
  read: async (expression) => read.push(await page.evaluate(expression)),
  offline: (off) => browser.setOffline(off),
  evaluate: (expression) => page.evaluate(expression),
  shot: (path) => page.screenshot({ path }),
};
try {
  await page.goto(url);
  for (const step of steps) {
    for (const [verb, value] of Object.entries(step)) await verbs[verb](value);
  }
} finally {
  console.log(JSON.stringify({ read, errors }));
  await browser.close();
  rmSync(profile, { recursive: true, force: true, maxRetries: 10, retryDelay: 200 });
}
