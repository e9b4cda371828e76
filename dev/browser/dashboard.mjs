// For dev/check-browser.sh: the page of docs/DASHBOARD.md, and the reference at /docs and /swagger, as somebody sees them in a browser.
import assert from "node:assert/strict";
import { complaints } from "./pages.mjs";

// What of the page would be another after a reload, and what it draws.
const state = () => ({
  isSame: globalThis.isSame === true,
  chart: document.getElementById("chart").toDataURL(),
  today: [...document.querySelectorAll("#days tr")].map((row) => row.textContent)[0],
});

export async function checkDashboard(browser, { address, url, name, password, ask }) {
  const page = await (await browser.newContext()).newPage();
  const heard = complaints(page);
  await page.goto(address);
  await page.evaluate(() => { globalThis.isSame = true; });
  await page.fill("#server", url);
  await page.fill("#username", name);
  await page.fill("#password", password);
  await page.click("#login button");
  await page.waitForFunction(() => /^Epoch \d+/.test(document.getElementById("status").textContent));
  await page.waitForFunction(() => document.querySelectorAll("#days tr").length > 0);
  await page.waitForFunction(() => document.querySelector("#events li")?.textContent.startsWith("epoch "));
  await page.waitForFunction(() => {
    const chart = document.getElementById("chart");
    const { width, height } = chart;
    return chart.toDataURL() !== Object.assign(document.createElement("canvas"), { width, height }).toDataURL();
  });

  const before = await page.evaluate(state);
  const now = new Date().toISOString();
  await ask("/events?wait=gold", {
    method: "POST",
    headers: { "content-type": "application/cloudevents+json" },
    body: JSON.stringify({
      specversion: "1.0", id: "browser-1", source: "/browser", type: "etl.run.finished",
      data: { run_id: "browser-1", source: "browser", job: "check", status: "failed", started_at: now, finished_at: now },
    }),
  });
  await page.waitForFunction(() => document.getElementById("events").textContent.includes("browser: check is failed"));
  await page.waitForFunction((chart) => document.getElementById("chart").toDataURL() !== chart, before.chart);
  await page.waitForFunction((row) => document.querySelector("#days tr").textContent !== row, before.today);
  assert.equal((await page.evaluate(state)).isSame, true, "the page was loaded again");
  assert.deepEqual(heard, []);
}

export async function checkReference(browser, url) {
  for (const path of ["/docs", "/swagger"]) {
    const page = await (await browser.newContext()).newPage();
    const heard = complaints(page);
    await page.goto(`${url}${path}`);
    await page.getByText("Begin to log in by a passkey").first().waitFor();
    assert.deepEqual(heard, [], path);
  }
}
