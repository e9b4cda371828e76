// For dev/check-browser.sh: servers of pages on loopback, as somebody would put them before Karat, and what is asked of Karat
// beside the browser.
import assert from "node:assert/strict";
import { createServer, request } from "node:http";

// Serves `files` ({path: {type, text}}) with these headers, and passes /api on to `api` where that is given. Answers the port.
export function serve(port, files, { headers = {}, api } = {}) {
  const server = createServer((asked, answer) => {
    if (api && asked.url.startsWith("/api/")) {
      pass(asked, answer, api);
      return;
    }
    const file = files[asked.url.split("?")[0]];
    answer.writeHead(file ? 200 : 404, { "content-type": file?.type ?? "text/plain", ...headers });
    answer.end(file?.text ?? "");
  });
  return new Promise((done, fail) => {
    server.on("error", fail);
    server.listen(port, "127.0.0.1", () => done(server.address().port));
  });
}

function pass(asked, answer, api) {
  const passed = request(new URL(asked.url, api), { method: asked.method, headers: asked.headers }, (got) => {
    answer.writeHead(got.statusCode, got.headers);
    got.pipe(answer);
  });
  passed.on("error", () => { answer.writeHead(502); answer.end(); });
  asked.pipe(passed);
}

// Calls of one account that need no browser.
export async function caller(url, username, password) {
  const ask = async (path, token, options = {}) => {
    const headers = { "content-type": "application/json", ...(token && { authorization: `Bearer ${token}` }), ...options.headers };
    const answer = await fetch(`${url}/api/v1${path}`, { ...options, headers });
    const text = await answer.text();
    assert.ok(answer.ok, `${path}: ${answer.status} ${text}`);
    return JSON.parse(text).data;
  };
  const { access_token } = await ask("/auth/login", "", { method: "POST", body: JSON.stringify({ username, password }) });
  return (path, options) => ask(path, access_token, options);
}

// What a page complains of: errors and warnings of its console, which breaches of its policy are among, and what it throws. It
// is said as it comes too, for whoever looks why something else did not.
export function complaints(page) {
  const heard = [];
  const hear = (text) => { heard.push(text); console.error(`check-browser: the page says: ${text}`); };
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) hear(`${message.text()} (${message.location().url})`);
  });
  page.on("pageerror", (error) => hear(String(error)));
  return heard;
}
