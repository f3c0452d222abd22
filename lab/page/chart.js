// What both pages draw: charts as SVG, by hand, as a page that needs no network can't fetch a library
// and there is one kind of chart; and one call's trace. Everything is made of nodes and text, so that
// no string of a report is ever read as markup.
"use strict";

const SVG = "http://www.w3.org/2000/svg";

/** An element: h("td", {class: "n"}, "text", child, …). Attributes that are null are left out. */
function h(name, attributes, ...children) {
  return grown(document.createElement(name), attributes, children);
}

/** The same within an SVG. */
function s(name, attributes, ...children) {
  return grown(document.createElementNS(SVG, name), attributes, children);
}

function grown(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined) element.append(child);
  }
  return element;
}

/** A round number of at least `most / 4`, for the lines of a scale. */
function step(most) {
  const rough = Math.max(most, 1e-9) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
}

/** `value` with as many digits as are worth reading. */
function number(value, digits) {
  if (value === null || value === undefined) return "–";
  const places = digits ?? (Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2);
  const text = value.toFixed(places).replace(/^-(0(\.0*)?)$/, "$1");
  const [whole, part] = text.split(".");
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, " ");
  return part === undefined ? grouped : `${grouped}.${part}`;
}

const HEIGHT = 190;
const LEFT = 54;
const RIGHT = 10;
const TOP = 22;
const BOTTOM = 24;

/**
 * Answered calls a second of each backend, stacked, and failed ones on top.
 *
 * `overTime` is the report's own; `marks` are {at, label}, in seconds since its start. `what` says
 * it to those who do not see it. On a `live` one the scale's zero is now, and the last slot is whole.
 */
function stackedCalls(overTime, marks, what, live = false) {
  // Drawn in about as many units as it has pixels, so that its words are as large as others.
  const WIDTH = document.documentElement.clientWidth < 576 ? 360 : 760;
  const {slot_s: slot, backends, failed} = overTime;
  const length = failed.length * slot;
  const rates = (calls) => calls.map((n) => n / slot);
  const layers = backends.map((b, i) => ({name: b.backend, rates: rates(b.calls), colour: i}));
  if (failed.some((n) => n > 0)) layers.push({name: "failed", rates: rates(failed), colour: null});
  const sums = failed.map((_, at) => layers.reduce((sum, layer) => sum + layer.rates[at], 0));
  // A run's last slot is seldom whole: it must not make the others small.
  const most = Math.max(1, ...sums.slice(0, live ? sums.length : Math.max(1, sums.length - 1)));
  const gap = step(most);
  const top = Math.ceil(most / gap) * gap;
  const x = (seconds) => LEFT + (seconds / length) * (WIDTH - LEFT - RIGHT);
  const y = (rate) => HEIGHT - BOTTOM - (Math.min(rate, top) / top) * (HEIGHT - TOP - BOTTOM);

  const svg = s("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", class: "chart", "aria-label": what,
  });
  for (let rate = 0; rate <= top + 1e-9; rate += gap) {
    svg.append(
      s("line", {class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(rate), y2: y(rate)}),
      s("text", {class: "tick", x: LEFT - 6, y: y(rate) + 4, "text-anchor": "end"}, number(rate, rate < 10 && gap < 1 ? 1 : 0)),
    );
  }
  const wide = step(length);
  for (let at = 0; at <= length + 1e-9; at += wide) {
    const last = at + wide > length + 1e-9;
    const text = number(live ? at - length : at, wide < 1 ? 1 : 0);
    const edge = x(at) > WIDTH - RIGHT - 12;
    svg.append(s("text", {class: "tick", x: edge ? WIDTH : x(at), y: HEIGHT - 7, "text-anchor": edge ? "end" : "middle"}, last ? `${text} s` : text));
  }
  svg.append(s("text", {class: "tick", x: 0, y: 12}, "calls/s"));

  const floor = failed.map(() => 0);
  for (const layer of layers) {
    const upper = [];
    const lower = [];
    for (let at = 0; at < failed.length; at += 1) {
      const [from, to] = [x(at * slot), x((at + 1) * slot)];
      const above = floor[at] + layer.rates[at];
      upper.push(`${from.toFixed(1)},${y(above).toFixed(1)}`, `${to.toFixed(1)},${y(above).toFixed(1)}`);
      lower.unshift(`${to.toFixed(1)},${y(floor[at]).toFixed(1)}`, `${from.toFixed(1)},${y(floor[at]).toFixed(1)}`);
      floor[at] = above;
    }
    svg.append(s("polygon", {
      // A line between bars that are narrower than it would be all that is seen.
      class: layer.colour === null ? "failed" : failed.length > 130 ? "layer dense" : "layer",
      style: layer.colour === null ? null : `fill: ${colour(layer.colour)}`,
      points: upper.concat(lower).join(" "),
    }, s("title", {}, layer.name)));
  }
  // Marks that would cover each other are told below the chart all the same.
  let taken = -Infinity;
  for (const mark of marks.filter((m) => m.at >= 0 && m.at <= length)) {
    const at = x(mark.at);
    svg.append(s("line", {class: "mark", x1: at, x2: at, y1: TOP - 4, y2: HEIGHT - BOTTOM}));
    if (at - taken < 16) continue;
    taken = at;
    svg.append(
      s("circle", {class: "mark-disc", cx: at, cy: TOP - 11, r: 8}),
      s("text", {class: "mark-number", x: at, y: TOP - 7.5, "text-anchor": "middle"}, String(mark.label)),
    );
  }
  return svg;
}

/** The colour of the backend that answered as the `place`th, in the page's own scheme. */
function colour(place) {
  return `var(--backend-${place % 8})`;
}

/** What the colours mean. */
function legend(overTime) {
  const sum = (calls) => calls.reduce((all, n) => all + n, 0);
  const chips = overTime.backends.map((b, place) =>
    h("li", {}, h("span", {class: "chip", style: `background: ${colour(place)}`}), `${b.backend} `, h("span", {class: "dim"}, number(sum(b.calls), 0))));
  const failed = sum(overTime.failed);
  if (failed > 0) {
    chips.push(h("li", {}, h("span", {class: "chip failed-chip"}), "failed ", h("span", {class: "dim"}, number(failed, 0))));
  }
  return h("ul", {class: "legend"}, chips);
}

/** One trace: who had the call, from when to when. */
function waterfall(title, trace) {
  if (!trace) return [];
  const all = Math.max(1e-9, ...trace.spans.map((span) => span.start_ms + span.wall_ms));
  const part = (ms) => `${((Math.max(0, ms) / all) * 100).toFixed(2)}%`;
  const rows = trace.spans.map((span) => {
    const words = [...Object.entries(span.attributes).map(([name, value]) => `${name} ${value}`),
      ...span.events.map((event) => `${event.event} at ${number(event.at_ms)} ms`)];
    return h("li", {class: span.status === "OK" ? "good" : "bad"},
      h("div", {class: "span-name", style: `padding-left: ${span.depth * 0.9}rem`}, h("strong", {}, `${span.process} ${span.instance}`), ` ${span.span}`),
      h("div", {class: "span-line"}, h("span", {class: "span-bar", style: `margin-left: ${part(span.start_ms)}; width: ${part(span.wall_ms)}`})),
      h("div", {class: "dim"}, [`${number(span.start_ms)} to ${number(span.start_ms + span.wall_ms)} ms, ${span.status}`, ...words].join("; ")));
  });
  return [h("p", {class: "caption"}, `${title}: ${number(trace.wall_ms)} ms, trace ${trace.trace_id}`), h("ol", {class: "trace"}, rows)];
}
