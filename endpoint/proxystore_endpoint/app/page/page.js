"use strict";

const PAUSE = 1000;
const POINTS = 120;
const id = (name) => document.getElementById(name);
const history_ = { in: [], out: [] };
let token = "";
let before = null;

function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let power = 0;
  while (value >= 1000 && power < units.length - 1) { value /= 1000; power += 1; }
  return `${power && value < 100 ? value.toFixed(1) : Math.round(value)} ${units[power]}`;
}

function seconds(value) {
  if (value === null || value === undefined) return "";
  if (value < 1) return `${(value * 1000).toFixed(value < 0.01 ? 2 : 0)} ms`;
  if (value < 120) return `${Math.round(value)} s`;
  if (value < 7200) return `${Math.round(value / 60)} min`;
  if (value < 172800) return `${Math.round(value / 3600)} h`;
  return `${Math.round(value / 86400)} d`;
}

function cell(row, text, name) {
  const made = row.insertCell();
  if (name) made.className = name;
  made.textContent = text;
  return made;
}

function code(row, text) {
  const made = document.createElement("code");
  made.textContent = text;
  row.insertCell().append(made);
}

function draw(name, value) {
  const points = history_[name];
  points.push(value);
  if (points.length > POINTS) points.shift();
  const most = Math.max(...points, 1);
  const path = points.map((point, at) =>
    `${at ? "L" : "M"}${(at + POINTS - points.length).toFixed(0)} ${(31 - 29 * point / most).toFixed(1)}`);
  id(`graph-${name}`).firstElementChild.setAttribute("d", path.join(" "));
  id(`rate-${name}`).textContent = `${bytes(value)}/s`;
}

function rates(status) {
  const counted = status.counters;
  const now = {
    at: performance.now(),
    in: counted.rest_bytes_in + status.peers.reduce((sum, peer) => sum + peer.bytes_received, 0),
    out: counted.rest_bytes_out + status.peers.reduce((sum, peer) => sum + peer.bytes_sent, 0),
  };
  const time = before ? (now.at - before.at) / 1000 : 1;
  for (const name of ["in", "out"]) draw(name, before ? Math.max(0, (now[name] - before[name]) / time) : 0);
  before = now;
}

function bar(name, used, limit) {
  id(name).textContent = bytes(used);
  id(`${name}-limit`).textContent = limit ? `of ${bytes(limit)}` : "";
  id(`${name}-bar`).value = limit ? used / limit : 0;
}

function showPeers(peers) {
  const body = document.createElement("tbody");
  for (const peer of peers) {
    const row = body.insertRow();
    const who = row.insertCell();
    if (peer.name) who.append(peer.name, " ");
    const made = document.createElement("code");
    made.textContent = peer.uuid;
    who.append(made);
    const path = document.createElement("span");
    path.className = `path ${peer.path || "none"}`;
    path.textContent = peer.path || "none";
    row.insertCell().append(path);
    cell(row, seconds(peer.rtt), "n");
    cell(row, `${bytes(peer.rate_in)}/s`, "n");
    cell(row, `${bytes(peer.rate_out)}/s`, "n");
    cell(row, bytes(peer.bytes_received), "n");
    cell(row, bytes(peer.bytes_sent), "n");
    cell(row, Object.entries(peer.paths).map(([kind, how]) => `${kind}: ${how}`).join("; "));
  }
  id("peers").tBodies[0].replaceWith(body);
  id("peers").hidden = !peers.length;
  id("no-peers").hidden = !!peers.length;
  id("peer-count").textContent = `${peers.filter((peer) => peer.path).length}`;
}

function showObjects(listed) {
  const body = document.createElement("tbody");
  for (const object of listed.objects) {
    const row = body.insertRow();
    code(row, object.key);
    cell(row, bytes(object.nbytes), "n");
    cell(row, object.durability);
    if (object.origin) code(row, object.origin); else cell(row, "here");
    cell(row, seconds(object.age), "n");
    cell(row, object.expires_in === null ? "never" : seconds(object.expires_in), "n");
  }
  id("list").tBodies[0].replaceWith(body);
  id("list").hidden = !listed.objects.length;
  id("no-objects").hidden = !!listed.objects.length;
  const more = listed.total - listed.objects.length;
  id("listed").textContent = more > 0 ? `the newest ${listed.objects.length} of ${listed.total}` : "";
}

function show(status, listed) {
  const storage = status.storage;
  document.title = `${status.name} - endpoint`;
  id("name").textContent = status.name;
  id("uuid").textContent = status.uuid;
  id("objects").textContent = storage.objects;
  id("bytes").textContent = bytes(storage.nbytes) +
    (storage.copies ? `, copies of peers': ${storage.copies} (${bytes(storage.copies_nbytes)})` : "");
  bar("memory", storage.memory, storage.memory_limit);
  bar("disk", storage.disk, storage.disk_limit);
  const relay = status.relay;
  id("relay").textContent = !relay ? "no relay" : relay.connected ? "relay connected" : "relay away";
  id("footer").textContent = `proxystore-core ${status.version}, up ${seconds(status.uptime)}, ` +
    `${status.counters.gets} gets, ${status.counters.fetched} fetched from peers, ${status.counters.failed} failed`;
  rates(status);
  showPeers(status.peers);
  showObjects(listed);
}

function state(text, name) {
  id("state").textContent = text;
  id("state").className = name;
}

function ask(reason) {
  id("main").hidden = true;
  id("login").hidden = false;
  id("refused").textContent = reason;
  state("locked", "");
}

async function fetched(path) {
  const answer = await fetch(path, { headers: { Authorization: `Bearer ${token}` }, cache: "no-store" });
  if (answer.status === 401) throw new RangeError("wrong token");
  if (!answer.ok) throw new Error(`${answer.status}`);
  return answer.json();
}

async function update() {
  try {
    const [status, listed] = await Promise.all([fetched("/status"), fetched("/objects?limit=100")]);
    id("login").hidden = true;
    id("main").hidden = false;
    show(status, listed);
    state("live", "live");
  } catch (error) {
    if (error instanceof RangeError) {
      sessionStorage.removeItem("token");
      ask(token ? "This token is wrong." : "");
      return;
    }
    state("no answer", "lost");
  }
  setTimeout(update, PAUSE);
}

id("login").addEventListener("submit", (event) => {
  event.preventDefault();
  begin(id("token").value.trim());
});

function begin(given) {
  token = given;
  if (!token) { ask(""); return; }
  sessionStorage.setItem("token", token);
  update();
}

// The part after # never leaves the browser; it is taken out of the address all the same.
const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) history.replaceState(null, "", location.pathname);
begin(given || sessionStorage.getItem("token") || "");
