// The live page. The lab says what is (`state`) and what happens (`tick`, `mark`, `subchannel`,
// `trouble`); this shows it and sends one POST for each button. It keeps the last minute and
// nothing else.
"use strict";

const KEPT = 120;
const SLOT_S = 0.5;
const at = (id) => document.getElementById(id);

let state = null;
let ticks = [];
let marks = [];
let marked = 0;
/** In the order in which they were first seen, so that a colour stays a backend's own. */
let names = [];
/** The newest calls; one is drawn when somebody asks for it, as nobody can read what changes. */
let calls = {};
/** The last state of each subchannel that was told. */
let subchannels = {};

const events = new EventSource("/events");
events.addEventListener("state", (e) => { show(JSON.parse(e.data)); });
events.addEventListener("tick", (e) => { tick(JSON.parse(e.data)); });
events.addEventListener("mark", (e) => { mark(JSON.parse(e.data)); });
events.addEventListener("subchannel", (e) => {
  const of = JSON.parse(e.data);
  // Not each try to connect to a dead one, one a second.
  if (!["READY", "TRANSIENT_FAILURE"].includes(of.state) || subchannels[of.address] === of.state) return;
  subchannels[of.address] = of.state;
  log(of.unix_s, `the client's subchannel of ${of.address} is ${of.state}`);
});
events.addEventListener("call", (e) => { call(JSON.parse(e.data)); });
events.addEventListener("trouble", (e) => { trouble(JSON.parse(e.data).what); });
events.addEventListener("error", () => { at("busy").textContent = "the lab does not answer; it may have ended"; });

async function wish(path) {
  try {
    const answer = await fetch(path, {method: "POST"});
    if (!answer.ok) trouble(await answer.text());
  } catch {
    trouble("the lab does not answer; it may have ended");
  }
}

function trouble(what) {
  at("trouble").textContent = what;
  at("trouble").hidden = !what;
}

function show(next) {
  if (!next) return;
  if (state && state.example !== next.example) {
    ticks = [];
    marks = [];
    marked = 0;
    names = [];
    calls = {};
    subchannels = {};
    at("call").replaceChildren();
    at("call-section").hidden = true;
    at("failed").disabled = true;
    at("log").replaceChildren();
    trouble("");
  }
  state = next;
  at("title").textContent = next.title || "";
  at("plane").textContent = next.control_plane ? `control plane: ${next.control_plane}` : "";
  at("picture").textContent = next.picture || "";
  at("busy").textContent = next.busy ? `${next.busy} …` : "";
  if (next.trouble) trouble(next.trouble);
  choices(at("examples"), (next.examples || []).map((e) =>
    ({value: e.name, text: `${e.number} ${e.name}${e.missing ? " (needs an Envoy)" : ""}`, off: e.missing})), next.example);
  const policies = next.policies || [];
  choices(at("policies"), policies.map((p) => ({value: p, text: p})), next.policy);
  at("policy-label").hidden = policies.length < 2;
  for (const backend of next.backends || []) {
    if (!names.includes(backend.ip)) names.push(backend.ip);
  }
  at("grow").disabled = !next.scales || (next.backends || []).length >= next.backends_max;
  rows();
  balancers(next.balancers || []);
  at("source").hidden = !next.source;
  at("source").textContent = next.is_silent ? `Let ${next.source} answer` : `Silence ${next.source}`;
}

function choices(select, options, chosen) {
  const key = JSON.stringify([options, chosen]);
  if (select.dataset.key === key) return;
  select.dataset.key = key;
  select.replaceChildren(...options.map((o) => h("option", {value: o.value, disabled: o.off ? "" : null}, o.text)));
  select.value = chosen;
}

/** Buttons are kept as long as they say the same: a click must not lose its button, nor a key its focus. */
function rows() {
  const backends = (state && state.backends) || [];
  const body = at("backends");
  const wanted = new Map(backends.map((b) => [String(b.host), b]));
  for (const row of [...body.children]) if (!wanted.has(row.dataset.host)) row.remove();
  for (const backend of backends) {
    let row = body.querySelector(`[data-host="${backend.host}"]`);
    if (!row) {
      row = h("tr", {"data-host": backend.host}, h("th", {scope: "row"}, h("span", {class: "chip", style: `background: ${colour(names.indexOf(backend.ip))}`}), backend.ip),
        h("td", {class: "condition"}), h("td", {class: "share"}), h("td", {class: "deeds"}));
      body.append(row);
    }
    row.querySelector(".condition").textContent = backend.condition;
    row.querySelector(".share").textContent = share(backend.ip);
    const deeds = deedsOf(backend, backends.length);
    const cell = row.querySelector(".deeds");
    const key = JSON.stringify(deeds);
    if (cell.dataset.key === key) continue;
    cell.dataset.key = key;
    const focused = cell.contains(document.activeElement) ? [...cell.children].indexOf(document.activeElement) : -1;
    cell.replaceChildren(...deeds.map(([deed, text]) => button(text, `${text}: ${backend.ip}`, `/backends/${backend.host}/${deed}`)));
    if (focused >= 0) (cell.children[Math.min(focused, cell.children.length - 1)] || at("grow")).focus();
  }
}

function deedsOf(backend, count) {
  const gone = state.scales && count > 1 ? [["delete", "Delete"]] : [];
  switch (backend.condition) {
    case "dead": return [["restart", "Start"], ...gone];
    case "hangs": return [["resume", "Resume"], ["kill", "Kill"], ...gone];
    case "serves": return [["kill", "Kill"], ["hang", "Hang"], ["slow", "Slow"], ["fail", "Fail"], ["cut", "Cut"], ["restart", "Restart"], ...gone];
    default: return [["restart", "Well again"], ["kill", "Kill"], ["hang", "Hang"], ...gone];
  }
}

function button(text, label, path) {
  const made = h("button", {type: "button", "aria-label": label}, text);
  made.addEventListener("click", () => wish(path));
  return made;
}

function balancers(list) {
  at("balancers-section").hidden = list.length === 0;
  const key = JSON.stringify(list);
  if (at("balancers").dataset.key === key) return;
  at("balancers").dataset.key = key;
  at("balancers").replaceChildren(...list.map((b) => h("li", {}, `balancer ${b.number} ${b.runs ? "runs" : "is dead"} `,
    b.runs ? button("Kill", `Kill balancer ${b.number}`, `/balancers/${b.number}/kill`)
      : button("Start", `Start balancer ${b.number}`, `/balancers/${b.number}/start`))));
}

function lately() {
  const sums = {};
  let all = 0;
  for (const one of ticks.slice(-10)) {
    for (const [name, calls] of Object.entries(one.by_backend)) {
      sums[name] = (sums[name] || 0) + calls;
      all += calls;
    }
  }
  return {sums, all};
}

function share(name) {
  const {sums, all} = lately();
  return all === 0 ? "–" : `${number(((sums[name] || 0) / all) * 100, 1)} %`;
}

function tick(one) {
  ticks.push(one);
  if (ticks.length > KEPT) ticks.shift();
  for (const name of Object.keys(one.by_backend)) if (!names.includes(name)) names.push(name);
  const from = one.unix_s - KEPT * SLOT_S;
  marks = marks.filter((m) => m.unix_s > from);
  const empty = KEPT - ticks.length;
  const line = (of) => [...Array(empty).fill(0), ...ticks.map(of)];
  const overTime = {
    slot_s: SLOT_S,
    backends: names.map((name) => ({backend: name, calls: line((t) => t.by_backend[name] || 0)})),
    failed: line((t) => t.fail),
  };
  const dots = marks.map((m) => ({at: m.unix_s - from, label: m.number}));
  at("chart").replaceChildren(stackedCalls(overTime, dots, "answered calls a second of each backend, the last minute", true));
  at("legend").replaceChildren(legend(overTime));
  const calls = Object.values(one.by_backend).reduce((a, b) => a + b, 0);
  const figures = [["calls/s", number(calls / SLOT_S, 0)], ["failed/s", number(one.fail / SLOT_S, 0)],
    ["p50 ms", number(one.p50_ms)], ["p99 ms", number(one.p99_ms)]];
  at("figures").replaceChildren(...figures.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
  at("checks").replaceChildren(...one.checks.map((check) => h("li", {class: check.holds ? "good" : "bad", "data-check": check.id},
    `${check.holds ? "√" : "×"} `, h("code", {}, check.id), ` ${check.expected}`, h("div", {class: "dim"}, `seen: ${check.seen}`))));
  for (const row of at("backends").children) {
    row.querySelector(".share").textContent = share(row.querySelector("th").textContent);
  }
}

function call(one) {
  calls[one.failed ? "failed" : "answered"] = one.trace;
  if (one.failed) at("failed").disabled = false;
  at("call-section").hidden = false;
  if (!at("call").firstChild) draw(one.failed ? "failed" : "answered");
}

function draw(which) {
  const title = which === "failed" ? "A call that failed" : "A call";
  at("call").replaceChildren(...waterfall(title, calls[which]));
}

function mark(one) {
  marked += 1;
  marks.push({...one, number: marked});
  trouble("");
  log(one.unix_s, one.what, h("span", {class: "mark-chip"}, String(marked)));
}

function log(unix_s, what, chip = null) {
  const time = new Date(unix_s * 1000).toISOString().slice(11, 19);
  at("log").prepend(h("li", {}, h("span", {class: "dim"}, `${time} `), chip, what));
  while (at("log").children.length > 60) at("log").lastChild.remove();
}

at("examples").addEventListener("change", (e) => wish(`/example/${e.target.value}`));
at("policies").addEventListener("change", (e) => wish(`/policy/${e.target.value}`));
for (const which of ["answered", "failed"]) at(which).addEventListener("click", () => draw(which));
at("source").addEventListener("click", () => wish(state.is_silent ? "/source/answer" : "/source/silence"));
at("grow").addEventListener("click", () => wish("/backends"));
