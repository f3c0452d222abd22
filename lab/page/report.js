// The page of a run. It shows what the JSON document beside it says and computes nothing that a
// check judges: a figure that is only in the page could not be looked up.
"use strict";

const run = JSON.parse(document.getElementById("run").textContent);
const bench = JSON.parse(document.getElementById("bench").textContent);

function badge(holds, text) {
  return h("span", {class: holds ? "badge good" : "badge bad"}, holds ? "√ " : "× ", text);
}

function head() {
  const checks = run.examples.map((e) => e.score.checks).reduce((a, b) => a + b, 0);
  const held = run.examples.map((e) => e.score.checks_held).reduce((a, b) => a + b, 0);
  const began = new Date(run.started_unix_s * 1000).toISOString().replace("T", " ").slice(0, 19);
  const links = run.examples.map((e) => h("li", {}, h("a", {href: `#${e.name}`}, `${e.number} ${e.name}`)));
  return h("header", {},
    h("h1", {}, "Evenkeel lab"),
    h("p", {class: "lead"}, badge(run.holds, `${held} of ${checks} checks hold`), ` ${began} UTC, ${number(run.wall_s, 1)} s on ${run.cpus} processors, version ${run.version}`),
    h("nav", {"aria-label": "Examples"}, h("ul", {}, links)));
}

function table(caption, columns, rows) {
  const heads = columns.map((column) => h("th", {scope: "col"}, column));
  const lines = rows.map(([name, ...cells]) =>
    h("tr", {}, h("th", {scope: "row"}, name), cells.map((cell) => h("td", {}, cell))));
  return [h("p", {class: "caption"}, caption),
    h("div", {class: "wide", tabindex: "0", role: "region", "aria-label": caption},
      h("table", {}, h("thead", {}, h("tr", {}, heads)), h("tbody", {}, lines)))];
}

// The phase in which nothing happens, as the document's `score` chooses it.
const QUIET = ["steady", "round_robin"];
const ROLES = ["client", "sidecar", "server sidecars", "balancer", "greeters"];

function scorecard() {
  const link = (e) => h("a", {href: `#${e.name}`}, `${e.number} ${e.name}`);
  const rows = run.examples.map((e) => {
    const score = e.score;
    const off = score.farthest_share;
    return [link(e), badge(e.holds, `${score.checks_held}/${score.checks}`), number(score.calls, 0),
      number(score.failed, 0), off === null ? "–" : `${number(off * 100, 2)} %`, number(score.p50_ms),
      number(score.p99_ms), number(score.scale_up_s), number(score.dead_left_s), number(score.dead_lost, 0)];
  });
  const columns = ["example", "checks", "calls", "failed", "farthest share", "p50, ms", "p99, ms",
    "scale-up seen, s", "dead backend left, s", "calls lost by it"];
  const section = h("section", {id: "scorecard"}, h("h2", {}, "Scorecard"),
    table("All examples side by side", columns, rows),
    h("p", {class: "note"}, "Shares and latencies are of the phase in which nothing happens; phases run side by side, so compare latencies by what was measured, not by this table. Failed calls include those that the lab's faults caused: each example's checks say how many may fail."));
  const costs = run.examples
    .map((e) => [e, e.phases.find((phase) => QUIET.includes(phase.name))])
    .filter(([, phase]) => phase && Object.keys(phase.processes).length > 0);
  if (costs.length === 0) return section;
  const roles = [...ROLES, "istiod"].filter((role) => costs.some(([, phase]) => phase.processes[role]));
  const cell = (of) => of === undefined ? "none" : `${number(of.cpu_ms_per_1000_calls, 0)} ms · ${number(of.rss_mib, 0)} MiB`;
  section.append(...table("What the processes cost while nothing happened: CPU for 1,000 calls, memory of all of a role",
    ["example", ...roles], costs.map(([e, phase]) => [link(e), ...roles.map((role) => cell(phase.processes[role]))])));
  return section;
}

/** What `lab bench` measured, when it was given. */
function measured() {
  const spread = (of, digits) => of === null || of === undefined ? "–"
    : `${number(of.median, digits)} (${number(of.least, digits)} to ${number(of.greatest, digits)})`;
  const cpu = (of) => of === undefined ? "none" : spread(of.cpu_ms_per_1000_calls, 0);
  const loads = bench.loads.map((load) => {
    const roles = ROLES.filter((role) => load.ways.some((way) => way.processes[role]));
    const under = `${number(load.calls_per_s, 0)} calls a second (${load.why})`;
    return [
      table(`${under}: latency, ms`, ["way", "p50", "p99", "p50 beyond direct", "p99 beyond direct"],
        load.ways.map((way) => [way.way, spread(way.p50_ms), spread(way.p99_ms), spread(way.added_p50_ms), spread(way.added_p99_ms)])),
      table(`${under}: CPU of each role for 1,000 calls, ms`, ["way", ...roles],
        load.ways.map((way) => [way.way, ...roles.map((role) => cpu(way.processes[role]))])),
    ];
  });
  return h("section", {id: "measured"}, h("h2", {}, "Measured"),
    h("p", {class: "note"}, `By lab bench: all ways in one run, in turn, under the same load. Medians of ${bench.rounds} rounds, with the least and the greatest.`), loads);
}

function example(e) {
  const facts = [["control plane", e.control_plane], ["policy", e.policy], ["real", e.real.join(", ")],
    ["doubles", e.doubles.join(", ") || "none"]];
  if (e.phases_not_run.length > 0) facts.push(["not run", e.phases_not_run.join(", ")]);
  for (const check of e.checks_not_run) facts.push(["not checked", `${check.id}: ${check.why}`]);
  return h("section", {id: e.name},
    h("h2", {}, `${e.number} ${e.name}: ${e.title} `, badge(e.holds, `${e.score.checks_held} of ${e.score.checks}`)),
    h("dl", {class: "facts"}, facts.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
    h("details", {}, h("summary", {}, "Who knows the endpoints, who picks, where HTTP/2 ends"), h("pre", {class: "picture", tabindex: "0"}, e.picture)),
    e.phases.map((phase) => phaseOf(e, phase)));
}

function phaseOf(e, phase) {
  const held = phase.checks.filter((check) => check.holds).length;
  const all = held === phase.checks.length;
  const body = [];
  const marks = marksOf(phase);
  if (phase.over_time) {
    body.push(stackedCalls(phase.over_time, marks, `${e.name}, ${phase.name}: answered calls a second of each backend`),
      legend(phase.over_time));
  }
  if (marks.length > 0) {
    body.push(h("ol", {class: "marks", tabindex: "0", "aria-label": "what the lab did and saw"}, marks.map((m) =>
      h("li", {}, h("span", {class: "dim"}, `${m.at === null ? "" : `${m.at < 0 ? "before: " : ""}${number(Math.abs(m.at), 2)} s`} `), m.what))));
  }
  if (phase.client.calls > 0) body.push(latencies(phase.client));
  body.push(checks(phase.checks), ...distributions(phase), ...phase.timelines.map(timeline), spans(phase), how(phase));
  return h("details", {class: "phase", open: all && e.phases.length > 3 && phase !== e.phases[0] ? null : ""},
    h("summary", {}, h("strong", {}, phase.name), ` ${phase.what} `, badge(all, `${held} of ${phase.checks.length}`)), body);
}

function marksOf(phase) {
  const from = phase.over_time ? phase.over_time.from_unix_s : null;
  return phase.marks.map((mark, index) =>
    ({at: from === null ? null : mark.unix_s - from, label: index + 1, what: mark.what}));
}

function latencies(client) {
  const ms = client.latency_ms;
  const cells = [["calls", number(client.calls, 0)], ["failed", number(client.fail, 0)],
    ["sent again unseen", number(client.transparent_retries, 0)],
    ...["p50", "p90", "p99", "max"].map((key) => [`${key} ms`, number(ms[key])])];
  return h("dl", {class: "figures"}, cells.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

function checks(list) {
  return h("ul", {class: "checks"}, list.map((check) => h("li", {class: check.holds ? "good" : "bad"},
    check.holds ? "√ " : "× ", h("code", {}, check.id), ` ${check.expected}`,
    h("div", {}, h("span", {class: "dim"}, "seen: "), check.seen),
    h("div", {class: "dim"}, `breaks it: ${check.breaks}`))));
}

function distributions(phase) {
  return phase.distributions.filter((of) => of.rows.length > 0).map((of) => table(of.title,
    ["backend", "calls", "share", "p50 ms", "p99 ms", "max ms"],
    of.rows.map((row) => [row.backend, number(row.calls, 0), `${number(row.share * 100, 2)} %`,
      number(row.p50_ms), number(row.p99_ms), number(row.max_ms)])));
}

function timeline(line) {
  return h("details", {class: "timeline"}, h("summary", {}, line.title),
    table(line.title, ["event", "at s", "waited s", "for"],
      line.steps.map((at) => [at.event, at.at_s === null ? "not seen" : number(at.at_s, 3), number(at.wait_s, 3), at.cause])));
}

/** What the spans say, without a word of the client's own counts. */
function spans(phase) {
  const of = phase.spans;
  if (!of) return [];
  const {started_unix_s: from, slot_s, rows, fail} = of.over_time;
  const overTime = {slot_s, backends: rows, failed: fail};
  const marks = phase.marks.map((mark, index) => ({at: mark.unix_s - from, label: index + 1}));
  const cells = [["calls", of.calls], ["first attempts", of.attempts.first], ["retries", of.attempts.retries],
    ["transparent retries", of.attempts.transparent], ["waited for a pick", of.queued.attempts], ["spans", of.received]];
  const chart = fail.length === 0 ? [] : [
    stackedCalls(overTime, marks, `${phase.name}: calls a second that reached each backend, by its spans`), legend(overTime)];
  return h("details", {class: "spans"}, h("summary", {}, `What ${number(of.received, 0)} spans say`), chart,
    h("dl", {class: "figures"}, cells.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, number(value, 0))))),
    waterfall("The call that took the median time", of.trace_example), waterfall("A call that failed", of.trace_failed));
}

function how(phase) {
  const words = [`client ${phase.client_flags.join(" ")}`,
    ...Object.entries(phase.greeter_env).map(([name, value]) => `greeter ${name}=${value}`)];
  const lines = phase.lines.slice(0, 8);
  return h("details", {class: "how"}, h("summary", {}, "How it was run"),
    h("pre", {tabindex: "0"}, [...words, ...lines].join("\n")));
}

function notRun() {
  if (run.not_run.length === 0) return "";
  return h("section", {id: "not-run"}, h("h2", {}, "Not run"),
    h("ul", {}, run.not_run.map((e) => h("li", {}, `${e.number} ${e.name}: ${e.why}`))));
}

document.getElementById("page").append(head(), scorecard(), ...(bench ? [measured()] : []), ...run.examples.map(example), notRun());
window.addEventListener("beforeprint", () => {
  for (const closed of document.querySelectorAll("details:not([open])")) closed.open = true;
});
