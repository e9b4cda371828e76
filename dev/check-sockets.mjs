// For dev/check-sockets.sh: WebSockets and server-sent events of a running server, by the clients that others use.
import assert from "node:assert/strict";
import { EventSource } from "eventsource";
import WebSocket from "ws";

const api = `${process.env.KARAT_URL}/api/v1`;
const sockets = api.replace(/^http/, "ws");
const deadline_ms = 60_000;

const within = (what, promise) => {
  let timer;
  const late = new Promise((_, fail) => { timer = setTimeout(() => fail(new Error(`${what}: too late`)), deadline_ms); });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
};

const ask = async (path, token, options = {}) => {
  const answer = await fetch(`${api}${path}`, {
    ...options,
    headers: { authorization: `Bearer ${token}`, ...options.headers },
  });
  const text = await answer.text();
  assert.ok(answer.ok, `${path}: ${answer.status} ${text}`);
  return JSON.parse(text).data;
};

const logIn = async (username) => {
  const body = JSON.stringify({ username, password: process.env.KARAT_PASSWORD });
  const answer = await fetch(`${api}/auth/login`, { method: "POST", headers: { "content-type": "application/json" }, body });
  return (await answer.json()).data.access_token;
};

const open = (path, token, options = {}) =>
  new WebSocket(`${sockets}${path}`, { headers: { authorization: `Bearer ${token}` }, ...options });
const opened = (what, socket) => within(what, new Promise((done, fail) => { socket.on("open", done); socket.on("error", fail); }));
const message = (what, socket) => within(what, new Promise((done) => socket.once("message", (data) => done(JSON.parse(data)))));
const closed = (what, socket) =>
  within(what, new Promise((done) => socket.on("close", (code, reason) => done(`${code} ${reason}`))));

const publish = (token, id) =>
  ask("/events?wait=gold", token, {
    method: "POST",
    headers: { "content-type": "application/cloudevents+json" },
    body: JSON.stringify({
      specversion: "1.0", id, source: "/sockets", type: "etl.run.finished",
      data: {
        run_id: id, source: "sockets", job: "check", status: "completed",
        started_at: new Date(Date.now() - 5000).toISOString(), finished_at: new Date().toISOString(),
      },
    }),
  });

// The events up to the one with which `isLast` holds. `onBegin` is called once the stream is open.
const listen = (what, token, last, isLast, onBegin = () => {}) => {
  const headers = { authorization: `Bearer ${token}`, ...(last ? { "last-event-id": last } : {}) };
  const source = new EventSource(`${api}/events/stream`, {
    fetch: (url, init) => fetch(url, { ...init, headers: { ...init.headers, ...headers } }),
  });
  const heard = [];
  const whole = new Promise((done) => {
    for (const kind of ["run", "epoch", "missed", "alert"]) {
      source.addEventListener(kind, (event) => {
        if (heard.length === 0) onBegin();
        heard.push({ kind, id: event.lastEventId, ...JSON.parse(event.data) });
        if (isLast(heard)) done(heard);
      });
    }
  });
  return within(what, whole).finally(() => source.close());
};

const first = await logIn("sockets_first");
const second = await logIn("sockets_second");

// A client that says nothing to pings; it is looked at in the end.
const silent = open("/charts/line", first, { autoPong: false });
await opened("a client that does not answer", silent);
const silentClosed = closed("a client that does not answer", silent);

for (const chart of ["line", "bar", "pie"]) {
  const socket = open(`/charts/${chart}`, first);
  const drawn = await message(chart, socket);
  assert.equal(drawn.chart_type, chart);
  assert.ok(Array.isArray(chart === "pie" ? drawn.slices : drawn.series));
  socket.close(1000);
  assert.match(await closed(chart, socket), /^1000/);
}

const { ticket } = await ask("/auth/ws-ticket", second, { method: "POST" });
const byTicket = new WebSocket(`${sockets}/charts/pie?ticket=${ticket}`);
await opened("a ticket", byTicket);
const again = new WebSocket(`${sockets}/charts/pie?ticket=${ticket}`);
await within("a ticket that was used", new Promise((done, fail) => {
  again.on("unexpected-response", (_, answer) => done(assert.equal(answer.statusCode, 401)));
  again.on("open", () => fail(new Error("a ticket worked twice")));
}));

const byProtocol = new WebSocket(`${sockets}/chat`, ["bearer", second]);
await opened("a token in the protocol", byProtocol);
assert.equal(byProtocol.protocol, "bearer");
byProtocol.send("hello");
assert.equal((await message("the chat", byProtocol)).is_last, true);

const large = open("/charts/pie", first);
await opened("a message that is too large", large);
const largeClosed = closed("a message that is too large", large);
large.send("x".repeat(9000));
assert.match(await largeClosed, /^1009/);

const isRun = (id) => (heard) =>
  heard.some((event) => event.kind === "run" && event.run_id === id) && heard.at(-1).kind === "epoch";
let begin;
const begun = new Promise((done) => { begin = done; });
const hearing = listen("a run", first, null, isRun("sockets-1"), begin);
await within("the beginning of a stream", begun);
await publish(first, "sockets-1");
const last = (await hearing).at(-1).id;
await publish(first, "sockets-2");
const resumed = await listen("a stream that goes on", first, last, isRun("sockets-2"));
assert.ok(!resumed.some((event) => event.run_id === "sockets-1" || event.kind === "missed"), JSON.stringify(resumed));

const ticketClosed = closed("the end of a session", byTicket);
await ask("/auth/logout", second, { method: "POST" });
assert.equal(await ticketClosed, "4401 token_revoked");
assert.equal(await silentClosed, "4408 slow_consumer");
console.error("check-sockets: charts, tickets, chat, limits, events, ends: as they should be");
