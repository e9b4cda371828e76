// For dev/check-browser.sh: what a browser makes of Karat. Nothing but loopback is reached.
import { readFile } from "node:fs/promises";
import { chromium } from "playwright-core";
import { checkDashboard, checkReference } from "./dashboard.mjs";
import { caller, serve } from "./pages.mjs";
import { checkPasskeys } from "./passkeys.mjs";

const {
  KARAT_URL: url, KARAT_ROOT: root, KARAT_PASSWORD: password, KARAT_ADMIN: name, KARAT_PEOPLE: people, KARAT_CHROMIUM: executablePath,
  KARAT_PAGE_PORT: pagePort, KARAT_DASHBOARD_PORT: dashboardPort,
} = process.env;
const deadline_ms = 60_000;

const script = (text) => ({ type: "text/javascript", text });
const html = (text) => ({ type: "text/html; charset=utf-8", text });
const read = (path) => readFile(`${root}/${path}`, "utf8");

// The module of the documentation, in a page without anything else.
const shown = (await read("docs/ACCOUNTS.md")).match(/^## Passkeys$.*?^```js$(.*?)^```$/ms)[1];
const page = { "/": html("<!doctype html><title>Passkeys</title>"), "/passkeys.js": script(shown) };
await serve(pagePort, page, { api: url });
const otherPort = await serve(0, page, { api: url });

// The policy of docs/DASHBOARD.md, for this server.
const host = new URL(url).host;
const policy = (await read("docs/DASHBOARD.md")).match(/default-src 'none'[^`\n]*/)[0].replaceAll("127.0.0.1:8080", host);
await serve(dashboardPort, {
  "/": html(await read("examples/dashboard/index.html")),
  "/dashboard.js": script(await read("examples/dashboard/dashboard.js")),
}, { headers: { "content-security-policy": policy } });

const browser = await chromium.launch({
  executablePath,
  timeout: deadline_ms,
  args: ["--no-proxy-server", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1"],
});
const late = setTimeout(() => { console.error("check-browser: too late"); process.exit(1); }, 5 * deadline_ms);

const timed = async (what, act) => {
  const from = performance.now();
  await act;
  console.error(`check-browser: ${what}: as it should be (${((performance.now() - from) / 1000).toFixed(1)} s)`);
};
try {
  const ask = await caller(url, name, password);
  await timed("passkeys", checkPasskeys(browser, {
    origin: `http://localhost:${pagePort}`, other: `http://localhost:${otherPort}`, bareAddress: `http://127.0.0.1:${pagePort}`,
    people: people.split(" "), password, ask,
  }));
  await timed("the dashboard", checkDashboard(browser, {
    address: `http://localhost:${dashboardPort}`, url, name, password, ask,
  }));
  await timed("the reference", checkReference(browser, url));
} finally {
  // A browser that does not end is late too.
  await browser.close();
  clearTimeout(late);
}
process.exit();
