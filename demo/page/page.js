"use strict";
// The demo's page: asks its server for the state of everything, and the shop (through the proxy) who this visitor is.

const STATE_EVERY_MS = 500;
const ME_EVERY_MS = 700;
const NOTICE_MS = 6000;
const KNOBS = ["errorPercent", "latencyMs", "colour"]; // of the canary
const KEPT_TOGGLE = "cohort-demo-header"; // the header toggle stays over reloads, as the preview's cookie does

const by = (id) => document.getElementById(id);
const at = (value, ...path) => path.reduce((v, name) => (v == null ? undefined : v[name]), value);
const percent = (text) => (text == null ? "–" : `${Number(text).toFixed(2)} %`);

let colours = {};
let squares = [];
let noticeTimer = 0;
let asked = 0;

function why(reason) {
  const [kind, name] = (reason || "").split("/", 2);
  return {
    abort: "the rollout was aborted: everybody has stable",
    route: `route ${name}: ${name === "page-toggle" ? "this page sends X-Canary: yes" : "by its path"}`,
    header: `header route ${name}`,
    preview: "this browser is pinned by the preview",
    split: name ? `the share of route ${name}` : "your place in the split of users",
    unkeyed: "your browser keeps no cookie",
  }[kind] || reason || "no proxy in between";
}

function notice(text, isError) {
  by("notice").textContent = text;
  by("notice").className = isError ? "error" : "";
  clearTimeout(noticeTimer);
  noticeTimer = setTimeout(() => { by("notice").textContent = ""; }, NOTICE_MS);
}

function count(number, one, many) {
  return number ? `${number} ${number === 1 ? one : many}` : `no ${one}`;
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function colour(element, revision) {
  if (colours[revision]) element.style.setProperty("--colour", colours[revision]);
  else element.style.removeProperty("--colour");
}

function fill(list, items, make) {
  list.replaceChildren(...items.map(make));
}

function element(name, text, className) {
  const made = document.createElement(name);
  if (text != null) made.textContent = text;
  if (className) made.className = className;
  return made;
}

// The crowd

function drawGrid(board) {
  const grid = by("grid");
  while (squares.length < board.grid.length) squares.push({ node: grid.appendChild(element("i")), shown: "" });
  const size = squares.length > 3000 ? [7, 1] : squares.length > 800 ? [14, 3] : squares.length > 300 ? [20, 4] : [28, 5];
  grid.style.setProperty("--square", `${size[0]}px`);
  grid.style.setProperty("--gap", `${size[1]}px`);
  const flipped = new Set(board.flipped);
  board.grid.forEach((index, seat) => {
    const revision = index < 0 ? "" : board.revisions[index];
    const person = board.people[seat];
    const square = squares[seat];
    const shown = `${revision} ${colours[revision] || ""} ${person} ${flipped.has(seat)}`;
    if (square.shown === shown) return;
    square.shown = shown;
    square.node.className = flipped.has(seat) ? "flipped" : square.person !== undefined && square.person !== person ? "new" : "";
    square.person = person;
    square.node.dataset.revision = revision;
    square.node.title = `user ${person}: ${revision || "not seen yet"}${flipped.has(seat) ? " – FLIPPED" : ""}`;
    colour(square.node, revision);
  });
}

function drawCrowd(board) {
  drawGrid(board);
  setText(by("user-count"), String(board.grid.filter((index) => index >= 0).length));
  const rows = Object.entries(board.versions).filter(([, version]) => version.users);
  fill(by("legend"), rows, ([revision, version]) => {
    const item = element("li");
    item.append(element("i"), element("b", revision), element("small", `${version.users} users, ${shareOf(board, revision).toFixed(1)} %`));
    colour(item, revision);
    return item;
  });
  setText(by("flips"), count(board.flips, "flip", "flips"));
  by("flips").className = board.flips ? "bad" : "good";
  setText(by("lost"), count(board.lost, "request lost", "requests lost"));
  by("lost").className = board.lost ? "bad" : "good";
  setText(by("rate"), `${board.requests.toLocaleString("en")} requests, ${Math.round(board.rate)} a second`);
  fill(by("flip-details"), board.flipDetails, (text) => element("li", text));
}

function shareOf(board, revision) {
  const versions = Object.entries(board.versions);
  const total = versions.reduce((sum, [, version]) => sum + version.users, 0);
  return total ? 100 * (at(board.versions, revision, "users") || 0) / total : null;
}

// The rollout

function drawRollout(rollout, canary, board) {
  const status = rollout.status || {};
  const phase = status.phase || "no controller";
  setText(by("phase"), phase);
  by("phase").dataset.phase = phase;
  const stable = at(status, "revision", "stable");
  const trial = at(status, "revision", "canary");
  const isTrial = Boolean(trial) && trial !== stable;
  setText(by("revisions"), isTrial ? `${stable} → ${trial}` : stable ? `${stable} is stable` : "");
  document.querySelectorAll(".rollout").forEach((card) => colour(card, isTrial ? trial : stable));
  drawSteps(rollout, status, isTrial);
  const weight = isTrial ? status.weight || {} : {};
  setText(by("programmed"), percent(weight.programmed));
  // The proxies count users by tens of seconds: until they have, the share of the users on this page is shown.
  const seen = isTrial && weight.measured == null ? shareOf(board, trial) : weight.measured;
  setText(by("measured"), (weight.measured == null && seen != null ? "≈ " : "") + percent(seen));
  by("programmed-bar").style.width = `${Number(weight.programmed || 0)}%`;
  by("measured-bar").style.width = `${Number(seen || 0)}%`;
  const verdict = status.verdict || {};
  const abort = status.abort;
  setText(by("decision"), verdict.decision || (abort ? "Rollback" : "–"));
  const parts = [verdict.reason, verdict.message];
  if (abort) parts.unshift(`aborted by ${abort.by} (${abort.reason})`);
  for (const [unit, amount] of Object.entries(verdict.need || {})) if (amount) parts.push(`${amount} more ${unit}`);
  setText(by("verdict-text"), [...new Set(parts.filter(Boolean))].join("; "));
  const isUnderWay = ["Progressing", "Paused", "Holding", "Promoting"].includes(phase);
  by("promote").disabled = by("abort").disabled = !isUnderWay;
  by("retry").hidden = phase !== "Aborted";
  by("next").hidden = !["Healthy", "Aborted"].includes(phase);
  setText(by("canary-label"), isTrial ? `The canary ${canary}:` : `The next version, now ${canary}:`);
}

function drawSteps(rollout, status, isTrial) {
  const steps = at(rollout, "spec", "strategy", "canary", "steps") || [];
  const now = isTrial ? at(status, "step", "index") ?? -1 : -1;
  const isOver = status.phase === "Aborted" || status.phase === "Degraded";
  const weights = steps.map((step, index) => ({ index, weight: step.setWeight })).filter((step) => step.weight != null);
  fill(by("steps"), weights, ({ index, weight }, position) => {
    const end = at(weights, position + 1, "index") ?? steps.length;
    const state = isOver || now < 0 ? "" : now >= end ? "done" : now >= index ? "now" : "";
    return element("li", `${Number(weight)} %`, state);
  });
}

function drawVersions(board, apps) {
  const revisions = [...new Set([...apps.map((app) => app.version), ...Object.keys(board.versions)])].sort();
  fill(by("versions"), revisions, (revision) => {
    const row = element("tr");
    const version = board.versions[revision] || { users: 0, requests: 0, errorPercent: null };
    const name = element("td");
    name.append(element("i"), revision);
    colour(name, revision);
    const errors = version.errorPercent == null ? "–" : `${version.errorPercent.toFixed(2)} %`;
    row.append(name, element("td", String(version.users)), element("td", version.requests.toLocaleString("en")));
    row.append(element("td", errors, version.errorPercent > 1 ? "bad" : ""));
    return row;
  });
}

function drawKnobs(app) {
  document.querySelectorAll("button[data-errors]").forEach((button) => {
    button.disabled = Number(button.dataset.errors) === app.errorPercent;
  });
  for (const name of KNOBS) if (document.activeElement !== by(name)) by(name).value = app[name];
  tellKnobs();
}

function tellKnobs() {
  setText(by("errorPercent").nextElementSibling, `${Number(by("errorPercent").value).toFixed(1)} %`);
  setText(by("latencyMs").nextElementSibling, `${by("latencyMs").value} ms`);
}

async function showState() {
  const response = await fetch("/demo/state", { cache: "no-store" });
  if (!response.ok) throw new Error(`the demo's server answers ${response.status}`);
  const state = await response.json();
  for (const app of state.apps) colours[app.version] = app.colour;
  drawCrowd(state.board);
  drawRollout(state.rollout, state.canary, state.board);
  drawVersions(state.board, state.apps);
  const canary = state.apps.find((app) => app.version === state.canary);
  if (canary) drawKnobs(canary);
}

// The visitor

async function showMe() {
  const mine = ++asked;
  const headers = by("header-toggle").checked ? { "X-Canary": "yes" } : {};
  const response = await fetch("/api/me", { headers, cache: "no-store" });
  if (!response.ok) throw new Error(`the shop answers ${response.status}`);
  const me = await response.json();
  if (mine !== asked) return; // a toggle was moved meanwhile: a later answer tells
  colours[me.version] = me.colour;
  setText(by("my-version"), `${me.version}${me.arm ? ` – ${me.arm}` : ""}`);
  by("my-version").dataset.version = me.version;
  by("me").dataset.reason = me.reason;
  setText(by("my-why"), why(me.reason));
  colour(by("me"), me.version);
  by("preview-toggle").checked = me.pinned;
}

async function pin(isOn) {
  asked += 1;
  const query = isOn ? "arm=canary" : "release=1";
  const response = await fetch(`/.cohort/preview?${query}&to=/api/me`, { method: "POST" });
  if (!response.ok) notice(`the preview answers ${response.status}`, true);
}

async function press(path, body) {
  const headers = { "Content-Type": "application/json" };
  const response = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
  const text = await response.text();
  let answer = {};
  try { answer = JSON.parse(text); } catch { answer = { error: text }; }
  notice(answer.message || answer.error || `status ${response.status}`, !response.ok);
}

function act(work) {
  return () => work().catch((error) => notice(String(error.message || error), true));
}

function every(milliseconds, work) {
  const run = async () => {
    try { await work(); } catch (error) { notice(`not reachable: ${error.message || error}`, true); }
    setTimeout(run, milliseconds);
  };
  run();
}

by("header-toggle").checked = localStorage.getItem(KEPT_TOGGLE) === "yes";
by("header-toggle").addEventListener("change", act(async () => {
  localStorage.setItem(KEPT_TOGGLE, by("header-toggle").checked ? "yes" : "");
  await showMe();
}));
by("preview-toggle").addEventListener("change", act(async () => {
  await pin(by("preview-toggle").checked);
  await showMe();
}));
document.querySelectorAll("button[data-verb]").forEach((button) => {
  button.addEventListener("click", act(() => press("/demo/action", { verb: button.dataset.verb })));
});
document.querySelectorAll("button[data-errors]").forEach((button) => {
  button.addEventListener("click", act(() => press("/demo/canary", { errorPercent: Number(button.dataset.errors) })));
});
for (const name of KNOBS) {
  by(name).addEventListener("input", tellKnobs);
  by(name).addEventListener("change", act(async () => {
    const text = by(name).value;
    by(name).blur();
    await press("/demo/canary", { [name]: name === "colour" ? text : Number(text) });
  }));
}
every(STATE_EVERY_MS, showState);
every(ME_EVERY_MS, showMe);
