"use strict";

const ROUTES = {
  login: "/auth/login",
  ticket: "/auth/ws-ticket",
  summary: "/summary",
  chart: "/charts/line",
  events: "/events/stream",
};
const POLL_MS = 5000;
const SHOWN_EVENTS = 20;

const element = (id) => document.getElementById(id);
const say = (text) => { element("status").textContent = text; };
const wait = (ms) => new Promise((done) => setTimeout(done, ms));

let server = "";
let token = "";

function call(path, options = {}) {
  const headers = { authorization: `Bearer ${token}`, ...options.headers };
  return fetch(`${server}/api/v1${path}`, { ...options, headers });
}

element("login").addEventListener("submit", async (submitted) => {
  submitted.preventDefault();
  server = element("server").value.replace(/\/+$/, "");
  const body = JSON.stringify({ username: element("username").value, password: element("password").value });
  try {
    const answer = await fetch(`${server}/api/v1${ROUTES.login}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body,
    });
    const { data, message } = await answer.json();
    if (!answer.ok || !data.access_token) {
      say(answer.ok ? "This account needs a second factor." : message);
      return;
    }
    token = data.access_token;
  } catch {
    say("The server does not answer. Does it allow this page (server.allowed_origins)?");
    return;
  }
  element("login").hidden = true;
  // Each goes on until the token ends.
  pollSummary();
  watchChart();
  listen();
});

// A table that asks whether something changed, which costs the server nothing while nothing did.
async function pollSummary() {
  let etag = "";
  while (token) {
    try {
      const answer = await call(ROUTES.summary, { headers: etag ? { "if-none-match": etag } : {} });
      if (answer.status === 401) return ended();
      if (answer.status === 200) {
        etag = answer.headers.get("etag");
        showDays((await answer.json()).data);
      }
    } catch {
      say("The server is away; asking again.");
    }
    await wait(POLL_MS);
  }
}

function showDays(summary) {
  say(`Epoch ${summary.epoch}, newest event ${summary.as_of ?? "none yet"}, ${summary.data_state}.`);
  const rows = summary.buckets.toReversed().map((day) => {
    const row = document.createElement("tr");
    for (const value of [day.bucket, day.runs, day.completed, day.failed]) {
      row.append(Object.assign(document.createElement("td"), { textContent: value }));
    }
    return row;
  });
  element("days").replaceChildren(...rows);
}

// A chart that the server pushes. A page cannot send its token when it opens a WebSocket: a ticket opens it once.
async function watchChart() {
  while (token) {
    try {
      const answer = await call(ROUTES.ticket, { method: "POST" });
      if (answer.status === 401) return ended();
      const { ticket } = (await answer.json()).data;
      const socket = new WebSocket(`${server.replace(/^http/, "ws")}/api/v1${ROUTES.chart}?ticket=${ticket}`);
      socket.onopen = () => socket.send(JSON.stringify({ interval_ms: 3000 }));
      socket.onmessage = (message) => draw(JSON.parse(message.data).series);
      const closed = await new Promise((done) => { socket.onclose = done; });
      if (closed.code === 4401) return ended();
    } catch {
      // It is tried again below.
    }
    await wait(2000);
  }
}

function draw(series) {
  if (!series) return;
  const canvas = element("chart");
  const pen = canvas.getContext("2d");
  const most = Math.max(1, ...series.flatMap((one) => one.points.map((point) => point.y)));
  const colours = { runs: "#888", completed: "#2a7", failed: "#c33" };
  pen.clearRect(0, 0, canvas.width, canvas.height);
  for (const { name, points } of series) {
    pen.strokeStyle = colours[name] ?? "#000";
    pen.beginPath();
    points.forEach((point, at) => {
      const x = 10 + (at * (canvas.width - 20)) / Math.max(1, points.length - 1);
      const y = canvas.height - 10 - (point.y * (canvas.height - 20)) / most;
      if (at === 0) pen.moveTo(x, y); else pen.lineTo(x, y);
    });
    pen.stroke();
  }
}

// Server-sent events over fetch, which can send the token; the browser's EventSource cannot.
async function listen() {
  let last = "";
  while (token) {
    try {
      const answer = await call(ROUTES.events, { headers: last ? { "last-event-id": last } : {} });
      if (answer.status === 401) return ended();
      let text = "";
      for await (const part of parts(answer.body)) {
        text += part;
        const blocks = text.split("\n\n");
        text = blocks.pop();
        for (const block of blocks) {
          const event = Object.fromEntries(block.split("\n").map((line) => line.split(/: (.*)/s, 2)));
          if (!event.data) continue;
          last = event.id;
          showEvent(event.event, JSON.parse(event.data));
        }
      }
    } catch {
      // It is tried again below.
    }
    await wait(3000);
  }
}

async function* parts(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (let read = await reader.read(); !read.done; read = await reader.read()) yield read.value;
}

function showEvent(kind, data) {
  const text = {
    run: () => `${data.source}: ${data.job} is ${data.status}`,
    epoch: () => `epoch ${data.epoch}`,
    alert: () => `${data.table}: what it promises is ${data.state}`,
    missed: () => "something was missed: the table above has it",
    end: () => `the stream ended: ${data.code}`,
  }[kind]?.() ?? kind;
  const item = Object.assign(document.createElement("li"), { textContent: text });
  element("events").prepend(item);
  while (element("events").children.length > SHOWN_EVENTS) element("events").lastChild.remove();
}

function ended() {
  token = "";
  element("login").hidden = false;
  say("The log-in has ended: log in again.");
}
