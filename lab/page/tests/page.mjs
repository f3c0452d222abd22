// Opens the lab's two pages in a real Chromium: what only a browser can say of them. Unit tests see
// the text of a page; an error of its script, a button that does nothing and a line that does not
// fit a phone they do not see.
//
//   node page.mjs LAB [--shots FOLDER]
//
// LAB is the program. Prints one line for each check, `√` or `×`, and exits 1 when one failed.
import {spawn, execFileSync} from "node:child_process";
import {once} from "node:events";
import {mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync} from "node:fs";
import http from "node:http";
import {tmpdir} from "node:os";
import {join} from "node:path";
import {chromium} from "playwright-core";

/** Each wait for the page or the lab. */
const WAIT_MS = 30_000;
const [lab, ...options] = process.argv.slice(2);
const shots = options[0] === "--shots" ? options[1] : null;
const folder = mkdtempSync(join(tmpdir(), "lab-page-"));
let failed = 0;
let live = null;

/** One check: `seen` returns what was seen, or throws. */
async function check(id, expected, seen) {
  try {
    const what = await seen();
    console.log(`  √ ${id}: ${expected}\n      seen: ${what}`);
  } catch (error) {
    failed += 1;
    console.log(`  × ${id}: ${expected}\n      seen: ${String(error.message ?? error).split("\n")[0]}`);
  }
}

function must(holds, what) {
  if (!holds) throw new Error(what);
}

/** A page whose errors and requests are kept. */
async function open(browser, url, settings = {}) {
  const page = await browser.newPage({viewport: {width: 1100, height: 900}, ...settings});
  page.setDefaultTimeout(WAIT_MS);
  const errors = [];
  const requests = [];
  page.on("pageerror", (error) => errors.push(error.message));
  page.on("console", (line) => { if (line.type() === "error") errors.push(line.text()); });
  page.on("request", (request) => requests.push(request.url()));
  await page.goto(url);
  return {page, errors, requests};
}

const shoot = async (page, name, all) => {
  if (shots) await page.screenshot({path: join(shots, `${name}.png`), fullPage: all});
};

/** What sticks out of a page to the right. */
const fits = (page) => page.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth);

/** The least contrast of a text against what is behind it; 4.5 is WCAG's AA. */
const contrast = (page) => page.evaluate(() => {
  const numbers = (colour) => colour.match(/[\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = numbers(colour).map((n) => n / 255)
      .map((n) => (n <= 0.03928 ? n / 12.92 : ((n + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if ((numbers(colour)[3] ?? 1) > 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const words = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let least = [Infinity, ""];
  while (words.nextNode()) {
    const of = words.currentNode.parentElement;
    if (!words.currentNode.data.trim() || of.closest("svg, script, option, select, :disabled") || !of.checkVisibility()) continue;
    const [a, b] = [light(getComputedStyle(of).color), light(behind(of))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < least[0]) least = [ratio, words.currentNode.data.trim().slice(0, 40)];
  }
  return least;
});

/** What the lab prints. Its checks are not ours: what a busy machine spoils is drawn like anything else. */
function printedBy(words) {
  try {
    return execFileSync(lab, words, {stdio: ["ignore", "pipe", "ignore"], timeout: 120_000});
  } catch (error) {
    must(error.status === 1, `lab ${words.join(" ")}: ${error.message}`);
    return error.stdout;
  }
}

async function reportChecks(browser) {
  const words = ["run", "round-robin", "--phase", "steady", "--phase", "kill", "--report", folder];
  printedBy(words);
  const run = JSON.parse(readFileSync(join(folder, "report.json"), "utf8"));
  const url = `file://${join(folder, "report.html")}`;
  const {page, errors, requests} = await open(browser, url, {colorScheme: "light"});
  const phases = run.examples[0].phases;

  await check("page.report.drawn", "a chart of each phase and each check, without an error of the script", async () => {
    must(errors.length === 0, errors.join("; "));
    const [charts, checks, marks] = await Promise.all(["svg.chart", ".checks > li", ".marks > li"]
      .map((what) => page.locator(what).count()));
    const wanted = phases.flatMap((phase) => phase.checks).length;
    // A second one of what the spans say.
    const drawn = phases.length + phases.filter((phase) => phase.spans?.over_time.fail.length > 0).length;
    must(charts === drawn && checks === wanted, `${charts} charts of ${drawn} and ${checks} checks of ${wanted}`);
    must(marks === phases.flatMap((phase) => phase.marks).length && marks > 0, `${marks} marks`);
    return `${charts} charts, ${checks} checks, ${marks} marks`;
  });
  await check("page.report.alone", "one file: nothing else is asked for", async () => {
    must(requests.length === 1, requests.join(" "));
    return "1 request, for the file itself";
  });
  await check("page.report.trace", "a call is drawn from its spans, from the client to the greeter", async () => {
    const {trace_example: trace} = phases[0].spans;
    const rows = await page.locator(".trace").first().locator("li").allTextContents();
    must(rows.length === trace.spans.length, `${rows.length} rows of ${trace.spans.length}`);
    must(rows[0].startsWith("client") && rows.some((row) => row.startsWith("greeter")), rows.join(" | "));
    const bar = page.locator(".trace").first().locator(".span-bar").first();
    await page.locator("details.spans").first().evaluate((of) => { of.open = true; });
    const {width} = await bar.boundingBox();
    must(width > 100, `the call's own bar is ${width} px wide`);
    return `${rows.length} spans of trace ${trace.trace_id}`;
  });
  await check("page.report.figures", "the scorecard says what report.json says", async () => {
    const cells = await page.locator("#scorecard tbody").first().locator("td").allTextContents();
    const score = run.examples[0].score;
    const bare = (text) => Number(text.replace(/[^\d.]/g, ""));
    must(bare(cells[1]) === score.calls && bare(cells[2]) === score.failed, cells.join(" | "));
    must(bare(cells[8]) === score.dead_lost, cells.join(" | "));
    return `${score.calls} calls, ${score.failed} failed, ${score.dead_lost} lost by the killed backend`;
  });
  await check("page.report.prints", "everything is unfolded on paper", async () => {
    await page.evaluate(() => window.dispatchEvent(new Event("beforeprint")));
    const closed = await page.locator("details:not([open])").count();
    must(closed === 0, `${closed} closed`);
    const paper = await page.pdf();
    return `${Math.round(paper.length / 1024)} KiB of PDF`;
  });
  await shoot(page, "report-light", false);
  await page.close();
  await check("page.report.measured", "with what lab bench printed: each way's medians", async () => {
    const words = ["bench", "--rounds", "1", "--seconds", "1", "--rate", "100", "--without", "sidecar", "--without", "mesh"];
    const printed = printedBy([...words, "--output", "json"]);
    const [file, to] = [join(folder, "bench.json"), join(folder, "measured.html")];
    writeFileSync(file, printed);
    execFileSync(lab, ["report", join(folder, "report.json"), "--bench", file, "--to", to], {stdio: "ignore"});
    const {page, errors} = await open(browser, `file://${to}`);
    must(errors.length === 0, errors.join("; "));
    const rows = await page.locator("#measured tbody tr").allTextContents();
    await page.close();
    const {loads} = JSON.parse(printed);
    must(rows.length === 2 * loads.flatMap((load) => load.ways).length, `${rows.length} rows`);
    const median = loads[0].ways[0].p50_ms.median;
    const shown = Number(rows[0].split("(")[0].replace(/[^\d.]/g, ""));
    must(Math.abs(shown - median) <= 0.01 * median + 0.005, `${median} is not in "${rows[0]}"`);
    must(!rows.some((row) => row.includes("(–")), rows.join(" | "));
    return `${rows.length} rows, the first "${rows[0]}"`;
  });
  for (const [name, settings] of [
    ["light", {colorScheme: "light"}], ["dark", {colorScheme: "dark"}],
    ["narrow", {viewport: {width: 390, height: 844}}],
  ]) {
    const {page} = await open(browser, url, settings);
    await check(`page.report.${name}`, "no text below a contrast of 4.5, nothing beside the page", async () => {
      const [ratio, text] = await contrast(page);
      must(ratio >= 4.5, `${ratio.toFixed(2)} of "${text}"`);
      must(await fits(page), "it is wider than its window");
      const paper = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
      return `${ratio.toFixed(1)} at least, on ${paper}`;
    });
    if (name !== "light") await shoot(page, `report-${name}`, false);
    await page.close();
  }
}

/** Starts `lab serve` and returns its address. */
async function serve() {
  live = spawn(lab, ["serve", "round-robin", "--port", "0", "--rate", "100"], {stdio: ["ignore", "pipe", "ignore"]});
  let said = "";
  const limit = setTimeout(() => live.kill(), WAIT_MS);
  for await (const part of live.stdout) {
    said += part;
    if (said.includes("\n")) break;
  }
  clearTimeout(limit);
  must(/^http:\/\/127\.0\.0\.1:\d+\/\n/.test(said), `expected an address on 127.0.0.1, got "${said}"`);
  return new URL(said.trim());
}

/** The addresses on which something listens at `port`. */
function listening(port) {
  const hex = port.toString(16).toUpperCase().padStart(4, "0");
  const lines = ["tcp", "tcp6"].flatMap((kind) => readFileSync(`/proc/net/${kind}`, "utf8").split("\n"));
  const sockets = lines.map((line) => line.trim().split(/\s+/));
  return sockets.filter((of) => of[3] === "0A" && of[1].endsWith(`:${hex}`)).map((of) => of[1].split(":")[0]);
}

/** The status of one request without a browser. */
async function status(base, method, path, headers) {
  const request = http.request({host: base.hostname, port: base.port, method, path, headers, timeout: WAIT_MS});
  request.end();
  const [response] = await once(request, "response");
  response.resume();
  return response.statusCode;
}

async function guardChecks(browser, base) {
  await check("page.live.local", "listens on 127.0.0.1 alone", async () => {
    const at = listening(Number(base.port));
    must(at.length === 1 && at[0] === "0100007F", at.join(" "));
    return "one socket, 0100007F in /proc/net/tcp";
  });
  await check("page.live.guarded", "foreign Host headers and foreign origins are refused", async () => {
    const seen = [];
    for (const [method, headers, wanted] of [
      ["GET", {}, 200], ["GET", {host: `lab.example:${base.port}`}, 403], ["GET", {host: "127.0.0.1"}, 403],
      ["POST", {origin: "http://lab.example"}, 403], ["POST", {origin: "null"}, 403],
      ["POST", {host: `lab.example:${base.port}`}, 403], ["POST", {origin: base.origin}, 404],
      ["PUT", {}, 405],
    ]) {
      const path = method === "GET" ? "/" : "/no-such-wish";
      const got = await status(base, method, path, headers);
      must(got === wanted, `${method} with ${JSON.stringify(headers)}: ${got}`);
      seen.push(got);
    }
    return seen.join(" ");
  });
  await check("page.live.cross_site", "another site's page cannot kill a backend", async () => {
    const site = http.createServer((_, response) => response.end("<!doctype html><title>other</title>"));
    await once(site.listen(0, "127.0.0.1"), "listening");
    const {page} = await open(browser, `http://localhost:${site.address().port}/`);
    const got = page.waitForResponse((response) => response.url().endsWith("/kill"));
    await page.evaluate((url) => fetch(url, {method: "POST", mode: "no-cors"}), `${base.origin}/backends/1/kill`);
    const code = (await got).status();
    await page.close();
    site.close();
    must(code === 403, `answered ${code}`);
    return "403";
  });
}

/** The row of one backend, and what it says. */
const row = (page, host) => page.locator(`#backends tr[data-host="${host}"]`);
async function until(page, host, condition, [least, most]) {
  await page.waitForFunction(([host, condition, least, most]) => {
    const row = document.querySelector(`#backends tr[data-host="${host}"]`);
    const share = row && parseFloat(row.querySelector(".share").textContent);
    return row && row.querySelector(".condition").textContent === condition && share >= least && share <= most;
  }, [String(host), condition, least, most]);
  return `${await row(page, host).locator(".condition").textContent()}, ${await row(page, host).locator(".share").textContent()}`;
}
const press = (page, host, text) => row(page, host).getByRole("button", {name: `${text}: `}).click();

async function liveChecks(browser, base) {
  const {page, errors, requests} = await open(browser, base.href, {colorScheme: "light"});
  await check("page.live.even", "three backends with a third of the calls each", async () => {
    const seen = [];
    for (const host of [1, 2, 3]) seen.push(await until(page, host, "serves", [31, 36]));
    await page.locator('[data-check="live.even_shares"].good').waitFor();
    return seen.join("; ");
  });
  await check("page.live.call", "one call as its spans tell it, from the client to a greeter, and on a click a newer one", async () => {
    const traced = async () => (await page.locator("#call .caption").textContent()).split("trace ")[1];
    const rows = await page.locator("#call .trace .span-name").allTextContents();
    must(rows.length === 3 && rows[0].startsWith("client") && rows[2].startsWith("greeter"), rows.join(" | "));
    const before = await traced();
    await page.waitForTimeout(600); // a tick: the newest call is another one by then
    // The same until the next tick.
    await page.waitForFunction((before) => {
      document.querySelector("#answered").click();
      return !document.querySelector("#call .caption").textContent.includes(before);
    }, before);
    return rows.join(" > ");
  });
  await check("page.live.killed", "a click on Kill: its share goes to 0, the others take half each", async () => {
    await press(page, 2, "Kill");
    const seen = [await until(page, 2, "dead", [0, 0]), await until(page, 1, "serves", [45, 55])];
    await shoot(page, "serve-killed", false);
    return seen.join("; ");
  });
  await check("page.live.back", "the keyboard starts it again: its share comes back, the check holds", async () => {
    await row(page, 1).getByRole("button").first().focus();
    for (let presses = 0; presses < 12; presses += 1) {
      await page.keyboard.press("Tab");
      if (await page.evaluate(() => document.activeElement.getAttribute("aria-label")?.startsWith("Start: "))) break;
    }
    await page.keyboard.press("Enter");
    const seen = await until(page, 2, "serves", [31, 36]);
    await page.locator('[data-check="live.none_failed"].good').waitFor();
    return seen;
  });
  await check("page.live.slow", "a slow backend is called as often as the others, and the p99 tells", async () => {
    await press(page, 1, "Slow");
    const seen = await until(page, 1, "slow", [28, 38]);
    await page.waitForFunction(() => parseFloat(document.querySelectorAll("#figures dd")[3]?.textContent) >= 200);
    await press(page, 1, "Well again");
    await until(page, 1, "serves", [28, 38]);
    return `${seen}; p99 of 200 ms and more`;
  });
  await check("page.live.fails", "a backend that fails its calls: its share is 0, and one of them is shown on a click", async () => {
    await press(page, 2, "Fail");
    await page.locator('[data-check="live.none_failed"].bad').waitFor();
    const seen = await until(page, 2, "fails", [0, 0]);
    await page.getByRole("button", {name: "The newest that failed"}).click();
    const call = await page.locator("#call .trace > li").first().textContent();
    must(call.includes("UNAVAILABLE"), call);
    await press(page, 2, "Well again");
    await until(page, 2, "serves", [28, 38]);
    return seen;
  });
  await check("page.live.silent", "DNS is silenced and answers again, and calls go on", async () => {
    await page.getByRole("button", {name: "Silence DNS"}).click();
    await page.getByRole("button", {name: "Let DNS answer"}).click();
    await page.getByRole("button", {name: "Silence DNS"}).waitFor();
    return await until(page, 1, "serves", [28, 38]);
  });
  await check("page.live.hung", "a hung backend's calls fail by their deadline, until it goes on", async () => {
    await press(page, 3, "Hang");
    await page.locator('[data-check="live.none_failed"].bad').waitFor();
    const seen = await page.locator('[data-check="live.none_failed"] .dim').textContent();
    await page.getByRole("button", {name: "The newest that failed"}).click();
    const call = await page.locator("#call .trace > li").first().textContent();
    must(call.includes("DEADLINE_EXCEEDED"), call);
    await press(page, 3, "Resume");
    await until(page, 3, "serves", [28, 38]);
    return `${seen.replace(/^seen: /, "")}; the call that is shown: DEADLINE_EXCEEDED`;
  });
  await check("page.live.scaled", "one backend more takes a quarter, and goes with drain", async () => {
    await page.locator("#grow").click();
    const seen = await until(page, 4, "serves", [22, 28]);
    await press(page, 4, "Delete");
    await row(page, 4).waitFor({state: "detached"});
    return seen;
  });
  await check("page.live.policy", "pick_first: one backend has all calls", async () => {
    await page.locator("#policies").selectOption("pick_first");
    await page.waitForFunction(() => [...document.querySelectorAll("#backends .share")].some((of) => of.textContent === "100.0 %"));
    await page.locator('[data-check="live.even_shares"].bad').waitFor();
    return (await page.locator("#backends .share").allTextContents()).join(", ");
  });
  await check("page.live.second", "a second page, dark and narrow, sees the same", async () => {
    const other = await open(browser, base.href, {colorScheme: "dark", viewport: {width: 390, height: 844}});
    await other.page.waitForFunction(() => document.querySelector("#policies").value === "pick_first");
    await other.page.locator("svg.chart").waitFor();
    const [ratio, text] = await contrast(other.page);
    must(ratio >= 4.5, `contrast ${ratio.toFixed(2)} of "${text}"`);
    must(await fits(other.page), "it is wider than its window");
    await shoot(other.page, "serve-narrow-dark", false);
    await other.page.close();
    return `pick_first there too, contrast ${ratio.toFixed(1)} at least`;
  });
  await check("page.live.example", "another example: calls go on when its balancer is killed by a click", async () => {
    await page.locator("#examples").selectOption("lookaside");
    await page.locator("#balancers li").nth(1).waitFor();
    await until(page, 1, "serves", [31, 36]);
    await page.getByRole("button", {name: "Kill balancer 1"}).click();
    await page.getByRole("button", {name: "Start balancer 1"}).waitFor();
    await page.locator("#log").getByText("kill -9 of balancer 1").waitFor();
    await page.locator('[data-check="live.none_failed"].good').waitFor();
    return await until(page, 3, "serves", [31, 36]);
  });
  await check("page.live.alone", "no error of the script, no request but to the lab", async () => {
    must(errors.length === 0, errors.join("; "));
    const foreign = requests.filter((url) => !url.startsWith(base.origin) && !url.startsWith("data:"));
    must(foreign.length === 0, foreign.join(" "));
    return `${requests.length} requests`;
  });
  await page.close();
}

/** The processes whose parent is `pid`. */
function childrenOf(pid) {
  const stats = readdirSync("/proc").filter((name) => /^\d+$/.test(name)).map((name) => {
    try {
      return [Number(name), readFileSync(`/proc/${name}/stat`, "utf8")];
    } catch {
      return [0, ""];
    }
  });
  return stats.filter(([, stat]) => Number(stat.slice(stat.lastIndexOf(")") + 4).split(" ")[0]) === pid).map(([own]) => own);
}

async function endChecks() {
  await check("page.live.ends", "SIGTERM: exit code 0 and no child left", async () => {
    const children = childrenOf(live.pid);
    must(children.length >= 3, `${children.length} children before`);
    live.kill("SIGTERM");
    const [code] = await once(live, "exit", {signal: AbortSignal.timeout(WAIT_MS)});
    live = null;
    const left = children.filter((pid) => {
      try {
        return process.kill(pid, 0);
      } catch {
        return false;
      }
    });
    must(code === 0 && left.length === 0, `code ${code}, ${left.length} children left`);
    return `code 0, ${children.length} children gone`;
  });
}

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  // Its sandbox needs what a container and root do not have; it sees no page but the lab's.
  args: ["--no-sandbox"],
});
try {
  await reportChecks(browser);
  const base = await serve();
  await guardChecks(browser, base);
  await liveChecks(browser, base);
  await endChecks();
} catch (error) {
  failed += 1;
  console.log(`  × page: ${error.stack ?? error}`);
} finally {
  live?.kill();
  await browser.close();
  rmSync(folder, {recursive: true, force: true});
}
process.exitCode = failed === 0 ? 0 : 1;
